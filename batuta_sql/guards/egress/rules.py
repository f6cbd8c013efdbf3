"""What the seccomp filter answers, as a table: the first rule that fits, else the call runs.

The rules stand on facts of the kernel:

- ``socket`` takes family, type and protocol as ints, so their low words are all there is to see.
- Of the inet family only TCP streams are let through, and only inside a network namespace that has
  nothing but loopback. UDP, raw, MPTCP (a protocol of a stream) and SCTP are not.
- io_uring opens and connects sockets without the calls that a filter sees.
- A 64-bit program can enter the kernel by ``int 0x80`` (another architecture: the process is
  killed) and, where it is built in, by x32 numbers (which are above all known ones).
- clone3 has its flags in memory, which a filter cannot read. ENOSYS makes libraries use clone.
- TIOCSTI types into the terminal, TIOCLINUX pastes: both would run commands outside.
- request_key makes the kernel start a program outside, which may look up names in the DNS.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from batuta_sql.guards.egress import syscalls

ALLOW = 0x7FFF_0000
KILL_PROCESS = 0x8000_0000
_ERRNO = 0x0005_0000

REFUSE = _ERRNO | errno.EACCES
"""Not EPERM, which is the kernel's own: so a test can tell who refused."""

ABSENT = _ERRNO | errno.ENOSYS

# Of Linux, on whatever system the table is read.
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_STREAM = 1
_IPPROTO_TCP = 6
_SOCK_TYPE_MASK = 0xF
_MSG_FASTOPEN = 0x2000_0000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_NEW_NAMESPACES = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS


@dataclass(frozen=True)
class OneOf:
    """The argument's low word, under ``mask``, is one of ``values``."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFF_FFFF


@dataclass(frozen=True)
class AnyBit:
    """The argument's low word has one of the bits of ``mask``."""

    argument: int
    mask: int


@dataclass(frozen=True)
class Rule:
    """The ``answer`` to these ``calls``, where all of ``conditions`` hold."""

    name: str
    calls: tuple[str, ...]
    answer: int
    conditions: tuple[OneOf | AnyBit, ...] = ()


_STREAMS_ON_LOOPBACK = Rule(
    "TCP inside the network namespace",
    ("socket",),
    ALLOW,
    (
        OneOf(0, (_AF_INET, _AF_INET6)),
        OneOf(1, (_SOCK_STREAM,), _SOCK_TYPE_MASK),
        OneOf(2, (0, _IPPROTO_TCP)),
    ),
)

_UNIX_SOCKETS = Rule("Unix sockets", ("socket", "socketpair"), ALLOW, (OneOf(0, (_AF_UNIX,)),))

_CLOSED = (
    Rule("every other socket", ("socket", "socketpair"), REFUSE),
    Rule("data with the handshake", ("sendto", "sendmmsg"), REFUSE, (AnyBit(3, _MSG_FASTOPEN),)),
    Rule("data with the handshake, sendmsg", ("sendmsg",), REFUSE, (AnyBit(2, _MSG_FASTOPEN),)),
    Rule("io_uring", ("io_uring_setup", "io_uring_enter", "io_uring_register"), ABSENT),
    Rule("other processes", ("ptrace", "process_vm_writev", "pidfd_getfd"), REFUSE),
    Rule("other namespaces", ("setns",), REFUSE),
    Rule("new namespaces", ("unshare", "clone"), REFUSE, (AnyBit(0, _NEW_NAMESPACES),)),
    Rule("new namespaces, clone3", ("clone3",), ABSENT),
    Rule("typing into the terminal", ("ioctl",), REFUSE, (OneOf(1, (_TIOCSTI, _TIOCLINUX)),)),
    Rule("helpers that the kernel starts", ("request_key",), REFUSE),
    Rule(
        "programs in the kernel",
        ("bpf", "init_module", "finit_module", "kexec_load", "kexec_file_load"),
        REFUSE,
    ),
    Rule("the kernel's inner workings", ("perf_event_open", "userfaultfd"), REFUSE),
)

SEALED = (_UNIX_SOCKETS, _STREAMS_ON_LOOPBACK, *_CLOSED)
"""For a process that has a network namespace of its own."""

LOCKED = (_UNIX_SOCKETS, *_CLOSED)
"""For a process that has the machine's network: Unix sockets only."""
