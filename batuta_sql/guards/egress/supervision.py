"""Waiting for a child that shares the terminal: passes signals on, stops and goes on with it."""

from __future__ import annotations

import os
import signal


def _signals(*names: str) -> frozenset[signal.Signals]:
    """Those that this system has: the module can be imported where there is nothing to seal."""
    return frozenset(s for s in signal.Signals if s.name in names)


_PASSED_ON = _signals(
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGTSTP", "SIGCONT", "SIGUSR1", "SIGUSR2"
)

WATCHED = _PASSED_ON | _signals("SIGCHLD")
"""To be blocked, in every thread, while ``wait_for`` runs: it takes them one by one."""

_BY_TERMINAL = _signals("SIGINT", "SIGQUIT", "SIGTSTP")
_SI_KERNEL = 128
"""``si_code`` of a signal that the terminal sent (sigaction(2)): the child has it already."""


def wait_for(child: int) -> int:
    """The child's exit status; 128 + n where signal n ended it.

    The caller has blocked ``WATCHED`` since before the child was made.
    """
    while True:
        ended = _reap(child)
        if ended is not None:
            return ended
        told = signal.sigwaitinfo(WATCHED)
        number = signal.Signals(told.si_signo)
        from_terminal = number in _BY_TERMINAL and told.si_code == _SI_KERNEL
        if number in _PASSED_ON and not from_terminal:
            os.kill(child, number)


def _reap(child: int) -> int | None:
    """Takes note of what the child did; its status once it has ended."""
    while True:
        found, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if found == 0:
            return None
        if not os.WIFSTOPPED(status):
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if os.WSTOPSIG(status) in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            _stop_too()
            os.kill(child, signal.SIGCONT)


def _stop_too() -> None:
    """Stops this process, so that the shell which started it has the terminal back."""
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
