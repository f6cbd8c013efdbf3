"""The kinds that the suite runs over: adding a source here is what makes it one."""

from __future__ import annotations

from collections.abc import Mapping

from tests.conformance.stand import Opener
from tests.conformance.stands import (
    bigquery,
    databricks,
    embedded,
    glue,
    guide,
    huggingface,
    iceberg,
    postgresql,
    snowflake,
)

OPENERS: Mapping[str, Opener] = {
    "postgresql": postgresql.postgresql,
    "sqlite": embedded.sqlite,
    "duckdb": embedded.duckdb_file,
    "files": embedded.parquet,
    "delta": embedded.delta,
    "ald": embedded.ald,
    "files on S3": embedded.s3,
    "delta on S3": embedded.delta_s3,
    "snowflake": snowflake.snowflake,
    "databricks": databricks.databricks,
    "unity": databricks.unity,
    "bigquery": bigquery.bigquery,
    "glue": glue.glue,
    "huggingface": huggingface.huggingface,
    "zipped": guide.zipped,
    "iceberg": iceberg.iceberg,
    "iceberg on S3": iceberg.iceberg_s3,
    "iceberg over REST": iceberg.iceberg_rest,
}
