"""Where statements end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_sql.shell.reading import Typed, is_blank, is_complete, parameters, statements


def sql(*texts: str) -> list[Typed]:
    return [Typed("sql", t) for t in texts]


@pytest.mark.parametrize(
    ("text", "expected", "left"),
    [
        ("SELECT 1;", sql("SELECT 1"), ""),
        ("SELECT 1; SELECT 2;\n", sql("SELECT 1", "SELECT 2"), ""),
        ("SELECT 1; SELECT", sql("SELECT 1"), " SELECT"),
        ("SELECT ';';", sql("SELECT ';'"), ""),
        ("SELECT 'it''s;';", sql("SELECT 'it''s;'"), ""),
        ("SELECT e'\\';';", sql("SELECT e'\\';'"), ""),
        ('SELECT "a;b";', sql('SELECT "a;b"'), ""),
        ("SELECT $$a;b$$;", sql("SELECT $$a;b$$"), ""),
        ("SELECT $x$a;$$;b$x$;", sql("SELECT $x$a;$$;b$x$"), ""),
        ("SELECT 1 -- no; end\n;", sql("SELECT 1 -- no; end"), ""),
        ("SELECT 1 /* ; */;", sql("SELECT 1 /* ; */"), ""),
        ("SELECT $1;", sql("SELECT $1"), ""),
        ("SELECT 'open;", [], "SELECT 'open;"),
        ('SELECT "open;', [], 'SELECT "open;'),
        ("SELECT $$open;", [], "SELECT $$open;"),
        ("SELECT 1 /* open;", [], "SELECT 1 /* open;"),
        (";;;", [], ""),
        ("-- only a comment\n", [], ""),
        (".tables", [Typed("command", ".tables")], ""),
        (".tables\nSELECT 1;", [Typed("command", ".tables"), *sql("SELECT 1")], ""),
        ("SELECT 1; .tables x;y", [*sql("SELECT 1"), Typed("command", ".tables x;y")], ""),
        ("\\dt", [Typed("command", "\\dt")], ""),
        ("SELECT\n.5;", sql("SELECT\n.5"), ""),
    ],
)
def test_statements(text: str, expected: list[Typed], left: str) -> None:
    assert statements(text) == (expected, left)


def test_enter_runs_what_is_complete() -> None:
    assert is_complete("SELECT 1;")
    assert is_complete(".help")
    assert is_complete("  ")
    assert not is_complete("SELECT 1")
    assert not is_complete("SELECT ';")


@given(st.text(alphabet="ab;'\"$-/*\n .\\e", max_size=40))
def test_nothing_of_a_text_is_lost(text: str) -> None:
    """But what ends statements, spaces and comments by themselves."""
    found, left = statements(text)
    rest = text
    for one in found:
        before, _, rest = rest.partition(one.text)
        assert is_blank(before.replace(";", " ")) or "--" in before or "/*" in before
    assert rest.endswith(left)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("SELECT $a, $b + $a", {"a": 7, "b": 11}),
        ("SELECT $a::INT,$größe", {"a": 7, "größe": 15}),
        ("SELECT '$a', \"$b\", e'\\'$c', $$ $d $$, $e1$ $f $e1$", {}),
        ("SELECT 1 -- $a\n, $b /* $c */", {"b": 17}),
        ("SELECT $1, ?, a$b, $", {}),
        ("SELECT 'open $a", {}),
    ],
)
def test_parameters(text: str, names: dict[str, int]) -> None:
    assert parameters(text) == names
