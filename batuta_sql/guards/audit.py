"""The audit log: an append-only file of JSON lines, chained by hashes.

Each line has the SHA-256 of its own content and that of the line before, so that a line that was
changed, removed or put in between shows. A second file beside it, ``.head``, has the number of
lines and the last hash, so that lines removed from the end show too. Whoever can write both files
can forge both: copy the head elsewhere where that matters.
"""

from __future__ import annotations

import datetime
import fcntl
import getpass
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import platformdirs

from batuta_sql.errors import OperationalError

_START = "0" * 64
FILE_NAME = "audit.jsonl"
_MOST_LINE_BYTES = 1 << 16


@dataclass(frozen=True)
class Verdict:
    """What a check of the log found: how many lines are sound, and the first fault."""

    lines: int
    fault: str | None = None


@dataclass(frozen=True)
class AuditLog:
    """The log at ``path``; it is made when it is first written."""

    path: Path

    @classmethod
    def usual(cls, configured: str | None) -> AuditLog:
        """The configured log, or the one in the user's data folder."""
        if configured is not None:
            return cls(Path(configured))
        return cls(Path(platformdirs.user_data_dir("batuta-sql")) / FILE_NAME)

    def append(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Writes events, each with time, user, number and hashes, and waits for the disk.

        :raises OperationalError: where it cannot be written; nothing may then go on.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked() as file:
                number, last = self._end(file)
                file.seek(0, os.SEEK_END)
                for event in events:
                    number += 1
                    line = _line(event, number, last)
                    last = line["hash"]
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
                self._write_head(number, last)
        except OSError as error:
            raise OperationalError(
                f"the audit log {self.path} cannot be written: {error.strerror}",
                hint="what must be on record is not done without it; set labels.audit_log",
            ) from None

    def read(self, lines: int) -> list[dict[str, Any]]:
        """The first ``lines`` events, oldest first: those that ``verify`` found sound."""
        if not lines:
            return []
        with self.path.open(encoding="utf-8") as file:
            return [json.loads(text) for text in itertools.islice(file, lines)]

    def verify(self) -> Verdict:
        """Checks each line, the chain and the head."""
        if not self.path.exists():
            head = self._head()
            return Verdict(0, "the log is gone, its head is not" if head is not None else None)
        last, number = _START, 0
        head = self._head()
        with self.path.open(encoding="utf-8") as file:
            for text in file:
                fault = _fault(text, number + 1, last)
                if fault is not None:
                    return Verdict(number, f"line {number + 1}: {fault}")
                last, number = json.loads(text)["hash"], number + 1
                if head is not None and head[0] == number and head[1] != last:
                    return Verdict(number - 1, f"line {number}: is not the one that the head tells")
        if head is None:
            return Verdict(number, "the head file is gone" if number else None)
        # A head that is behind is that of a process that died between the two.
        if head[0] > number:
            return Verdict(number, f"the head tells of {head[0]} lines, the log has {number}")
        return Verdict(number)

    @property
    def _head_path(self) -> Path:
        return self.path.with_name(self.path.name + ".head")

    @contextmanager
    def _locked(self) -> Iterator[IO[str]]:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _end(self, file: IO[str]) -> tuple[int, str]:
        """Number and hash of the last line, as the head or the log tells: whichever is further.

        After lines were removed from the log the head is, and the gap stays to be seen.
        """
        head = self._head() or (0, _START)
        size = file.seek(0, os.SEEK_END)
        if not size:
            return head
        file.seek(max(0, size - _MOST_LINE_BYTES))
        try:
            line = json.loads(file.read().rstrip("\n").rpartition("\n")[2])
            told = int(line["number"]), str(line["hash"])
        except (ValueError, KeyError, TypeError):
            return head
        return max(head, told, key=lambda end: end[0])

    def _head(self) -> tuple[int, str] | None:
        try:
            number, last = self._head_path.read_text(encoding="utf-8").split()
            return int(number), last
        except (FileNotFoundError, ValueError):
            return None

    def _write_head(self, number: int, last: str) -> None:
        new = self._head_path.with_name(self._head_path.name + ".new")
        new.write_text(f"{number} {last}\n", encoding="utf-8")
        new.chmod(0o600)
        new.replace(self._head_path)


def _line(event: Mapping[str, Any], number: int, previous: str) -> dict[str, Any]:
    content = {
        "number": number,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "user": _user(),
        **event,
        "previous": previous,
    }
    return {**content, "hash": _hash(content)}


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _fault(text: str, number: int, previous: str) -> str | None:
    try:
        line = json.loads(text)
        told = line.pop("hash")
    except (ValueError, KeyError, AttributeError):
        return "is not a line of this log"
    if told != _hash(line):
        return "was changed"
    if line.get("previous") != previous or line.get("number") != number:
        return "does not follow the line before it"
    return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
