"""The tables behind a view, from the text of its definition.

Every word of the text that could be a table's name counts: too many tables rather than one too
few, since labels of a table must hold for the views of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from batuta_sql.plan.site import BaseTable
from batuta_sql.source_settings import SourceSettings

_WORD = re.compile(r'"((?:[^"]|"")+)"|\[([^\]]+)\]|`([^`]+)`|(\w+)')


def tables_are_labelled(settings: SourceSettings) -> bool:
    """Whether single tables of a source have labels: only then views have to be looked into."""
    return any(
        t.labels or any(c.labels for c in t.columns.values()) for t in settings.tables.values()
    )


def bases_of_view(
    name: str, definitions: Mapping[str, str], schemas: Iterable[str]
) -> tuple[BaseTable, ...]:
    """What the view called ``name`` may read, through other views too.

    :param definitions: the SQL of each view, by lower-cased name.
    :param schemas: where a table may be: a name stands for one in each.
    """
    reached: dict[str, None] = {}
    waiting = [name.lower()]
    while waiting:
        for word in _words(definitions.get(waiting.pop(), "")):
            if word not in reached:
                reached[word] = None
                waiting.append(word)
    listed = list(schemas)
    return tuple(BaseTable((s, w)) for w in reached for s in listed)


def _words(sql: str) -> set[str]:
    return {next(g for g in m.groups() if g).lower() for m in _WORD.finditer(sql)}
