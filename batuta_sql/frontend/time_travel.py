"""``FOR VERSION AS OF`` in the words that DuckDB's parser reads: ``AT (VERSION => ...)``.

Spark, Trino and Iceberg's own documentation write it so; SQL:2011 has ``FOR SYSTEM_TIME AS OF``.
https://iceberg.apache.org/docs/latest/spark-queries/#time-travel
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlglot import tokenize
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

_HINT = re.compile(r"\bAS\s+OF\b", re.IGNORECASE)
_UNITS = {
    "VERSION": "VERSION",
    "SYSTEM_VERSION": "VERSION",
    "TIMESTAMP": "TIMESTAMP",
    "SYSTEM_TIME": "TIMESTAMP",
}
_TYPES = frozenset({"TIMESTAMP", "TIMESTAMPTZ", "DATE"})
_NO_ALIAS = frozenset({"POSITIONAL", "ASOF", "SEMI", "ANTI"})


def in_duckdb_words(sql: str) -> str:
    """``sql`` with its clauses of time travel as DuckDB writes them, behind the table's alias."""
    if _HINT.search(sql) is None:
        return sql
    try:
        tokens = tokenize(sql, read="duckdb")
    except SqlglotError:
        return sql
    pieces: list[str] = []
    done = at = 0
    while at < len(tokens):
        end = _clause(tokens, at)
        if end is None:
            at += 1
            continue
        unit = _UNITS[tokens[at + 1].text.upper()]
        value = sql[tokens[at + 4].start : tokens[end - 1].end + 1]
        after = _alias(tokens, end)
        alias = sql[tokens[end].start : tokens[after - 1].end + 1] + " " if after > end else ""
        pieces += [sql[done : tokens[at].start], f"{alias}AT ({unit} => {value})"]
        done, at = tokens[after - 1].end + 1, after
    return "".join([*pieces, sql[done:]])


def _clause(tokens: Sequence[Token], at: int) -> int | None:
    """Where the clause that begins at a token ends; None: none begins there."""
    words = [t.text.upper() for t in tokens[at : at + 4]]
    if len(words) < 4 or words[0] != "FOR" or words[1] not in _UNITS or words[2:] != ["AS", "OF"]:
        return None
    end = at + 4
    if end < len(tokens) and tokens[end].text.upper() in _TYPES:
        end += 1
    if end >= len(tokens) or tokens[end].token_type not in (TokenType.NUMBER, TokenType.STRING):
        return None
    return end + 1


def _alias(tokens: Sequence[Token], at: int) -> int:
    """The end of the alias that begins at a token; the same place where none does."""
    start = at
    if at < len(tokens) and tokens[at].token_type == TokenType.ALIAS:
        at += 1
    if at < len(tokens) and tokens[at].token_type in (TokenType.VAR, TokenType.IDENTIFIER):
        return at + 1 if tokens[at].text.upper() not in _NO_ALIAS else start
    return start
