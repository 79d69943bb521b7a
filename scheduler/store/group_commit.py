"""Submissions that arrive together share one transaction: a few statements and one fsync for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import chain, islice
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.jobs import Job, NewJob
from scheduler.store.gathering import Gathering
from scheduler.store.jobs import JobStore

Also = Callable[[AsyncSession, Sequence[Job]], Awaitable[None]]
"""What else belongs to a submission: written through the session, after its jobs."""

MOST_TOGETHER = 64
"""Most submissions in one transaction: it shall stay short."""


class _Submission(NamedTuple):
    new: Sequence[NewJob]
    also: Also | None


class GroupCommit:
    """Adds jobs for many callers at once. Each is answered when its jobs are durable."""

    def __init__(self, transaction: Callable[[], AbstractAsyncContextManager[AsyncSession]]) -> None:
        self._transaction = transaction
        self._gathering = Gathering(self._store, MOST_TOGETHER)

    async def add(self, new: Sequence[NewJob], also: Also | None = None) -> Sequence[Job]:
        """As ``JobStore.add``, in a transaction of its own or of others. All of ``new`` are stored, or none.

        also: is stored with them, and may run again in another transaction; what it raises is raised here, with
        nothing stored. A caller that is cancelled while it waits may find its jobs stored all the same.
        """
        return await self._gathering.add(_Submission(new, also))

    async def _store(self, group: Sequence[_Submission]) -> Sequence[Sequence[Job]]:
        async with self._transaction() as db:
            made = iter(await JobStore(db).add(list(chain.from_iterable(each.new for each in group))))
            stored = [list(islice(made, len(each.new))) for each in group]
            for each, its_jobs in zip(group, stored, strict=True):
                if each.also is not None:
                    await each.also(db, its_jobs)
        return stored
