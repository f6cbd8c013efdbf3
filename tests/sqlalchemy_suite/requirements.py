"""What this dialect can, in the suite's words; why not, where it cannot."""

from __future__ import annotations

from typing import Any

from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

# A new one each time: the suite adds to them.


def _open(self: Any) -> Any:
    return exclusions.open()


def _closed(self: Any) -> Any:
    return exclusions.closed()


class Requirements(SuiteRequirements):
    """Local tables are DuckDB's own; there are no schemas of theirs and no transactions."""


CAN = (
    "ctes",
    "datetime_microseconds",
    "delete_returning",
    "index_reflection",
    "insert_returning",
    "intersect",
    "except_",
    "multivalues_inserts",
    "regexp_match",
    "regexp_replace",
    "sequences",
    "supports_distinct_on",
    "supports_is_distinct_from",
    "update_returning",
    "uuid_data_type",
    "view_column_reflection",
    "view_reflection",
    "views",
    "window_functions",
)

CANNOT = (
    # A column counts up by a Sequence alone: DuckDB has no other way.
    "autoincrement_insert",
    "autoincrement_without_sequence",
    # Each connection has local tables of its own.
    "independent_connections",
    # An index has no direction.
    "indexes_with_ascdesc",
    # DuckDB gives constraints names of its own.
    "check_constraint_reflection",
    "foreign_key_constraint_reflection",
    "unique_constraint_reflection",
    # A local table has no other schema than its own.
    "schemas",
    # Every local table ends with its connection: none is more temporary than another.
    "temp_table_reflection",
    "temp_table_reflect_indexes",
    "temp_table_names",
    "has_temp_table",
    "temporary_tables",
    "temporary_views",
    # Statements stand when they are done.
    "savepoints",
    "two_phase_transactions",
    "isolation_level",
)

for name in CAN:
    setattr(Requirements, name, property(_open))
for name in CANNOT:
    setattr(Requirements, name, property(_closed))
