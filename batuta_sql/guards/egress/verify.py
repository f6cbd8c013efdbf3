"""What the kernel enforces on this process, found out from the kernel: states read, doors tried.

Nothing here sends a packet. The doors that are tried are calls that must be refused; an address is
dialled (one that RFC 5737 and RFC 3849 reserve for documents) only once no interface but loopback
has been found.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Literal

from batuta_sql.guards.egress import inherited, interfaces
from batuta_sql.guards.egress.syscalls import syscall

_REFUSED = (errno.EACCES,)
_NO_WAY = (
    errno.ENETUNREACH,
    errno.EADDRNOTAVAIL,
    errno.EAFNOSUPPORT,
    errno.ECONNREFUSED,  # by loopback itself, where the address is that of a forward
)
_MPTCP, _SCTP = 262, 132

_FAMILIES = {
    "netlink": 16,
    "packet": 17,
    "rds": 21,
    "tipc": 30,
    "alg": 38,
    "vsock": 40,
    "smc": 43,
    "xdp": 44,
}
"""include/linux/socket.h"""

_OUTSIDE = ((socket.AF_INET, "203.0.113.1"), (socket.AF_INET6, "2001:db8::1"))


def enforced() -> Literal["sealed", "locked"] | None:
    """What this process, with every thread of it, is under: asked of the kernel, now.

    ``"sealed"``: a network of its own that has only loopback, and nothing but TCP streams in it.
    ``"locked"``: Unix sockets only. None: nothing that could be relied on.
    """
    try:
        if thread_faults() or refusal_faults():
            return None
        if not tcp_faults(refused=True):
            return None if inherited.open_ways_out() else "locked"
        return None if loopback_faults() else "sealed"
    except OSError:
        return None


def thread_faults() -> list[str]:
    """Threads that are not under a filter, or that could leave it or the network namespace."""
    faults: list[str] = []
    network = os.readlink("/proc/self/ns/net")
    for thread in os.listdir("/proc/self/task"):
        try:
            status = _status(f"/proc/self/task/{thread}/status")
            namespace = os.readlink(f"/proc/self/task/{thread}/ns/net")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        if status.get("Seccomp") != "2":
            faults.append(f"thread {thread} has no filter")
        if status.get("NoNewPrivs") != "1":
            faults.append(f"thread {thread} could gain privileges")
        if namespace != network:
            faults.append(f"thread {thread} is in another network")
    return faults


def capability_faults() -> list[str]:
    """Sets of capabilities that are not empty."""
    status = _status("/proc/self/status")
    return [
        f"capabilities are left in {name}"
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        if int(status[name], 16)
    ]


def refusal_faults() -> list[str]:
    """Doors that every filter of this package closes, and that are open."""
    doors: dict[str, Callable[[], object]] = {
        "UDP": lambda: _open(socket.AF_INET, socket.SOCK_DGRAM),
        "UDP over IPv6": lambda: _open(socket.AF_INET6, socket.SOCK_DGRAM),
        "raw IP": lambda: _open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "MPTCP": lambda: _open(socket.AF_INET, socket.SOCK_STREAM, _MPTCP),
        "SCTP": lambda: _open(socket.AF_INET, socket.SOCK_STREAM, _SCTP),
    }
    for name, family in _FAMILIES.items():
        doors[f"the family {name}"] = partial(_open, family, socket.SOCK_RAW)
    faults = [f for name, door in doors.items() for f in _fault(name, door, _REFUSED)]
    return faults + _fault("io_uring", _ring, (errno.ENOSYS,))


def tcp_faults(*, refused: bool) -> list[str]:
    """Where TCP sockets can be made although they are to be refused, or the other way round."""
    doors = {
        "TCP": lambda: _open(socket.AF_INET, socket.SOCK_STREAM),
        "TCP over IPv6": lambda: _open(socket.AF_INET6, socket.SOCK_STREAM),
    }
    if refused:
        return [f for name, door in doors.items() for f in _fault(name, door, _REFUSED)]
    try:
        doors["TCP"]()
    except OSError as error:
        return [f"TCP on loopback: {error.strerror}"]
    return []


def loopback_faults() -> list[str]:
    """Interfaces besides loopback; where there is none, addresses outside that answer."""
    found = interfaces.names()
    if found != ["lo"]:
        return [f"there are the interfaces {', '.join(found) or 'none'}"]
    faults: list[str] = []
    for family, address in _OUTSIDE:
        faults += _fault(f"a route to {address}", partial(_dial, family, address), _NO_WAY)
    return faults


def namespaces() -> dict[str, str]:
    """The kernel's names of the namespaces that a seal replaces."""
    return {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "net", "mnt")}


def _open(family: int, kind: int, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def _dial(family: int, address: str) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(1)
        one.connect((address, 9))


def _ring() -> None:
    """No ring is made: without a filter the kernel answers EFAULT to the null pointer."""
    syscall("io_uring_setup", 1, ctypes.c_void_p(None))


def _fault(name: str, door: Callable[[], object], expected: tuple[int, ...]) -> list[str]:
    try:
        door()
    except OSError as error:
        if error.errno in expected:
            return []
        return [f"{name}: {error}"]
    return [f"{name} is open"]


def _status(path: str) -> dict[str, str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}
