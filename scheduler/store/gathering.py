"""What arrives together is committed together, and each caller hears of its own part."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Part = TypeVar("Part")
Answer = TypeVar("Answer")


class Gathering(Generic[Part, Answer]):
    """Commits parts of many callers as groups. Each is answered when its part is durable.

    While one group is being committed the next one gathers, so a lone caller never waits for company. ``commit``
    stores a group whole or not at all, and answers in its order; of a group that fails each part is tried alone, to
    meet its own error. ``most``: parts in one group, so that transactions stay short.
    """

    def __init__(self, commit: Callable[[Sequence[Part]], Awaitable[Sequence[Answer]]], most: int) -> None:
        self._commit, self._most = commit, most
        self._queue: deque[tuple[Part, asyncio.Future[Answer]]] = deque()
        self._committing: asyncio.Task[None] | None = None

    async def add(self, part: Part) -> Answer:
        """What ``commit`` answers to this part, or raises. Who leaves may find its part stored all the same."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((part, answer))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_all(), name="group commit")
        return await answer

    async def settle(self) -> None:
        """Wait until everything that was asked for is stored."""
        if self._committing is not None:
            await asyncio.wait([self._committing])

    async def _commit_all(self) -> None:
        group: Sequence[tuple[Part, asyncio.Future[Answer]]] = ()
        try:
            while self._queue:
                group = [self._queue.popleft() for _ in range(min(len(self._queue), self._most))]
                if not await self._stored(group) and len(group) > 1:
                    for one in group:
                        await self._stored([one])
        except BaseException as error:  # the process is ending: nobody shall wait for an answer
            for _, waiting in (*group, *self._queue):
                _tell(waiting, error)
            self._queue.clear()
            raise

    async def _stored(self, group: Sequence[tuple[Part, asyncio.Future[Answer]]]) -> bool:
        """Whether a group was committed; only a part on its own is told of a failure."""
        try:
            answers = await self._commit([part for part, _ in group])
        except Exception as error:  # nothing is hidden: whatever it was, a caller gets it
            if len(group) == 1:
                _tell(group[0][1], error)
            return False
        for (_, waiting), answer in zip(group, answers, strict=True):
            if not waiting.done():
                waiting.set_result(answer)
        return True


def _tell(waiting: asyncio.Future[Answer], error: BaseException) -> None:
    """Raise it where the caller waits, if it still does."""
    if not waiting.done():
        waiting.set_exception(error)
