"""SQLAlchemy over sources: what Core and the ORM ask for, types both ways, reflection."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from tests.cli.conftest import config  # noqa: F401 - a fixture


@pytest.fixture
def engine(config: Path) -> Iterator[sa.Engine]:  # noqa: F811
    made = sa.create_engine(f"batuta:///{config}")
    yield made
    made.dispose()


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect() as opened:
        yield opened


BEER = sa.Table(
    "beer",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String),
    sa.Column("price", sa.Numeric(6, 2)),
    sa.Column("since", sa.Date),
    schema="pub",
)


def rows(connection: sa.Connection, statement: Any, **values: Any) -> list[tuple[Any, ...]]:
    return [tuple(r) for r in connection.execute(statement, values)]


# --- queries -------------------------------------------------------------------------------------


def test_a_select_over_two_sources(connection: sa.Connection) -> None:
    visits = sa.table("visits", sa.column("beer"), sa.column("minutes"), schema="delta")
    statement = (
        sa.select(BEER.c.name, sa.func.sum(visits.c.minutes).label("minutes"))
        .join_from(BEER, visits, visits.c.beer == BEER.c.id)
        .where(BEER.c.price >= sa.bindparam("least"))
        .group_by(BEER.c.name)
        .order_by(BEER.c.name.desc())
    )
    assert rows(connection, statement, least=Decimal("1.5")) == [('a "b", c', 13), ("Ann's", 5)]


def test_values_are_pythons_own(connection: sa.Connection) -> None:
    first = sa.select(BEER).where(BEER.c.id == 1)
    assert rows(connection, first) == [(1, "Ann's", Decimal("1.50"), datetime.date(2001, 1, 31))]


@pytest.mark.parametrize(
    ("limit", "offset", "expected"),
    [(2, None, [1, 2]), (None, 3, [4]), (1, 1, [2]), (0, None, [])],
)
def test_limit_and_offset(
    connection: sa.Connection, limit: int | None, offset: int | None, expected: list[int]
) -> None:
    statement = sa.select(BEER.c.id).order_by(BEER.c.id).limit(limit).offset(offset)
    assert [i for (i,) in rows(connection, statement)] == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (BEER.c.name.ilike("ANN%"), [1]),
        (BEER.c.name.not_ilike("ANN%"), [2, 3]),
        (BEER.c.name.like("a/_%", escape="/"), []),
        (BEER.c.name.icontains("B"), [2]),
        # A part of the text is enough.
        (BEER.c.name.regexp_match("nn"), [1]),
        (BEER.c.name.regexp_match("NN", flags="i"), [1]),
        (~BEER.c.name.regexp_match("nn"), [2, 3]),
        (BEER.c.since.is_(None), [2, 3, 4]),
        (BEER.c.price.is_distinct_from(Decimal("2.50")), [1, 3, 4]),
        (BEER.c.id.in_([1, 4]), [1, 4]),
        (BEER.c.id.in_([]), []),
        (BEER.c.price.between(2, 3), [2]),
        (sa.tuple_(BEER.c.id, BEER.c.price).in_([(1, Decimal("1.50")), (2, 9)]), [1]),
        (sa.extract("year", BEER.c.since) == 2001, [1]),
    ],
)
def test_conditions(connection: sa.Connection, condition: Any, expected: list[int]) -> None:
    statement = sa.select(BEER.c.id).where(condition).order_by(BEER.c.id)
    assert [i for (i,) in rows(connection, statement)] == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (sa.literal(5) / sa.literal(2), 2.5),
        (sa.literal(5) // sa.literal(2), 2),
        (sa.literal(-5) % sa.literal(3), -2),
        (sa.func.concat("a", "b"), "ab"),
        (sa.literal("a") + sa.literal("b"), "ab"),
        (sa.literal("abc").regexp_replace("b", "x"), "axc"),
        (sa.literal("abab").regexp_replace("B", "x", flags="gi"), "axax"),
        (sa.cast(sa.literal("0.1"), sa.Float), 0.1),
        (sa.cast(sa.literal("16777217"), sa.Float), 16777217.0),
        (sa.cast(sa.literal("1.25"), sa.Numeric(5, 2)), Decimal("1.25")),
        (sa.case((sa.literal(1) == 1, "yes"), else_="no"), "yes"),
        (sa.func.coalesce(sa.null(), 3), 3),
        (sa.literal(True), True),
        (sa.literal(datetime.date(2024, 2, 29)), datetime.date(2024, 2, 29)),
        (sa.literal(uuid.UUID(int=7)), uuid.UUID(int=7)),
    ],
)
def test_expressions(connection: sa.Connection, expression: Any, expected: object) -> None:
    ((found,),) = rows(connection, sa.select(expression))
    assert found == expected
    assert type(found) is type(expected) or isinstance(found, float | int)


def test_distinct_on_and_windows(connection: sa.Connection) -> None:
    with pytest.warns(sa.exc.SADeprecationWarning):
        first = sa.select(BEER.c.id).distinct(BEER.c.since).order_by(BEER.c.since, BEER.c.id)
    assert sorted(i for (i,) in rows(connection, first)) == [1, 2]
    rank = sa.func.row_number().over(order_by=BEER.c.price.desc().nulls_last())
    statement = sa.select(BEER.c.id, rank).order_by(BEER.c.id)
    assert rows(connection, statement) == [(1, 3), (2, 2), (3, 1), (4, 4)]


def test_unions_and_common_tables(connection: sa.Connection) -> None:
    cheap = sa.select(BEER.c.id).where(BEER.c.price < 2).cte("cheap")
    both = sa.union_all(sa.select(cheap.c.id), sa.select(BEER.c.id).where(BEER.c.price > 3))
    assert sorted(rows(connection, both)) == [(1,), (3,)]


def test_text_with_names(connection: sa.Connection) -> None:
    found = rows(connection, sa.text("SELECT name FROM pub.beer WHERE id = :id"), id=2)
    assert found == [('a "b", c',)]


def test_the_orm(engine: sa.Engine) -> None:
    class Base(DeclarativeBase):
        pass

    class Beer(Base):
        __table__ = BEER.to_metadata(Base.metadata)

    class Visit(Base):
        __tablename__ = "visits"
        __table_args__ = {"schema": "delta"}  # noqa: RUF012
        beer: Mapped[int] = mapped_column(primary_key=True)
        minutes: Mapped[int] = mapped_column(primary_key=True)

    with Session(engine) as session:
        beer: Any = session.get(Beer, 2)
        assert (beer.name, beer.price) == ('a "b", c', Decimal("2.50"))
        found = session.scalars(sa.select(Visit).where(Visit.minutes > 5).order_by(Visit.minutes))
        assert [v.minutes for v in found] == [6, 7]


def test_pandas_reads(engine: sa.Engine) -> None:
    frame = pd.read_sql("SELECT id, price FROM pub.beer ORDER BY id", engine)
    assert list(frame["id"]) == [1, 2, 3, 4]
    with engine.connect() as connection:
        whole = pd.read_sql_table("beer", connection, schema="pub")
    assert list(whole.columns) == ["id", "name", "price", "since"]


def test_local_tables_live_as_long_as_the_engine(engine: sa.Engine) -> None:
    local = sa.Table(
        "notes",
        sa.MetaData(),
        sa.Column("id", sa.Integer),
        sa.Column("at", sa.DateTime(timezone=True)),
        sa.Column("score", sa.Float),
        sa.Column("data", sa.LargeBinary),
    )
    at = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)
    with engine.begin() as connection:
        local.create(connection)
        connection.execute(
            sa.insert(local),
            [{"id": i, "at": at, "score": i / 3, "data": bytes([i])} for i in range(3)],
        )
    with engine.connect() as connection:
        found = rows(connection, sa.select(local).order_by(local.c.id))
        assert found == [(i, at, i / 3, bytes([i])) for i in range(3)]
        assert sa.inspect(connection).has_table("notes")


# --- what there is -------------------------------------------------------------------------------


def test_reflection(engine: sa.Engine) -> None:
    inspector = sa.inspect(engine)
    assert set(inspector.get_schema_names()) >= {"pub", "lake", "delta", "duck.main"}
    assert inspector.get_table_names(schema="pub") == ["beer"]
    assert inspector.get_table_names(schema="duck.main") == ["numbers"]
    assert inspector.get_table_names(schema="nowhere") == []
    assert inspector.has_table("numbers", schema="duck.main")
    assert not inspector.has_table("nothing", schema="pub")
    table = sa.Table("beer", sa.MetaData(), autoload_with=engine, schema="pub")
    assert {c.name: str(c.type) for c in table.columns} == {
        "id": "BIGINT", "name": "VARCHAR", "price": "NUMERIC(6, 2)", "since": "DATE",
    }  # fmt: skip
    with pytest.raises(sa.exc.NoSuchTableError):
        sa.Table("nothing", sa.MetaData(), autoload_with=engine, schema="pub")


def test_schemas_keys_and_views_of_a_server(postgres: PostgresServer) -> None:
    with postgres.database("alchemy") as uri:
        postgres.run(
            'CREATE SCHEMA "odd.Schema"; CREATE TABLE "odd.Schema"."Odd Table" ("Odd Key" bigint'
            " PRIMARY KEY, t timestamptz); CREATE VIEW seen AS SELECT 1 AS one;"
            ' INSERT INTO "odd.Schema"."Odd Table" VALUES (7, now())',
            uri.rsplit("/", 1)[1],
        )
        source = {"kind": "postgresql", "uri": uri, "locality": "local"}
        engine = sa.create_engine(
            "batuta://", creator=lambda: batuta_sql.connect({"sources": {"crm": source}})
        )
        inspector = sa.inspect(engine)
        assert inspector.get_view_names(schema="crm.public") == ["seen"]
        assert inspector.get_table_names(schema="crm.public") == []
        odd = 'crm."odd.Schema"'
        assert inspector.get_table_names(schema=odd) == ["Odd Table"]
        assert inspector.get_pk_constraint("Odd Table", schema=odd)["constrained_columns"] == [
            "Odd Key"
        ]
        table = sa.Table("Odd Table", sa.MetaData(), autoload_with=engine, schema=odd)
        with engine.connect() as connection:
            ((key,),) = rows(connection, sa.select(table.c["Odd Key"]))
        assert key == 7
        engine.dispose()


# --- engines -------------------------------------------------------------------------------------


def test_options_of_the_url(config: Path, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "priced.toml"
    history = f'[cost]\nhistory_file = "{tmp_path}/history.sqlite"\n'
    price = "pricing = { usd_per_tb_scanned = 5000000.0 }\n"
    path.write_text(history + config.read_text() + price)
    engine = sa.create_engine(f"batuta:///{path}?max_cost_usd=5&tier=standard")
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError) as failure:
        connection.execute(sa.text("SELECT count(DISTINCT n) FROM duck.numbers"))
    assert isinstance(failure.value.orig, batuta_sql.CostRefused)
    for url in (f"batuta:///{path}?nope=1", "batuta://host/x.toml"):
        with pytest.raises(sa.exc.ArgumentError):
            sa.create_engine(url).connect()


def test_errors_are_sqlalchemys_with_ours_within(connection: sa.Connection) -> None:
    with pytest.raises(sa.exc.ProgrammingError, match='did you mean "name"') as failure:
        connection.execute(sa.text("SELECT nme FROM pub.beer"))
    assert isinstance(failure.value.orig, batuta_sql.ProgrammingError)


def test_sources_are_not_written_to(connection: sa.Connection) -> None:
    with pytest.raises(sa.exc.NotSupportedError, match="never changes a source"):
        connection.execute(sa.insert(BEER).values(id=9))
