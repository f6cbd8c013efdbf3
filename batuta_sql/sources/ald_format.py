"""The ``.ald`` container of PAIML Alimentar: a header, metadata, an Arrow schema, Arrow data.

Layout of version 1.2, all integers little endian (from the format's published description,
https://docs.rs/crate/alimentar):

    header    32 bytes: magic "ALDF", version, kind of dataset, sizes, compression, flags, rows
    metadata  MessagePack: name, version, license, tags, description, citation, created_at, sha256
    schema    Arrow IPC stream without batches
    payload   Arrow IPC stream, compressed
    signature Ed25519 signature (64 bytes) and public key (32), where the flag says so
    checksum  CRC-32 of all before it

The tags are the file's permanent labels: they go with whatever is made of it.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from batuta_sql.errors import NotSupportedError, OperationalError
from batuta_sql.labels import ColumnLabels, Labels, TableLabels, labels_of_schema

SUFFIX = ".ald"
_MAGIC = b"ALDF"
_HEADER = struct.Struct("<4sBBHIIIBBHQ")
_CHECKSUM = struct.Struct("<I")
_VERSION = (1, 2)
_TABULAR = 1
_FIELDS = (
    "name",
    "version",
    "license",
    "tags",
    "description",
    "citation",
    "created_at",
    "sha256",
)
_ENCRYPTED, _SIGNED, _STREAMING, _LICENSED = 1, 2, 4, 8
_SIGNATURE, _KEY = 64, 32
_CODECS: dict[int, tuple[str, int | None] | None] = {
    0: None,
    1: ("zstd", 3),
    2: ("zstd", 19),
    3: ("lz4", None),
}
_MOST_SCHEMA_BYTES = 0xFFFF
_MOST_PAYLOAD_BYTES = 0xFFFFFFFF
_OLD_KEY = b"batuta.label"
"""An earlier form of labels in a schema: ``{"tier": ..., "origins": [...]}``."""


@dataclass(frozen=True)
class AldFile:
    """What an ``.ald`` file holds, its rows aside.

    :param rows: number of rows.
    :param size_bytes: of the file.
    :param signer: the Ed25519 public key whose signature was verified; None: not signed.
    """

    schema: pa.Schema
    metadata: dict[str, Any]
    rows: int
    size_bytes: int
    signer: bytes | None = None
    _payload: bytes = field(default=b"", repr=False)
    _size: int = 0
    _compression: int = 0

    @property
    def tags(self) -> Labels:
        """The permanent tags."""
        return frozenset(str(t) for t in self.metadata.get("tags") or ())

    @property
    def labels(self) -> TableLabels:
        """The permanent tags on every column and on the rows, and what the schema carries."""
        everywhere = ColumnLabels(self.tags | _old_labels(self.schema))
        carried = labels_of_schema(self.schema)
        columns = {n: carried.of(n) | everywhere for n in self.schema.names}
        return TableLabels(columns, carried.rows | everywhere.all)

    def table(self) -> pa.Table:
        """The rows.

        :raises OperationalError: where they are not what the header says.
        """
        codec = _CODECS[self._compression]
        body = self._payload
        if codec is not None:
            body = pa.Codec(codec[0]).decompress(body, decompressed_size=self._size, asbytes=True)
        if len(body) != self._size:
            raise OperationalError("the payload's size is not what the header says")
        table = pa.ipc.open_stream(body).read_all()
        if table.num_rows != self.rows:
            raise OperationalError(
                f"the header says {self.rows} rows and there are {table.num_rows}"
            )
        return table


def read_ald(path: str | Path) -> AldFile:
    """Reads a file and checks all of it: checksum, signature, sizes.

    :raises OperationalError: for a file that is not whole.
    :raises NotSupportedError: for an encrypted one and other layouts than the standard one.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise OperationalError(f"{path}: {error.strerror}") from None
    try:
        return _parsed(content)
    except (OperationalError, NotSupportedError) as error:
        error.message = f"{path}: {error.message}"
        raise
    except (struct.error, ValueError, pa.ArrowException) as error:
        raise OperationalError(f"{path}: is not a whole .ald file: {error}") from None


def _parsed(content: bytes) -> AldFile:
    if len(content) < _HEADER.size + _CHECKSUM.size or content[:4] != _MAGIC:
        raise OperationalError("is not an .ald file")
    (_, major, minor, _, metadata, payload, size, compression, flags, schema, rows) = (
        _HEADER.unpack_from(content)
    )
    if flags & _ENCRYPTED:
        raise NotSupportedError("the file is encrypted, which is not read yet")
    if flags & _STREAMING:
        raise NotSupportedError("the file has the streaming layout, which is not read yet")
    if major > _VERSION[0] or compression not in _CODECS:
        raise NotSupportedError(f"version {major}.{minor}, compression {compression}: not known")
    if zlib.crc32(content[: -_CHECKSUM.size]) != _CHECKSUM.unpack(content[-_CHECKSUM.size :])[0]:
        raise OperationalError("its checksum is wrong: the file is damaged")
    begin = _HEADER.size + metadata + schema
    if begin + payload > len(content) - _CHECKSUM.size:
        raise OperationalError("the payload ends after the file")
    signer = _verified(content, begin + payload) if flags & _SIGNED else None
    told = _unpacked(content[_HEADER.size : _HEADER.size + metadata])
    return AldFile(
        schema=pa.ipc.open_stream(content[_HEADER.size + metadata : begin]).schema,
        metadata=told,
        rows=rows,
        size_bytes=len(content),
        signer=signer,
        _payload=content[begin : begin + payload],
        _size=size,
        _compression=compression,
    )


def _unpacked(packed: bytes) -> dict[str, Any]:
    value = _msgpack().unpackb(packed)
    if isinstance(value, list):
        # A missing digest makes the list shorter, not a null.
        return dict(zip(_FIELDS, value, strict=False))
    return dict(value)


def _verified(content: bytes, end: int) -> bytes:
    """The public key that signed all bytes before ``end``."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise OperationalError(
            "the file is signed, and the signature cannot be checked",
            hint="pip install 'batuta-sql[ald]'",
        ) from None
    signature = content[end : end + _SIGNATURE]
    key = content[end + _SIGNATURE : end + _SIGNATURE + _KEY]
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, content[:end])
    except (InvalidSignature, ValueError):
        raise OperationalError("its signature is wrong: the file was changed") from None
    return key


def write_ald(
    path: str | Path,
    table: pa.Table,
    *,
    name: str,
    tags: Iterable[str] = (),
    metadata: dict[str, Any] | None = None,
    signing_key: Any = None,
) -> None:
    """Writes a table; the labels of its schema become permanent tags beside those given.

    :param signing_key: an Ed25519 private key of the ``cryptography`` package.
    :raises OperationalError: where the format cannot hold the table.
    """
    labels = labels_of_schema(table.schema)
    told = {
        "name": name,
        "version": "1.0.0",
        "created_at": "",
        **(metadata or {}),
        "tags": sorted(frozenset(tags) | labels.all),
    }
    values = [told.get(f) for f in _FIELDS]
    packed = _msgpack().packb(values if values[-1] is not None else values[:-1])
    schema, plain = _stream(table.schema, []), _stream(table.schema, table.to_batches())
    codec = pa.Codec("zstd", 3)
    payload = codec.compress(plain, asbytes=True)
    if len(schema) > _MOST_SCHEMA_BYTES:
        raise OperationalError(f"{path}: the schema takes {len(schema)} bytes, 65,535 fit")
    if max(len(plain), len(payload)) > _MOST_PAYLOAD_BYTES:
        raise OperationalError(
            f"{path}: an .ald file holds 4 GiB at most", hint="split the table into several files"
        )
    flags = _SIGNED if signing_key is not None else 0
    header = _HEADER.pack(
        _MAGIC,
        *_VERSION,
        _TABULAR,
        len(packed),
        len(payload),
        len(plain),
        1,
        flags,
        len(schema),
        table.num_rows,
    )
    content = header + packed + schema + payload
    if signing_key is not None:
        content += signing_key.sign(content) + signing_key.public_key().public_bytes_raw()
    target = Path(path)
    new = target.with_name(f".{target.name}.new")
    new.write_bytes(content + _CHECKSUM.pack(zlib.crc32(content)))
    new.replace(target)


def _stream(schema: pa.Schema, batches: list[pa.RecordBatch]) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def _old_labels(schema: pa.Schema) -> Labels:
    text = (schema.metadata or {}).get(_OLD_KEY)
    if text is None:
        return frozenset()
    value = json.loads(text)
    found = {f"origin:{o}" for o in value.get("origins", [])}
    if "tier" in value:
        found.add(f"tier:{value['tier']}")
    return frozenset(found)


def _msgpack() -> Any:
    try:
        import msgpack
    except ImportError:
        raise OperationalError(
            "reading .ald files needs the package msgpack", hint="pip install 'batuta-sql[ald]'"
        ) from None
    return msgpack
