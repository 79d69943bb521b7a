"""What every step is given. A step talks to the network and says what happened; it never writes to the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from scheduler.model.jobs import Attempt, Fact, Job
from scheduler.ports import Ports
from scheduler.reconcile.fetch import WebRules
from scheduler.reconcile.sides import Sides


@dataclass(frozen=True, slots=True)
class Hands:
    """``say`` tells people how long work goes on; it raises StaleJob when the job was moved meanwhile."""

    ports: Ports
    web: WebRules
    say: Callable[[str], Awaitable[None]]
    sides: Sides


Step = Callable[[Job, Hands], Awaitable[Fact | Attempt | None]]
"""A fact moves the job. An attempt is an intent to submit. None: still under way, look again."""
