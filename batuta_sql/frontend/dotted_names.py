"""Dotted names in a text that nobody but DuckDB reads."""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import tokenize
from sqlglot.tokenizer_core import TokenType

from batuta_sql.engines.duckdb import quote


def dotted_names(sql: str) -> set[tuple[str, ...]]:
    """Every name in a text, dotted or not: a superset of its tables."""
    found: set[tuple[str, ...]] = set()
    name: list[str] = []
    after_dot = False

    def end() -> None:
        found.update(tuple(name[:n]) for n in range(1, min(len(name), 4) + 1))
        name.clear()

    for token in tokenize(sql, read="duckdb"):
        if token.token_type == TokenType.DOT:
            after_dot = bool(name)
            continue
        if not after_dot:
            end()
        if token.token_type != TokenType.STRING and (
            token.token_type == TokenType.IDENTIFIER or token.text.isidentifier()
        ):
            name.append(token.text)
        else:
            end()
        after_dot = False
    end()
    return found


def with_names(sql: str, names: Mapping[tuple[str, ...], tuple[str, ...]]) -> str:
    """``sql`` with each dotted name that is in ``names`` replaced."""
    if not names:
        return sql
    tokens = tokenize(sql, read="duckdb")
    pieces: list[str] = []
    done = at = 0
    while at < len(tokens):
        # A name of n parts is 2n - 1 tokens.
        for parts, exposed in names.items():
            run = tokens[at : at + 2 * len(parts) - 1]
            dots = all(t.token_type == TokenType.DOT for t in run[1::2])
            if dots and tuple(t.text for t in run[::2]) == parts:
                pieces += [sql[done : run[0].start], ".".join(quote(p) for p in exposed)]
                done, at = run[-1].end + 1, at + len(run) - 1
                break
        at += 1
    return "".join([*pieces, sql[done:]])
