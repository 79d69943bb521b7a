"""Ways to the ports of pods: in this process, and as one Unix socket for each name for proxies beside it.

A proxy sees ``<home>/ways/<hash>.sock`` and nothing of where the pod is. The socket of a name stays the same while its
pod moves: which instance a connection reaches is decided when it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from backends.base import Channel
from gateway.board import Board
from gateway.channels import SocketChannel, carry
from gateway.errors import GatewayRefused
from gateway.routes import HOLD_S, Route, RouteState, Target
from scheduler.model.errors import BerthError, NothingLearnt, PortClosed
from scheduler.ports import Connections

CONNECT_S = 10
"""How long a place may take to connect to a port."""
AGAIN_S = 0.5
"""Between two attempts while connections wait for a pod."""
IDLE_S = 3600
"""How long a connection may carry nothing."""
SUN_PATH_BYTES = 107

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

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
            route = await self.board.settled(host_name)
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


class Sockets:
    """The Unix sockets, one for each name that is not CLOSED."""

    def __init__(self, home: Path, ways: Ways) -> None:
        self._folder, self._ways = home / "ways", ways
        self._servers: dict[str, asyncio.Server] = {}
        if len(os.fsencode(self.path("any"))) > SUN_PATH_BYTES:
            raise GatewayRefused(f"BERTH_HOME: {home} is too long for Unix sockets below it; choose a shorter one")

    def path(self, host_name: str) -> Path:
        """Where the socket of a name is, whether or not it is there now."""
        return self._folder / f"{hashlib.sha256(host_name.encode()).hexdigest()[:20]}.sock"

    async def open(self) -> None:
        """Make the folder, empty of what a killed process left."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        for left in self._folder.glob("*.sock"):
            left.unlink()

    async def follow(self) -> None:
        """Open what the board shows anew, close what it shows no longer."""
        wanted = {name for name, route in self._ways.board.routes.items() if route.state is not RouteState.CLOSED}
        for name in self._servers.keys() - wanted:
            self._servers.pop(name).close()
            self.path(name).unlink(missing_ok=True)
        for name in wanted - self._servers.keys():
            path = self.path(name)
            path.unlink(missing_ok=True)
            self._servers[name] = await asyncio.start_unix_server(self._server(name), path)

    def _server(self, host_name: str) -> Serve:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(host_name, SocketChannel(reader, writer))

        return serve

    async def _serve(self, host_name: str, client: SocketChannel) -> None:
        try:
            _, pod = await self._ways.reach(host_name)
        except (Unknown, Closed):
            client.abort()
            return
        try:
            await carry(client, pod, IDLE_S)
        finally:
            await pod.aclose()
            await client.aclose()

    async def aclose(self) -> None:
        for name, server in self._servers.items():
            server.close()
            with contextlib.suppress(OSError):
                self.path(name).unlink()
        self._servers.clear()
