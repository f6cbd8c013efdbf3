"""``seal``: what a command keeps, what it loses, and what it can still reach."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guards.egress.conftest import Identity, job
from tests.guards.egress.room import ended

DIAL = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as one:
    one.sendall(b"hello")
    one.shutdown(socket.SHUT_WR)
    said = b""
    while more := one.recv(65536):
        said += more
sys.stdout.write(said.decode())
"""


class Upper:
    """A server outside that says everything back in capitals; TCP and a Unix socket."""

    def __init__(self, folder: Path) -> None:
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.path = str(folder / f"upper-{os.getpid()}.sock")
        self.unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.unix.bind(self.path)
        self.unix.listen()
        os.chmod(self.path, 0o777)
        for one in (self.tcp, self.unix):
            threading.Thread(target=self._accept, args=(one,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = listener.accept()
                threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one: socket.socket) -> None:
        with one:
            said = b""
            while more := one.recv(65536):
                said += more
            one.sendall(said.upper())

    def close(self) -> None:
        self.tcp.close()
        self.unix.close()
        os.unlink(self.path)


@pytest.fixture(scope="session")
def upper(programs: Path) -> Iterator[Upper]:
    one = Upper(programs)
    yield one
    one.close()


# --- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("exit 78", 78), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
def test_the_status_is_the_commands(identity: Identity, script: str, status: int) -> None:
    assert identity.seal(["/bin/sh", "-c", script]).returncode == status


def test_streams_arguments_and_environment_are_kept(identity: Identity) -> None:
    script = 'read line; echo "$line $0 $1 $KEPT"; echo wrong >&2'
    environment = {**identity.environment(), "KEPT": "here"}
    done = identity.seal(["/bin/sh", "-c", script, "a b", "c"], input="in\n", env=environment)
    assert (done.stdout, done.stderr) == ("in a b c here\n", "wrong\n")


def test_the_user_is_the_same(identity: Identity) -> None:
    done = identity.seal_python("import os; print(os.getuid(), os.getgid())")
    expected = (65534, 65534) if identity.options else (os.getuid(), os.getgid())
    assert done.stdout.split() == [str(n) for n in expected]


def test_the_working_folder_is_kept(identity: Identity) -> None:
    assert identity.seal(["/bin/pwd"], cwd="/usr").stdout == "/usr\n"


@pytest.mark.parametrize(("command", "status"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_run(identity: Identity, command: str, status: int) -> None:
    done = identity.seal([command])
    assert done.returncode == status
    assert done.stderr.startswith(f"{command}: ")


def test_a_closed_standard_stream_stays_closed(identity: Identity) -> None:
    look = "test -e /proc/$$/fd/0 && echo open || echo closed"
    done = identity.seal(["/bin/sh", "-c", look], prepare="import os; os.close(0)")
    assert done.stdout == "closed\n", done.stderr


def test_enforced_says_sealed_inside_and_nothing_outside(identity: Identity) -> None:
    program = "from batuta_sql.guards.egress import enforced; print(enforced())"
    assert identity.seal([identity.python, "-c", program]).stdout == "sealed\n"
    assert _python(identity, program) == "None\n"


def test_the_environment_alone_is_not_believed(identity: Identity) -> None:
    """Whatever a caller sets, only the kernel is asked: a process by itself is under nothing."""
    program = (
        "import os; from batuta_sql.guards.egress import enforced\n"
        "os.environ.update(BATUTA_SEALED='1', container='sealed')\nprint(enforced())"
    )
    assert _python(identity, program) == "None\n"


def test_a_seal_inside_a_seal_is_refused(identity: Identity) -> None:
    inner = identity.command("drive.py", job(["/bin/echo", "ran"]))
    done = identity.seal(inner)
    assert (done.returncode, done.stdout) == (78, "")
    assert "sealed or locked already" in done.stderr


def test_a_lock_inside_a_seal_holds(identity: Identity) -> None:
    program = (
        "from batuta_sql.guards.egress import enforced, lock; lock(); print(enforced())\n"
        "import socket\n"
        "try: socket.socket()\nexcept PermissionError: print('refused')"
    )
    done = identity.seal([identity.python, "-c", program])
    assert done.stdout.split() == ["locked", "refused"], done.stderr


# --- forwards ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "127.0.0.1",
        "127.3.2.1",
        "localhost",
        "::1",
        "warehouse.example",
        "203.0.113.7",
        "2001:db8::7",
    ],
)
def test_a_forward_is_dialled_by_its_own_name_and_port(
    identity: Identity, upper: Upper, name: str
) -> None:
    forwards = [(name, 4711, ["127.0.0.1", upper.port])]
    done = identity.seal([identity.python, "-I", "-c", DIAL, name, "4711"], forwards)
    assert done.stdout == "HELLO", done.stderr


def test_a_forward_to_a_unix_socket(identity: Identity, upper: Upper) -> None:
    forwards = [("127.0.0.1", 5432, upper.path)]
    done = identity.seal([identity.python, "-I", "-c", DIAL, "127.0.0.1", "5432"], forwards)
    assert done.stdout == "HELLO", done.stderr


def test_ports_below_1024_need_no_privileges(identity: Identity, upper: Upper) -> None:
    forwards = [("warehouse.example", 443, ["127.0.0.1", upper.port])]
    done = identity.seal([identity.python, "-I", "-c", DIAL, "WAREHOUSE.example", "443"], forwards)
    assert done.stdout == "HELLO", done.stderr


def test_hosts_of_the_same_port_are_told_apart(identity: Identity, upper: Upper) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: silent.accept()[0].close(), daemon=True).start()
    with silent:
        forwards = [
            ("a.example", 443, ["127.0.0.1", silent.getsockname()[1]]),
            ("b.example", 443, ["127.0.0.1", upper.port]),
            ("b.example", 444, ["127.0.0.1", upper.port]),
        ]
        for name, port in (("b.example", "443"), ("b.example", "444")):
            command = [identity.python, "-I", "-c", DIAL, name, port]
            assert identity.seal(command, forwards).stdout == "HELLO"


def test_other_names_and_ports_are_not_reached(identity: Identity, upper: Upper) -> None:
    forwards = [("warehouse.example", 443, ["127.0.0.1", upper.port])]
    for name, port in (("warehouse.example", 444), ("127.0.0.1", upper.port)):
        done = identity.seal([identity.python, "-I", "-c", DIAL, name, str(port)], forwards)
        assert "refused" in done.stderr
    done = identity.seal([identity.python, "-I", "-c", DIAL, "other.example", "443"], forwards)
    assert "gaierror" in done.stderr


def test_many_bytes_both_ways_and_many_connections(identity: Identity, upper: Upper) -> None:
    program = (
        "import socket, threading\n"
        "def one():\n"
        "    with socket.create_connection(('127.0.0.1', 4711), 10) as c:\n"
        "        t = threading.Thread(target=lambda: (c.sendall(b'x' * 3_000_000),"
        " c.shutdown(socket.SHUT_WR)))\n"
        "        t.start()\n"
        "        said = b''\n"
        "        while more := c.recv(1 << 20): said += more\n"
        "        found.append(said == b'X' * 3_000_000)\n"
        "found = []\n"
        "threads = [threading.Thread(target=one) for _ in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print(found.count(True))"
    )
    done = identity.seal_python(program, [("127.0.0.1", 4711, ["127.0.0.1", upper.port])])
    assert done.stdout == "8\n", done.stderr


def test_a_target_that_does_not_answer_resets_the_connection(identity: Identity) -> None:
    """An end without a reset could be taken for an empty answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    forwards = [("warehouse.example", 443, ["127.0.0.1", closed])]
    done = identity.seal([identity.python, "-I", "-c", DIAL, "warehouse.example", "443"], forwards)
    assert "ConnectionResetError" in done.stderr or "BrokenPipeError" in done.stderr
    said = f"forward warehouse.example:443: 127.0.0.1:{closed}: Connection refused"
    assert said in done.stderr


@pytest.mark.parametrize(
    ("forwards", "said"),
    [
        ([("0.0.0.0", 1, "/a")], "cannot be dialled"),
        ([("a b", 1, "/a")], "neither a host name nor an address"),
        ([("fe80::1%eth0", 1, "/a")], "cannot be dialled"),
        ([("a", 0, "/a")], "not a TCP port"),
        ([("a", 1, "/a"), ("A.", 1, "/b")], "same address"),
        ([("127.0.0.1", 1, "/a"), ("localhost", 1, "/b")], "same address"),
    ],
)
def test_forwards_that_make_no_sense(identity: Identity, forwards: list[Any], said: str) -> None:
    done = identity.seal(["/bin/echo", "ran"], forwards)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


# --- Unix sockets and folders ------------------------------------------------------------------


def test_run_is_empty_but_for_what_is_kept(identity: Identity) -> None:
    here = Path("/run").iterdir()
    kept = next((str(p) for p in here if p.is_dir() and os.access(p, os.R_OK | os.X_OK)), None)
    listing = "import os; print(*os.listdir('/run'), sep='\\n')"
    assert identity.seal_python(listing).stdout.split() == []
    if kept is not None:
        done = identity.seal_python(listing, keep=[kept])
        assert done.stdout.split() == [Path(kept).name]


def test_a_socket_is_reached_only_if_it_or_its_folder_is_kept(
    identity: Identity, upper: Upper
) -> None:
    program = (
        f"import socket; c = socket.socket(socket.AF_UNIX); c.connect({upper.path!r});"
        "c.sendall(b'hello'); c.shutdown(1); print(c.recv(9).decode())"
    )
    assert "refused" in identity.seal_python(program).stderr
    for keep in (upper.path, str(Path(upper.path).parent)):
        assert identity.seal_python(program, keep=[keep]).stdout == "HELLO\n"


def test_what_is_kept_of_a_masked_folder_is_there_and_nothing_else(
    identity: Identity, upper: Upper, programs: Path
) -> None:
    folder = programs / "masked"
    (folder / "inner").mkdir(parents=True, exist_ok=True)
    (folder / "other").mkdir(exist_ok=True)
    (folder / "inner" / "file").touch()
    with socket.socket(socket.AF_UNIX) as server:
        path = folder / "s"
        path.unlink(missing_ok=True)
        server.bind(str(path))
        server.listen()
        path.chmod(0o777)
        program = (
            f"import os, socket; print(os.listdir({str(folder)!r}), end=' ')\n"
            f"socket.socket(socket.AF_UNIX).connect({str(path)!r}); print('dialled')"
        )
        for folders, kept, listed in (
            ([str(folder)], [], "[]"),
            ([str(folder)], [str(path)], "['s'] dialled"),
            ([str(folder)], [str(folder / "inner")], "['inner']"),
        ):
            done = identity.seal_python(program, keep=kept, masked=folders)
            assert done.stdout.strip() == listed, done.stderr
        look = f"import os; print(os.listdir({str(folder / 'inner')!r}))"
        done = identity.seal_python(look, keep=[str(folder / "inner")], masked=[str(folder)])
        assert done.stdout == "['file']\n"


def test_what_has_to_be_masked_cannot_be_kept(identity: Identity) -> None:
    for keep in ("/run", "/"):
        done = identity.seal(["/bin/echo", "ran"], keep=[keep])
        assert (done.returncode, done.stdout) == (78, "")
        assert "cannot be kept" in done.stderr


def test_sockets_of_its_own_work(identity: Identity) -> None:
    """A sealed program may talk to itself: TCP on loopback, Unix sockets, pairs, pipes."""
    program = (
        "import os, socket, tempfile, multiprocessing.connection as m\n"
        "with tempfile.TemporaryDirectory() as f:\n"
        "    for address in (('127.0.0.1', 0), f + '/s', '\\0batuta-own'):\n"
        "        with m.Listener(address) as l:\n"
        "            c = m.Client(l.address); s = l.accept(); c.send('x'); print(s.recv())\n"
        "a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1).decode())"
    )
    assert identity.seal_python(program).stdout.split() == ["x"] * 4


def test_connected_sockets_are_refused_even_as_standard_input(identity: Identity) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        done = identity.seal(["/bin/echo", "ran"], stdin=client)
    assert (done.returncode, done.stdout) == (78, "")
    assert "descriptor 0 is a socket of the family AF_INET" in done.stderr
    assert "Hint: give the command another standard stream" in done.stderr


# --- signals -----------------------------------------------------------------------------------

COUNT = """
import os, signal, sys, time
seen = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
    signal.signal(number, lambda n, frame: seen.append(n))
print("ready", flush=True)
while not seen:
    time.sleep(0.01)
time.sleep(0.2)
print(*[int(n) for n in seen])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_passed_on_once(identity: Identity, number: signal.Signals) -> None:
    command = [identity.python, "-I", "-c", COUNT]
    launcher = identity.start("drive.py", job(command), stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == "ready\n"
    launcher.send_signal(number)
    said, _ = launcher.communicate(timeout=30)
    assert (said, launcher.returncode) == (f"{int(number)}\n", 0)


def test_a_stopped_command_does_not_stop_its_launcher(identity: Identity) -> None:
    command = ["/bin/sh", "-c", "echo $$; kill -STOP $$; echo on"]
    launcher = identity.start("drive.py", job(command), stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    while _state(pid) != "T":
        time.sleep(0.01)
    launcher.send_signal(signal.SIGCONT)
    said, _ = launcher.communicate(timeout=30)
    assert (said, launcher.returncode) == ("on\n", 0)


def test_the_command_ends_with_its_launcher(identity: Identity) -> None:
    command = ["/bin/sh", "-c", "echo $$; exec sleep 600"]
    launcher = identity.start("drive.py", job(command), stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    launcher.kill()
    launcher.wait()
    assert ended(pid, seconds=30)


def test_the_launcher_runs_nothing_but_forwards(identity: Identity) -> None:
    """While the command runs, the launcher is one process with one thread for each listener."""
    command = ["/bin/sh", "-c", "echo ready; read line"]
    launcher = identity.start(
        "drive.py",
        job(command, [("127.0.0.1", 4711, "/nowhere")]),
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )
    assert launcher.stdout is not None
    launcher.stdout.readline()
    tasks = os.listdir(f"/proc/{launcher.pid}/task")
    launcher.communicate("\n", timeout=30)
    assert len(tasks) == 2


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _python(identity: Identity, program: str) -> str:
    done = subprocess.run(
        [identity.python, "-c", program],
        capture_output=True,
        text=True,
        env=identity.environment(),
        cwd=identity.folder,
        **identity.options,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
