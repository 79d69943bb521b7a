"""A job in the hand of this process: the lease, and every write to the job while it lasts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from scheduler.model.jobs import Attempt, Fact, HistoryEvent, Job
from scheduler.model.states import Event
from scheduler.ports import Ports
from scheduler.reconcile.writer import Writer
from scheduler.store.changes import Change
from scheduler.store.jobs import JobStore


class Held:
    """A claimed job. ``job`` is what the store holds now; a write raises StaleJob when someone else moved it.

    What a write says with ``last`` also gives the job back, in the same transaction.
    """

    def __init__(self, job: Job, ports: Ports, lease_s: float, writer: Writer) -> None:
        self.job = job
        self._ports = ports
        self._lease = timedelta(seconds=lease_s)
        self._writer = writer
        self._let_go = False
        self._kept_at = ports.clock()

    async def record(
        self,
        *facts: Fact,
        attempt: Attempt | None = None,
        event: HistoryEvent | None = None,
        last: bool = False,
        after_s: float | None = None,
    ) -> None:
        """Commit what happened, one move after another, with a line of history before them, and wake the loops.

        attempt: the newest, where the caller has it. after_s: as in ``let_go``.
        """
        due_at = self._due_at(after_s)
        change = Change(job=self.job, facts=facts, attempt=attempt, event=event, lets_go=last, due_at=due_at)
        await self._write(change)

    async def note(self, changes: Mapping[str, Any], *, after_s: float, event: HistoryEvent | None = None) -> None:
        """Change fields of the job without a move, with a line of history, and give it back as ``let_go`` does."""
        due_at = self._due_at(after_s)
        await self._write(Change(job=self.job, fields=changes, event=event, lets_go=True, due_at=due_at))

    async def intend(self, attempt: Attempt, *before: Fact) -> None:
        """Commit intent and marker, and give the job back: from here on a remote job may exist."""
        ready = Fact(Event.JOB_READY, message=f"handing attempt {attempt.number} to {attempt.system_id}")
        await self._write(Change(job=self.job, facts=(*before, ready), intent=attempt, lets_go=True))

    async def say(self, message: str) -> None:
        """Tell people how it goes, and keep the lease: long work calls this now and then."""
        news = {"last_message": message} if message != self.job.last_message else {}
        self._kept_at = self._ports.clock()
        await self._write(Change(job=self.job, fields=news, leased_until=self._kept_at + self._lease))

    async def let_go(self, after_s: float | None = None) -> None:
        """Give the job back; it is due again ``after_s`` seconds from now. None: when its last move said.

        Nothing happens when a write gave it back already.
        """
        if self._let_go:
            return
        async with self._ports.transaction() as db:
            await JobStore(db).release(self.job, self._due_at(after_s))

    async def _write(self, change: Change) -> None:
        self.job = await self._writer.write(change)
        self._let_go = change.lets_go

    def _due_at(self, after_s: float | None) -> datetime | None:
        return None if after_s is None else self._ports.clock() + timedelta(seconds=after_s)

    def kept(self) -> datetime | None:
        """Until when its lease is held now that it is kept; None while no third of it has passed."""
        at = self._ports.clock()
        if at - self._kept_at < self._lease / 3:
            return None
        self._kept_at = at
        return at + self._lease


async def keep_all(some: Iterable[Held], ports: Ports) -> None:
    """Make leases last their whole length again where a third has passed, in one transaction.

    Who has lost one learns of it at the next write.
    """
    leases = [(held.job, until) for held in some if (until := held.kept()) is not None]
    if leases:
        async with ports.transaction() as db:
            await JobStore(db).extend_all(leases)
