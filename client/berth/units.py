"""Durations and sizes as people write them."""

from __future__ import annotations

import re

_CLOCK = re.compile(r"(?:(?P<days>\d{1,4})-)?(?P<first>\d{1,6})(?::(?P<second>\d{1,2}))?(?::(?P<third>\d{1,2}))?")
_WORDS = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,7})s)?")
_MEMORY = re.compile(r"(?P<number>\d{1,9}(?:\.\d{1,3})?)(?P<unit>[KMGT]?)(?:i?B)?", re.IGNORECASE)
_MIB_IN = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2}
_SECONDS_IN_WORDS = (86400, 3600, 60, 1)


def parse_time_s(text: str) -> int:
    """Seconds in a time as Slurm writes it (``30`` minutes, ``M:S``, ``H:M:S``, ``D-H[:M[:S]]``) or as ``1h30m``.

    Raises ValueError that names the text and the forms understood.
    """
    text = text.strip()
    if (match := _CLOCK.fullmatch(text)) is not None:
        first, second, third = (int(match[name] or 0) for name in ("first", "second", "third"))
        if match["days"] is not None:
            return int(match["days"]) * 86400 + first * 3600 + second * 60 + third
        if match["third"] is not None:
            return first * 3600 + second * 60 + third
        return first * 60 + second
    if text and (match := _WORDS.fullmatch(text)) is not None:
        return sum(int(part or 0) * seconds for part, seconds in zip(match.groups(), _SECONDS_IN_WORDS, strict=True))
    raise ValueError(f"'{text}' is not a time; write minutes (30), H:M:S (1:30:00), D-H:M:S or 1h30m")


def minutes_of(text: str) -> int:
    """Whole minutes, rounded up: the unit in which a job's time travels. Raises ValueError."""
    minutes = -(-parse_time_s(text) // 60)
    if minutes < 1:
        raise ValueError(f"'{text}' is no time at all; ask for at least one minute")
    return minutes


def parse_memory_mib(text: str) -> int:
    """MiB in ``4000``, ``512M``, ``4G``, ``1.5G`` (no unit: MiB), rounded up. Raises ValueError."""
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}' is not a memory size; write for example 512M or 4G")
    return -int(-float(match["number"]) * _MIB_IN[match["unit"].upper()] // 1)


def duration(seconds: float) -> str:
    """A length of time for people: ``8s``, ``3m 05s``, ``2h 10m``, ``4d 03h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole // 60 % 60:02d}m"
    return f"{whole // 86400}d {whole // 3600 % 24:02d}h"


def size(count: float) -> str:
    """A number of bytes for people: ``512 B``, ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
