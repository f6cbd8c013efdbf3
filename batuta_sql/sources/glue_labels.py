"""Labels in the parameters of a Glue table and of its columns, under ``batuta.labels``.

A column has a list, or ``{"direct": [...], "indirect": [...]}``; a table the same for all its
columns and its rows. The values are JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batuta_sql.errors import OperationalError
from batuta_sql.labels import KEY, ColumnLabels, TableLabels, labels_of_text
from batuta_sql.sources.glue_tables import Record


def told_labels(record: Record, source: str) -> TableLabels:
    """The labels that the catalog says a table has.

    :raises OperationalError: for labels that cannot be understood.
    """
    name = f"{record['DatabaseName']}.{record['Name']}"
    storage = record.get("StorageDescriptor") or {}
    of_table = _labels(record.get("Parameters"), f'table "{name}"', source)
    found = TableLabels.throughout(of_table)
    columns = {
        str(c["Name"]): of_table | _labels(c.get("Parameters"), f'column "{c["Name"]}"', source)
        for c in (*(storage.get("Columns") or ()), *(record.get("PartitionKeys") or ()))
    }
    return TableLabels({**found.columns, **columns}, found.rows)


def _labels(parameters: Mapping[str, Any] | None, place: str, source: str) -> ColumnLabels:
    told = (parameters or {}).get(KEY)
    if told is None:
        return ColumnLabels()
    try:
        return labels_of_text(str(told))
    except ValueError as error:
        raise OperationalError(
            f"the labels of {place} cannot be read: {error}",
            source=source,
            hint="the table may not be used before it is known what it holds",
        ) from None
