"""Where the seal cannot be enforced, status 78 says why and the command has not run."""

from __future__ import annotations

import subprocess

import pytest

from batuta_sql.guards.egress import remedies
from batuta_sql.guards.egress.syscalls import architecture
from tests.guards.egress.conftest import Identity

FILTER = """
import struct
from batuta_sql.guards.egress.syscalls import install_filter
install_filter(b"".join(struct.pack("=HBBI", *i) for i in {instructions}))
"""


def refusing(call: str, number: int = 1) -> str:
    """Code that makes one system call fail for the process that runs it, as a container does."""
    if call == "mount":
        at = 165 if architecture().machine == "x86_64" else 40
    else:
        at = architecture().numbers[call]
    instructions = [
        (0x20, 0, 0, 0),
        (0x15, 0, 1, at),
        (0x06, 0, 0, 0x0005_0000 | number),
        (0x06, 0, 0, 0x7FFF_0000),
    ]
    return FILTER.format(instructions=instructions)


NO_NAMESPACES = """
import os
from batuta_sql.guards.egress import syscalls
user, group = os.geteuid(), os.getegid()
syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
open("/proc/self/setgroups", "w").write("deny")
open("/proc/self/uid_map", "w").write(f"0 {{user}} 1")
open("/proc/self/gid_map", "w").write(f"0 {{group}} 1")
open("/proc/sys/user/{limit}", "w").write("0")
"""


def assert_refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert (done.returncode, done.stdout) == (78, ""), done.stderr
    assert "nothing was run" in done.stderr
    for one in said:
        assert one in done.stderr


def test_unshare_refused_as_by_dockers_profile(identity: Identity) -> None:
    done = identity.seal(["/bin/echo", "ran"], prepare=refusing("unshare"))
    assert_refused(done, "unshare: Operation not permitted", "Docker's default seccomp profile")


def test_mount_refused_as_by_apparmor(identity: Identity) -> None:
    done = identity.seal(["/bin/echo", "ran"], prepare=refusing("mount", 13))
    assert_refused(done, "mount /: Permission denied")


def test_seccomp_refused(identity: Identity) -> None:
    done = identity.seal(["/bin/echo", "ran"], prepare=refusing("seccomp", 38))
    assert_refused(done, "install filter: seccomp: Function not implemented")


def test_capabilities_that_cannot_be_dropped(identity: Identity) -> None:
    done = identity.seal(["/bin/echo", "ran"], prepare=refusing("capset"))
    assert_refused(done, "drop capabilities: capset")


def test_a_filter_that_lies(identity: Identity) -> None:
    """seccomp(2) says that it worked, and has done nothing: found out by asking the kernel."""
    done = identity.seal(["/bin/echo", "ran"], prepare=refusing("seccomp", 0))
    assert_refused(done, "not enforced")


@pytest.mark.parametrize("limit", ["max_user_namespaces", "max_net_namespaces"])
def test_no_namespaces_allowed(identity: Identity, limit: str) -> None:
    """The limits are set in a user namespace of the test's own, which has a limit of its own."""
    done = identity.seal(["/bin/echo", "ran"], prepare=NO_NAMESPACES.format(limit=limit))
    assert_refused(done, "unshare: No space left on device", f"set user.{limit} above 0")


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "riscv64")])
def test_another_system(identity: Identity, system: str, machine: str) -> None:
    pretend = (
        f"import platform, sys\nsys.platform = {system!r}; platform.machine = lambda: {machine!r}"
    )
    done = identity.seal(["/bin/echo", "ran"], prepare=pretend)
    assert (done.returncode, done.stdout) == (78, "")
    assert "Linux on x86_64 or aarch64 is needed" in done.stderr


def test_a_process_with_threads(identity: Identity) -> None:
    threads = (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    )
    done = identity.seal(["/bin/echo", "ran"], prepare=threads)
    assert (done.returncode, done.stdout) == (78, "")
    assert "has threads already" in done.stderr


def test_a_forward_that_cannot_be_listened_for(identity: Identity) -> None:
    """An IPv4 address written as IPv6 is none that loopback could have."""
    done = identity.seal(["/bin/echo", "ran"], [("::ffff:192.0.2.1", 5432, "/nowhere")])
    assert_refused(done)


def test_a_launcher_that_dies_early(identity: Identity) -> None:
    """The child waits for a word of the launcher; without it, it does not run the command."""
    dies = (
        "import os\nfrom batuta_sql.guards.egress import launcher\n"
        "launcher._attend = lambda *a: os._exit(3)"
    )
    done = identity.seal(["/bin/echo", "ran"], prepare=dies)
    assert (done.returncode, done.stdout) == (3, "")


# --- what to do about it -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "number", "said"),
    [
        ({"user.max_user_namespaces": "0"}, 28, "set user.max_user_namespaces above 0 by sysctl"),
        ({}, 28, "raise user.max_user_namespaces and user.max_net_namespaces by sysctl"),
        (
            {"kernel.unprivileged_userns_clone": "0"},
            1,
            "set kernel.unprivileged_userns_clone = 1 by sysctl",
        ),
        (
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            13,
            "set kernel.apparmor_restrict_unprivileged_userns = 0 by sysctl",
        ),
        ({}, 1, "a Linux kernel with user, network and mount namespaces"),
    ],
)
def test_the_remedy_is_told_from_the_machines_settings(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], number: int, said: str
) -> None:
    monkeypatch.setattr(remedies, "_setting", settings.get)
    monkeypatch.setattr(remedies, "_filtered", lambda: False)
    assert said in remedies.remedy(number)
