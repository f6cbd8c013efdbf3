"""What arrives on the wire by itself: tickets, prepared statements, malformed messages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pytest
from google.protobuf import any_pb2

from batuta_sql.flight import messages
from tests.flight.conftest import BO, USERS, Raw, Server, of_postgres, served

SQL = "SELECT id, name FROM pub.beer ORDER BY id"


@pytest.fixture
def bo(server: Server) -> Iterator[Raw]:
    with closing(Raw(server, BO)) as found:
        yield found


# --- tickets -------------------------------------------------------------------------------------


def test_flight_info_gives_the_schema_and_runs_nothing(raw: Raw) -> None:
    info = raw.query("SELECT id, error('it ran') AS x FROM pub.beer")
    assert info.schema.names == ["id", "x"]
    with pytest.raises(fl.FlightError, match="it ran"):
        raw.get(info).read_all()


def test_get_schema(raw: Raw) -> None:
    command = messages.message("CommandStatementQuery", query=SQL)
    descriptor = fl.FlightDescriptor.for_command(messages.packed(command))
    assert raw.client.get_schema(descriptor, raw.options).schema.names == ["id", "name"]


def test_a_ticket_is_used_once(raw: Raw) -> None:
    info = raw.query(SQL)
    assert raw.get(info).read_all().num_rows == 4
    with pytest.raises(fl.FlightError, match="used already"):
        raw.get(info).read_all()


def test_a_ticket_belongs_to_one_user(raw: Raw, bo: Raw) -> None:
    info = raw.query(SQL)
    with pytest.raises(fl.FlightError, match="this ticket is not yours"):
        bo.get(info).read_all()
    assert raw.get(info).read_all().num_rows == 4


def test_a_ticket_ends(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "batuta.toml"
    path.write_text(config.read_text() + "[serve]\nticket_seconds = 0.2\n" + USERS)
    with served(path, tmp_path) as server, closing(Raw(server)) as raw:
        info = raw.query(SQL)
        time.sleep(0.5)
        with pytest.raises(fl.FlightError, match="has ended"):
            raw.get(info).read_all()


def test_a_ticket_that_was_not_used_can_be_cancelled(raw: Raw) -> None:
    info = raw.query(SQL)
    request = messages.message("CancelFlightInfoRequest", info=info.serialize())
    (answer,) = raw.act("CancelFlightInfo", request.SerializeToString())
    status = messages.parsed("CancelFlightInfoResult", answer).status
    assert status == messages.CANCELLED
    with pytest.raises(fl.FlightError, match="used already"):
        raw.get(info).read_all()


def test_nobody_cancels_for_others(raw: Raw, bo: Raw) -> None:
    info = raw.query(SQL)
    request = messages.message("ActionCancelQueryRequest", info=info.serialize())
    (answer,) = bo.act("CancelQuery", messages.packed(request))
    assert messages.unpacked(answer).result == messages.NOT_CANCELLABLE
    assert raw.get(info).read_all().num_rows == 4
    (answer,) = raw.act("CancelQuery", messages.packed(request))
    assert messages.unpacked(answer).result == messages.NOT_CANCELLABLE


# --- prepared statements -------------------------------------------------------------------------


def test_a_prepared_statement_runs_with_what_was_bound_last(raw: Raw) -> None:
    made = raw.prepare("SELECT name FROM pub.beer WHERE id = ?")
    schema = pa.ipc.read_schema(pa.py_buffer(made.dataset_schema))
    assert schema.names == ["name"]
    assert pa.ipc.read_schema(pa.py_buffer(made.parameter_schema)).names == ["1"]
    for number, name in ((1, "Ann's"), (2, 'a "b", c'), (2, 'a "b", c')):
        raw.bind(made.prepared_statement_handle, pa.record_batch({"1": [number]}))
        found = raw.executed(made.prepared_statement_handle)
        assert found.to_pylist() == [{"name": name}]


def test_parameters_by_name(raw: Raw) -> None:
    made = raw.prepare("SELECT $b AS x, $a AS y")
    raw.bind(made.prepared_statement_handle, pa.record_batch({"b": ["B"], "a": ["A"]}))
    found = raw.executed(made.prepared_statement_handle)
    assert found.to_pylist() == [{"x": "B", "y": "A"}]


def test_a_parameter_as_a_union_of_types(raw: Raw) -> None:
    """What a client binds that takes the parameter schema by its word."""
    made = raw.prepare("SELECT ? + 1 AS x")
    kind = pa.ipc.read_schema(pa.py_buffer(made.parameter_schema)).field(0).type
    children = [
        pa.array([41] if kind.field(i).name == "bigint" else [], kind.field(i).type)
        for i in range(kind.num_fields)
    ]
    names = [kind.field(i).name for i in range(kind.num_fields)]
    value = pa.UnionArray.from_dense(
        pa.array([names.index("bigint")], pa.int8()), pa.array([0], pa.int32()), children, names
    )
    raw.bind(made.prepared_statement_handle, pa.record_batch([value], ["1"]))
    assert raw.executed(made.prepared_statement_handle).to_pylist() == [{"x": 42}]


def test_several_sets_of_parameters_are_refused(raw: Raw) -> None:
    made = raw.prepare("SELECT ? AS x")
    with pytest.raises(fl.FlightError, match="one set of parameters at a time"):
        raw.bind(made.prepared_statement_handle, pa.record_batch({"1": [1, 2]}))


def test_a_statement_without_its_parameters_is_an_error(raw: Raw) -> None:
    made = raw.prepare("SELECT ? AS x")
    with pytest.raises(fl.FlightError, match="parameters"):
        raw.executed(made.prepared_statement_handle)


def test_a_closed_statement_is_gone(raw: Raw, bo: Raw) -> None:
    made = raw.prepare(SQL)
    request = messages.message(
        "ActionClosePreparedStatementRequest",
        prepared_statement_handle=made.prepared_statement_handle,
    )
    with pytest.raises(fl.FlightError, match="not yours"):
        bo.act("ClosePreparedStatement", messages.packed(request))
    assert raw.executed(made.prepared_statement_handle).num_rows == 4
    raw.act("ClosePreparedStatement", messages.packed(request))
    with pytest.raises(fl.FlightError, match="was closed"):
        raw.executed(made.prepared_statement_handle)


# --- metadata ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "CommandGetCatalogs",
        "CommandGetDbSchemas",
        "CommandGetTables",
        "CommandGetTableTypes",
        "CommandGetSqlInfo",
        "CommandGetXdbcTypeInfo",
        "CommandGetPrimaryKeys",
        "CommandGetExportedKeys",
        "CommandGetImportedKeys",
        "CommandGetCrossReference",
    ],
)
def test_the_answer_has_the_schema_that_was_promised(raw: Raw, name: str) -> None:
    info = raw.info(name)
    table = raw.get(info).read_all()
    table.validate(full=True)
    assert table.schema.equals(info.schema)


def test_a_table_comes_with_its_schema(raw: Raw) -> None:
    table = raw.get(raw.info("CommandGetTables", catalog="pub", include_schema=True)).read_all()
    (row,) = table.to_pylist()
    schema = pa.ipc.read_schema(pa.py_buffer(row["table_schema"]))
    assert schema.field("price").type == pa.decimal128(6, 2)


def test_schemas_and_keys_of_a_database(nap_uri: str, tmp_path: Path) -> None:
    path = tmp_path / "batuta.toml"
    path.write_text(of_postgres(nap_uri, USERS))
    with served(path, tmp_path) as server, closing(Raw(server)) as raw:

        def rows(name: str, **values: Any) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = raw.get(raw.info(name, **values)).read_all().to_pylist()
            return found

        place = {"catalog_name": "crm", "db_schema_name": "public"}
        assert rows("CommandGetDbSchemas", db_schema_filter_pattern="pub%") == [place]
        tables = rows("CommandGetTables", table_types=["VIEW"], table_name_filter_pattern="na_")
        assert tables == [{**place, "table_name": "nap", "table_type": "VIEW"}]
        table = {"catalog": "crm", "db_schema": "public"}
        assert rows("CommandGetPrimaryKeys", **table, table="keyed") == [
            {
                **place,
                "table_name": "keyed",
                "column_name": "id",
                "key_name": None,
                "key_sequence": 1,
            }
        ]
        # The order of the columns is not known: nothing is told that may be wrong.
        assert rows("CommandGetPrimaryKeys", **table, table="pair") == []
        assert rows("CommandGetPrimaryKeys", catalog="crm", db_schema="other", table="keyed") == []


def test_facts_that_are_asked_for(raw: Raw) -> None:
    table = raw.get(raw.info("CommandGetSqlInfo", info=[3, 0, 9999])).read_all()
    assert table.to_pylist() == [
        {"info_name": 3, "value": True},
        {"info_name": 0, "value": "Batuta-SQL"},
    ]


def test_types_of_one_code(raw: Raw) -> None:
    table = raw.get(raw.info("CommandGetXdbcTypeInfo", data_type=12)).read_all()
    assert table["type_name"].to_pylist() == ["UUID", "VARCHAR"]


def test_names_with_the_letters_of_patterns(raw: Raw) -> None:
    def found(pattern: str) -> int:
        info = raw.info("CommandGetTables", table_name_filter_pattern=pattern)
        return int(raw.get(info).read_all().num_rows)

    assert found("BEER") == 1
    assert found("b%") == 1
    assert found("b\\%") == 0
    assert found("be.r") == 0


# --- what is refused -----------------------------------------------------------------------------


def wrapped(name: str) -> bytes:
    """A message that this server does not know, without any fields."""
    kind = f"type.googleapis.com/arrow.flight.protocol.sql.{name}"
    return bytes(any_pb2.Any(type_url=kind).SerializeToString())


@pytest.mark.parametrize(
    "command",
    [b"", b"\xff\xff\xff", b"SELECT 1", wrapped("CommandOfTomorrow"), b"\n\xff\x01x"],
    ids=["nothing", "bytes", "SQL", "an unknown command", "half a message"],
)
def test_malformed_requests_are_errors_without_tracebacks(raw: Raw, command: bytes) -> None:
    def told(ask: Any) -> str:
        with pytest.raises((fl.FlightError, pa.ArrowException)) as caught:
            ask()
        return str(caught.value)

    for said in (
        told(lambda: raw.info_of(command)),
        told(lambda: raw.client.do_get(fl.Ticket(command), raw.options).read_all()),
        told(lambda: raw.act("CreatePreparedStatement", command)),
        told(lambda: raw.act("CancelFlightInfo", command)),
    ):
        assert "Traceback" not in said
        assert "unexpected" not in said


def test_fields_of_another_type_are_errors(raw: Raw) -> None:
    inner = any_pb2.Any()
    inner.type_url = "type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    inner.value = b"\x0a\x02\xff\xfe"
    with pytest.raises(fl.FlightError) as caught:
        raw.info_of(inner.SerializeToString())
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["CommandStatementUpdate", "CommandPreparedStatementUpdate", "CommandStatementIngest"]
)
def test_updates_are_refused(raw: Raw, name: str) -> None:
    descriptor = fl.FlightDescriptor.for_command(wrapped(name))
    writer, _ = raw.client.do_put(descriptor, pa.schema([("a", pa.int32())]), raw.options)
    with pytest.raises(fl.FlightError, match="read-only"):
        writer.close()


def test_transactions_are_refused(raw: Raw) -> None:
    with pytest.raises(fl.FlightError, match="no transactions"):
        raw.act("BeginTransaction", b"")
    with pytest.raises(fl.FlightError, match="no transactions"):
        raw.info("CommandStatementQuery", query=SQL, transaction_id=b"1")


def test_a_path_is_no_command(raw: Raw) -> None:
    with pytest.raises(fl.FlightError, match="names a path"):
        raw.client.get_flight_info(fl.FlightDescriptor.for_path("a", "b"), raw.options)


def test_a_metadata_command_with_a_statement_handle_in_it_is_no_ticket(raw: Raw) -> None:
    command = messages.message("CommandStatementQuery", query=SQL)
    with pytest.raises(fl.FlightError, match="no ticket"):
        raw.client.do_get(fl.Ticket(messages.packed(command)), raw.options).read_all()


def test_an_exchange_is_refused(raw: Raw) -> None:
    writer, reader = raw.client.do_exchange(fl.FlightDescriptor.for_command(b""), raw.options)
    with pytest.raises(fl.FlightError, match="does not exchange data") as caught:
        writer.done_writing()
        reader.read_chunk()
    assert "Traceback" not in str(caught.value)


def test_actions_are_listed(raw: Raw) -> None:
    names = {a.type for a in raw.client.list_actions(raw.options)}
    assert {"CreatePreparedStatement", "CancelFlightInfo", "CancelQuery"} <= names
    assert list(raw.client.list_flights(b"", raw.options)) == []
