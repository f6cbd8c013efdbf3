"""A Glue catalog over a bucket: moto's, and what fills it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.emulators.aws_process import KEY, REGION, SECRET, AwsEmulator

BUCKET = "lake"
SERDES = {
    "parquet": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
    "text": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
    "opencsv": "org.apache.hadoop.hive.serde2.OpenCSVSerde",
    "json": "org.openx.data.jsonserde.JsonSerDe",
    "orc": "org.apache.hadoop.hive.ql.io.orc.OrcSerde",
    "avro": "org.apache.hadoop.hive.serde2.avro.AvroSerDe",
    "ion": "com.amazon.ionhiveserde.IonHiveSerDe",
}
INPUTS = {
    "parquet": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "orc": "org.apache.hadoop.hive.ql.io.orc.OrcInputFormat",
    "avro": "org.apache.hadoop.hive.ql.io.avro.AvroContainerInputFormat",
    "ion": "com.amazon.ionhiveserde.formats.IonInputFormat",
}
TEXT_INPUT = "org.apache.hadoop.mapred.TextInputFormat"
Columns = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class GlueCatalog:
    """Databases and tables, and the bucket that their files lie in."""

    aws: AwsEmulator

    @cached_property
    def client(self) -> Any:
        return self.service("glue")

    def service(self, name: str) -> Any:
        import boto3

        return boto3.client(
            name,
            endpoint_url=self.aws.emulator.url,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    @cached_property
    def files(self) -> Any:
        return self.aws.filesystem()

    @property
    def settings(self) -> dict[str, Any]:
        """What a source needs to read from it."""
        return {
            "kind": "glue",
            "region": REGION,
            "endpoint": self.aws.emulator.url,
            "access_key_id": KEY,
            "secret_access_key": SECRET,
        }

    def database(self, name: str) -> str:
        self.client.create_database(DatabaseInput={"Name": name})
        return name

    def table(
        self,
        database: str,
        name: str,
        columns: Columns,
        *,
        keys: Columns = (),
        location: str | None = None,
        form: str = "parquet",
        serde: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        kind: str = "EXTERNAL_TABLE",
        labels: Mapping[str, str] | None = None,
        **more: Any,
    ) -> str:
        """Makes a table, and tells its location.

        :param labels: a column's name -> the labels in its parameters.
        """
        place = location or f"s3://{BUCKET}/{database}/{name}"
        storage = self.storage(columns, place, form, serde)
        for column in storage["Columns"]:
            if column["Name"] in (labels or {}):
                column["Parameters"] = {"batuta.labels": (labels or {})[column["Name"]]}
        self.client.create_table(
            DatabaseName=database,
            TableInput={
                "Name": name,
                "TableType": kind,
                "Parameters": dict(parameters or {}),
                "PartitionKeys": [{"Name": n, "Type": t} for n, t in keys],
                "StorageDescriptor": storage,
                **more,
            },
        )
        return place

    @staticmethod
    def storage(
        columns: Columns,
        location: str,
        form: str = "parquet",
        serde: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        return {
            "Columns": [{"Name": n, "Type": t} for n, t in columns],
            "Location": location,
            "InputFormat": INPUTS.get(form, TEXT_INPUT),
            "SerdeInfo": {
                "SerializationLibrary": SERDES[form],
                "Parameters": dict(serde or {}),
            },
        }

    def partition(
        self,
        database: str,
        table: str,
        values: Sequence[str],
        columns: Columns,
        location: str,
        form: str = "parquet",
        serde: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> str:
        self.client.create_partition(
            DatabaseName=database,
            TableName=table,
            PartitionInput={
                "Values": list(values),
                "StorageDescriptor": self.storage(columns, location, form, serde),
                "Parameters": dict(parameters or {}),
            },
        )
        return location

    def put(self, url: str, content: bytes | pa.Table, **options: Any) -> None:
        """Writes an object: bytes as they are, a table as Parquet."""
        if isinstance(content, pa.Table):
            buffer = io.BytesIO()
            pq.write_table(content, buffer, **options)
            content = buffer.getvalue()
        self.files.pipe(url, content)
