"""``lock``: what it refuses to start with, what it leaves, and what it says of itself."""

from __future__ import annotations

import subprocess

import pytest

from tests.guards.egress.conftest import Identity

HEAD = """
import os, socket, sys, threading
from batuta_sql.errors import SealError
from batuta_sql.guards.egress import enforced, lock
"""


def run(identity: Identity, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [identity.python, "-c", HEAD + program],
        capture_output=True,
        text=True,
        timeout=60,
        env=identity.environment(),
        cwd=identity.folder,
        **identity.options,
    )


def test_locked_it_says_so_and_has_unix_sockets(identity: Identity) -> None:
    done = run(identity, "lock(); print(enforced()); a, b = socket.socketpair(); print('pair')")
    assert done.stdout.split() == ["locked", "pair"], done.stderr


def test_children_are_locked_too(identity: Identity) -> None:
    program = (
        "lock(); import subprocess\n"
        "inner = 'from batuta_sql.guards.egress import enforced; print(enforced())'\n"
        "subprocess.run([sys.executable, '-c', inner], check=True)"
    )
    assert run(identity, program).stdout.split() == ["locked"]


def test_it_may_be_locked_twice(identity: Identity) -> None:
    assert run(identity, "lock(); lock(); print(enforced())").stdout.split() == ["locked"]


@pytest.mark.parametrize(
    ("opened", "said"),
    [
        ("s = socket.socket()", "a socket of the family AF_INET"),
        ("s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)", "of the family AF_INET6"),
        ("s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "of the family AF_NETLINK"),
    ],
)
def test_open_sockets_are_refused_before_anything_is_locked(
    identity: Identity, opened: str, said: str
) -> None:
    program = (
        f"{opened}\ntry: lock()\nexcept SealError as e: print(e)\n"
        "s.close(); socket.socket().close(); print('not locked')"
    )
    done = run(identity, program)
    assert said in done.stdout
    assert "lock before the first connection is made" in done.stdout
    assert done.stdout.endswith("not locked\n"), done.stderr


RING = """
sys.path.insert(0, os.getcwd())
import attacks
try:
    ring = attacks.Ring(flags=2)
except OSError as error:
    print("this kernel gives no rings:", error.strerror)
    sys.exit()
{close}
try: lock()
except SealError as error: print(error.message)
"""


@pytest.mark.parametrize(
    ("close", "said"),
    [("", "is an io_uring ring"), ("os.close(ring.descriptor)", "an io_uring ring is mapped")],
)
def test_open_rings_are_refused(identity: Identity, close: str, said: str) -> None:
    """A mapped ring with a thread of the kernel's works on after its descriptor is closed."""
    done = run(identity, RING.format(close=close))
    assert said in done.stdout or "gives no rings" in done.stdout, done.stderr


def test_a_socket_opened_while_the_lock_is_made_is_found(identity: Identity) -> None:
    """A thread opens one between the first look and the filter."""
    program = (
        "from batuta_sql.guards.egress import locking\n"
        "install = locking.install_filter\n"
        "locking.install_filter = lambda p: (globals().update(s=socket.socket()), install(p))\n"
        "try: lock()\nexcept SealError as e: print(e.message)\n"
        "print(enforced())"
    )
    done = run(identity, program)
    assert "is a socket of the family AF_INET" in done.stdout
    assert done.stdout.endswith("None\n"), done.stderr


def test_a_filter_that_is_not_enforced_is_found(identity: Identity) -> None:
    program = (
        "from batuta_sql.guards.egress import locking\n"
        "locking.install_filter = lambda program: None\n"
        "try: lock()\nexcept SealError as e: print(e.message)"
    )
    done = run(identity, program)
    assert "the lock is not enforced" in done.stdout
    for fault in ("has no filter", "could gain privileges", "UDP is open", "TCP is open"):
        assert fault in done.stdout


def test_a_rule_that_is_missing_is_found(identity: Identity) -> None:
    program = (
        "from batuta_sql.guards.egress.locking import lock_under\n"
        "from batuta_sql.guards.egress.rules import LOCKED\n"
        "for rule in LOCKED:\n"
        "    if rule.name not in ('every other socket', 'io_uring'): continue\n"
        "    if os.fork() == 0:\n"
        "        try: lock_under([r for r in LOCKED if r is not rule])\n"
        "        except SealError as e: print('not enforced' in e.message, flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()"
    )
    assert run(identity, program).stdout.split() == ["True", "True"]


def test_a_thread_with_a_filter_of_its_own_is_found(identity: Identity) -> None:
    """TSYNC cannot bring a thread along whose filters are not the caller's."""
    program = (
        "import ctypes, struct\n"
        "from batuta_sql.guards.egress import syscalls\n"
        "allow = struct.pack('=HBBI', 6, 0, 0, 0x7FFF0000)\n"
        "go, done = threading.Event(), threading.Event()\n"
        "def own():\n"
        "    syscalls._prctl(38, 1)\n"
        "    fprog = syscalls._Fprog(1, allow)\n"
        "    syscalls.syscall('seccomp', 1, 0, ctypes.byref(fprog)); go.set(); done.wait()\n"
        "threading.Thread(target=own, daemon=True).start(); go.wait()\n"
        "try: lock()\nexcept SealError as e: print(e.message)\n"
        "print(enforced())"
    )
    done = run(identity, program)
    assert "refused this one" in done.stdout, done.stderr
    assert done.stdout.endswith("None\n")


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_another_system(identity: Identity, system: str) -> None:
    program = f"sys.platform = {system!r}\ntry: lock()\nexcept SealError as e: print(e)"
    done = run(identity, program)
    assert "Linux on x86_64 or aarch64" in done.stdout, done.stderr


def test_abilities_are_found_out_without_changing_this_process(identity: Identity) -> None:
    program = (
        "from batuta_sql.guards.egress import abilities\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "for one in abilities(): print(one.name, one.ok, one.detail, one.remedy, sep='|')\n"
        "print(enforced())"
    )
    assert run(identity, program).stdout.splitlines() == [
        "egress seal|True|tried and verified|None",
        "in-process lock|True|tried and verified|None",
        "None",
    ]


def test_abilities_say_what_is_missing(identity: Identity) -> None:
    """Under a filter of somebody else's that refuses unshare; the lock needs none."""
    from tests.guards.egress.test_fail_closed import refusing

    program = (
        refusing("unshare") + "\nfrom batuta_sql.guards.egress import abilities\n"
        "for one in abilities(): print(one.name, one.ok, one.detail, one.remedy, sep='|')"
    )
    seal, lock = run(identity, program).stdout.splitlines()
    assert seal.startswith("egress seal|False|the seal cannot be enforced")
    assert "Docker's default seccomp profile" in seal
    assert lock.startswith("in-process lock|True|")
