"""The filter as a pure function, for both architectures, against what it has to answer."""

from __future__ import annotations

import ctypes

import pytest

from batuta_sql.guards.egress.bpf_filter import assemble
from batuta_sql.guards.egress.rules import LOCKED, SEALED, Rule
from batuta_sql.guards.egress.syscalls import AARCH64, X86_64, Architecture
from tests.guards.egress.specification import NUMBERS, violations

MACHINES = pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=lambda m: m.machine)
FORMS = pytest.mark.parametrize("rules", [SEALED, LOCKED], ids=["sealed", "locked"])


@MACHINES
@FORMS
def test_every_call_gets_its_answer(machine: Architecture, rules: tuple[Rule, ...]) -> None:
    assert violations(assemble(rules, machine), machine, sealed=rules is SEALED) == []


@MACHINES
def test_the_numbers_are_those_of_the_kernel(machine: Architecture) -> None:
    at = 0 if machine is X86_64 else 1
    for name, number in machine.numbers.items():
        if name in NUMBERS:
            assert number == NUMBERS[name][at], name


@MACHINES
@FORMS
def test_the_kernel_takes_programs_of_this_size(
    machine: Architecture, rules: tuple[Rule, ...]
) -> None:
    """BPF_MAXINSNS is 4096."""
    program = assemble(rules, machine)
    assert len(program) % 8 == 0
    assert len(program) // 8 <= 4096


def test_names_of_rules_are_unique() -> None:
    names = [rule.name for rule in SEALED]
    assert len(names) == len(set(names))


def test_this_machine_is_little_endian() -> None:
    """The low word of an argument is looked for first."""
    assert ctypes.c_uint32.from_buffer_copy(b"\1\0\0\0").value == 1
