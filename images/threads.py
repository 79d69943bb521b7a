"""Long work on files in threads, that ends when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from images.streams import Readable

T = TypeVar("T")
Given = ParamSpec("Given")


class Halted(Exception):
    """Nobody waits for this work any more."""


class Halt:
    """Tells a thread to end; the thread looks often."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def order(self) -> None:
        """From now on ``check`` raises."""
        self._event.set()

    def check(self) -> None:
        """Halted, once that was ordered."""
        if self._event.is_set():
            raise Halted


class HaltingFile:
    """A file whose reader ends when it is told to."""

    def __init__(self, file: Readable, halt: Halt) -> None:
        self._file, self._halt = file, halt

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        self._halt.check()
        return self._file.read(size)


async def in_thread(work: Callable[[Halt], T]) -> T:
    """What ``work`` gives. Cancelled, it is told to halt and waited for: nothing of it goes on behind our back."""
    halt = Halt()
    running = asyncio.create_task(asyncio.to_thread(work, halt))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        halt.order()
        await asyncio.wait([running])
        running.exception()
        raise


async def in_thread_wholly(work: Callable[Given, T], *given: Given.args, **named: Given.kwargs) -> T:
    """What ``work`` gives. It is short and cannot be halted: cancelled, it is waited for."""
    return await in_thread(lambda _: work(*given, **named))
