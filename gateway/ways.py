"""Ways to the ports of pods: which instance a connection reaches is decided when it comes, wherever the pod is."""

from __future__ import annotations

import asyncio

import structlog

from backends.base import Channel
from gateway.board import Board
from gateway.routes import HOLD_S, Route, RouteState, Target
from scheduler.model.errors import BerthError, NothingLearnt, PortClosed
from scheduler.ports import Connections

CONNECT_S = 10
"""How long a place may take to connect to a port."""
AGAIN_S = 0.5
"""Between two attempts while connections wait for a pod."""
IDLE_S = 3600
"""How long a connection may carry nothing."""

log = structlog.get_logger()


class Unknown(BerthError):
    """Nothing has this name."""


class Closed(BerthError):
    """Nothing answers behind a name now; the text says why."""


class Ways:
    """Opens connections to what stands behind the routes of ``board``."""

    def __init__(self, connections: Connections, board: Board) -> None:
        self._connections, self.board = connections, board

    async def reach(self, host_name: str) -> tuple[Route, Channel]:
        """A connection to the pod behind a name, and its route; waits while the name is HELD or was just lost.

        Raises Unknown or Closed.
        """
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + HOLD_S
        while True:
            route = await self.board.settled(host_name, give_up_s - loop.time())
            if route is None:
                raise Unknown(f"no pod has the name {host_name}")
            if route.state is not RouteState.OPEN or route.target is None:
                raise Closed(route.reason)
            try:
                return route, await self._connect(route.target)
            except (PortClosed, NothingLearnt, OSError, TimeoutError) as error:
                if loop.time() + AGAIN_S >= give_up_s:
                    log.warning("pod does not answer", name=host_name, error=str(error)[:200])
                    raise Closed(f"the pod {route.pod_id} does not answer") from None
            await self.board.change(AGAIN_S)

    async def _connect(self, target: Target) -> Channel:
        async with asyncio.timeout(CONNECT_S):
            host = await self._connections.pod_host(target.login)
            return await host.connect(target.remote_id, target.marker, target.port)
