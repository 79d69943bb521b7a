"""TCP connections that begin at a host: by sshd's own forwarding, and by a bridge where it forwards none."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from backends.base import Channel
from backends.ssh.bridge import Bridge
from backends.ssh.connection import ForwardingClosed
from scheduler.model.errors import BackendUnavailable
from tests.slurm.ssh_server import TestServer, ssh_server

MIB = 1024 * 1024
WAYS = ["forwarding", "a bridge"]


@pytest_asyncio.fixture
async def server(tmp_path) -> AsyncIterator[TestServer]:
    async with ssh_server(tmp_path) as server:
        yield server


@pytest_asyncio.fixture
async def echo() -> AsyncIterator[int]:
    """A port that says back what it hears, and ``END`` at the end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write(b"END")
            writer.close()

    serving = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield serving.sockets[0].getsockname()[1]
    serving.close()


@pytest_asyncio.fixture(params=WAYS)
async def opened(request, server):
    """Opens a connection by each way."""
    connection = server.connection()
    bridge = Bridge(connection)
    if request.param == "forwarding":
        yield lambda port: connection.open_stream("127.0.0.1", port, 10)
    else:
        server.forwards = False
        yield lambda port: bridge.open_stream("127.0.0.1", port, 10)
    await bridge.aclose()
    await connection.aclose()


async def rest(channel: Channel) -> bytes:
    heard = bytearray()
    while piece := await channel.read(MIB):
        heard += piece
    return bytes(heard)


async def test_bytes_go_both_ways_and_the_end_of_one_leaves_the_other(opened, echo):
    channel = await opened(echo)
    await channel.write(b"hello")
    assert await channel.read(5) == b"hello"
    content = os.urandom(3 * MIB)
    sending = asyncio.create_task(channel.write(content))
    heard = bytearray()
    while len(heard) < len(content):
        heard += await channel.read(MIB)
    await sending
    assert heard == content
    await channel.end()
    assert await rest(channel) == b"END"
    await channel.aclose()


async def test_a_port_to_which_nobody_listens_is_refused(opened):
    with socket.create_server(("127.0.0.1", 0)) as lent:
        port = lent.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        await opened(port)


async def test_one_that_is_not_read_holds_up_no_other(opened, echo):
    slow, quick = await opened(echo), await opened(echo)
    stuck = asyncio.create_task(slow.write(bytes(64 * MIB)))
    await asyncio.sleep(0.3)
    assert not stuck.done(), "what nobody reads must not pile up here"
    await quick.write(b"quick")
    await quick.end()
    assert await asyncio.wait_for(rest(quick), 20) == b"quickEND"
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    await slow.aclose()
    await quick.aclose()


async def test_a_lost_link_breaks_what_it_carried_and_the_next_connection_begins_it_anew(opened, echo, server):
    channel = await opened(echo)
    server.hang_up()
    with pytest.raises(ConnectionError):
        await channel.read(1)
    await channel.aclose()
    again = await opened(echo)
    await again.end()
    assert await rest(again) == b"END"
    await again.aclose()


async def test_a_connection_is_in_use_while_a_stream_is_open(server, echo):
    connection = server.connection(monotonic=iter(range(1_000)).__next__)
    channel = await connection.open_stream("127.0.0.1", echo)
    assert connection.idle_s == 0
    await channel.aclose()
    await channel.aclose()
    assert connection.idle_s > 0
    await connection.aclose()


async def test_a_host_that_forwards_nothing_says_so(server, echo):
    server.forwards = False
    connection = server.connection()
    with pytest.raises(ForwardingClosed, match="opens no connections to other hosts"):
        await connection.open_stream("127.0.0.1", echo)
    await connection.aclose()


async def test_a_bridge_takes_one_session_for_all_its_connections(server, echo):
    connection = server.connection()
    bridge = Bridge(connection)
    channels = await asyncio.gather(*(bridge.open_stream("127.0.0.1", echo, 10) for _ in range(30)))
    assert server.most_sessions == 1
    for channel in channels:
        await channel.aclose()
    await bridge.aclose()
    await connection.aclose()


async def test_a_host_where_no_bridge_can_begin_is_unavailable(server):
    server.env["PATH"] = "/nowhere"
    connection = server.connection()
    bridge = Bridge(connection)
    with pytest.raises(BackendUnavailable, match="no bridge"):
        await bridge.open_stream("127.0.0.1", 1, 5)
    await bridge.aclose()
    await connection.aclose()
