"""What was open before: a socket or ring that is already there works on under any filter."""

from __future__ import annotations

import os
import socket
import stat


def open_ways_out() -> list[str]:
    """Open descriptors and mappings through which data could leave past a filter.

    Sockets of any family but Unix; io_uring rings, which a mapping keeps alive after their
    descriptor is closed; tunnels.
    """
    found: list[str] = []
    for descriptor in descriptors():
        try:
            link = os.readlink(f"/proc/self/fd/{descriptor}")
            mode = os.fstat(descriptor).st_mode
        except OSError:
            continue  # the descriptor that listed the folder
        if "io_uring" in link:
            found.append(f"descriptor {descriptor} is an io_uring ring")
        elif link == "/dev/net/tun":
            found.append(f"descriptor {descriptor} is a network tunnel")
        elif stat.S_ISSOCK(mode) and (family := _family(descriptor)) != socket.AF_UNIX:
            found.append(f"descriptor {descriptor} is a socket of the family {_name(family)}")
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        if any("anon_inode:[io_uring]" in line for line in maps):
            found.append("an io_uring ring is mapped")
    return found


def open_folders() -> list[str]:
    """Standard streams that are folders: through one, the way past the masks is open."""
    found: list[str] = []
    for descriptor in (0, 1, 2):
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode):
            found.append(f"descriptor {descriptor} is a folder")
    return found


def close_all_but(kept: set[int]) -> None:
    """Closes every other descriptor of this process."""
    for descriptor in descriptors():
        if descriptor not in kept:
            try:
                os.close(descriptor)
            except OSError:
                continue  # the descriptor that listed the folder


def descriptors() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))


def _family(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as one:
        return int(one.family)


def _name(family: int) -> str:
    try:
        return socket.AddressFamily(family).name
    except ValueError:
        return str(family)
