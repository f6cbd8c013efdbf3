"""Building the sealed room, from inside: the steps a child takes before it becomes the command.

Each step is one function; their order is the order of ``STEPS``. Whatever fails, the command is not
run.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field

from batuta_sql.errors import SealError
from batuta_sql.guards.egress import inherited, interfaces, mounts, syscalls, verify
from batuta_sql.guards.egress.bpf_filter import Entry, assemble
from batuta_sql.guards.egress.forwards import AddressPlan, Forward, listen
from batuta_sql.guards.egress.rules import SEALED, Rule

NAMESPACES = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS

_DEAD_ENDS = frozenset(
    {
        "all_proxy",
        "ftp_proxy",
        "http_proxy",
        "https_proxy",
        "dbus_session_bus_address",
        "dbus_system_bus_address",
        "gpg_agent_info",
        "ssh_agent_pid",
        "ssh_auth_sock",
    }
)
"""Variables, compared without case, that point at helpers which cannot be reached inside."""

_NO_PROBES = {"SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true"}
"""Keeps a driver, which reads it as it is at exec, from waiting for metadata services of clouds."""


@dataclass
class Construction:
    """What the steps share. Made by the launcher, before it forks.

    :param addresses: who is listened for, and where.
    :param masks: the folders to hide.
    :param sockets: paths of the Unix sockets that exist outside.
    :param control: to the launcher; closed by exec.
    :param signals: the mask that the command shall start with.
    """

    addresses: AddressPlan
    masks: mounts.Masks
    sockets: Sequence[str]
    control: socket.socket
    signals: set[signal.Signals]
    rules: Sequence[Rule] = SEALED
    entry: Entry = field(default_factory=Entry)
    flags: int = NAMESPACES
    environment: MutableMapping[str, str] = field(default_factory=lambda: dict(os.environ))
    outside: dict[str, str] = field(default_factory=verify.namespaces)
    folder: str = field(default_factory=os.getcwd)
    listeners: list[tuple[Forward, socket.socket]] = field(default_factory=list)


Step = Callable[[Construction], None]

READY, GO = b"ready", b"go"


def close_descriptors(room: Construction) -> None:
    inherited.close_all_but({0, 1, 2, room.control.fileno()})


def refuse_ways_out(room: Construction) -> None:
    ways = [*inherited.open_ways_out(), *inherited.open_folders()]
    if ways:
        raise SealError(
            f"inherited: {'; '.join(ways)}",
            hint="give the command another standard stream, such as a pipe, a file or /dev/null",
        )


def enter_namespaces(room: Construction) -> None:
    """Becomes the only user of a user namespace, with the same number: files stay readable.

    Root too: inside, nobody has a capability over anything outside, nor may look into a process
    outside (user_namespaces(7), ptrace(2)).
    """
    user, group = os.geteuid(), os.getegid()
    syscalls.unshare(room.flags)
    if room.flags & syscalls.CLONE_NEWUSER:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)


def open_loopback(room: Construction) -> None:
    interfaces.raise_loopback()
    for address in room.addresses.added:
        interfaces.add_address(address)


def mask_folders(room: Construction) -> None:
    room.masks.mount()


def cover_sockets(room: Construction) -> None:
    mounts.cover_sockets(room.sockets, room.masks)


def protect_kernel_settings(room: Construction) -> None:
    mounts.protect_kernel_settings()


def give_hosts(room: Construction) -> None:
    mounts.give_hosts(room.addresses.hosts, room.masks)


def return_to_folder(room: Construction) -> None:
    mounts.return_to_folder(room.folder)


def listen_for_forwards(room: Construction) -> None:
    try:
        room.listeners = listen(room.addresses)
    except OSError as error:
        raise SealError(
            str(error.strerror),
            hint="give the forward a name or an address that this machine can have",
        ) from None


def die_with_launcher(room: Construction) -> None:
    syscalls.die_with_parent(signal.SIGKILL)


def hand_over_listeners(room: Construction) -> None:
    """The launcher accepts from outside; a socket belongs to the network that it was made in."""
    descriptors = [listener.fileno() for _, listener in room.listeners]
    if descriptors:
        socket.send_fds(room.control, [READY], descriptors)
    else:
        room.control.send(READY)
    if room.control.recv(len(GO)) != GO:
        raise OSError(errno.ESRCH, "the launcher has ended")
    for _, listener in room.listeners:
        listener.close()


def clean_environment(room: Construction) -> None:
    for name in list(room.environment):
        if name.lower() in _DEAD_ENDS:
            del room.environment[name]
    room.environment.update(_NO_PROBES)


def restore_signals(room: Construction) -> None:
    """Those that Python ignores, and the mask under which the launcher waits."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, room.signals)


def drop_capabilities(room: Construction) -> None:
    syscalls.drop_capabilities()


def install_filter(room: Construction) -> None:
    syscalls.install_filter(assemble(room.rules, syscalls.architecture(), room.entry))


def verify_seal(room: Construction) -> None:
    """Believes nothing of the above."""
    now = verify.namespaces()
    faults = [
        f"the {kind} namespace is the old one" for kind in now if now[kind] == room.outside[kind]
    ]
    faults += verify.thread_faults()
    faults += verify.capability_faults()
    faults += room.masks.faults()
    # Only then: no door is tried that would lead out.
    faults = faults or [
        *verify.loopback_faults(),
        *verify.refusal_faults(),
        *verify.tcp_faults(refused=False),
        *inherited.open_ways_out(),
    ]
    if faults:
        raise OSError(errno.EPERM, f"not enforced: {'; '.join(faults)}")


STEPS: tuple[Step, ...] = (
    close_descriptors,
    refuse_ways_out,
    enter_namespaces,
    open_loopback,
    listen_for_forwards,
    mask_folders,
    cover_sockets,
    protect_kernel_settings,
    give_hosts,
    return_to_folder,
    die_with_launcher,
    hand_over_listeners,
    clean_environment,
    restore_signals,
    drop_capabilities,
    install_filter,
    verify_seal,
)
