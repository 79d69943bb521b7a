"""Which names another proxy may carry by itself, and the way from there to their pods."""

from __future__ import annotations

import asyncio
import contextlib
import re

from backends.base import Channel
from backends.streams import CHUNK_BYTES
from gateway import pages
from gateway.channels import carry
from gateway.routes import Route, Routes, RouteState, Target
from gateway.ways import IDLE_S, Closed, Unknown, Ways
from scheduler.model.pods import NetProtocol

LAST_S = 5
"""How long a refused client may take to read why."""
HOST_NAME = re.compile(r"[a-z0-9.-]{1,253}")


def is_plain(route: Route) -> bool:
    """Whether nothing is to be decided for each client or request of a route, and its pod answers."""
    rules = route.net.needs_login or route.net.ip_allow or route.net.cors.get("cors_allow_origins")
    return route.state is RouteState.OPEN and not rules and HOST_NAME.fullmatch(route.host_name) is not None


def plain_targets(routes: Routes, protocol: NetProtocol) -> dict[str, Target]:
    """Where the plain routes of a protocol lead, by host name."""
    return {
        name: route.target
        for name, route in routes.items()
        if route.protocol is protocol and route.target is not None and is_plain(route)
    }


class PlainWays:
    """Carries to pods what comes from another proxy under a plain name."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways

    async def serve(self, name: str, channel: Channel) -> None:
        """Serve one connection; the channel is the caller's to close. The name may lead elsewhere, or to a pod with
        rules, since the other proxy has looked."""
        try:
            route, pod = await self._ways.reach(name)
        except (Unknown, Closed) as closed:
            await self._refuse(name, str(closed), channel)
            return
        try:
            if is_plain(route):
                await carry(channel, pod, IDLE_S)
        finally:
            await pod.aclose()

    async def _refuse(self, name: str, why: str, channel: Channel) -> None:
        """Say why to who waits for HTTP; its request is read before, or the end would cut the answer off."""
        route = self._ways.board.routes.get(name)
        if route is not None and route.protocol is not NetProtocol.HTTP:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await channel.read(CHUNK_BYTES)
                await channel.write(pages.raw(pages.closed(why)))
                await channel.end()
                while await channel.read(CHUNK_BYTES):
                    pass
