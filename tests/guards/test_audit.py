"""The audit log: what was taken out, changed or put in shows."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from batuta_sql import OperationalError
from batuta_sql.guards.audit import AuditLog


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog(tmp_path / "data" / "audit.jsonl")
    for number in range(4):
        log.append([{"event": "declassify", "column": f"c{number}"}])
    return log


def rewrite(log: AuditLog, lines: list[str]) -> None:
    log.path.write_text("".join(f"{line}\n" for line in lines))


def test_a_log_as_it_was_written_is_sound(log: AuditLog) -> None:
    verdict = log.verify()
    assert (verdict.lines, verdict.fault) == (4, None)
    events = log.read(verdict.lines)
    assert [e["column"] for e in events] == ["c0", "c1", "c2", "c3"]
    assert [e["number"] for e in events] == [1, 2, 3, 4]
    assert all(e["user"] and e["time"] for e in events)


def test_the_log_is_for_its_owner_alone(log: AuditLog) -> None:
    assert log.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_a_removed_line_shows(log: AuditLog, gone: int) -> None:
    lines = log.path.read_text().splitlines()
    rewrite(log, lines[:gone] + lines[gone + 1 :])
    assert log.verify().fault is not None
    # And goes on to show when more has been written.
    log.append([{"event": "declassify", "column": "later"}])
    assert log.verify().fault is not None


def test_a_changed_line_shows(log: AuditLog) -> None:
    lines = log.path.read_text().splitlines()
    rewrite(log, [lines[0], lines[1].replace('"c1"', '"c9"'), *lines[2:]])
    assert log.verify().fault == "line 2: was changed"


def test_lines_that_change_places_show(log: AuditLog) -> None:
    lines = log.path.read_text().splitlines()
    rewrite(log, [lines[1], lines[0], *lines[2:]])
    assert log.verify().fault == "line 1: does not follow the line before it"


def test_a_line_put_in_shows(log: AuditLog) -> None:
    lines = log.path.read_text().splitlines()
    rewrite(log, [*lines[:2], json.dumps({"event": "x"}), *lines[2:]])
    assert log.verify().fault == "line 3: is not a line of this log"


@pytest.mark.parametrize("name", ["audit.jsonl", "audit.jsonl.head"])
def test_a_file_that_is_gone_shows(log: AuditLog, name: str) -> None:
    (log.path.parent / name).unlink()
    assert log.verify().fault is not None


def test_a_log_that_was_begun_anew_beside_its_old_head_shows(log: AuditLog) -> None:
    log.path.unlink()
    log.append([{"event": "declassify", "column": "new"}])
    assert log.verify().fault is not None


def test_a_process_that_died_before_the_head_was_written_is_no_fault(log: AuditLog) -> None:
    head = log.path.with_name("audit.jsonl.head")
    before = head.read_text()
    log.append([{"event": "declassify", "column": "c4"}])
    head.write_text(before)
    assert log.verify().fault is None
    log.append([{"event": "declassify", "column": "c5"}])
    assert (log.verify().lines, log.verify().fault) == (6, None)


def test_no_log_is_no_fault(tmp_path: Path) -> None:
    verdict = AuditLog(tmp_path / "none").verify()
    assert (verdict.lines, verdict.fault) == (0, None)


def _write(path: Path) -> None:
    for number in range(20):
        AuditLog(path).append([{"event": "mixed", "column": str(number)}])


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    verdict = AuditLog(path).verify()
    assert (verdict.lines, verdict.fault) == (60, None)


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperationalError, match="audit log .* cannot be written"):
        AuditLog(tmp_path / "file" / "audit.jsonl").append([{"event": "mixed"}])
