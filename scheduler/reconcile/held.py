"""A job in the hand of this process: the lease, and every write to the job while it lasts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from scheduler.model.jobs import Attempt, Fact, HistoryEvent, Job
from scheduler.ports import Ports
from scheduler.store.jobs import JobStore


class Held:
    """A claimed job. ``job`` is what the store holds now; a write raises StaleJob when someone else moved it."""

    def __init__(self, job: Job, ports: Ports, lease_s: float) -> None:
        self.job = job
        self._ports = ports
        self._lease_s = lease_s
        self._kept_at = ports.clock()

    async def record(self, fact: Fact, event: HistoryEvent | None = None) -> None:
        """Commit what happened, with a line of history about it, and wake the loops."""
        at = self._ports.clock()
        async with self._ports.transaction() as db:
            store = JobStore(db)
            job = self.job if event is None else await store.note(self.job, {}, at, event)
            job = await store.record(job, fact, at)
        self.job = job
        self._ports.wake()

    async def hand_on(self, fact: Fact, event: HistoryEvent | None = None, after_s: float | None = None) -> None:
        """``record`` and ``let_go`` in one transaction: whoever is woken can claim the job at once."""
        at = self._ports.clock()
        due_at = None if after_s is None else at + timedelta(seconds=after_s)
        async with self._ports.transaction() as db:
            store = JobStore(db)
            job = self.job if event is None else await store.note(self.job, {}, at, event)
            job = await store.record(job, fact, at)
            await store.release(job, due_at)
        self.job = job
        self._ports.wake()

    async def note(self, changes: Mapping[str, Any]) -> None:
        """Change what people read of the job, without a move."""
        async with self._ports.transaction() as db:
            self.job = await JobStore(db).note(self.job, changes, self._ports.clock())

    async def intend(self, attempt: Attempt) -> None:
        """Commit intent and marker: from here on a remote job may exist."""
        async with self._ports.transaction() as db:
            self.job = await JobStore(db).intend(self.job, attempt, self._ports.clock())
        self._ports.wake()

    async def keep(self) -> None:
        """Make the lease last its whole length again, when a third of it has passed; StaleJob when it was lost."""
        at = self._ports.clock()
        if at - self._kept_at < timedelta(seconds=self._lease_s / 3):
            return
        self._kept_at = at
        async with self._ports.transaction() as db:
            await JobStore(db).extend(self.job, self._lease_s, at)

    async def say(self, message: str) -> None:
        """Tell people how it goes, and keep the lease: long work calls this now and then."""
        at = self._ports.clock()
        async with self._ports.transaction() as db:
            store = JobStore(db)
            if message != self.job.last_message:
                self.job = await store.note(self.job, {"last_message": message}, at)
            await store.extend(self.job, self._lease_s, at)

    async def let_go(self, after_s: float | None = None) -> None:
        """Give the job back; it is due again ``after_s`` seconds from now. None: when its last move said."""
        due_at = None if after_s is None else self._ports.clock() + timedelta(seconds=after_s)
        async with self._ports.transaction() as db:
            await JobStore(db).release(self.job, due_at)
