"""The only code that sleeps, and the guard around everything that runs beside a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Hashable
from typing import Any

import structlog

log = structlog.get_logger()


class Bell:
    """Wakes every loop that listens: a move was committed, so there may be something to do."""

    def __init__(self) -> None:
        self._listeners: list[asyncio.Event] = []

    def listen(self) -> asyncio.Event:
        """An event that is set at each ring, for one loop of its own."""
        event = asyncio.Event()
        self._listeners.append(event)
        return event

    def ring(self) -> None:
        for event in self._listeners:
            event.set()


async def run_every(
    interval_s: float, wake: asyncio.Event, tick: Callable[[], Awaitable[None]], stop: asyncio.Event
) -> None:
    """Call ``tick`` at once, then whenever ``wake`` is set and at least every ``interval_s``, until ``stop`` is set."""
    while not stop.is_set():
        wake.clear()
        try:
            await tick()
        except Exception:
            log.exception("tick failed", tick=getattr(tick, "__qualname__", repr(tick)))
        await _either(wake, stop, interval_s)


async def _either(wake: asyncio.Event, stop: asyncio.Event, timeout_s: float) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (wake, stop)]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


class Crew:
    """Work that runs beside its loop, at most ``size`` pieces at once and one per key; each is guarded."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._working: dict[Hashable, asyncio.Task[None]] = {}

    @property
    def free(self) -> int:
        """How many more pieces may start."""
        return self._size - len(self._working)

    @property
    def keys(self) -> Collection[Hashable]:
        """Of the pieces that run."""
        return self._working.keys()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._working

    def start(self, key: Hashable, work: Coroutine[Any, Any, None], **context: str) -> None:
        """Run ``work``; what it raises is logged with ``context`` and goes no further."""
        task = asyncio.create_task(self._guarded(work, context))
        self._working[key] = task
        task.add_done_callback(lambda _: self._ended(key, work))

    def _ended(self, key: Hashable, work: Coroutine[Any, Any, None]) -> None:
        work.close()  # it never began when it was cancelled at once
        self._working.pop(key, None)

    async def _guarded(self, work: Coroutine[Any, Any, None], context: dict[str, str]) -> None:
        try:
            await work
        except Exception:
            log.exception("work failed; the next tick starts again from the store", **context)

    async def settle(self, timeout_s: float | None = None) -> None:
        """Wait until everything that was started has ended, at most ``timeout_s``."""
        while self._working:
            _, unfinished = await asyncio.wait(list(self._working.values()), timeout=timeout_s)
            if unfinished:
                return

    async def aclose(self) -> None:
        """Cancel what is still running and wait for it."""
        for task in self._working.values():
            task.cancel()
        await self.settle()
