"""What a Parquet file has no type for."""

from __future__ import annotations

import pyarrow as pa

from batuta_sql.errors import NotSupportedError


def check_parquet_types(schema: pa.Schema) -> None:
    """Looks whether every column can be written.

    :raises NotSupportedError: for the first that cannot: intervals, unions, structs without fields.
    """
    import pyarrow.parquet as pq

    for field in schema:
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()
        except pa.ArrowNotImplementedError as error:
            raise NotSupportedError(
                f'Parquet has no type for the column "{field.name}" ({field.type}): {error}',
                hint="cast it in the query",
            ) from None
