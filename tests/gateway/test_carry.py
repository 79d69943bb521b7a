"""Carrying bytes between two ends, as channels of any kind and as sockets of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from backends.base import Channel
from backends.pods.sockets import OpenSocket
from backends.streams import SocketChannel
from gateway import channels
from gateway.channels import carry

SOME_BYTES = 3_000_000


class Ends:
    """What two others say to each other, carried from one connection to another."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.client, self._one = socket.socketpair()
        self.pod, self._other = socket.socketpair()
        for each in (self.client, self.pod):
            each.setblocking(False)

    async def carry(self, idle_s: float = 60) -> None:
        one, other = await self._channel(self._one), await self._channel(self._other)
        try:
            await carry(one, other, idle_s)
        finally:
            await one.aclose()
            await other.aclose()

    async def _channel(self, connected: socket.socket) -> Channel:
        if self._kind == "sockets":
            return OpenSocket(connected)
        return SocketChannel(*await asyncio.open_unix_connection(sock=connected))


@pytest.fixture(params=["sockets", "channels"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    made = Ends(request.param)
    yield made
    for each in (made.client, made.pod):
        each.close()


async def read_all(sock: socket.socket) -> bytes:
    content = b""
    with contextlib.suppress(ConnectionError):
        while piece := await asyncio.get_running_loop().sock_recv(sock, 65536):
            content += piece
    return content


async def test_all_bytes_arrive_both_ways_where_readers_are_slower_than_writers(ends: Ends):
    loop = asyncio.get_running_loop()
    sent = {end: bytes([number]) * SOME_BYTES for number, end in enumerate((ends.client, ends.pod))}
    carrying = asyncio.create_task(ends.carry())
    sending = [asyncio.create_task(loop.sock_sendall(end, content)) for end, content in sent.items()]
    await asyncio.sleep(0.1)
    assert not any(each.done() for each in sending), "no more is taken than can be given"
    reading = [asyncio.create_task(read_all(end)) for end in sent]
    await asyncio.gather(*sending)
    for end in sent:
        end.shutdown(socket.SHUT_WR)
    assert await asyncio.gather(*reading) == [sent[ends.pod], sent[ends.client]]
    await carrying


async def test_one_direction_ends_and_the_other_goes_on(ends: Ends):
    loop = asyncio.get_running_loop()
    carrying = asyncio.create_task(ends.carry())
    ends.client.shutdown(socket.SHUT_WR)
    assert await loop.sock_recv(ends.pod, 1) == b""
    await loop.sock_sendall(ends.pod, b"late")
    assert await loop.sock_recv(ends.client, 10) == b"late"
    assert not carrying.done()
    ends.pod.close()
    await carrying


async def test_who_leaves_at_once_is_missed_at_once(ends: Ends):
    carrying = asyncio.create_task(ends.carry())
    await asyncio.sleep(0.05)
    ends.pod.close()
    assert await asyncio.get_running_loop().sock_recv(ends.client, 1) == b""
    ends.client.close()
    async with asyncio.timeout(5):
        await carrying


async def test_where_nothing_comes_for_long_both_are_cut(ends: Ends):
    carrying = asyncio.create_task(ends.carry(idle_s=0.1))
    assert await read_all(ends.client) == await read_all(ends.pod) == b""
    await carrying


async def test_what_is_no_longer_wanted_leaves_no_task_and_no_watch(ends: Ends):
    carrying = asyncio.create_task(ends.carry())
    await asyncio.sleep(0.05)
    carrying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await carrying
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await read_all(ends.client) == b""


async def test_what_a_pod_said_before_it_left_is_heard_by_who_still_sends():
    ends = Ends("sockets")
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(ends.pod, b"too large")
    ends.pod.shutdown(socket.SHUT_RDWR)
    await loop.sock_sendall(ends.client, b"x" * 10_000)
    carrying = asyncio.create_task(ends.carry())
    assert await loop.sock_recv(ends.client, 100) == b"too large"
    ends.client.close()
    await carrying
    ends.pod.close()


async def test_a_direction_that_pauses_after_the_other_has_ended_is_not_kept_for_long(monkeypatch):
    monkeypatch.setattr(channels, "END_S", 0.05)
    ends = Ends("channels")
    ends.client.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(10):
        await ends.carry()
    for each in (ends.client, ends.pod):
        assert await read_all(each) == b""
        each.close()
