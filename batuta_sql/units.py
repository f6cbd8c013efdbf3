"""Figures as people read them: ``5.0 TB``, ``$25.00``. Units are decimal: 1 TB = 10^12 bytes."""

from __future__ import annotations

_SIZES = ("kB", "MB", "GB", "TB", "PB")


def size(bytes_: float) -> str:
    """A number of bytes, ``12.3 GB``."""
    if bytes_ < 1000:
        return f"{bytes_:.0f} B"
    value, unit = bytes_ / 1000, _SIZES[0]
    for larger in _SIZES[1:]:
        # 999.95 would be written as 1000.0.
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{value:,.1f} {unit}"


def dollars(usd: float) -> str:
    """US dollars; a small amount keeps two digits that tell something, and is never ``$0.00``."""
    if usd == 0 or usd >= 0.01:
        return f"${usd:,.2f}"
    if usd < 0.000001:
        return "less than $0.000001"
    return f"${usd:.6f}".rstrip("0")


def duration(seconds: float) -> str:
    """Seconds, with as many digits as make sense."""
    return f"{seconds:.3f} s" if seconds < 10 else f"{seconds:,.0f} s"
