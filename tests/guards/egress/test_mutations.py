"""Every part of the seal left out, one at a time: a check has to notice.

The filter's mutants run in the simulator, for both architectures. The launcher's run for real, as
every identity, with and without the launcher's own verification: where that is left out too, the
room itself has to show what is missing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest

from batuta_sql.guards.egress.bpf_filter import Entry, assemble
from batuta_sql.guards.egress.construction import STEPS
from batuta_sql.guards.egress.rules import LOCKED, SEALED, AnyBit, OneOf, Rule
from batuta_sql.guards.egress.syscalls import AARCH64, X86_64, Architecture
from tests.guards.egress.conftest import Identity
from tests.guards.egress.outside import Outside
from tests.guards.egress.room import faults_of_room
from tests.guards.egress.specification import violations

# --- the filter --------------------------------------------------------------------------------


def mutants_of_rules(rules: tuple[Rule, ...]) -> Iterator[tuple[str, tuple[Rule, ...]]]:
    """Each rule, call, condition and value left out; each bit of a mask; each answer turned."""
    for at, rule in enumerate(rules):
        before, after = rules[:at], rules[at + 1 :]
        yield f"no {rule.name}", (*before, *after)
        for mutant, what in _mutants_of_rule(rule):
            yield f"{rule.name}: {what}", (*before, mutant, *after)


def _mutants_of_rule(rule: Rule) -> Iterator[tuple[Rule, str]]:
    if len(rule.calls) > 1:
        for call in rule.calls:
            rest = tuple(c for c in rule.calls if c != call)
            yield dataclasses.replace(rule, calls=rest), f"no {call}"
    for at, condition in enumerate(rule.conditions):
        others = rule.conditions[:at], rule.conditions[at + 1 :]
        yield dataclasses.replace(rule, conditions=(*others[0], *others[1])), f"no {condition}"
        for changed in _mutants_of_condition(condition):
            conditions = (*others[0], changed, *others[1])
            yield dataclasses.replace(rule, conditions=conditions), f"{changed}"


def _mutants_of_condition(condition: OneOf | AnyBit) -> Iterator[OneOf | AnyBit]:
    yield dataclasses.replace(condition, argument=condition.argument + 1)
    match condition:
        case OneOf(values=values, mask=mask):
            for value in values if len(values) > 1 else ():
                yield dataclasses.replace(condition, values=tuple(v for v in values if v != value))
            if mask != 0xFFFF_FFFF:
                yield dataclasses.replace(condition, mask=0xFFFF_FFFF)
        case AnyBit(mask=mask):
            for bit in (1 << n for n in range(32) if mask & 1 << n):
                if mask != bit:
                    yield dataclasses.replace(condition, mask=mask & ~bit)


def filter_mutants() -> list[tuple[str, tuple[Rule, ...], Entry, bool]]:
    found = [
        (f"{form}: {name}", mutant, Entry(), form == "sealed")
        for form, rules in (("sealed", SEALED), ("locked", LOCKED))
        for name, mutant in mutants_of_rules(rules)
    ]
    found += [
        ("entry of another architecture", SEALED, Entry(own_architecture=False), True),
        ("unknown numbers", SEALED, Entry(known_numbers=False), True),
    ]
    return found


FILTER_MUTANTS = filter_mutants()


@pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=lambda m: m.machine)
@pytest.mark.parametrize(
    ("rules", "entry", "sealed"),
    [mutant[1:] for mutant in FILTER_MUTANTS],
    ids=[mutant[0] for mutant in FILTER_MUTANTS],
)
def test_a_filter_without_one_part_is_noticed(
    machine: Architecture, rules: tuple[Rule, ...], entry: Entry, sealed: bool
) -> None:
    assert violations(assemble(rules, machine, entry), machine, sealed=sealed)


# --- the launcher ------------------------------------------------------------------------------

LAUNCHER_MUTANTS: list[dict[str, Any]] = [
    *({"steps": [step.__name__]} for step in STEPS),
    *({"steps": [s.__name__, "verify_seal"]} for s in STEPS if s.__name__ != "verify_seal"),
    *({"namespace": kind} for kind in ("user", "net", "mnt")),
    *({"namespace": kind, "steps": ["verify_seal"]} for kind in ("user", "net", "mnt")),
    {"masked": ["/run", "/var/run"], "steps": ["verify_seal"]},
]


def test_the_whole_room_has_no_faults(identity: Identity, outside: Outside) -> None:
    assert list(faults_of_room(identity, outside, {})) == []


@pytest.mark.parametrize("without", LAUNCHER_MUTANTS, ids=json.dumps)
def test_a_room_without_one_part_is_noticed(
    identity: Identity, outside: Outside, without: dict[str, Any]
) -> None:
    assert next(faults_of_room(identity, outside, without), None)
