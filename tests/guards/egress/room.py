"""What a sealed command finds around it, and what is wrong with that."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.guards.egress.conftest import Identity, job
from tests.guards.egress.outside import Outside

NAME = "warehouse.example"

LOOK = """
import json, os, socket, sys, threading
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)

def tried(work):
    try:
        return work()
    except OSError as error:
        return type(error).__name__

def own_loopback():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), 5):
            return "open"

def dial(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(5)
        one.connect(address)
        one.sendall(b"room\\r\\n\\r\\n")
        return "open"

aim = json.loads(sys.argv[1])
print(json.dumps({
    "descriptors": sorted(int(n) for n in os.listdir("/proc/self/fd"))[:-1],
    "interfaces": [l.split(":")[0].strip() for l in open("/proc/self/net/dev") if ":" in l],
    "run": os.stat("/run").st_dev,
    "namespaces": [os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "net", "mnt")],
    "here": [os.stat(".").st_dev, os.stat(".").st_ino],
    "settings": [bool(os.statvfs(p).f_flag & os.ST_RDONLY) for p in ("/proc/sys", "/sys")],
    "environment": sorted(os.environ),
    "capabilities": [status[n].strip() for n in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")],
    "blocked": status["SigBlk"].strip(),
    "ignored": int(status["SigIgn"], 16),
    "filter": [status["Seccomp"].strip(), status["NoNewPrivs"].strip()],
    "own loopback": tried(own_loopback),
    "forward": tried(lambda: dial(socket.AF_INET, (aim["name"], aim["port"]))),
    "outside": tried(lambda: dial(socket.AF_INET, tuple(aim["tcp4"]))),
    "path": tried(lambda: dial(socket.AF_UNIX, aim["path"])),
    "abstract": tried(lambda: dial(socket.AF_UNIX, "\\0" + aim["abstract"])),
    "udp": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close() or "open"),
    "memory": tried(lambda: os.open(f"/proc/{aim['pid']}/mem", os.O_RDWR) and "open"),
}))
"""


def faults_of_room(identity: Identity, outside: Outside, without: dict[str, Any]) -> Iterator[str]:
    """Everything that a room must be and is not; the dearest checks come last."""
    yield from _inside(identity, outside, without)
    yield from _refusals(identity, without)
    yield from _end_of_the_launcher(identity, without)


def _inside(identity: Identity, outside: Outside, without: dict[str, Any]) -> Iterator[str]:
    aim = {**outside.targets(), "name": NAME, "port": 4711, "pid": os.getpid()}
    victim = identity.start("drive.py", job(["/bin/sleep", "600"]), start_new_session=True)
    aim["pid"] = victim.pid
    surroundings = {
        **identity.environment(),
        "SSH_AUTH_SOCK": "/nowhere",
        "https_proxy": "http://proxy.example",
    }
    extra = os.open("/dev/null", os.O_RDONLY)
    try:
        done = identity.seal(
            [identity.python, "-I", "-c", LOOK, json.dumps(aim)],
            [(NAME, 4711, ["127.0.0.1", outside.tcp])],
            without=without,
            env=surroundings,
            cwd="/run",
            pass_fds=[extra],
        )
    finally:
        os.close(extra)
        victim.kill()
        victim.wait()
    if done.returncode:
        yield f"it does not run: {done.stderr}"
        return
    found = json.loads(done.stdout)
    here = os.stat("/run")
    right = {
        "descriptors": [0, 1, 2],
        "interfaces": ["lo"],
        "settings": [True, True],
        "capabilities": ["0" * 16] * 5,
        "blocked": "0" * 16,
        "filter": ["2", "1"],
        "own loopback": "open",
        "forward": "open",
        "outside": "ConnectionRefusedError",
        "path": "ConnectionRefusedError",
        "abstract": "ConnectionRefusedError",
        "udp": "PermissionError",
        "memory": "PermissionError",
    }
    for name, value in right.items():
        if found[name] != value:
            yield f"{name}: {found[name]}"
    old = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "net", "mnt")}
    if old & set(found["namespaces"]):
        yield f"namespaces are old: {old & set(found['namespaces'])}"
    if found["run"] == here.st_dev:
        yield "/run is the machine's own"
    if found["here"] == [here.st_dev, here.st_ino]:
        yield "the working folder is outside"
    for name in ("SSH_AUTH_SOCK", "https_proxy"):
        if name in found["environment"]:
            yield f"the environment has {name}"
    if "SNOWFLAKE_DISABLE_PLATFORM_DETECTION" not in found["environment"]:
        yield "the driver asks for metadata"


def _refusals(identity: Identity, without: dict[str, Any]) -> Iterator[str]:
    """Rooms that must not be entered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        with client:
            yield from _entered(identity, without, "an inherited connection", stdin=client)
    # Not by subprocess: Python does not start with a folder as its standard input.
    folder = "import os; os.dup2(os.open('/', os.O_RDONLY), 0)"
    yield from _entered(identity, without, "an inherited folder", prepare=folder)
    if without.get("steps", ["verify_seal"]) == ["verify_seal"]:
        # The seal's own verification has to find out what the filter lacks.
        leaky = {**without, "rule": "every other socket"}
        yield from _entered(identity, leaky, "a filter that lets all sockets through")


def _entered(
    identity: Identity, without: dict[str, Any], what: str, **options: Any
) -> Iterator[str]:
    done = identity.seal(["/bin/echo", "ran"], without=without, **options)
    if done.returncode != 78 or done.stdout:
        yield f"{what} is taken in"


def _end_of_the_launcher(identity: Identity, without: dict[str, Any]) -> Iterator[str]:
    """The command must not outlive the launcher, however that ends."""
    launcher = identity.start(
        "drive.py", job(["/bin/sh", "-c", "echo $$; exec sleep 600"], without=without), stdout=-1
    )
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline() or 0)
    launcher.kill()
    launcher.wait()
    if pid and not ended(pid):
        os.kill(pid, signal.SIGKILL)
        yield "the command outlives its launcher"


def ended(pid: int, seconds: float = 1.0) -> bool:
    """Whether a process ends within some time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False
