"""Work for groups of jobs that wait for the same, beside the loop that claimed them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from datetime import datetime

from scheduler.reconcile.held import Held
from scheduler.reconcile.loop import Crew

SOON_S, NOT_SO_SOON_S = 1.0, 15.0
"""Until those look again who came while others work on what they wait for: within these."""


class Hands:
    """At most ``size`` pieces of work at once, one for each key. ``held``: the jobs in hand, whose leases are kept."""

    def __init__(self, size: int, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._since: dict[Hashable, datetime] = {}
        self.held: set[Held] = set()
        self.crew = Crew(size)

    def __contains__(self, key: Hashable) -> bool:
        return key in self.crew

    def may_start(self, key: Hashable) -> bool:
        """Whether a hand is free, and nobody works on the same."""
        return key not in self.crew and self.crew.free > 0

    def start(self, key: Hashable, group: Sequence[Held], work: Callable[[], Awaitable[None]], image: str) -> None:
        """Work for these jobs; what goes wrong is logged with ``image``."""
        self.held.update(group)
        self._since[key] = self._clock()
        self.crew.start(key, self._until_done(key, group, work), image=image)

    def turn_s(self, key: Hashable) -> float:
        """Until those who came later look again: as long as the work takes already.

        Thousands that did so each second would keep all others waiting.
        """
        at = self._clock()
        return min(NOT_SO_SOON_S, max(SOON_S, (at - self._since.get(key, at)).total_seconds()))

    async def _until_done(self, key: Hashable, group: Sequence[Held], work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self.held.difference_update(group)
            self._since.pop(key, None)
