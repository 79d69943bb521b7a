"""Pods of a backend whose runs have a door: what stands beside ``Backend`` for them, wherever the door is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from backends.base import Channel
from backends.beside import Commands
from backends.pods import talk
from backends.pods.facts import DoorFacts, Traces, seen, traces_of
from scheduler.model.errors import BackendUnavailable, PortClosed
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.pods import Executed, PodSeen

CONNECT_TIMEOUT_S = 20.0
EXECUTE_MARGIN_S = 30.0
"""How much longer than its own time a command's end is waited for."""

T = TypeVar("T")
Reach = Callable[[DoorFacts], Awaitable[Channel]]
"""A channel to a door; OSError where nobody is there (any more), NothingLearnt where that is not known."""


class DoorHost:
    """One system as one login. commands: run where the marker directories are. Markers are unique, so ids say no more.

    What a door told is remembered, and read again when nobody who knows its secret answers there.
    """

    def __init__(self, commands: Commands, marker_root: str, reach: Reach) -> None:
        self._commands, self._root, self._reach = commands, marker_root, reach
        self._doors: dict[Marker, DoorFacts] = {}
        self._asking: dict[Marker, asyncio.Task[Traces]] = {}

    async def look(self, ids: Mapping[RemoteId, Marker]) -> Mapping[RemoteId, PodSeen]:
        """What doors and scripts wrote into the marker directories."""
        traces = await traces_of(self._commands, self._root, list(ids.values()))
        return {remote_id: seen(traces[marker]) for remote_id, marker in ids.items() if marker in traces}

    async def connect(self, remote_id: RemoteId, marker: Marker, port: int) -> Channel:
        """Through the door of the instance."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                channel = await self._greeted(marker, talk.to_connect(port))
                return await _or_close(channel, talk.connected(channel, port))
        except TimeoutError:
            raise BackendUnavailable(f"the door of {marker} did not answer within {CONNECT_TIMEOUT_S:g} s") from None
        except ConnectionError as error:
            raise BackendUnavailable(f"{marker}: {error}") from None

    async def execute(
        self, remote_id: RemoteId, marker: Marker, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float
    ) -> Executed:
        """The door runs it in the container's namespaces, as the container's user and with its environment."""
        try:
            async with asyncio.timeout(timeout_s + EXECUTE_MARGIN_S):
                channel = await self._greeted(marker)
                try:
                    return await talk.execute(channel, argv, stdin, timeout_s)
                finally:
                    await channel.aclose()
        except PortClosed as error:
            raise BackendUnavailable(str(error)) from None
        except TimeoutError:
            raise BackendUnavailable(f"the door of {marker} did not tell how a command ended") from None
        except ConnectionError as error:
            raise BackendUnavailable(f"{marker}: {error}") from None

    async def aclose(self) -> None:
        """Nothing is held; channels are closed by whoever opened them."""

    async def _greeted(self, marker: Marker, wish: bytes = b"") -> Channel:
        """A channel to the door; PortClosed where it does not stand open."""
        if (known := self._doors.get(marker)) is not None:
            try:
                return await self._greet(known, wish)
            except (OSError, BackendUnavailable):  # it may have another door by now, on another node
                self._doors.pop(marker, None)
        traces = await self._traces(marker)
        if traces.door is None or traces.exit_code is not None:
            raise PortClosed(_why_closed(traces))
        try:
            channel = await self._greet(traces.door, wish)
        except (ConnectionError, FileNotFoundError) as error:
            raise PortClosed(f"the door of the pod is shut: {error}") from None
        self._doors[marker] = traces.door
        return channel

    async def _traces(self, marker: Marker) -> Traces:
        """One question for all who want to know at the same time: hundreds may wait for a pod that is handed over, and
        each question is a command on a machine that runs few at once."""
        asking = self._asking.get(marker)
        if asking is None:
            asking = self._asking[marker] = asyncio.create_task(self._ask(marker))
            asking.add_done_callback(lambda asked: self._asked(marker, asked))
        return await asyncio.shield(asking)

    def _asked(self, marker: Marker, asked: asyncio.Task[Traces]) -> None:
        del self._asking[marker]
        if not asked.cancelled():
            asked.exception()  # taken note of, where nobody waits for it any more

    async def _ask(self, marker: Marker) -> Traces:
        return (await traces_of(self._commands, self._root, [marker])).get(marker, Traces())

    async def _greet(self, door: DoorFacts, wish: bytes) -> Channel:
        channel = await self._reach(door)
        await _or_close(channel, talk.greet(channel, door.secret, wish))
        return channel


async def _or_close(channel: Channel, step: Awaitable[T]) -> T:
    """Take a step on a channel, which is closed where that fails."""
    try:
        return await step
    except BaseException:
        await channel.aclose()
        raise


def _why_closed(traces: Traces) -> str:
    if traces.exit_code is not None:
        return traces.refused or f"the pod has ended with exit code {traces.exit_code}"
    return "the pod is being prepared" if traces.begun else "the pod has not begun"
