"""Why this machine does not let a seal be made, and what to change: told from its own settings."""

from __future__ import annotations

import errno
from pathlib import Path

_USER_NAMESPACES = "user.max_user_namespaces"
_NET_NAMESPACES = "user.max_net_namespaces"
_DEBIAN = "kernel.unprivileged_userns_clone"
_UBUNTU = "kernel.apparmor_restrict_unprivileged_userns"


def remedy(number: int | None) -> str:
    """The next step after a call of the seal failed with the errno ``number``."""
    found: list[str] = []
    for limit in (_USER_NAMESPACES, _NET_NAMESPACES):
        if _setting(limit) == "0":
            found.append(f"set {limit} above 0 by sysctl")
    if not found and number == errno.ENOSPC:
        found.append(f"raise {_USER_NAMESPACES} and {_NET_NAMESPACES} by sysctl")
    if _setting(_DEBIAN) == "0":
        found.append(f"set {_DEBIAN} = 1 by sysctl")
    if _setting(_UBUNTU) == "1":
        found.append(f"set {_UBUNTU} = 0 by sysctl, or give the Python program an AppArmor profile")
    if _filtered():
        found.append(
            "this process is under a seccomp filter already, which may be what refuses; in a"
            " container (Docker's default seccomp profile refuses it) choose a profile that allows"
            " unshare and mount in user namespaces"
        )
    if not found:
        found.append(
            "a Linux kernel with user, network and mount namespaces and seccomp filters is needed,"
            f" and nothing that refuses them: {_USER_NAMESPACES}, {_DEBIAN}, {_UBUNTU}, or a"
            " container's seccomp profile (Docker's default one does)"
        )
    return "; ".join(found)


def _setting(name: str) -> str | None:
    """A sysctl's value; None where this kernel has no such setting."""
    try:
        return Path("/proc/sys", *name.split(".")).read_text(encoding="ascii").strip()
    except OSError:
        return None


def _filtered() -> bool:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    return "Seccomp:\t2" in status
