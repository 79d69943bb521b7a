"""HTTP/1.1 with a pod, and the connection to it that one client's requests share."""

from __future__ import annotations

import h11

from backends.base import Channel
from backends.streams import CHUNK_BYTES
from gateway.routes import Target
from gateway.ways import Ways

MOST_HEAD_BYTES = 64 * 1024
REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Sent once more where a kept connection turns out to have been closed; others never go over a kept one."""


class PodSilent(Exception):
    """The pod broke off, or what it says is no HTTP."""


class Upstream:
    """One connection to a pod. is_reused: it has carried a request before."""

    def __init__(self, channel: Channel, target: Target | None) -> None:
        self.channel, self.target = channel, target
        self.is_reused = False
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD_BYTES)

    async def send(self, *events: h11.Event) -> None:
        """OSError when the pod takes no more; PodSilent when this cannot be said any more."""
        try:
            data = b"".join(self.http.send(event) or b"" for event in events)
        except h11.LocalProtocolError as error:
            raise PodSilent(str(error)) from None
        if data:
            await self.channel.write(data)

    def take(self) -> h11.Event | None:
        """What was read and not yet taken; None when more must be read."""
        try:
            event = self.http.next_event()
        except h11.RemoteProtocolError as error:
            raise PodSilent(str(error)) from None
        if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise PodSilent("the pod closed the connection")
        return None if event is h11.NEED_DATA else event  # type: ignore[return-value]

    async def read(self) -> None:
        """Read what ``take`` lacks."""
        try:
            self.http.receive_data(await self.channel.read(CHUNK_BYTES))
        except (OSError, h11.RemoteProtocolError) as error:
            raise PodSilent(str(error)) from None

    @property
    def is_spent(self) -> bool:
        """Whether no other request may go over it."""
        return self.http.our_state is not h11.DONE or self.http.their_state is not h11.DONE


class Upstreams:
    """Connections to the pod of one name, for one client: at most one is open."""

    def __init__(self, ways: Ways, host_name: str) -> None:
        self._ways, self._host_name = ways, host_name
        self._kept: Upstream | None = None

    async def get(self, *, fresh: bool) -> Upstream:
        """A connection: the kept one where that leads to where the name leads now, unless a ``fresh`` one is needed.

        Raises Unknown or Closed.
        """
        kept, self._kept = self._kept, None
        if kept is not None:
            route = self._ways.board.routes.get(self._host_name)
            if not fresh and route is not None and route.target == kept.target:
                kept.http.start_next_cycle()
                kept.is_reused = True
                return kept
            await kept.channel.aclose()
        route, channel = await self._ways.reach(self._host_name)
        return Upstream(channel, route.target)

    async def put(self, pod: Upstream) -> None:
        """Keep a connection for the next request where it can carry one, else close it."""
        if pod.is_spent:
            await pod.channel.aclose()
        else:
            self._kept = pod

    async def aclose(self) -> None:
        if self._kept is not None:
            await self._kept.channel.aclose()
