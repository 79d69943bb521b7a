"""The routes of now, for all who serve connections in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from gateway.routes import Route, Routes, RouteState

LOOKED_S = 0.2
"""How old what is known of a name may be that leads nowhere, before it is looked up once more."""


class Board:
    """Shows the newest routes. Who waits is woken by each change. look: brings the routes of now."""

    def __init__(self, clock: Callable[[], datetime], look: Callable[[], Awaitable[None]] | None = None) -> None:
        self._clock, self._look = clock, look
        self._looked_s = 0.0
        self._changed = asyncio.Event()
        self.routes: Routes = {}

    def show(self, routes: Routes) -> None:
        """From now on these count."""
        if routes != self.routes:
            self.routes = routes
            self._changed.set()
            self._changed = asyncio.Event()

    async def find(self, host_name: str) -> Route | None:
        """The route of a name; None when nothing has it."""
        await self._look_again(host_name)
        return self.routes.get(host_name)

    async def settled(self, host_name: str, most_s: float) -> Route | None:
        """The route of a name as soon as it is not HELD, or after ``most_s``; None when nothing has this name."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + most_s
        await self._look_again(host_name)
        while (route := self.routes.get(host_name)) is not None and route.state is RouteState.HELD:
            assert route.held_until is not None
            left_s = min((route.held_until - self._clock()).total_seconds(), give_up_s - loop.time())
            if left_s <= 0:
                return route
            await self.change(left_s)
        return route

    async def _look_again(self, host_name: str) -> None:
        """A pod may have come since the last look: whoever was told that it is AVAILABLE comes at once."""
        route, now_s = self.routes.get(host_name), asyncio.get_running_loop().time()
        leads_nowhere = route is None or route.state is RouteState.CLOSED
        if self._look is not None and leads_nowhere and now_s - self._looked_s >= LOOKED_S:
            self._looked_s = now_s
            await self._look()

    @property
    def next_change(self) -> asyncio.Event:
        """Set when other routes are shown than those of now."""
        return self._changed

    async def change(self, timeout_s: float) -> None:
        """Returns at the next change, or after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return
