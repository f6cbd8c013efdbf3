"""Runs a command sealed. The launcher stays outside, and does nothing but forward and wait."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from batuta_sql.errors import SealError
from batuta_sql.guards.egress import mounts, verify
from batuta_sql.guards.egress.bpf_filter import Entry
from batuta_sql.guards.egress.construction import (
    GO,
    NAMESPACES,
    READY,
    STEPS,
    Construction,
    Step,
)
from batuta_sql.guards.egress.forwards import AddressPlan, Forward, Forwarder, plan_addresses
from batuta_sql.guards.egress.interfaces import Address
from batuta_sql.guards.egress.remedies import remedy
from batuta_sql.guards.egress.rules import SEALED, Rule
from batuta_sql.guards.egress.supervision import WATCHED, wait_for
from batuta_sql.guards.egress.syscalls import architecture

_MOST_LISTENERS = 250
"""SCM_MAX_FD is 253."""

_MOST_WORDS, _MOST_BYTES = 2000, 16384
"""Of a child that could not build the room."""

_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
"""As shells and env(1) have it."""


@dataclass(frozen=True)
class Recipe:
    """How a room is built. Only tests use another than this one: with a part left out."""

    steps: Sequence[Step] = STEPS
    rules: Sequence[Rule] = SEALED
    entry: Entry = field(default_factory=Entry)
    flags: int = NAMESPACES
    masked: Sequence[str] = mounts.MASKED


def seal(
    command: Sequence[str], forwards: Sequence[Forward] = (), *, keep: Sequence[str] = ()
) -> int:
    """Runs ``command`` where the kernel lets nothing out but the forwards; its exit status.

    128 + n where signal n ended it, 127 where there is no such program, 126 where it cannot be run.
    Standard streams stay what they are; other descriptors are closed. The command shares the
    terminal and the process group, so job control works; signals sent to this process are passed
    on. The command ends with this process. No privileges are needed.

    :param keep: folders or Unix sockets that are not hidden, such as PostgreSQL's socket folder.
        What listens there is reached with the powers it has.
    :raises SealError: the seal cannot be enforced; the command has not run.
    :raises ValueError: for forwards that contradict each other, or without a command.
    """
    return seal_by(Recipe(), command, forwards, keep)


def seal_by(
    recipe: Recipe, command: Sequence[str], forwards: Sequence[Forward], keep: Sequence[str]
) -> int:
    """``seal`` by another recipe."""
    if not command:
        raise ValueError("there is no command to seal")
    addresses = plan_addresses(forwards)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ours, theirs = _start(addresses)
    try:
        room = _room(recipe, addresses, keep, theirs, {signal.Signals(s) for s in blocked})
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        child = os.fork()
        if child == 0:
            _become(command, room, recipe.steps)
        theirs.close()
        return _attend(child, addresses, ours)
    finally:
        ours.close()
        theirs.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _start(addresses: AddressPlan) -> tuple[socket.socket, socket.socket]:
    """Checks what can be checked before anything is made; the line to the child."""
    try:
        architecture()
        threads = len(os.listdir("/proc/self/task"))
    except OSError as error:
        raise SealError(
            f"the seal cannot be enforced here: {error.strerror}",
            hint="Linux on x86_64 or aarch64 is needed",
        ) from None
    if threads != 1:
        raise SealError(
            "the seal cannot be enforced: this process has threads already",
            hint="seal before any is started, or run the program by batuta-sql seal",
        )
    if verify.enforced() is not None:
        raise SealError(
            "this process is sealed or locked already, which a seal inside it could not widen",
            hint="run the command as it is: the seal holds for every child process",
        )
    if len(addresses.listeners) > _MOST_LISTENERS:
        raise SealError(f"the seal has room for {_MOST_LISTENERS} forwards")
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _room(
    recipe: Recipe,
    addresses: AddressPlan,
    keep: Sequence[str],
    control: socket.socket,
    signals: set[signal.Signals],
) -> Construction:
    try:
        return Construction(
            addresses=addresses,
            masks=mounts.Masks(keep, recipe.masked),
            sockets=mounts.listening_sockets(),
            control=control,
            signals=signals,
            rules=recipe.rules,
            entry=recipe.entry,
            flags=recipe.flags,
        )
    except OSError as error:
        raise _refusal(f"{error.strerror}", error.errno) from None


def _become(command: Sequence[str], room: Construction, steps: Sequence[Step]) -> None:
    """In the child: takes the steps and becomes the command. Does not return."""
    status = SealError.exit_status
    try:
        for step in steps:
            try:
                step(room)
            except (OSError, SealError) as error:
                room.control.send(_told(step, error))
                os._exit(status)
        try:
            os.execvpe(command[0], list(command), dict(room.environment))
        except OSError as error:
            status = _NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else _NOT_EXECUTABLE
            os.write(2, f"{command[0]}: {error.strerror}\n".encode(errors="backslashreplace"))
    except BaseException as error:
        room.control.send(_packed(0, f"{type(error).__name__}: {error}"))
    finally:
        os._exit(status)


def _told(step: Step, error: OSError | SealError) -> bytes:
    """The words of a child that could not take a step."""
    name = step.__name__.replace("_", " ")
    if isinstance(error, SealError):
        return _packed(0, f"{name}: {error.message}", error.hint)
    return _packed(error.errno or 0, f"{name}: {error.strerror or error}")


def _packed(number: int, said: str, hint: str | None = None) -> bytes:
    return json.dumps([number, said[:_MOST_WORDS], hint]).encode()


def _attend(child: int, addresses: AddressPlan, control: socket.socket) -> int:
    """Forwards for the child until it ends; its exit status.

    :raises SealError: with the child's words, where it could not build the room.
    """
    message, descriptors, _, _ = socket.recv_fds(control, _MOST_BYTES, _MOST_LISTENERS + 1)
    forwarder: Forwarder | None = None
    if message == READY:
        # Localhost may have lost its second listener: each socket knows its own address.
        listeners = [socket.socket(fileno=d) for d in descriptors]
        by_address = {(address, f.port): f for f, address in addresses.listeners}
        forwarder = Forwarder([(by_address[_bound_to(s)], s) for s in listeners], _say)
        forwarder.start()
        control.send(GO)
        message = control.recv(_MOST_BYTES)  # nothing, once the command runs: exec closes the line
    status = wait_for(child)
    if forwarder is not None:
        forwarder.close()
    if message:
        number, said, hint = json.loads(message)
        raise _refusal(said, number, hint)
    if forwarder is None:
        raise _refusal(f"the child ended with {status}", None)
    return status


def _bound_to(listener: socket.socket) -> tuple[Address, int]:
    host, port = listener.getsockname()[:2]
    return ipaddress.ip_address(host), port


def _refusal(said: str, number: int | None, hint: str | None = None) -> SealError:
    return SealError(
        f"the seal cannot be enforced, and nothing was run: {said}", hint=hint or remedy(number)
    )


def _say(text: str) -> None:
    print(f"batuta-sql seal: {text}", file=sys.stderr, flush=True)
