"""What one look at a queue shows, as plain numbers on one clock: what forecasts are made of, and learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class SeenJob(NamedTuple):
    """A job as a site shows it. Instants in seconds; ``asked_s`` is its walltime.

    user: as whom it stands in line; kin: whose run times are like its own (for our jobs more than the login tells).
    started_s, ended_s: None while it has not.
    """

    id: str
    cores: int
    asked_s: float
    submitted_s: float
    user: str
    kin: str
    started_s: float | None = None
    ended_s: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """A queue at one instant. waiting: in the order that the site shows; ended: since the look before, where shown.

    coming: jobs of ours that were sent and are not in line yet; they will be from their ``submitted_s`` on.
    whole: False where it was cut short: who is missing may be there still.
    speed: how fast jobs run there; where walltimes are asked for accordingly, one job asks for another in each place.
    """

    now_s: float
    cores: int
    running: Sequence[SeenJob]
    waiting: Sequence[SeenJob]
    ended: Sequence[SeenJob] = ()
    coming: Sequence[SeenJob] = ()
    whole: bool = True
    speed: float = 1.0
