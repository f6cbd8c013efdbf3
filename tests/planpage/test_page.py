"""The page of a plan, as a browser shows it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

import batuta_sql
from batuta_sql.dbapi import Connection
from tests.planpage.conftest import Open

JOINED = (
    "SELECT c.name, sum(o.total) AS spent FROM crm.customer c"
    " JOIN lake.orders o ON o.customer = c.id WHERE o.total > 5 GROUP BY c.name ORDER BY spent DESC"
)

Box = dict[str, float]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with sqlite3.connect(tmp_path / "crm.sqlite") as db:
        db.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT)")
        db.executemany("INSERT INTO customer VALUES (?, ?)", [(n, f"n{n}") for n in range(50)])
    (tmp_path / "lake").mkdir()
    orders = {"customer": [n % 50 for n in range(900)], "total": [n % 30 for n in range(900)]}
    pq.write_table(pa.table(orders), tmp_path / "lake" / "orders.parquet")
    sources = {
        "crm": {
            "kind": "sqlite",
            "path": str(tmp_path / "crm.sqlite"),
            "tables": {"customer": {"columns": {"name": {"labels": ["pii"]}}}},
        },
        "lake": {
            "kind": "files",
            "path": str(tmp_path / "lake"),
            "labels": ["origin:internal"],
            "pricing": {"usd_per_tb_scanned": 5.0},
        },
    }
    with batuta_sql.connect({"sources": sources}) as made:
        yield made


def texts(browser: Chrome, css: str) -> list[str]:
    return [found.text for found in browser.find_elements(By.CSS_SELECTOR, css)]


def boxes(browser: Chrome, css: str) -> list[Box]:
    script = (
        "return [...document.querySelectorAll(arguments[0])].map(e => {"
        "const r = e.getBoundingClientRect();"
        "return {left: r.left, right: r.right, top: r.top, bottom: r.bottom}})"
    )
    found: list[Box] = browser.execute_script(script, css)
    return found


def overlap(one: Box, other: Box) -> bool:
    aside = one["right"] <= other["left"] or other["right"] <= one["left"]
    return not aside and one["top"] < other["bottom"] and other["top"] < one["bottom"]


def complaints(browser: Chrome) -> list[Any]:
    found: list[Any] = browser.get_log("browser")
    return found


# --- one file that needs nothing else ----------------------------------------------------------


def test_the_page_asks_for_nothing_and_nothing_is_wrong_with_it(
    connection: Connection, opened: Open
) -> None:
    browser = opened(connection.analyze(JOINED).to_html())
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert complaints(browser) == []
    assert "Query plan" in browser.title


def test_data_does_not_command_the_browser(tmp_path: Path, opened: Open) -> None:
    evil = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'
    with sqlite3.connect(tmp_path / "evil.sqlite") as db:
        quoted = evil.replace('"', '""')
        db.execute(f'CREATE TABLE "{quoted}" (id INTEGER, "{quoted}" TEXT)')
    source = {"kind": "sqlite", "path": str(tmp_path / "evil.sqlite")}
    with batuta_sql.connect({"sources": {"odd": source}}) as connection:
        sql = f"""SELECT "{quoted}" AS "{quoted}", '{evil}' FROM odd."{quoted}" """
        browser = opened(connection.analyze(sql).to_html())
    assert browser.execute_script("return window.hit") is None
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert evil in browser.find_element(By.TAG_NAME, "pre").text
    assert complaints(browser) == []


# --- the tree ----------------------------------------------------------------------------------


def test_each_source_has_a_region_around_what_it_runs(connection: Connection, opened: Open) -> None:
    browser = opened(connection.plan(JOINED).to_html())
    regions = browser.find_elements(By.CSS_SELECTOR, ".region")
    assert len(regions) == 2
    for region in regions:
        source = region.find_element(By.CSS_SELECTOR, ".title").text.removeprefix("runs at ")
        scans = [t for t in region.text.split("\n") if re.match(r"(crm|lake)\.", t)]
        assert scans
        assert all(scan.startswith(f"{source}.") for scan in scans)
    outside = browser.find_elements(By.CSS_SELECTOR, ".operator strong")
    assert {"Sort", "Aggregate", "Join", "Exchange", "Scan"} <= {e.text for e in outside}


@pytest.mark.parametrize("width", [1500, 700])
def test_nothing_lies_over_anything_else(connection: Connection, opened: Open, width: int) -> None:
    browser = opened(connection.analyze(JOINED).to_html())
    browser.set_window_size(width, 900)
    for kind in (".operator", ".region", ".edge"):
        for one, other in combinations(boxes(browser, f".plan {kind}"), 2):
            hidden = one["right"] == one["left"] or other["right"] == other["left"]
            assert hidden or not overlap(one, other)
    # The page itself has no scrollbar to the side; a wide tree has its own.
    widths = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    scrolled, seen = browser.execute_script(widths)
    assert scrolled <= seen


def test_a_tree_fits_where_it_can_be_read(connection: Connection, opened: Open) -> None:
    browser = opened(connection.plan(JOINED).to_html())
    zoom = "return Number(document.querySelector('.plan > ul').style.zoom)"

    def fits(size: Callable[[float], bool]) -> None:
        WebDriverWait(browser, 20).until(lambda seen: size(float(seen.execute_script(zoom))))

    browser.set_window_size(1500, 900)
    fits(lambda found: found == 1)
    browser.set_window_size(500, 900)
    fits(lambda found: 0.6 <= found < 1)
    browser.set_window_size(1500, 900)
    fits(lambda found: found == 1)


def test_edges_tell_what_came_and_what_was_thought(connection: Connection, opened: Open) -> None:
    cursor = connection.execute(JOINED)
    cursor.fetchall()
    assert cursor.plan is not None
    browser = opened(cursor.plan.to_html())
    edges = " ".join(texts(browser, ".edge"))
    for fragment in cursor.plan.fragments:
        assert f"{fragment.rows:,} rows" in edges
    assert re.search(r"about \d+ rows, [\d.]+ k?B", edges)


def test_a_second_reader_of_a_delivery_shows_it_once(connection: Connection, opened: Open) -> None:
    sql = (
        "WITH o AS (SELECT * FROM lake.orders ORDER BY total LIMIT 10)"
        " SELECT * FROM o a JOIN o b ON a.customer = b.customer"
        " JOIN crm.customer c ON c.id = a.total"
    )
    plan = connection.plan(sql)
    browser = opened(plan.to_html())
    names = [f.name for f in plan.fragments]
    assert len(browser.find_elements(By.CSS_SELECTOR, ".region")) == len(names)


def test_what_only_duckdb_reads_has_no_tree(connection: Connection, opened: Open) -> None:
    browser = opened(connection.plan("PIVOT lake.orders ON total USING count(*)").to_html())
    assert browser.find_elements(By.CSS_SELECTOR, ".operator") == []
    assert "the whole statement runs here" in browser.find_element(By.TAG_NAME, "body").text
    assert complaints(browser) == []


# --- labels ------------------------------------------------------------------------------------


def test_a_label_can_be_followed(connection: Connection, opened: Open) -> None:
    browser = opened(connection.plan(JOINED).to_html())
    button = browser.find_element(By.XPATH, "//button[text()='pii']")
    button.click()
    followed = texts(browser, ".operator.followed")
    assert followed
    assert all("pii" in t for t in followed)
    faded = texts(browser, ".operator:not(.followed)")
    assert any("lake.orders" in t for t in faded)
    assert not any("pii" in t for t in faded)
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert texts(browser, ".operator.followed") == []


def test_values_and_choices_of_rows_look_different(connection: Connection, opened: Open) -> None:
    sql = "SELECT o.total FROM lake.orders o JOIN crm.customer c ON c.id = o.customer"
    browser = opened(connection.plan(f"{sql} WHERE c.name > 'n2'").to_html())
    top = browser.find_element(By.CSS_SELECTOR, ".plan > ul > li > .operator")
    kinds = {
        chip.text: (chip.get_attribute("class") or "").split()[-1]
        for chip in top.find_elements(By.CSS_SELECTOR, ".chip")
    }
    assert kinds == {"origin:internal": "direct", "pii": "indirect"}
    labels = browser.find_element(By.XPATH, "//h2[text()='Labels of the result']/following::table")
    assert "total" in labels.text


# --- cost and times ----------------------------------------------------------------------------


def test_the_estimate_is_that_of_the_connection(connection: Connection, opened: Open) -> None:
    from batuta_sql.guards.cost import amount

    browser = opened(connection.plan(JOINED).to_html())
    told = browser.find_element(By.XPATH, "//h2[text()='Estimate']/following::table").text
    for part in connection.estimate(JOINED).fragments:
        assert amount(part) in told
    assert "Fetches over time" not in browser.find_element(By.TAG_NAME, "body").text


def test_fetches_are_drawn_over_time(connection: Connection, opened: Open) -> None:
    plan = connection.analyze(JOINED)
    browser = opened(plan.to_html())
    tracks = boxes(browser, ".track")
    assert len(tracks) == len(plan.fragments) == 2
    for bar in boxes(browser, ".bar"):
        assert bar["left"] >= tracks[0]["left"] - 0.5
        # The shortest bar is still to be seen.
        assert bar["right"] <= tracks[0]["right"] + 3.5
    told = " ".join(texts(browser, ".times > div"))
    for fragment in plan.fragments:
        assert f"{fragment.name} at {fragment.source}" in told
        assert f"{fragment.rows:,} rows" in told


def test_it_can_be_read_in_the_dark(connection: Connection, opened: Open) -> None:
    browser = opened(connection.plan(JOINED).to_html())
    for theme, is_dark in (("dark", True), ("light", False)):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": theme}]},
        )
        script = "return getComputedStyle(document.body)"
        paper = browser.execute_script(f"{script}.backgroundColor")
        ink = browser.execute_script(f"{script}.color")
        assert (_light(paper) < 0.3, _light(ink) > 0.7) == (is_dark, is_dark)


def _light(colour: str) -> float:
    red, green, blue = map(int, re.findall(r"\d+", colour)[:3])
    return (red + green + blue) / 765
