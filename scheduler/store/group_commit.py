"""Submissions that arrive together share one transaction: a few statements and one fsync for all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import chain, islice

from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.jobs import Job, NewJob
from scheduler.store.jobs import JobStore

Also = Callable[[AsyncSession, Sequence[Job]], Awaitable[None]]
"""What else belongs to a submission: written through the session, after its jobs."""

MOST_TOGETHER = 64
"""Most submissions in one transaction: it shall stay short."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A submission in the queue, and where its caller waits."""

    new: Sequence[NewJob]
    also: Also | None
    answer: asyncio.Future[Sequence[Job]]


class GroupCommit:
    """Adds jobs for many callers at once. Each is answered when its jobs are durable.

    While one group is being committed the next one gathers, so a lone caller never waits for company.
    """

    def __init__(self, transaction: Callable[[], AbstractAsyncContextManager[AsyncSession]]) -> None:
        self._transaction = transaction
        self._queue: deque[_Waiting] = deque()
        self._committing: asyncio.Task[None] | None = None

    async def add(self, new: Sequence[NewJob], also: Also | None = None) -> Sequence[Job]:
        """As ``JobStore.add``, in a transaction of its own or of others. All of ``new`` are stored, or none.

        also: is stored with them, and may run again in another transaction; what it raises is raised here, with
        nothing stored. A caller that is cancelled while it waits may find its jobs stored all the same.
        """
        waiting = _Waiting(new, also, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_all(), name="group commit")
        return await waiting.answer

    async def _commit_all(self) -> None:
        while self._queue:
            group = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_TOGETHER))]
            if not await self._commit(group) and len(group) > 1:
                for waiting in group:
                    await self._commit([waiting])

    async def _commit(self, group: Sequence[_Waiting]) -> bool:
        """Whether a group was stored. One that failed is no group: each is tried alone, to meet its own error."""
        try:
            async with self._transaction() as db:
                made = iter(await JobStore(db).add(list(chain.from_iterable(waiting.new for waiting in group))))
                answers = [list(islice(made, len(waiting.new))) for waiting in group]
                for waiting, stored in zip(group, answers, strict=True):
                    if waiting.also is not None:
                        await waiting.also(db, stored)
        except Exception as error:  # nothing is hidden: whatever it was, a caller gets it
            if len(group) == 1:
                _answer(group[0], error)
            return False
        for waiting, stored in zip(group, answers, strict=True):
            _answer(waiting, stored)
        return True


def _answer(waiting: _Waiting, answer: Sequence[Job] | Exception) -> None:
    """Tell the caller, if it still waits."""
    if waiting.answer.done():
        return
    if isinstance(answer, Exception):
        waiting.answer.set_exception(answer)
    else:
        waiting.answer.set_result(answer)
