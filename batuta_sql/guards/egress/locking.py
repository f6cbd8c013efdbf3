"""The in-process form: this process, threads and children included, gets Unix sockets only."""

from __future__ import annotations

from collections.abc import Sequence

from batuta_sql.errors import SealError
from batuta_sql.guards.egress import inherited, verify
from batuta_sql.guards.egress.bpf_filter import assemble
from batuta_sql.guards.egress.rules import LOCKED, Rule
from batuta_sql.guards.egress.syscalls import architecture, install_filter


def lock() -> None:
    """Puts this process under the filter, for good: no socket but Unix ones can be made.

    Threads that run already are under it too, whatever language started them. What it cannot do:
    a Unix socket still leads to any program on this machine that listens at one, name service
    daemons among them. ``seal`` closes those too.

    :raises SealError: where another socket or an io_uring ring is open, which would work on, and
        where the kernel does not enforce the filter. Nothing is refused yet in the first case.
    """
    lock_under(LOCKED)


def lock_under(rules: Sequence[Rule]) -> None:
    """``lock`` under any rules: for tests, which leave one out."""
    _refuse_open_ways()
    try:
        install_filter(assemble(rules, architecture()))
        faults = [
            *verify.thread_faults(),
            *verify.refusal_faults(),
            *verify.tcp_faults(refused=True),
        ]
    except OSError as error:
        raise SealError(
            f"this process cannot be locked: {error.strerror}",
            hint="Linux on x86_64 or aarch64 with seccomp filters is needed",
        ) from None
    # Again: a thread may have opened one since.
    _refuse_open_ways()
    if faults:
        raise SealError(f"the lock is not enforced: {'; '.join(faults)}")


def _refuse_open_ways() -> None:
    try:
        ways = inherited.open_ways_out()
    except OSError as error:
        raise SealError(f"open descriptors cannot be listed: {error.strerror}") from None
    if ways:
        raise SealError(
            f"this process cannot be locked: {'; '.join(ways)}",
            hint="lock before the first connection is made, or run the program by batuta-sql seal",
        )
