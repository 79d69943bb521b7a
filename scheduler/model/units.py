"""Units at the edges: the one place where durations and sizes are read from and written as text."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_WALLTIME = re.compile(r"(?:(?P<days>\d{1,4})-)?(?P<first>\d{1,6})(?::(?P<second>\d{1,2}))?(?::(?P<third>\d{1,2}))?")
_MEMORY = re.compile(r"(?P<number>\d{1,15})(?P<unit>[KMGTkmgt]?)(?:i?[Bb])?")
_KIB_IN = {"K": 1, "M": 1024, "G": 1024**2, "T": 1024**3}


def parse_walltime_s(text: str) -> int:
    """Seconds in a Slurm time: ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M`` or ``D-H:M:S``.

    Raises ValueError naming the text and the forms that are understood.
    """
    match = _WALLTIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}' is not a time; write minutes, H:M:S or D-H:M:S")
    first, second, third = (int(match[name] or 0) for name in ("first", "second", "third"))
    if match["days"] is not None:
        return int(match["days"]) * 86400 + first * 3600 + second * 60 + third
    if match["third"] is not None:
        return first * 3600 + second * 60 + third
    return first * 60 + second


def format_walltime(walltime_s: int) -> str:
    """``D-HH:MM:SS`` (days left out when none), as Slurm reads and prints it. Part seconds are not kept."""
    days, rest = divmod(int(walltime_s), 86400)
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock


def parse_memory_mib(text: str) -> int:
    """MiB in ``4000``, ``512M``, ``4G`` ... as Slurm counts (no unit: MiB), rounded up. Raises ValueError."""
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}' is not a memory size; write for example 512M or 4G")
    kib = int(match["number"]) * _KIB_IN[match["unit"].upper() or "M"]
    return -(-kib // 1024)


def format_size(size_bytes: int) -> str:
    """Bytes for people: ``0 bytes``, ``812 bytes``, ``3.4 MiB``."""
    size, unit = float(size_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size_bytes} bytes" if unit == "bytes" else f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"


def utc(epoch_s: float) -> datetime:
    """The aware UTC instant of a Unix time in seconds."""
    return datetime.fromtimestamp(epoch_s, UTC)


def zulu(instant: datetime) -> str:
    """ISO-8601 in UTC with microseconds and ``Z``: how instants look on the wire."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
