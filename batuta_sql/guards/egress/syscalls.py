"""The kernel's numbers, per architecture, and the few calls that Python has no function for.

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux.
Every call raises OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1
_CAPABILITY_VERSION_3 = 0x2008_0522
_LAST_CAPABILITY = 63


@dataclass(frozen=True)
class Architecture:
    """What a seccomp filter has to know of a machine.

    :param machine: as ``uname -m`` says it.
    :param audit: ``AUDIT_ARCH_*`` of its 64-bit calls.
    :param numbers: system call name -> number.
    """

    machine: str
    audit: int
    numbers: Mapping[str, int]


_COMMON = {
    "clone3": 435,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "pidfd_getfd": 438,
}

X86_64 = Architecture(
    "x86_64",
    0xC000_003E,
    {
        **_COMMON,
        "ioctl": 16,
        "socket": 41,
        "sendto": 44,
        "sendmsg": 46,
        "socketpair": 53,
        "clone": 56,
        "ptrace": 101,
        "capset": 126,
        "init_module": 175,
        "kexec_load": 246,
        "request_key": 249,
        "unshare": 272,
        "perf_event_open": 298,
        "sendmmsg": 307,
        "setns": 308,
        "process_vm_writev": 311,
        "finit_module": 313,
        "seccomp": 317,
        "kexec_file_load": 320,
        "bpf": 321,
        "userfaultfd": 323,
    },
)

AARCH64 = Architecture(
    "aarch64",
    0xC000_00B7,
    {
        **_COMMON,
        "ioctl": 29,
        "capset": 91,
        "unshare": 97,
        "kexec_load": 104,
        "init_module": 105,
        "ptrace": 117,
        "socket": 198,
        "socketpair": 199,
        "sendto": 206,
        "sendmsg": 211,
        "request_key": 218,
        "clone": 220,
        "perf_event_open": 241,
        "setns": 268,
        "sendmmsg": 269,
        "process_vm_writev": 271,
        "finit_module": 273,
        "seccomp": 277,
        "bpf": 280,
        "userfaultfd": 282,
        "kexec_file_load": 294,
    },
)

LAST_KNOWN = 469
"""``file_setattr`` of Linux 6.17, the same on both: what came later has not been judged."""


def architecture() -> Architecture:
    """That of this machine.

    :raises OSError: ENOSYS where there is no table for it, or where this is not Linux.
    """
    machine = platform.machine()
    for one in (X86_64, AARCH64):
        if sys.platform == "linux" and one.machine == machine and sys.maxsize > 2**32:
            return one
    raise OSError(errno.ENOSYS, f"there is no system call table for {sys.platform} on {machine}")


def unshare(flags: int) -> None:
    _check(_libc().unshare(ctypes.c_int(flags)), "unshare")


def mount(
    source: str | None, target: str, kind: str | None, flags: int, data: str | None = None
) -> None:
    """mount(2); errors name the target."""
    encoded = [None if v is None else os.fsencode(v) for v in (source, target, kind, data)]
    done = _libc().mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3])
    _check(done, f"mount {target}")


def die_with_parent(signal: int) -> None:
    """This process gets ``signal`` when the thread that made it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal)


def drop_capabilities() -> None:
    """Gives up every capability, and the way back through exec of a program of root's."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the kernel has no such capability
                raise
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    syscall("capset", ctypes.byref(header), ctypes.byref(nothing))


class _Fprog(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install_filter(program: bytes) -> None:
    """Puts a seccomp program on every thread of this process, for good; see seccomp(2).

    :raises OSError: also where a thread could not be brought under it.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    fprog = _Fprog(len(program) // 8, program)
    thread = syscall(
        "seccomp", _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(fprog)
    )
    if thread:
        raise OSError(
            errno.EPERM, f"seccomp: thread {thread} has a filter of its own and refused this one"
        )


def syscall(name: str, *arguments: object) -> int:
    """A system call by its name in the table."""
    return _check(_libc().syscall(architecture().numbers[name], *_widened(arguments)), name)


def _widened(arguments: tuple[object, ...]) -> list[object]:
    """Whole registers: ctypes would leave the upper half of an int undefined."""
    return [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]


def _prctl(option: int, argument: int) -> None:
    zero = ctypes.c_ulong(0)
    done = _libc().prctl(ctypes.c_int(option), ctypes.c_ulong(argument), zero, zero, zero)
    _check(done, f"prctl {option}")


def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
