"""Changes that come together share one transaction: a few statements and one fsync for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.model.jobs import Job
from scheduler.ports import Ports
from scheduler.store.changes import Change
from scheduler.store.gathering import Gathering
from scheduler.store.jobs import JobStore

MOST_TOGETHER = 200
"""Most changes in one transaction: it shall stay short."""


class Writer:
    """Writes for many who hold jobs. Each is answered when its change is durable."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._gathering = Gathering(self._store, MOST_TOGETHER)

    async def write(self, change: Change) -> Job:
        """The job as it is after ``change``. StaleJob when someone else wrote first, whatever becomes of the others.

        A caller that is cancelled while it waits may find its change written all the same.
        """
        return await self._gathering.add(change)

    async def settle(self) -> None:
        """Wait until everything that was asked for is written."""
        await self._gathering.settle()

    async def _store(self, group: Sequence[Change]) -> Sequence[Job]:
        async with self._ports.transaction() as db:
            written = await JobStore(db).write(group, self._ports.clock())
        if any(change.facts for change in group):
            self._ports.wake()
        return written
