"""How figures are printed: what was measured, beside what, and the goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. ``ours`` and ``peer`` are as printed, with their unit; ``goal`` says what ought to hold."""

    what: str
    ours: str
    peer: str = ""
    goal: str = ""


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table that fits a terminal and a commit message."""
    head = Row("", "Berth", "beside", "goal")
    widths = [max(len(getattr(row, name)) for row in (head, *rows)) for name in ("what", "ours", "peer", "goal")]
    print(f"\n{title}")
    for row in (head, *rows):
        cells = (row.what, row.ours, row.peer, row.goal)
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def spread(values: Sequence[float], unit: str) -> str:
    """Median with the extremes and the count: ``12 ms (9 to 31, n=30)``."""
    return f"{median(values):.4g} {unit} ({min(values):.4g} to {max(values):.4g}, n={len(values)})"
