"""The seal's tests run as this user and, where that is root, as an ordinary one too.

Neither the repository nor the virtual environment need be readable to the ordinary user, so the
package and the attackers are copied into a folder that is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.guards.egress.outside import Outside, bystander

NOBODY = 65534
HERE = Path(__file__).parent
IDENTITIES = ("root", "user") if os.geteuid() == 0 else ("user",)


@dataclass(frozen=True)
class Identity:
    """Who runs a program, and with what Python.

    :param options: for subprocess: the user, where it is not this one.
    """

    name: str
    python: str
    folder: Path
    options: dict[str, Any] = field(default_factory=dict)

    def run(
        self, program: str, *arguments: str, timeout: float = 120, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program of the copied folder."""
        return subprocess.run(
            self.command(program, *arguments),
            **{
                "capture_output": True,
                "text": True,
                "timeout": timeout,
                "env": self.environment(),
                "cwd": self.folder,
                **self.options,
                **options,
            },
        )

    def start(self, program: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(program, *arguments),
            **{
                "text": True,
                "env": self.environment(),
                "cwd": self.folder,
                **self.options,
                **options,
            },
        )

    def command(self, program: str, *arguments: str) -> list[str]:
        return [self.python, str(self.folder / program), *arguments]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self.folder),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            # The tests reach nothing beyond this machine, not even a cloud's metadata service.
            "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
        }

    def seal(
        self,
        command: Sequence[str],
        forwards: Sequence[tuple[str, int, Any]] = (),
        *,
        keep: Sequence[str] = (),
        without: dict[str, Any] | None = None,
        prepare: str = "",
        masked: Sequence[str] = (),
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command sealed; ``without`` leaves a part out, ``masked`` are further folders."""
        return self.run(
            "drive.py", job(command, forwards, keep, without or {}, prepare, masked), **options
        )

    def seal_python(self, program: str, *a: Any, **o: Any) -> subprocess.CompletedProcess[str]:
        return self.seal([self.python, "-I", "-c", program], *a, **o)


def job(
    command: Sequence[str],
    forwards: Sequence[tuple[str, int, Any]] = (),
    keep: Sequence[str] = (),
    without: dict[str, Any] | None = None,
    prepare: str = "",
    masked: Sequence[str] = (),
) -> str:
    return json.dumps(
        {
            "command": list(command),
            "forwards": list(forwards),
            "keep": list(keep),
            "without": without or {},
            "prepare": prepare,
            "masked": list(masked),
        }
    )


@pytest.fixture(scope="session")
def programs() -> Iterator[Path]:
    """A folder, readable to all, with the package and the test's own programs."""
    folder = Path(tempfile.mkdtemp(prefix="batuta-egress-"))
    try:
        package = ROOT / "batuta_sql"
        for source in (
            *package.glob("*.py"),
            package / "guards" / "__init__.py",
            *(package / "guards" / "egress").glob("*.py"),
        ):
            copy = folder / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        for name in ("attacks.py", "drive.py"):
            shutil.copyfile(HERE / name, folder / name)
        driver = go_driver()
        if driver is not None:
            shutil.copyfile(driver, folder / "driver.so")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def go_driver() -> Path | None:
    found = importlib.util.find_spec("adbc_driver_snowflake")
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("libadbc_driver_snowflake.so"), None)


@pytest.fixture(scope="session", params=IDENTITIES)
def identity(request: pytest.FixtureRequest, programs: Path) -> Identity:
    if request.param == "root" or os.geteuid() != 0:
        one = Identity(request.param, sys.executable, programs)
    else:
        options = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        one = Identity(request.param, _python_for(options), programs, options)
    done = one.seal(["/bin/true"])
    if done.returncode == 78 and not os.environ.get("BATUTA_REQUIRE_SEAL"):
        pytest.skip(f"this machine cannot make a seal: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return one


def _python_for(options: dict[str, Any]) -> str:
    """An interpreter that the ordinary user can run."""
    candidates = (
        sys.executable,
        os.path.realpath(sys.executable),
        *(os.path.join(folder, "python3") for folder in ("/usr/local/bin", "/usr/bin", "/opt/bin")),
    )
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for candidate in candidates:
        try:
            done = subprocess.run(
                [candidate, "-I", "-c", check], cwd="/", capture_output=True, **options
            )
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    pytest.fail("no Python 3.11 that an ordinary user may run: install one for all users")


@pytest.fixture(scope="session")
def outside(programs: Path) -> Iterator[Outside]:
    """Listeners outside. What reaches them is kept for the whole session."""
    one = Outside(programs)
    yield one
    one.close()


@dataclass(frozen=True)
class Attempted:
    """One run of the attacks.

    :param outcomes: attack -> "open", or what stopped it.
    :param arrived: what came to the listeners meanwhile.
    """

    outcomes: dict[str, str]
    arrived: list[bytes]
    threads_before: int

    def reached(self, name: str) -> bool:
        return any(contact.split(b" ")[0] == name.encode() for contact in self.arrived)


Attempt = Callable[..., Attempted]


@pytest.fixture(scope="session")
def attempt(identity: Identity, outside: Outside) -> Iterator[Attempt]:
    """Runs the attacks under ``seal``, ``lock`` or ``none``; the result is kept."""
    kept: dict[str, Attempted] = {}
    victim = bystander({"python": identity.python, "as": identity.options})

    def run(
        mode: str, without: dict[str, Any] | None = None, only: Sequence[str] = ()
    ) -> Attempted:
        key = json.dumps([mode, without, list(only)])
        if key not in kept:
            kept[key] = _attempted(identity, outside, victim.pid, mode, without, only)
        return kept[key]

    yield run
    victim.kill()
    victim.wait()


def _attempted(
    identity: Identity,
    outside: Outside,
    victim: int,
    mode: str,
    without: dict[str, Any] | None,
    only: Sequence[str],
) -> Attempted:
    aim = {**outside.targets(), "pid": victim, "only": list(only)}
    if (identity.folder / "driver.so").exists():
        aim["driver"] = str(identity.folder / "driver.so")
    before = len(outside.contacts())
    arguments = [mode, json.dumps(aim)]
    if mode == "seal":
        command = identity.command("attacks.py", *arguments)
        done = identity.seal(command, without=without)
    else:
        done = identity.run("attacks.py", *arguments)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return Attempted(told["outcomes"], outside.contacts()[before:], told["threads_before"])
