"""How fast we go: a bound on submissions per second, and one remote call for what many ask for at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


class TokenBucket:
    """At most ``rate_per_s`` a second in the long run, one second's worth at once. None: no bound."""

    def __init__(
        self,
        rate_per_s: float | None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate_per_s = rate_per_s
        self._monotonic, self._sleep = monotonic, sleep
        self._free_at = monotonic() - 1.0

    async def take(self, count: int) -> None:
        """Wait until ``count`` more are allowed; who asks first is served first."""
        if self._rate_per_s is None:
            return
        now = self._monotonic()
        self._free_at = max(self._free_at, now - 1.0) + count / self._rate_per_s
        if self._free_at > now:
            await self._sleep(self._free_at - now)


class Gathering(Generic[Ask, Answer]):
    """Turns many asks at the same time into few calls: what comes in while calls are under way goes with the next.

    call: answers several asks, in their order. An ask alone on a free line waits for nobody.
    """

    def __init__(
        self, call: Callable[[Sequence[Ask]], Awaitable[Sequence[Answer]]], *, most: int, calls_at_once: int
    ) -> None:
        self._call, self._most, self._free_calls = call, most, calls_at_once
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(self, ask: Ask) -> Answer:
        """The answer to one ask; an error of the call it went with is raised for each of its asks."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((ask, future))
        if self._free_calls:
            self._free_calls -= 1
            task = asyncio.create_task(self._work())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return await future

    async def _work(self) -> None:
        try:
            await asyncio.sleep(0)  # those who ask in the same turn of the loop go together
            while self._waiting:
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._answer(batch)
        finally:
            self._free_calls += 1

    async def _answer(self, batch: Sequence[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._call([ask for ask, _ in batch])
        except Exception as error:  # handed to everyone who asked, never swallowed
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
