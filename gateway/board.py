"""The routes of now, for all who serve connections in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from gateway.routes import Route, Routes, RouteState


class Board:
    """Shows the newest routes. Who waits is woken by each change."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._changed = asyncio.Event()
        self.routes: Routes = {}

    def show(self, routes: Routes) -> None:
        """From now on these count."""
        if routes != self.routes:
            self.routes = routes
            self._changed.set()
            self._changed = asyncio.Event()

    async def settled(self, host_name: str, most_s: float) -> Route | None:
        """The route of a name as soon as it is not HELD, or after ``most_s``; None when nothing has this name."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + most_s
        while (route := self.routes.get(host_name)) is not None and route.state is RouteState.HELD:
            assert route.held_until is not None
            left_s = min((route.held_until - self._clock()).total_seconds(), give_up_s - loop.time())
            if left_s <= 0:
                return route
            await self.change(left_s)
        return route

    async def change(self, timeout_s: float) -> None:
        """Returns at the next change, or after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return
