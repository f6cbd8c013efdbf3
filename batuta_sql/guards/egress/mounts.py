"""The private file tree of a sealed command: folders of sockets masked, host names of its own.

A Unix socket with a path is reached through the file tree, whatever the network namespace. Behind
many of them is a program with the machine's network: docker.sock, nscd, systemd-resolved, D-Bus,
ssh-agent, ssh's ControlMaster, X11.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from batuta_sql.errors import SealError
from batuta_sql.guards.egress.interfaces import Address
from batuta_sql.guards.egress.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
)

MASKED = ("/run", "/var/run", "/tmp/.X11-unix", "/tmp/.ICE-unix")
"""Folders that an empty one is laid over, where they exist."""

KERNEL_SETTINGS = ("/proc/sys", "/proc/sysrq-trigger", "/sys")
"""Read-only inside: root owns them, and core_pattern names a program that runs outside."""

_HOSTS = "/etc/hosts"


class Masks:
    """The masked folders; ``keep`` are folders and sockets that stay what they are.

    Made before anything is mounted: what is kept is held open meanwhile.
    """

    def __init__(self, keep: Sequence[str], masked: Sequence[str] = MASKED) -> None:
        roots = dict.fromkeys(os.path.realpath(m) for m in masked if os.path.isdir(m))
        self.roots = tuple(roots)
        self.keep = tuple(dict.fromkeys(os.path.realpath(k) for k in keep if os.path.exists(k)))
        for root in self.roots:
            if any(_lies_in(root, kept) for kept in self.keep):
                raise SealError(
                    f"the seal cannot be enforced: {root} has to be masked and cannot be kept",
                    hint="keep the socket itself, or a folder further inside",
                )
        self._devices = {root: os.stat(root).st_dev for root in self.roots}
        self._mounted = False

    def mount(self) -> None:
        """Lays an empty folder over each root, and what is kept into it."""
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        held = {
            kept: os.open(kept, os.O_PATH)
            for kept in self.keep
            if any(_lies_in(kept, root) for root in self.roots)
        }
        for root in self.roots:
            mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16m")
        self._mounted = True
        for path, descriptor in held.items():
            source = f"/proc/self/fd/{descriptor}"
            if os.path.isdir(source):
                os.makedirs(path, exist_ok=True)
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                Path(path).touch()
            mount(source, path, None, MS_BIND | MS_REC)
            os.close(descriptor)

    def faults(self) -> list[str]:
        """Roots that are not masked."""
        return [
            f"{root} is not masked"
            for root, device in self._devices.items()
            if os.stat(root).st_dev == device
        ]

    def private_folder(self) -> Path:
        """A folder that nobody outside sees.

        :raises OSError: where no folder is masked.
        """
        if not self._mounted or not self.roots:
            raise OSError(errno.ENOENT, "there is no private folder: this machine has no /run")
        return Path(self.roots[0])

    def leaves_alone(self, path: str) -> bool:
        """Whether ``path`` is kept, or lies in something that is."""
        return any(_lies_in(path, kept) for kept in self.keep)


def listening_sockets() -> list[str]:
    """Paths of the Unix sockets that somebody has bound in this network namespace, now.

    From /proc/net/unix, whose last column is the path as it was given to bind(2).
    """
    found: list[str] = []
    with open("/proc/self/net/unix", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            columns = line.rstrip("\n").split(maxsplit=7)
            if len(columns) == 8 and columns[7].startswith("/"):
                found.append(columns[7])
    return found


def cover_sockets(paths: Iterable[str], masks: Masks) -> None:
    """Lays /dev/null over each socket that is not kept, so that nobody can dial it."""
    for path in dict.fromkeys(os.path.realpath(p) for p in paths):
        if masks.leaves_alone(path):
            continue
        try:
            if stat.S_ISSOCK(os.stat(path).st_mode):
                mount("/dev/null", path, None, MS_BIND)
        except (FileNotFoundError, NotADirectoryError):
            continue  # masked, or left behind by a program that has ended
        except PermissionError:
            if os.access(path, os.W_OK):
                raise
            # A folder or a socket that this user cannot go through or write to: not dialled either.


def protect_kernel_settings() -> None:
    """Makes the settings of the kernel read-only."""
    for path in KERNEL_SETTINGS:
        if not os.path.exists(path):
            continue
        mount(path, path, None, MS_BIND | MS_REC)
        # Flags of a mount that a stronger namespace made are locked: they have to be said again.
        mount(
            None,
            path,
            None,
            MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
        )


def give_hosts(hosts: Mapping[str, Address], masks: Masks) -> None:
    """Mounts an /etc/hosts in which each of ``hosts`` has its address.

    :raises OSError: where there is no /etc/hosts to lay it over.
    """
    if not hosts:
        return
    lines = [f"127.0.0.1 localhost {socket.gethostname()}"]
    lines += [f"{address} {name}" for name, address in hosts.items()]
    stage = masks.private_folder() / "batuta-hosts"
    stage.write_text("\n".join(lines) + "\n", encoding="utf-8")
    mount(str(stage), _HOSTS, None, MS_BIND)


def return_to_folder(path: str) -> None:
    """Enters the working folder anew: the old one still leads past the masks.

    A folder that is masked away becomes the root folder.
    """
    try:
        os.chdir(path)
    except (FileNotFoundError, NotADirectoryError):
        os.chdir("/")


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
