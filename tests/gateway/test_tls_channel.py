"""TLS on a channel: nothing is lost at its end, and each direction ends by itself."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from backends.streams import SocketChannel, TlsChannel
from gateway import certificates
from gateway.certificates import Certificate
from scheduler.ports import utc_now

NAME = "web.pods.example.org"
MUCH = b"0123456789abcdef" * 100_000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificates.own(tmp_path_factory.mktemp("ca"), "pods.example.org", utc_now())


@asynccontextmanager
async def pair(certificate: Certificate) -> AsyncIterator[tuple[TlsChannel, TlsChannel]]:
    """Both ends of a connection: who connected, and who was connected to."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate.chain, certificate.key)
    one, other = [SocketChannel(*await asyncio.open_connection(sock=each)) for each in socket.socketpair()]
    try:
        trusting = ssl.create_default_context(cafile=str(certificate.ca))
        async with asyncio.timeout(20):
            yield tuple(  # type: ignore[misc]
                await asyncio.gather(
                    TlsChannel.begin(one, trusting, server_hostname=NAME),
                    TlsChannel.begin(other, serving, server_side=True),
                )
            )
    finally:
        one.abort()
        other.abort()


async def everything(channel: TlsChannel) -> bytes:
    said = b""
    while piece := await channel.read(65536):
        said += piece
    return said


async def test_all_that_was_said_before_the_end_is_read_after_it(certificate):
    async with pair(certificate) as (client, server):
        writing = asyncio.create_task(client.write(MUCH))
        await asyncio.sleep(0.2)  # nobody reads yet
        ending = asyncio.create_task(_end_after(writing, client))
        assert await everything(server) == MUCH
        await ending


async def _end_after(writing: asyncio.Task[None], channel: TlsChannel) -> None:
    await writing
    await channel.end()


async def test_who_has_said_all_hears_the_rest(certificate):
    async with pair(certificate) as (client, server):
        await client.write(b"question")
        await client.end()
        assert await everything(server) == b"question"
        answering = asyncio.create_task(server.write(MUCH))
        await asyncio.gather(_end_after(answering, server), _is(client, MUCH))


async def _is(channel: TlsChannel, expected: bytes) -> None:
    assert await everything(channel) == expected


async def test_both_may_speak_at_once(certificate):
    async with pair(certificate) as (client, server):
        ways = [(client, server, MUCH), (server, client, MUCH[::-1])]
        ends = [_end_after(asyncio.create_task(says.write(what)), says) for says, _, what in ways]
        await asyncio.gather(*ends, *(_is(hears, what) for _, hears, what in ways))


async def test_who_leaves_without_a_word_has_ended(certificate):
    async with pair(certificate) as (client, server):
        await client.write(b"some")
        await client._below.end()
        assert await everything(server) == b"some"


async def test_nothing_can_be_said_after_the_end(certificate):
    async with pair(certificate) as (client, _):
        await client.end()
        with pytest.raises(ConnectionError):
            await client.write(b"more")


@pytest.mark.parametrize("how", ["cut here", "cut there"])
async def test_a_connection_that_is_lost_is_told_of_and_can_be_closed(certificate, how):
    async with pair(certificate) as (client, server):
        (client if how == "cut here" else server).abort()
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionError):
            for _ in range(2):  # what one side says may still be on its way when the other has gone
                await client.write(MUCH)
        with pytest.raises(ConnectionError):
            await client.end()
        await client.aclose()


async def test_bytes_that_are_no_tls_break_the_connection(certificate):
    async with pair(certificate) as (client, server):
        await client._below.write(b"nonsense" * 100)
        with pytest.raises(ConnectionError, match="TLS"):
            await everything(server)


async def test_a_certificate_that_nobody_vouches_for_is_refused(certificate):
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate.chain, certificate.key)
    one, other = [SocketChannel(*await asyncio.open_connection(sock=each)) for each in socket.socketpair()]
    began = await asyncio.gather(
        TlsChannel.begin(one, ssl.create_default_context(), server_hostname=NAME),
        TlsChannel.begin(other, serving, server_side=True),
        return_exceptions=True,
    )
    one.abort()
    other.abort()
    assert isinstance(began[0], ssl.SSLCertVerificationError)
    assert isinstance(began[1], ssl.SSLError)


async def test_what_was_written_is_read_though_it_was_closed_with_unread_bytes(certificate):
    async with pair(certificate) as (client, server):
        await client.write(b"ignored")
        closing = asyncio.create_task(_say_and_close(server))
        await asyncio.sleep(0.1)
        assert await everything(client) == b"bye"
        await client.aclose()
        await closing


async def _say_and_close(channel: TlsChannel) -> None:
    await channel.write(b"bye")
    await channel.aclose()
