"""A sealed program on a terminal: Ctrl-C, Ctrl-Z, an interactive shell."""

from __future__ import annotations

import os
import shutil

import pexpect
import pytest

from tests.guards.egress.conftest import Identity, job

# Lines are typed at a prompt: a shell that takes the terminal back throws away what came before.

COUNT = (
    "import signal, time; seen = []\n"
    "signal.signal(signal.SIGINT, lambda n, f: seen.append(n))\n"
    "print('ready', flush=True)\n"
    "while not seen: time.sleep(0.01)\n"
    "time.sleep(0.3); print('seen', len(seen))"
)


def spawn(identity: Identity, command: list[str]) -> pexpect.spawn:
    program, *arguments = identity.command("drive.py", job(command))
    return _spawn(identity, program, arguments)


def _spawn(identity: Identity, program: str, arguments: list[str]) -> pexpect.spawn:
    def become() -> None:
        if identity.options:
            os.setgroups([])
            os.setgid(identity.options["group"])
            os.setuid(identity.options["user"])

    environment = {**identity.environment(), "PS1": "$ ", "TERM": "dumb"}
    return pexpect.spawn(
        program,
        arguments,
        env=environment,
        cwd=str(identity.folder),
        preexec_fn=become,
        encoding="utf-8",
        timeout=30,
        echo=False,
    )


def test_ctrl_c_arrives_once(identity: Identity) -> None:
    terminal = spawn(identity, [identity.python, "-I", "-c", COUNT])
    terminal.expect("ready")
    terminal.sendintr()
    terminal.expect("seen 1")
    terminal.expect(pexpect.EOF)
    assert terminal.wait() == 0


@pytest.fixture
def bash() -> str:
    found = shutil.which("bash")
    if found is None:
        pytest.skip("job control is tried with bash, and this machine has none")
    return found


def test_an_interactive_shell_has_job_control(identity: Identity, bash: str) -> None:
    terminal = spawn(identity, [bash, "--norc", "--noprofile", "-i"])
    terminal.expect_exact("$ ")
    # What is waited for is not what was typed, and so not its echo.
    sleep = "sh -c 'echo up$((1)); exec sleep 600'"
    terminal.sendline(sleep)
    terminal.expect("up1")
    terminal.sendintr()
    terminal.expect_exact("$ ")
    terminal.sendline("echo status $?")
    terminal.expect("status 130")
    terminal.expect_exact("$ ")
    terminal.sendline(sleep)
    terminal.expect("up1")
    terminal.send("\x1a")
    terminal.expect("Stopped")
    terminal.expect_exact("$ ")
    # `wait` does not wait for a job that is stopped, and a shell with one refuses to end.
    terminal.sendline("kill -KILL %1; while jobs -s | grep -q .; do sleep 0.05; done")
    terminal.expect_exact("$ ")
    terminal.sendline("echo jobs$((0))")
    terminal.expect("jobs0")
    terminal.expect_exact("$ ")
    terminal.sendline("exit 5")
    terminal.expect(pexpect.EOF)
    assert terminal.wait() == 5


def test_ctrl_z_gives_the_terminal_back_to_the_outer_shell(identity: Identity, bash: str) -> None:
    terminal = _spawn(identity, bash, ["--norc", "--noprofile", "-i"])
    terminal.expect_exact("$ ")
    program = (
        # Not by print(), which a second signal would find at work.
        "import os, signal, time;"
        "signal.signal(signal.SIGCONT, lambda n, f: os.write(1, str(2).encode() + nd));"
        'nd = b"nd time"; print(str(1) + "st time", flush=True); time.sleep(600)'
    )
    command = job([identity.python, "-I", "-c", program])
    terminal.sendline(f"'{identity.python}' '{identity.folder}/drive.py' '{command}'")
    terminal.expect("1st time")
    terminal.send("\x1a")
    terminal.expect("Stopped")
    terminal.expect_exact("$ ")
    terminal.sendline("fg")
    terminal.expect("2nd time")
    terminal.sendintr()
    terminal.expect_exact("$ ")
    terminal.sendline("echo status $?")
    terminal.expect("status 130")
    terminal.expect_exact("$ ")
    terminal.sendline("exit")
    terminal.expect(pexpect.EOF)
    terminal.close()
