"""The link to a system, on which images travel by slices, one at a time: the most pressing image goes on.

What is needed later pauses meanwhile and goes on where it was, so that a small image that is needed at once does not
stand behind a large one that has time. Two that shared the link would each take twice as long, and the first of them
would gain nothing for what the second lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from math import inf

AGAIN_S = 10.0
"""Who waits asks as often how pressing it is by now."""

Pressing = Callable[[int], Awaitable[float]]
"""How soon an image is needed of which so many bytes are left, as ``Claim.turn`` says it: the smallest goes first."""


class Line:
    """Whose image travels, of one system and process. Who sends stays in line between its slices, too."""

    def __init__(self, again_s: float = AGAIN_S) -> None:
        self._again_s = again_s
        self._places: list[Place] = []
        self._moved = asyncio.Event()

    @asynccontextmanager
    async def place(self, pressing: Pressing) -> AsyncIterator[Place]:
        """A place in line for as long as an image takes."""
        mine = Place(self, pressing)
        self._places.append(mine)
        try:
            yield mine
        finally:
            self._places.remove(mine)
            self._move()

    async def wait_for(self, place: Place, left_bytes: int) -> None:
        """Until nobody is more pressing; of equals who came first."""
        while True:
            before, place.turn = place.turn, await place.pressing(left_bytes)
            if place.turn != before:
                self._move()
            if place is min(self._places, key=lambda each: each.turn):
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), self._again_s)

    def _move(self) -> None:
        """Let all who wait look where they are now."""
        self._moved.set()
        self._moved = asyncio.Event()


class Place:
    """Somebody's place. turn: how pressing its image was when it asked last; inf as long as it did not."""

    def __init__(self, line: Line, pressing: Pressing) -> None:
        self._line, self.pressing, self.turn = line, pressing, inf

    async def wait(self, left_bytes: int) -> None:
        """Until the next slice may go of so many bytes."""
        await self._line.wait_for(self, left_bytes)
