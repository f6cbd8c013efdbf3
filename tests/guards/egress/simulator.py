"""Runs a seccomp program as the kernel would, without a kernel: for every architecture."""

from __future__ import annotations

import struct

from batuta_sql.guards.egress.syscalls import Architecture


class BadProgramError(Exception):
    """The kernel would not load it, or it does not end."""


def answer(
    program: bytes, machine: Architecture, number: int, *arguments: int, audit: int | None = None
) -> int:
    """What the program says to a system call; ``audit`` is the entry, by default the machine's own.

    ``struct seccomp_data``: int nr, u32 arch, u64 instruction pointer, u64 args[6].
    """
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    entry = machine.audit if audit is None else audit
    data = struct.pack("=IIQ6Q", number & 0xFFFF_FFFF, entry, 0, *(a & 2**64 - 1 for a in padded))
    accumulator = at = 0
    while True:
        try:
            code, yes, no, k = struct.unpack_from("=HBBI", program, 8 * at)
        except struct.error:
            raise BadProgramError("it runs over its end") from None
        at += 1
        match code:
            case 0x20:
                if k % 4 or k >= len(data):
                    raise BadProgramError(f"it loads from {k}")
                accumulator = struct.unpack_from("=I", data, k)[0]
            case 0x54:
                accumulator &= k
            case 0x06:
                return int(k)
            case 0x15:
                at += yes if accumulator == k else no
            case 0x25:
                at += yes if accumulator > k else no
            case 0x45:
                at += yes if accumulator & k else no
            case _:
                raise BadProgramError(f"instruction {code:#x}")
