"""The prompt: several lines, colours, what may follow, what was typed before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.enums import DEFAULT_BUFFER, EditingMode
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

from batuta_sql.shell import commands
from batuta_sql.shell.completion import CommandNames, SqlCompleter
from batuta_sql.shell.reading import is_complete

if TYPE_CHECKING:
    from batuta_sql.shell.shell import Shell

_FIRST, _NEXT = "batuta> ", "   ...> "


class Prompt:
    """Asks a person for a text of whole statements."""

    def __init__(self, shell: Shell) -> None:
        preferences = shell.preferences
        known = CommandNames(
            {name: c.about for name, c in commands.COMMANDS.items()},
            lambda name: commands.arguments(shell, name),
        )
        is_plain = shell.screen.is_dumb
        vi = preferences.editing == "vi"
        self._session: PromptSession[str] = PromptSession(
            _FIRST,
            multiline=Condition(lambda: not is_plain),
            prompt_continuation=_NEXT,
            lexer=PygmentsLexer(SqlLexer) if shell.screen.colour else None,
            completer=SqlCompleter(shell.names, known),
            complete_while_typing=True,
            auto_suggest=AutoSuggestFromHistory(),
            history=_history(preferences.history),
            key_bindings=_keys(),
            editing_mode=EditingMode.VI if vi else EditingMode.EMACS,
            enable_open_in_editor=True,
            mouse_support=False,
        )
        self._is_plain = is_plain

    def read(self, draft: str = "") -> str:
        """The next text.

        :param draft: what it begins with.
        :raises KeyboardInterrupt: on Ctrl-C.
        :raises EOFError: on Ctrl-D.
        """
        if not self._is_plain:
            return self._session.prompt(default=draft)
        lines = [draft] if draft else []
        while not lines or not is_complete("\n".join(lines)):
            lines.append(self._session.prompt(_NEXT if lines else _FIRST))
        return "\n".join(lines)


def _keys() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter", filter=has_focus(DEFAULT_BUFFER))
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        state = buffer.complete_state
        if state is not None and state.current_completion is not None:
            # Enter takes what was chosen; the next one runs.
            buffer.complete_state = None
        elif is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    @bindings.add("escape", "enter", filter=has_focus(DEFAULT_BUFFER))
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    return bindings


def _history(is_kept: bool) -> History:
    if not is_kept:
        return InMemoryHistory()
    folder = Path(platformdirs.user_data_dir("batuta-sql", appauthor=False))
    file = folder / "shell_history"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # What was asked is nobody else's business.
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(file))
