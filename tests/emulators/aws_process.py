"""A running stand-in for S3 and Glue: moto's server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.emulators.process import Emulator, running

KEY, SECRET = "AKIATEST0815", "s3-secret-0815"
REGION = "eu-central-1"


@dataclass(frozen=True)
class AwsEmulator:
    emulator: Emulator

    @property
    def storage_options(self) -> dict[str, str]:
        """What a source needs to read from it."""
        return {
            "AWS_ENDPOINT_URL": self.emulator.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",
        }

    def filesystem(self) -> Any:
        """Its buckets, for the one who fills them."""
        import fsspec

        return fsspec.filesystem(
            "s3",
            key=KEY,
            secret=SECRET,
            endpoint_url=self.emulator.url,
            client_kwargs={"region_name": REGION},
            skip_instance_cache=True,
            use_listings_cache=False,
        )


@contextmanager
def aws_emulator(folder: Path) -> Iterator[AwsEmulator]:
    with running(
        "aws", lambda port: ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], folder
    ) as emulator:
        yield AwsEmulator(emulator)
