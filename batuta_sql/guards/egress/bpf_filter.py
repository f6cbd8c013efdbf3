"""Assembles the rules into a seccomp program: classic BPF over ``struct seccomp_data``.

https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html
An instruction is 8 bytes: u16 code, u8 jump if true, u8 jump if false, u32 k.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from batuta_sql.guards.egress.rules import ABSENT, ALLOW, KILL_PROCESS, AnyBit, OneOf, Rule
from batuta_sql.guards.egress.syscalls import LAST_KNOWN, Architecture

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUAL, _GREATER, _ANY_BIT = 0x15, 0x25, 0x45

_NUMBER, _ARCHITECTURE = 0, 4
"""Offsets in ``struct seccomp_data``, in bytes."""


@dataclass(frozen=True)
class Entry:
    """Which entries into the kernel the program lets through at all.

    :param own_architecture: kills a call by another one's numbers (``int 0x80``).
    :param known_numbers: ENOSYS for numbers above the table's, x32's among them.
    """

    own_architecture: bool = True
    known_numbers: bool = True


def assemble(rules: Iterable[Rule], machine: Architecture, entry: Entry | None = None) -> bytes:
    """The program for these rules. ``entry`` is for tests; by default both checks are made."""
    entry = entry or Entry()
    program: list[tuple[int, int, int, int]] = []
    if entry.own_architecture:
        program += [_load(_ARCHITECTURE), (_EQUAL, 1, 0, machine.audit), _return(KILL_PROCESS)]
    if entry.known_numbers:
        program += [_load(_NUMBER), (_GREATER, 0, 1, LAST_KNOWN), _return(ABSENT)]
    for rule in rules:
        program += _block(rule, machine)
    program.append(_return(ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _block(rule: Rule, machine: Architecture) -> list[tuple[int, int, int, int]]:
    """Answers, or falls through to what follows it."""
    body = [i for condition in rule.conditions for i in _test(condition)]
    body.append(_return(rule.answer))
    # Where a test fails, its last instruction jumps behind the block.
    length = len(body)
    body = [
        (code, yes, length - at - 1 if no == _BEHIND else no, k)
        for at, (code, yes, no, k) in enumerate(body)
    ]
    numbers = [machine.numbers[call] for call in rule.calls]
    calls = [_load(_NUMBER), *_any_of(numbers, behind=length)]
    return [*calls, *body]


_BEHIND = 0xFF


def _test(condition: OneOf | AnyBit) -> list[tuple[int, int, int, int]]:
    # The low word of a little-endian 64-bit argument.
    load = _load(16 + 8 * condition.argument)
    match condition:
        case AnyBit(mask=mask):
            return [load, (_ANY_BIT, 0, _BEHIND, mask)]
        case OneOf(values=values, mask=mask):
            return [load, (_AND, 0, 0, mask), *_any_of(values, behind=_BEHIND)]


def _any_of(values: Sequence[int], behind: int) -> list[tuple[int, int, int, int]]:
    """Goes on where the accumulator is one of ``values``, else jumps ``behind`` instructions."""
    last = len(values) - 1
    return [
        (_EQUAL, last - at, behind if at == last else 0, value) for at, value in enumerate(values)
    ]


def _load(offset: int) -> tuple[int, int, int, int]:
    return (_LOAD, 0, 0, offset)


def _return(answer: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, answer)
