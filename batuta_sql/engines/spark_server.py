"""A Spark Connect server as the sources know one: what it is asked, and in which words."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from sqlglot import exp

from batuta_sql.engines.in_place import IN_PLACE, relation_in_place
from batuta_sql.engines.local_relations import LOCAL, local_table
from batuta_sql.plan.relational import Expr
from batuta_sql.plan.site import Capabilities, TableInfo
from batuta_sql.plan.translate import Environment, Typed
from batuta_sql.sources.databricks import Databricks
from batuta_sql.sources.databricks_sql import DatabricksTranslator

_TYPES = frozenset(
    {
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "FLOAT",
        "DOUBLE",
        "VARCHAR",
        "DATE",
        "TIMESTAMP",
        "TIMESTAMP WITH TIME ZONE",
    }
)
"""That Parquet takes there and back as they are; decimals too."""


def is_staged(type_: str) -> bool:
    """Whether a column of a DuckDB type is the same when it has been staged, or read in place."""
    return type_ in _TYPES or type_.startswith("DECIMAL(")


class _Translator(DatabricksTranslator):
    """Knows tables that are files, too, and what servers other than Apache Spark do."""

    def table(self, table: TableInfo) -> exp.Table:
        if table.kind == IN_PLACE:
            return relation_in_place(table)
        if table.kind == LOCAL:
            return local_table(table)
        return super().table(table)

    def aggregate(self, expression: Expr, environment: Environment) -> Typed:
        """Sail 0.7.2 gives 0 for the sum of constants of no rows, where it knows that there are
        none before it reads.
        """
        found = super().aggregate(expression, environment)
        summed = found.sql.find(exp.Sum)
        if summed is None:
            return found
        value = summed.this.expressions[0] if isinstance(summed.this, exp.Distinct) else summed.this
        if isinstance(value, exp.Cast):
            value = value.this  # what ``sum`` has put around it
        count = exp.Count(this=value.copy())
        filtered = found.sql.args.get("expression") if isinstance(found.sql, exp.Filter) else None
        counted = exp.Filter(this=count, expression=filtered.copy()) if filtered else count
        any_ = exp.GT(this=counted, expression=exp.Literal.number(0))
        return replace(found, sql=exp.Case(ifs=[exp.If(this=any_, true=found.sql)]))


class SparkServer(Databricks):
    """The server, as the sources know one."""

    @cached_property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, translator=_Translator())
