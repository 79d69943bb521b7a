"""How quantities are written for people."""

from __future__ import annotations

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float) -> str:
    """Exactly, in whole seconds: ``10 min``, ``24 h``, ``1 h 30 min``, ``3 d``; days from 48 hours on."""
    left = int(seconds)
    parts = []
    for size_s, unit in _UNITS[0 if left >= 2 * 86_400 else 1 :]:
        number, left = divmod(left, size_s)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts) or "0 s"


def about(seconds: float) -> str:
    """Roughly, as one says it: ``no time``, ``40 s``, ``6 min``, ``2.5 h``, ``3 days``."""
    if seconds < 0.5:
        return "no time"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f}".removesuffix(".0") + " h"
    return f"{seconds / 86_400:.1f}".removesuffix(".0") + " days"


def count(number: int, noun: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def memory(mib: int) -> str:
    """``512 MiB``, ``8 GiB``."""
    return f"{mib / 1024:g} GiB" if mib >= 1024 and mib % 512 == 0 else f"{mib} MiB"


def gpus(number: int, model: str | None) -> str:
    """``2 A100 GPUs per node``; the model is left out when it is not known."""
    return count(number, f"{model} GPU" if model else "GPU") + " per node"


def listed(parts: list[str], limit: int = 8) -> str:
    """The first parts, joined, and how many more there are."""
    more = f"; and {len(parts) - limit} more" if len(parts) > limit else ""
    return "; ".join(parts[:limit]) + more
