"""Who gets in, by what, and what those hear who do not."""

from __future__ import annotations

import datetime
import ipaddress
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as dbapi
import pyarrow.flight as fl
import pytest

from tests.flight.conftest import ANN, BO, USERS, Raw, Server, client, fetched, served

SQL = "SELECT 42 AS answer"


def refused(server: Server, **log_in: str) -> str:
    """What a client hears that does not get in."""
    with (
        pytest.raises(dbapi.Error) as caught,
        closing(dbapi.connect(server.uri, db_kwargs=log_in, autocommit=True)) as connection,
    ):
        fetched(connection, SQL)
    return str(caught.value)


def test_name_and_password(server: Server) -> None:
    for user in (ANN, BO):
        with client(server, user) as connection:
            assert fetched(connection, SQL) == [(42,)]


def test_a_token(server: Server) -> None:
    header = {"adbc.flight.sql.authorization_header": "Bearer ann's token"}
    with client(server, None, **header) as connection:
        assert fetched(connection, SQL) == [(42,)]


def test_a_refusal_does_not_tell_what_was_wrong(server: Server) -> None:
    heard = {
        refused(server, username="ann", password="bo's secret"),
        refused(server, username="nobody", password="ann's secret"),
        refused(server, username="ann", password=""),
        refused(server, username="ann", password="ann's token"),
    }
    assert len(heard) == 1
    assert "UNAUTHENTICATED" in heard.pop()


@pytest.mark.parametrize(
    "header",
    ["Bearer wrong", "Bearer ", "Bearer bo's secret", "Basic !!!", "Basic YW5u", "", "ann's token"],
)
def test_other_headers_are_refused(server: Server, header: str) -> None:
    options = {"adbc.flight.sql.authorization_header": header} if header else {}
    assert "UNAUTHENTICATED" in refused(server, **options)


def test_every_call_needs_a_user(server: Server) -> None:
    with closing(Raw(server, None)) as raw:
        calls = [
            lambda: raw.query(SQL),
            lambda: raw.info("CommandGetCatalogs"),
            lambda: raw.act("CreatePreparedStatement", b""),
            lambda: list(raw.client.list_actions()),
            lambda: list(raw.client.list_flights()),
            lambda: raw.client.do_get(fl.Ticket(b"")).read_all(),
        ]
        for call in calls:
            with pytest.raises(fl.FlightUnauthenticatedError):
                call()


def test_the_token_of_a_log_in_ends(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "batuta.toml"
    path.write_text(config.read_text() + "[serve]\ntoken_hours = 0.0003\n" + USERS)
    with served(path, tmp_path) as server, closing(Raw(server)) as raw:
        assert raw.get(raw.query(SQL)).read_all().num_rows == 1
        time.sleep(1.5)
        with pytest.raises(fl.FlightUnauthenticatedError, match="has ended"):
            raw.query(SQL)


def test_no_secret_is_written_anywhere(server: Server) -> None:
    with client(server) as connection, pytest.raises(dbapi.Error):
        fetched(connection, "SELECT 'a constant' WHERE nothing", ())
    refused(server, username="ann", password="a wrong secret")
    log = server.log.read_text()
    for secret in ("ann's secret", "ann's token", "a wrong secret", "a constant"):
        assert secret not in log
    assert "user=ann" in log


# --- TLS -----------------------------------------------------------------------------------------


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody has signed but itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "server.pem", folder / "server.key"


def test_tls(with_users: Path, tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    options = ["--tls-certificate", str(pem), "--tls-key", str(key)]
    with served(with_users, tmp_path, *options) as server:
        assert server.uri.startswith("grpc+tls://127.0.0.1:")
        roots = {"adbc.flight.sql.client_option.tls_root_certs": pem.read_text()}
        with client(server, **roots) as connection:
            assert fetched(connection, SQL) == [(42,)]
        # A client that does not know the certificate, and one without TLS, do not get through.
        assert "certificate" in refused(server, username=ANN[0], password=ANN[1])
        plain: Any = Server(server.uri.replace("grpc+tls", "grpc+tcp"), server.process, server.log)
        refused(plain, username=ANN[0], password=ANN[1])
