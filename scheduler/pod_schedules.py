"""When snapshots of volumes are taken, and which are kept. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from scheduler.model.errors import SpecInvalid

LEAST_APART = timedelta(minutes=5)
"""Copies of a volume cost its place time and room."""

LOOKED_AT = 50
"""So many instants of a schedule are looked at for two that are too close."""

_COUNT = re.compile(r"(?:keep )?(?P<count>[1-9][0-9]{0,3})")
_AGE = re.compile(r"(?P<number>[1-9][0-9]{0,3})(?P<unit>[hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@dataclass(frozen=True, slots=True)
class Retention:
    """Which copies are kept: the newest ``count``, those younger than ``age``; None: it drops none."""

    count: int | None = None
    age: timedelta | None = None

    def dropped(self, taken: Sequence[datetime], now: datetime) -> Sequence[datetime]:
        """Those that are not kept; the newest always is."""
        newest_first = sorted(taken, reverse=True)
        return [
            at
            for place, at in enumerate(newest_first)
            if place > 0
            and ((self.count is not None and place >= self.count) or (self.age is not None and now - at > self.age))
        ]


def parse_retention(text: str) -> Retention:
    """``7`` or ``keep 7`` copies, or those of ``12h``, ``30d``, ``8w``; empty: all."""
    if not text.strip():
        return Retention()
    if match := _COUNT.fullmatch(text.strip()):
        return Retention(count=int(match["count"]))
    if match := _AGE.fullmatch(text.strip()):
        return Retention(age=int(match["number"]) * _UNITS[match["unit"]])
    raise SpecInvalid.of(
        "retention_policy", f"'{text[:80]}' is not understood", "write 7 (copies), or 12h, 30d or 8w (their age)"
    )


def check_schedule(cron: str, now: datetime) -> None:
    """SpecInvalid for a schedule that cannot be read, never comes, or comes too often."""
    before, *later = _instants(cron, now, LOOKED_AT)
    for at in later:
        if at - before < LEAST_APART:
            raise SpecInvalid.of(
                "cron",
                f"'{cron[:80]}' comes twice within {LEAST_APART.seconds // 60} minutes",
                "let it come less often",
            )
        before = at


def next_at(cron: str, now: datetime) -> datetime:
    """When a schedule comes next, in UTC."""
    return _instants(cron, now, 1)[0]


def _instants(cron: str, now: datetime, count: int) -> list[datetime]:
    try:
        schedule = CronSim(cron, now.astimezone(UTC))
        found = [at for _, at in zip(range(count), schedule, strict=False)]
    except (CronSimError, ValueError, OverflowError):
        raise SpecInvalid.of("cron", f"'{cron[:80]}' is not a schedule", "write for example 0 3 * * * (UTC)") from None
    if not found:
        raise SpecInvalid.of("cron", f"'{cron[:80]}' never comes", "write for example 0 3 * * * (UTC)")
    return found
