"""What a filter has to answer, said apart from the table that it is made of.

Numbers are written out again here, from the kernel's own tables: a slip in the product's table must
not be its own proof.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from batuta_sql.guards.egress.syscalls import Architecture
from tests.guards.egress.simulator import BadProgramError, answer

ALLOW = 0x7FFF_0000
KILL = 0x8000_0000
REFUSE = 0x0005_0000 | errno.EACCES
ABSENT = 0x0005_0000 | errno.ENOSYS

# name: (x86_64, aarch64)
NUMBERS = {
    "read": (0, 63),
    "ioctl": (16, 29),
    "socket": (41, 198),
    "connect": (42, 203),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "bind": (49, 200),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "execve": (59, 221),
    "ptrace": (101, 117),
    "init_module": (175, 105),
    "kexec_load": (246, 104),
    "request_key": (249, 218),
    "unshare": (272, 97),
    "perf_event_open": (298, 241),
    "sendmmsg": (307, 269),
    "setns": (308, 268),
    "process_vm_writev": (311, 271),
    "finit_module": (313, 273),
    "kexec_file_load": (320, 294),
    "bpf": (321, 280),
    "execveat": (322, 281),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "clone3": (435, 435),
    "pidfd_getfd": (438, 438),
    "file_setattr": (469, 469),
}

FORBIDDEN = (
    "ptrace",
    "process_vm_writev",
    "pidfd_getfd",
    "setns",
    "request_key",
    "bpf",
    "init_module",
    "finit_module",
    "kexec_load",
    "kexec_file_load",
    "perf_event_open",
    "userfaultfd",
)
MISSING = ("io_uring_setup", "io_uring_enter", "io_uring_register", "clone3")
FREE = ("read", "connect", "bind", "execve", "execveat", "file_setattr")

UNIX, INET, INET6 = 1, 2, 10
STREAM, DATAGRAM, RAW, SEQPACKET = 1, 2, 3, 5
NONBLOCK_AND_CLOEXEC = 0o2004000
OTHER_ENTRIES = (0x4000_0003, 0xC000_003E, 0xC000_00B7, 0x4000_0028, 0)
"""i386, x86_64, aarch64, arm, none"""

Case = tuple[str, int, int, tuple[int, ...], int | None]
"""What it is, the answer, the number, the arguments, another entry."""


def cases(machine: Architecture, *, sealed: bool) -> Iterator[Case]:
    at = ("x86_64", "aarch64").index(machine.machine)
    number = {name: both[at] for name, both in NUMBERS.items()}
    yield from _entries(machine, number)
    yield from _sockets(number, sealed=sealed)
    for name in FREE:
        yield name, ALLOW, number[name], (1, 2, 3, 4), None
    for name in FORBIDDEN:
        yield name, REFUSE, number[name], (0, 0, 0, 0), None
    for name in MISSING:
        yield name, ABSENT, number[name], (), None
    for name, position in (("sendto", 3), ("sendmmsg", 3), ("sendmsg", 2)):
        for flags, expected in ((0x2000_0000, REFUSE), (0x2000_4000, REFUSE), (0x4040, ALLOW)):
            arguments = [9, 9, 9, 9, 9, 9]
            arguments[position] = flags
            yield f"{name} {flags:#x}", expected, number[name], tuple(arguments), None
    for name in ("unshare", "clone"):
        for flag in (0x1000_0000, 0x4000_0000, 0x0002_0000):
            yield f"{name} {flag:#x}", REFUSE, number[name], (flag | 17,), None
        yield f"a thread by {name}", ALLOW, number[name], (0x003D_0F00,), None
    for request in (0x5412, 0x541C, 0xFFFF_FFFF_0000_5412):
        yield f"ioctl {request:#x}", REFUSE, number["ioctl"], (0, request), None
    for request in (0x5401, 0x5413, 0x541B):
        yield f"ioctl {request:#x}", ALLOW, number["ioctl"], (0, request), None


def _entries(machine: Architecture, number: dict[str, int]) -> Iterator[Case]:
    for entry in OTHER_ENTRIES:
        if entry != machine.audit:
            for one in (number["read"], number["socket"], 359, 102):
                yield f"entry {entry:#x}", KILL, one, (INET, STREAM), entry
    for one in (0x4000_0000 | number["socket"], 0x4000_0000, 470, 511, 548, 0xFFFF_FFFF):
        yield f"number {one:#x}", ABSENT, one, (INET, STREAM), None


def _sockets(number: dict[str, int], *, sealed: bool) -> Iterator[Case]:
    streams = ALLOW if sealed else REFUSE
    for kind in (STREAM, DATAGRAM, SEQPACKET, STREAM | NONBLOCK_AND_CLOEXEC):
        yield "a Unix socket", ALLOW, number["socket"], (UNIX, kind, 0), None
        yield "a Unix pair", ALLOW, number["socketpair"], (UNIX, kind, 0), None
    for family in {*range(64), 0x1_0000} - {UNIX, INET, INET6}:
        for kind in (STREAM, DATAGRAM, RAW):
            yield f"family {family}", REFUSE, number["socket"], (family, kind, 0), None
    for family in (INET, INET6, 30):
        yield f"pair {family}", REFUSE, number["socketpair"], (family, STREAM, 0), None
    for family in (INET, INET6):
        for kind in (STREAM, STREAM | NONBLOCK_AND_CLOEXEC):
            for protocol in (0, 6):
                arguments = (family, kind, protocol)
                yield f"TCP {arguments}", streams, number["socket"], arguments, None
            for protocol in (1, 17, 132, 255, 256, 262):
                arguments = (family, kind, protocol)
                yield f"{arguments}", REFUSE, number["socket"], arguments, None
        for kind in {*range(16)} - {STREAM}:
            for protocol in (0, 6, 17):
                arguments = (family, kind, protocol)
                yield f"{arguments}", REFUSE, number["socket"], arguments, None
        # The kernel takes 32 bits, whatever is above them.
        high = (0x1_0000_0000 | family, DATAGRAM, 0)
        yield f"{high}", REFUSE, number["socket"], high, None


def violations(program: bytes, machine: Architecture, *, sealed: bool) -> list[str]:
    """Cases that the program answers otherwise."""
    found: list[str] = []
    for what, expected, number, arguments, entry in cases(machine, sealed=sealed):
        try:
            told = answer(program, machine, number, *arguments, audit=entry)
        except BadProgramError as error:
            found.append(f"{what}: {error}")
            continue
        if told != expected:
            found.append(f"{what}: {told:#x} instead of {expected:#x}")
    return found
