"""``make demo``: one query over two PostgreSQL databases and a Delta table, in a minute.

Starts a PostgreSQL server of its own on loopback, fills it, writes a Delta table into a temporary
folder, asks one question of all three, and shows what it will cost, the plan, what each source was
sent, the answer and its labels. Everything is gone at the end.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import deltalake
import duckdb
from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

import batuta_sql
from batuta_sql import units
from batuta_sql.demo.postgres_server import PostgresServer, ServerError

CRM = """
CREATE TABLE region (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO region VALUES (1, 'Oceania'), (2, 'Andes'), (3, 'Nordics'), (4, 'Maghreb');
CREATE TABLE customer (
  id int PRIMARY KEY, name text NOT NULL, region_id int REFERENCES region, since date
);
INSERT INTO customer
SELECT g, 'customer ' || g, g % 4 + 1, date '2019-01-01' + g % 2000
FROM generate_series(1, 20000) g;
ANALYZE;
"""

SHOP = """
CREATE TABLE orders (
  id int PRIMARY KEY, customer_id int NOT NULL, placed date NOT NULL, total numeric(12,2) NOT NULL
);
INSERT INTO orders
SELECT g, g * 7 % 20000 + 1, date '2024-01-01' + g % 366, (g * 37 % 50000) / 100.0
FROM generate_series(1, 200000) g;
ANALYZE;
"""

VISITS = """
SELECT (i * 11 % 20000 + 1)::INTEGER AS customer_id,
       DATE '2024-01-01' + (i % 366)::INTEGER AS day,
       (i % 90 + 1)::INTEGER AS minutes
FROM range(300000) t(i)
"""

QUERY = """\
SELECT r.name AS region,
       count(*) AS customers,
       sum(o.spent) AS spent,
       sum(v.minutes) AS minutes
FROM crm.public.customer c
JOIN crm.public.region r ON r.id = c.region_id
JOIN (SELECT customer_id, sum(total) AS spent
      FROM shop.public.orders WHERE placed >= DATE '2024-12-01'
      GROUP BY customer_id) o ON o.customer_id = c.id
JOIN (SELECT customer_id, sum(minutes) AS minutes
      FROM lake.visits WHERE day >= DATE '2024-12-01'
      GROUP BY customer_id) v ON v.customer_id = c.id
WHERE c.since < DATE '2020-01-01'
GROUP BY r.name
ORDER BY spent DESC"""


def main() -> int:
    """Runs the demo; 0 when it ran, 1 with one sentence on stderr where it could not."""
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="batuta-demo-") as folder:
            run(console, Path(folder))
    except (ServerError, batuta_sql.Error) as error:
        Console(stderr=True).print(Text(f"demo: {error}", style="red"))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run(console: Console, folder: Path) -> None:
    """The demo itself; ``folder`` is empty and takes the Delta table."""
    started = time.perf_counter()
    with PostgresServer() as server:
        crm, shop = server.create_database("crm"), server.create_database("shop")
        server.run(CRM, "crm")
        server.run(SHOP, "shop")
        write_visits(folder / "visits")
        console.print(
            f"PostgreSQL {server.version} with databases crm and shop, and a Delta table: "
            f"ready after {time.perf_counter() - started:.1f} s\n",
            highlight=False,
        )
        config = {
            "cost": {"history": False},
            "sources": {
                "crm": {
                    "kind": "postgresql",
                    "uri": crm,
                    "tables": {
                        "customer": {"columns": {"since": {"labels": ["pii"]}}},
                    },
                },
                # As if it were a warehouse that charges.
                "shop": {
                    "kind": "postgresql",
                    "uri": shop,
                    "labels": ["origin:internal"],
                    "pricing": {"usd_per_tb_scanned": 5.0},
                },
                "lake": {"kind": "delta", "path": str(folder)},
            },
        }
        with batuta_sql.connect(config) as connection:
            ask(console, connection)


def write_visits(path: Path) -> None:
    """Writes the Delta table ``visits`` in three commits."""
    with duckdb.connect() as con:
        rows = con.sql(VISITS).to_arrow_table()
    step = rows.num_rows // 3
    for start in range(0, rows.num_rows, step):
        deltalake.write_deltalake(str(path), rows.slice(start, step), mode="append")


def ask(console: Console, connection: batuta_sql.Connection) -> None:
    """Asks the question and shows plan, fragments and answer."""
    console.print(Panel(Syntax(QUERY, "sql", background_color="default"), title="the query"))
    console.print(_estimate(connection.estimate(QUERY)))
    with connection.cursor() as cursor:
        asked = time.perf_counter()
        cursor.execute(QUERY)
        names = [column[0] for column in cursor.description or ()]
        rows = cursor.fetchall()
        seconds = time.perf_counter() - asked
        plan = cursor.plan
        console.print(Panel(Text(str(plan)), title="the plan"))
        for fragment in plan.fragments if plan else ():
            console.print(_fragment(fragment))
        console.print(_answer(names, rows, f"the answer, after {seconds:.2f} s"))
        console.print(_labels(cursor.labels))


def _estimate(estimate: batuta_sql.Estimate) -> Text:
    """What the sources expect, before anything is run; an unknown figure is not shown as 0."""
    rows = "unknown" if estimate.rows is None else f"{estimate.rows:,.0f}"
    scanned = estimate.bytes_scanned
    size = "unknown" if scanned is None else units.size(scanned)
    usd = "no price is known" if estimate.usd is None else f"${estimate.usd:.6f}"
    return Text(
        f"before it runs: {rows} rows delivered, {size} scanned, {usd}"
        f" ({estimate.confidence}: {estimate.basis})\n"
    )


def _labels(labels: Mapping[str, batuta_sql.ColumnLabels]) -> Table:
    """Where the answer comes from: labels of what it is made of, and of what chose its rows."""
    table = Table(title="the labels of the answer")
    for heading in ("column", "made of", "chosen by"):
        table.add_column(heading)
    for name, held in labels.items():
        parts = (", ".join(sorted(part)) or "-" for part in (held.direct, held.indirect))
        table.add_row(name, *(Text(part) for part in parts))
    return table


def _fragment(fragment: Any) -> Panel:
    """What one source was sent, and what came back."""
    title = f"sent to {fragment.source}"
    if fragment.keys is not None:
        title += f", with {fragment.keys:,} keys of the rows that were there"
    came_back = (
        f"{fragment.rows or 0:,} rows, {fragment.bytes or 0:,} bytes, {fragment.seconds or 0:.3f} s"
    )
    text = Syntax(fragment.sql, "sql", background_color="default", word_wrap=True)
    return Panel(text, title=title, subtitle=came_back)


def _answer(names: Iterable[str], rows: Iterable[Iterable[object]], title: str) -> Table:
    table = Table(title=title)
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    return table


if __name__ == "__main__":
    sys.exit(main())
