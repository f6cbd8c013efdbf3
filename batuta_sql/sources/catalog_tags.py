"""Tags that a catalog keeps of its tables and columns, as labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from batuta_sql.labels import ColumnLabels, check_label
from batuta_sql.plan.site import TableInfo

Tags = frozenset[str]
"""Labels that tags became."""


def label_of_tag(key: str, value: str) -> str:
    """``key`` or ``key:value`` as a label; what a label cannot have becomes ``_``."""
    text = f"{key}:{value}" if value else key
    return check_label("".join("_" if c.isspace() or c in ",;\"'" else c for c in text))


def with_tags(table: TableInfo, of_table: Tags, of_columns: Mapping[str, Tags]) -> TableInfo:
    """A table with the labels of its tags beside those that it has already.

    :param of_columns: by name, in any case where the table has no two that differ in case alone.
    """
    if not of_table and not any(of_columns.values()):
        return table
    folded = {n.lower(): labels for n, labels in of_columns.items()}

    def tags(name: str) -> Tags:
        return of_table | of_columns.get(name, folded.get(name.lower(), frozenset()))

    columns = tuple(replace(c, labels=c.labels | ColumnLabels(tags(c.name))) for c in table.columns)
    return replace(table, columns=columns, labels=table.labels | of_table)
