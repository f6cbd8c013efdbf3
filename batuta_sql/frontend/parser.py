"""Text -> statements, with errors that point at the place."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any, Self

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from batuta_sql.errors import Position, ProgrammingError
from batuta_sql.frontend.fidelity import Tree, duckdb_tree, item_names, same_query
from batuta_sql.frontend.time_travel import in_duckdb_words

PIVOT = "PIVOT"
"""Why a PIVOT has no tree: DuckDB makes several statements of it, the first for its values."""


@dataclass(frozen=True)
class Statement:
    """One statement.

    :param sql: its own text.
    :param kind: ``query`` or DuckDB's name of the statement type (``CREATE``, ``SET``, ...).
    :param tree: sqlglot's tree; None where only DuckDB's parser reads the statement, or where
        sqlglot's tree does not say the same as the text.
    :param reason: why there is no tree.
    """

    sql: str
    kind: str
    tree: exp.Expr | None
    reason: str | None = None


_SURROGATE = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes that are no UTF-8, and of no character at all."""


def parse(sql: str, engine: duckdb.DuckDBPyConnection) -> list[Statement]:
    """The statements of ``sql``, each checked by DuckDB's own parser.

    :raises ProgrammingError: for a syntax error, with the line and a caret, and for a text with
        parts that are no characters.
    """
    if not_text := _SURROGATE.search(sql):
        line = sql.count("\n", 0, not_text.start()) + 1
        raise ProgrammingError(
            f"the SQL has bytes that are no UTF-8, in line {line}", hint="save the text as UTF-8"
        )
    sql = in_duckdb_words(sql)
    try:
        parts = engine.extract_statements(sql)
    except duckdb.Error as error:
        raise syntax_error(sql, str(error)) from None
    return [
        _statement(part.query.strip().rstrip(";").strip(), part.type.name, engine) for part in parts
    ]


def _statement(sql: str, kind: str, engine: duckdb.DuckDBPyConnection) -> Statement:
    if kind == "MULTI" and re.match(r"(from|pivot|unpivot|with|select|\()", sql, re.IGNORECASE):
        return Statement(sql, "query", None, PIVOT)
    if kind != "SELECT":
        return Statement(sql, kind, None)
    tree, reason = _faithful_tree(sql, engine)
    return Statement(sql, "query", tree, reason)


def _faithful_tree(
    sql: str, engine: duckdb.DuckDBPyConnection
) -> tuple[exp.Expr | None, str | None]:
    """sqlglot's tree, if DuckDB reads the same query from it as from the text."""
    try:
        tree = sqlglot.parse_one(sql, read="duckdb")
        again = tree.sql("duckdb")
    except SqlglotError:
        return None, "sqlglot does not read it"
    original, written = duckdb_tree(sql, engine), duckdb_tree(again, engine)
    if original is None or written is None or not same_query(original, written):
        return None, "sqlglot reads it in another sense than DuckDB"
    if not all(_pinned(table) for table in tree.find_all(exp.Table) if table.args.get("when")):
        return None, "AT with a value that is not written out, or of a table without a source"
    if any(_takes_parameters(bracket) for bracket in tree.find_all(exp.Bracket)):
        # sqlglot counts constants there from 0, and what it knows not to be constant as it stands.
        return None, "a parameter as an index"
    _name_outputs(tree, original, engine)
    _number_parameters(tree)
    for node in tree.find_all(exp.Identifier, exp.Literal):
        if node._meta is not None:
            node._meta = _Place(node._meta)
    return tree, None


def _takes_parameters(bracket: exp.Bracket) -> bool:
    """Whether an index, or an end of a slice, has a parameter in it."""
    return any(e.find(exp.Placeholder, exp.Parameter) for e in bracket.expressions)


def _number_parameters(tree: exp.Expr) -> None:
    """Gives each ``?`` its number: which it is in the text, from 1.

    What is bound first need not be written first. The text that is made of the tree has them in
    the order of the original: DuckDB reads the same query from both, parameters included.
    """
    nodes = [n for n in tree.find_all(exp.Placeholder) if n.args.get("this") is None]
    if not nodes:
        return
    mark = f"p{uuid.uuid4().hex}_"
    for number, node in enumerate(nodes):
        node.set("this", f"{mark}{number}")
    written = re.findall(rf"\${mark}(\d+)", tree.sql("duckdb"))
    for place, number in enumerate(written, 1):
        nodes[int(number)].set("this", str(place))


class _Place(dict[str, Any]):
    """Where a name or a constant stands in the text: one for all copies of it.

    Copying it with each of them took longer than copying the rest of the tree.
    """

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _pinned(table: exp.Table) -> bool:
    """Makes ``t AT (VERSION => 3)`` the table ``t@v3``, and of a name or moment ``t@name``.

    https://duckdb.org/docs/stable/sql/query_syntax/from
    """
    when: exp.Expr = table.args["when"]
    value: exp.Expr = when.expression
    name = table.parts[-1]
    if isinstance(value, exp.Cast):
        value = value.this
    if not isinstance(value, exp.Literal) or not isinstance(name, exp.Identifier) or not table.db:
        return False
    if table.args.get("alias") is None:
        shown = exp.to_identifier(name.name, quoted=True)
        table.set("alias", exp.TableAlias(this=shown))
    whole = when.text("kind").upper() == "VERSION" and value.name.isdigit()
    name.set("this", f"{name.name}@v{value.name}" if whole else f"{name.name}@{value.name}")
    name.set("quoted", True)
    table.set("when", None)
    return True


def _name_outputs(tree: exp.Expr, original: Tree, engine: duckdb.DuckDBPyConnection) -> None:
    """Gives each unnamed SELECT item of the outermost block the name DuckDB gives it."""
    if not isinstance(tree, exp.Select):
        return
    unnamed = [
        i
        for i, item in enumerate(tree.expressions)
        if not isinstance(item, exp.Alias | exp.Column | exp.Star)
    ]
    if not unnamed:
        return
    for place, name in zip(unnamed, item_names(original, unnamed, engine), strict=True):
        if name is not None:
            tree.expressions[place].meta["duckdb_name"] = name


def syntax_error(sql: str, message: str) -> ProgrammingError:
    """DuckDB's parser error with a caret of our own."""
    first = message.splitlines()[0].removeprefix("Parser Error: ")
    position = None
    match = re.search(r"^LINE (\d+): (.*)\n( *)\^", message, re.MULTILINE)
    if match:
        line, shown, spaces = int(match[1]), match[2], len(match[3])
        column = spaces - len(f"LINE {line}: ") + 1
        lines = sql.splitlines() or [""]
        text = lines[min(line, len(lines)) - 1]
        if shown.startswith("..."):
            visible = shown.strip(".")[:20]
            column += max(text.find(visible), 0) - 3
        position = Position(line, max(column, 1))
    return ProgrammingError(first, sql=sql, position=position, hint=None)
