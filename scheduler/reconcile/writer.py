"""Changes that come together share one transaction: a few statements and one fsync for all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from scheduler.model.jobs import Job
from scheduler.ports import Ports
from scheduler.store.changes import Change
from scheduler.store.jobs import JobStore

MOST_TOGETHER = 200
"""Most changes in one transaction: it shall stay short."""


class Writer:
    """Writes for many who hold jobs. Each is answered when its change is durable.

    While one group is being committed the next one gathers, so a lone change never waits for company.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._queue: deque[tuple[Change, asyncio.Future[Job]]] = deque()
        self._committing: asyncio.Task[None] | None = None

    async def write(self, change: Change) -> Job:
        """The job as it is after ``change``. StaleJob when someone else wrote first, whatever becomes of the others.

        A caller that is cancelled while it waits may find its change written all the same.
        """
        answer: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        self._queue.append((change, answer))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_all(), name="writer")
        return await answer

    async def settle(self) -> None:
        """Wait until everything that was asked for is written."""
        if self._committing is not None:
            await asyncio.wait([self._committing])

    async def _commit_all(self) -> None:
        while self._queue:
            group = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_TOGETHER))]
            if not await self._commit(group) and len(group) > 1:
                for one in group:
                    await self._commit([one])

    async def _commit(self, group: Sequence[tuple[Change, asyncio.Future[Job]]]) -> bool:
        """Whether a group was written. One that failed is no group: each is tried alone, to meet its own error."""
        try:
            async with self._ports.transaction() as db:
                written = await JobStore(db).write([change for change, _ in group], self._ports.clock())
        except Exception as error:  # nothing is hidden: whatever it was, a caller gets it
            if len(group) == 1:
                _answer(group[0][1], error)
            return False
        except BaseException as error:  # the process is ending: nobody shall wait for an answer
            for _, answer in (*group, *self._queue):
                _answer(answer, error)
            self._queue.clear()
            raise
        for (_, answer), job in zip(group, written, strict=True):
            _answer(answer, job)
        if any(change.facts for change, _ in group):
            self._ports.wake()
        return True


def _answer(waiting: asyncio.Future[Job], answer: Job | BaseException) -> None:
    """Tell the caller, if it still waits."""
    if waiting.done():
        return
    if isinstance(answer, BaseException):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)
