"""Whether sqlglot's tree says what the user's text says, in DuckDB's own reading of both.

sqlglot rewrites while it parses, and now and then into something else (``a !~ 'x'``, SIMILAR TO).
DuckDB serialises any SELECT as a JSON tree; the tree of the text and the tree of what sqlglot
would write must be equal, up to spellings that DuckDB itself calls aliases. Where they differ the
text is left alone and runs through the fallback.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import duckdb

Tree = Any


def duckdb_tree(sql: str, engine: duckdb.DuckDBPyConnection) -> Tree | None:
    """DuckDB's tree of a SELECT; None where DuckDB cannot serialise it."""
    try:
        row = engine.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    except duckdb.Error:
        return None
    tree = json.loads(row[0]) if row is not None else {"error": True}
    return None if tree.get("error") else tree


def same_query(one: Tree, other: Tree) -> bool:
    """Whether two trees say the same, up to what makes no difference."""
    return bool(_normal(one["statements"]) == _normal(other["statements"]))


def item_names(
    tree: Tree, places: Sequence[int], engine: duckdb.DuckDBPyConnection
) -> list[str | None]:
    """The names DuckDB gives the SELECT items at ``places`` of the outermost block."""
    items = tree["statements"][0]["node"].get("select_list") or []
    template = duckdb_tree("SELECT 1", engine)
    names: list[str | None] = []
    for place in places:
        names.append(None)
        if template is None or place >= len(items):
            continue
        template["statements"][0]["node"]["select_list"] = [items[place]]
        try:
            row = engine.execute(
                "SELECT json_deserialize_sql(?::JSON)", [json.dumps(template)]
            ).fetchone()
        except duckdb.Error:
            continue
        if row is not None and row[0]:
            names[-1] = row[0].removeprefix("SELECT ")
    return names


def _normal(node: Tree) -> Tree:
    if isinstance(node, list):
        return [_normal(n) for n in node]
    if not isinstance(node, dict):
        return node
    result = {k: _normal(v) for k, v in node.items() if "location" not in k}
    match result.get("type"):
        case "FUNCTION":
            return _normal_function(result)
        case "TYPE":
            return _normal_type(result)
        case "OPERATOR_NOT":
            return _normal_not(result)
    if "null_order" in result:
        # What DuckDB does when nothing is said.
        if result["null_order"] in ("ORDER_DEFAULT", "NULLS LAST"):
            result["null_order"] = "NULLS LAST"
        if result.get("type") in ("ORDER_DEFAULT", "ASCENDING"):
            result["type"] = "ASCENDING"
    return result


def _normal_not(node: dict[str, Tree]) -> Tree:
    children = node.get("children") or []
    if len(children) == 1:
        child = children[0]
        name = child.get("function_name") if isinstance(child, dict) else None
        if child.get("type") == "FUNCTION" and name in _NEGATIONS:
            opposite = _NEGATIONS[name]
            return dict(
                child, function_name=opposite, qualified_name=opposite, alias=node.get("alias", "")
            )
        if child.get("type") == "OPERATOR_IS_NULL":
            return dict(child, type="OPERATOR_IS_NOT_NULL", alias=node.get("alias", ""))
    return node


_NEGATIONS = {
    "~~": "!~~",
    "~~*": "!~~*",
    "like_escape": "not_like_escape",
    "ilike_escape": "not_ilike_escape",
}

_DATE_PART_FUNCTIONS = frozenset({"date_part", "date_trunc", "date_diff", "date_sub"})

_DATE_PARTS = {"dayofweek": "dow", "weekday": "dow", "dayofyear": "doy"}
"""DuckDB's other names of date parts: https://duckdb.org/docs/stable/sql/functions/datepart"""


def _normal_function(node: dict[str, Tree]) -> Tree:
    name = str(node.get("function_name", "")).lower()
    name = function_aliases().get(name, name)
    node["function_name"] = name
    path = (node.get("qualified_name") or {}).get("path") or []
    node["qualified_name"] = ".".join([*[p.lower() for p in path[:-1]], name])
    node.pop("is_operator", None)
    arguments = [a.get("expression") for a in node.get("arguments") or [] if isinstance(a, dict)]
    if name in _DATE_PART_FUNCTIONS and arguments:
        literal = (arguments[0] or {}).get("literal")
        if isinstance(literal, dict) and literal.get("kind") == "STRING":
            part = literal["text"].lower()
            literal["text"] = _DATE_PARTS.get(part, part)
    if name.startswith("to_") and len(arguments) == 1:
        amount = _whole_number(arguments[0])
        if amount is not None:
            node["arguments"] = [amount]
    return node


def _whole_number(node: Tree) -> int | None:
    """The amount of an interval, written as ``3`` or ``'3'`` and cast by DuckDB's parser."""
    while isinstance(node, dict):
        if node.get("class") == "CAST":
            node = node.get("child")
        elif node.get("function_name") == "trunc" and len(node.get("arguments") or ()) == 1:
            node = node["arguments"][0].get("expression")
        elif node.get("class") == "CONSTANT":
            text = str((node.get("literal") or {}).get("text", ""))
            return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None
        else:
            return None
    return None


def _normal_type(node: dict[str, Tree]) -> Tree:
    name = str(node.get("type_name", "")).upper()
    node["type_name"] = _type_aliases().get(name, name)
    node.pop("qualified_name", None)
    return node


@lru_cache(maxsize=1)
def function_aliases() -> dict[str, str]:
    """DuckDB's function names that mean another one (``substr``: ``substring``)."""
    with duckdb.connect(":memory:") as connection:
        rows = connection.execute(
            "SELECT DISTINCT lower(function_name), lower(alias_of) FROM duckdb_functions()"
            " WHERE alias_of IS NOT NULL AND alias_of != ''"
        ).fetchall()
    return dict(rows)


@lru_cache(maxsize=1)
def _type_aliases() -> dict[str, str]:
    with duckdb.connect(":memory:") as connection:
        rows = connection.execute(
            "SELECT DISTINCT upper(type_name), upper(logical_type) FROM duckdb_types()"
            " WHERE database_name = 'system'"
        ).fetchall()
    known = dict(rows)
    known |= {"TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE", "TEXT": "VARCHAR", "REAL": "FLOAT"}
    return known
