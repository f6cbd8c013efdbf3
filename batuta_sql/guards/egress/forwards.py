"""Forwards: the fixed targets that a sealed command may reach, each through the launcher."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from batuta_sql.guards.egress.interfaces import Address

_DIAL_SECONDS = 10.0
_CHUNK_BYTES = 1 << 18
_BACKLOG = 128
_HOST_NETWORK = ipaddress.IPv4Network("127.88.0.0/16")
"""Where host names get their addresses inside."""


@dataclass(frozen=True)
class Forward:
    """One address that a sealed command can dial, and what answers there.

    :param name: host name or address as the configuration spells it.
    :param port: TCP port, inside.
    :param target: what the launcher dials outside: (host, port), or the path of a Unix socket.
    :raises ValueError: for a name or port that cannot be dialled.
    """

    name: str
    port: int
    target: tuple[str, int] | str

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"{self.port} is not a TCP port")
        address = self.address()
        if address is None:
            if not self.name or any(c.isspace() or c in "#%/@[]:" for c in self.name):
                raise ValueError(f"{self.name!r} is neither a host name nor an address")
        elif address.is_unspecified or address.is_multicast or "%" in self.name:
            raise ValueError(f"{self.name} cannot be dialled inside a seal")

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"

    def address(self) -> Address | None:
        """The address that the name is, if it is one."""
        try:
            return ipaddress.ip_address(self.name)
        except ValueError:
            return None

    def is_localhost(self) -> bool:
        """Whether the name is ``localhost``, which every resolver takes for loopback."""
        return self.name.lower().rstrip(".") == "localhost"


@dataclass(frozen=True)
class AddressPlan:
    """The addresses inside the seal.

    :param listeners: (forward, the address to listen at); localhost listens at two.
    :param added: addresses that loopback has to be given first.
    :param hosts: host name -> its address, for /etc/hosts.
    """

    listeners: tuple[tuple[Forward, Address], ...]
    added: tuple[Address, ...]
    hosts: Mapping[str, Address]


def plan_addresses(forwards: Sequence[Forward]) -> AddressPlan:
    """Loopback names and addresses stay; others become addresses of loopback, host names get one.

    :raises ValueError: for two forwards of one address and port.
    """
    listeners: dict[tuple[Address, int], Forward] = {}
    added: list[Address] = []
    hosts: dict[str, Address] = {}
    free = iter(_HOST_NETWORK.hosts())
    for forward in forwards:
        literal = forward.address()
        if literal is not None:
            places = [literal]
            if not literal.is_loopback and literal not in added:
                added.append(literal)
        elif forward.is_localhost():
            places = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
        else:
            key = forward.name.lower().rstrip(".")
            if key not in hosts:
                hosts[key] = next(free)
            places = [hosts[key]]
        for place in places:
            before = listeners.setdefault((place, forward.port), forward)
            if before.target != forward.target:
                raise ValueError(f"{before} and {forward} are the same address inside the seal")
    pairs = tuple((forward, place) for (place, _), forward in listeners.items())
    return AddressPlan(pairs, tuple(added), hosts)


def listen(plan: AddressPlan) -> list[tuple[Forward, socket.socket]]:
    """Listens at every address of the plan, in the caller's network namespace.

    :raises OSError: naming the address that cannot be had.
    """
    listeners: list[tuple[Forward, socket.socket]] = []
    for forward, address in plan.listeners:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        listener: socket.socket | None = None
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.bind((str(address), forward.port))
            listener.listen(_BACKLOG)
        except OSError as error:
            if listener is not None:
                listener.close()
            # Without IPv6 nobody takes localhost for ::1 either.
            no_ipv6 = error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
            if no_ipv6 and address.version == 6 and forward.is_localhost():
                continue
            said = f"listen at {address}:{forward.port}: {error.strerror}"
            raise OSError(error.errno, said) from None
        listeners.append((forward, listener))
    return listeners


class Forwarder:
    """Carries every connection made to a listener to its fixed target, outside.

    ``say`` is told, in one line, of a target that does not answer.
    """

    def __init__(
        self, listeners: Sequence[tuple[Forward, socket.socket]], say: Callable[[str], None]
    ) -> None:
        self._listeners = listeners
        self._say = say

    def start(self) -> None:
        for forward, listener in self._listeners:
            _in_background(self._accept, forward, listener)

    def close(self) -> None:
        """New connections are refused from now on."""
        for _, listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, forward: Forward, listener: socket.socket) -> None:
        while True:
            try:
                inside, _ = listener.accept()
            except OSError as error:
                if error.errno in (errno.ECONNABORTED, errno.EINTR):
                    continue
                return
            _in_background(self._carry, forward, inside)

    def _carry(self, forward: Forward, inside: socket.socket) -> None:
        with inside:
            try:
                outside = _dial(forward.target)
            except OSError as error:
                self._say(f"forward {forward}: {_shown(forward.target)}: {error.strerror or error}")
                # A reset, not an end: the client must not take it for an empty answer.
                inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            with outside:
                back = _in_background(_pump, outside, inside)
                _pump(inside, outside)
                back.join()


def _dial(target: tuple[str, int] | str) -> socket.socket:
    if isinstance(target, str):
        outside = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            outside.connect(target)
        except OSError:
            outside.close()
            raise
        return outside
    outside = socket.create_connection(target, _DIAL_SECONDS)
    outside.settimeout(None)
    outside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return outside


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Copies until ``source`` ends, then ends ``sink``'s half."""
    with contextlib.suppress(OSError):
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        while size := source.recv_into(buffer):
            sink.sendall(buffer[:size])
    for one, half in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            one.shutdown(half)


def _shown(target: tuple[str, int] | str) -> str:
    return target if isinstance(target, str) else f"{target[0]}:{target[1]}"


def _in_background(work: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread
