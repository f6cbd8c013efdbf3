"""Every rule of ``plan/types.py`` against DuckDB's own ``typeof``, over a grid of types."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_sql.plan import types

INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
WIDTHS = (1, 2, 4, 5, 9, 10, 17, 18, 19, 20, 37, 38)
DECIMALS = tuple(
    f"DECIMAL({width},{scale})"
    for width in WIDTHS
    for scale in sorted({0, 1, width // 2, width - 1, width})
    if scale <= width
)
EXACT = INTEGERS + DECIMALS
OTHERS = ("FLOAT", "DOUBLE", "VARCHAR", "DATE", "BOOLEAN", "TIMESTAMP WITH TIME ZONE", "INTEGER[]")


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        for number, type_ in enumerate(EXACT):
            con.execute(f"CREATE TABLE c{number}(v {type_})")
        yield con


def typeof(engine: duckdb.DuckDBPyConnection, expression: str, a: str, b: str) -> str | None:
    """DuckDB's type of an expression over columns ``x`` of type a and ``y`` of type b."""
    left, right = EXACT.index(a), EXACT.index(b)
    sql = f"SELECT {expression} FROM (SELECT v AS x FROM c{left}), (SELECT v AS y FROM c{right})"
    try:
        return str(engine.sql(sql).types[0])
    except duckdb.Error:
        return None


@pytest.mark.parametrize(
    ("expression", "rule"),
    [
        ("x + y", types.sum_of),
        ("x - y", types.sum_of),
        ("x * y", types.product_of),
        ("CASE WHEN random() < 2 THEN x ELSE y END", types.wider_exact),
        ("COALESCE(x, y)", types.wider_exact),
    ],
)
def test_the_type_of_two_exact_numbers(
    engine: duckdb.DuckDBPyConnection,
    expression: str,
    rule: Callable[[str, str], str | None],
) -> None:
    """A rule may not know (None: it stays local), but what it says is what DuckDB says."""
    wrong: list[str] = []
    unknown: list[str] = []
    for a in EXACT:
        for b in EXACT:
            said = rule(a, b)
            if said is None:
                unknown.append(f"{a} and {b}")
            elif said != typeof(engine, expression, a, b):
                wrong.append(f"{a} and {b}: {said}, DuckDB {typeof(engine, expression, a, b)}")
    assert not wrong, f"{len(wrong)} of {len(EXACT) ** 2}: " + "; ".join(wrong[:20])
    assert not [u for u in unknown if not _at_the_end_of_exactness(*u.split(" and "))]


def _at_the_end_of_exactness(a: str, b: str) -> bool:
    """HUGEINT has no decimal of its size, and wide decimals may not fit into 38 digits."""
    widths = [types.as_decimal(t) for t in (a, b)]
    return any(w is None or w[0] > 18 for w in widths)


def test_a_union_has_the_wider_type(engine: duckdb.DuckDBPyConnection) -> None:
    for a in EXACT:
        for b in EXACT:
            said = types.wider_exact(a, b)
            left, right = EXACT.index(a), EXACT.index(b)
            known = engine.sql(f"SELECT v FROM c{left} UNION ALL SELECT v FROM c{right}").types[0]
            assert said is None or said == str(known), f"{a} and {b}"


@given(
    st.one_of(
        st.from_regex(r"[0-9]{1,45}", fullmatch=True),
        st.from_regex(r"[0-9]{0,40}\.[0-9]{0,40}", fullmatch=True),
        st.sampled_from(
            [str(2**bits + step) for bits in (7, 15, 31, 63, 127, 128) for step in (-1, 0, 1)]
        ),
        st.sampled_from(["1e5", "0", "00", "1.", ".5", ".", "0.0", "1_000", "007", "-1", ""]),
    )
)
def test_the_type_of_a_literal(text: str) -> None:
    said = types.literal_type(text)
    if said is not None:
        assert said == str(duckdb.sql(f"SELECT {text}").types[0])


def test_plain_literals_are_known() -> None:
    known = {"0": "INTEGER", "2147483648": "BIGINT", "1.50": "DECIMAL(3,2)", ".5": "DECIMAL(1,1)"}
    assert {text: types.literal_type(text) for text in known} == known


@given(
    st.sampled_from(INTEGERS),
    st.one_of(
        st.integers(-(2**127) - 2, 2**127 + 2),
        st.sampled_from(
            [
                sign * 2**bits + step
                for bits in (7, 15, 31, 63)
                for sign in (1, -1)
                for step in (-1, 0, 1)
            ]
        ),
    ),
)
def test_which_integers_fit(type_: str, value: int) -> None:
    try:
        duckdb.sql(f"SELECT CAST('{value}' AS {type_})").fetchall()
        fits = True
    except duckdb.ConversionException:
        fits = False
    assert types.integer_fits(value, type_) == fits


@pytest.mark.parametrize("type_", EXACT + OTHERS)
def test_what_kind_of_type_it_is(type_: str) -> None:
    assert types.is_integer(type_) == (type_ in INTEGERS)
    assert types.is_exact(type_) == (type_ in EXACT)
    assert types.is_float(type_) == (type_ in ("FLOAT", "DOUBLE"))
    assert (types.decimal_parts(type_) is not None) == (type_ in DECIMALS)


@pytest.mark.parametrize("type_", INTEGERS[:-1])
def test_the_digits_of_an_integer(engine: duckdb.DuckDBPyConnection, type_: str) -> None:
    """Beside DECIMAL(38,0), which decides nothing, and beside DECIMAL(1,0), which shows them."""
    width = types.INTEGER_WIDTHS[type_]
    assert types.as_decimal(type_) == (width, 0)
    assert typeof(engine, "COALESCE(x, y)", type_, "DECIMAL(1,0)") == f"DECIMAL({width},0)"


@given(st.integers(1, 38), st.data())
def test_the_parts_of_a_decimal(width: int, data: st.DataObject) -> None:
    scale = data.draw(st.integers(0, width))
    assert types.decimal_parts(f"DECIMAL({width},{scale})") == (width, scale)
    assert types.decimal_parts(f"DECIMAL({width}, {scale})") == (width, scale)
    assert types.decimal_parts(f"DECIMAL({width},{scale})[]") is None
