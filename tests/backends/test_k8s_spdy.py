"""Streams to a container: frames as they go over the wire, against a server of ours that speaks as a node does."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from unittest.mock import AsyncMock

import pytest

from backends.k8s import pods, spdy
from backends.k8s.exec import exit_code_of
from backends.k8s.pods import ForwardedPort, KubernetesPodHost, seen_of
from backends.k8s.site import Access
from backends.k8s.spdy import FIN, PING, RST_STREAM, SYN_REPLY, SYN_STREAM, HeaderWriter, Session, control, data
from backends.streams import OwnChannel, SocketChannel
from scheduler.model.errors import BackendUnavailable, NotAuthorised, PortClosed, UnexpectedReply
from scheduler.reconcile.pod_watch import PROBE_EVERY

Talk = Callable[["Node"], Awaitable[None]]


def test_frames_have_their_version_kind_flags_and_length():
    assert control(SYN_STREAM, b"abc", FIN) == b"\x80\x03\x00\x01\x01\x00\x00\x03abc"
    assert data(5, b"hello") == b"\x00\x00\x00\x05\x00\x00\x00\x05hello"


def test_header_blocks_of_a_connection_are_one_compressed_stream():
    writer, inflate = HeaderWriter(), zlib.decompressobj()
    for headers in ({"streamtype": "error", "port": "80"}, {"streamtype": "data"}):
        plain = inflate.decompress(writer.block(headers))
        assert int.from_bytes(plain[:4]) == len(headers)
        assert b"streamtype" in plain


def test_the_request_names_the_host_the_protocol_and_quotes_every_word():
    access = Access("https://kube.example.org:6443", "t0ken")
    said = spdy.upgrade_request(access, "/x", [("command", "a b\r\nX: y"), ("command", "&é")], "v4.channel.k8s.io")
    lines = said.decode().split("\r\n")
    assert lines[0] == "POST /x?command=a+b%0D%0AX%3A+y&command=%26%C3%A9 HTTP/1.1"
    assert {"Host: kube.example.org:6443", "Authorization: Bearer t0ken", "Upgrade: SPDY/3.1"} <= set(lines)
    assert lines[-2:] == ["", ""]


class Node:
    """The other side: reads frames, and says what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def frame(self) -> tuple[bytes, bytes]:
        head = await self.reader.readexactly(8)
        return head, await self.reader.readexactly(int.from_bytes(head[5:]))

    async def accept(self) -> int:
        """Take the next stream; its number."""
        while True:
            head, payload = await self.frame()
            if head[:4] == control(SYN_STREAM, b"")[:4]:
                self.writer.write(control(SYN_REPLY, payload[:4]))
                return int.from_bytes(payload[:4])

    async def answer_ping(self) -> None:
        while True:
            head, payload = await self.frame()
            if head[:4] == control(PING, b"")[:4]:
                self.writer.write(control(PING, payload))
                return


@asynccontextmanager
async def talking(talk: Talk, monkeypatch: pytest.MonkeyPatch, answer: bytes = b"") -> AsyncIterator[Session]:
    """A session with a node that does so; TLS is not what is tested here."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer or b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\n\r\n")
        try:
            if not answer:
                await talk(Node(reader, writer))
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def connect(access: Access) -> OwnChannel:
        return SocketChannel(*await asyncio.open_connection("127.0.0.1", port))

    monkeypatch.setattr(spdy, "_connect", connect)
    try:
        session = await Session.open(Access("https://kube", "t"), "/x", (), "p")
        try:
            yield session
        finally:
            await session.aclose()
    finally:
        server.close()
        await server.wait_closed()


async def test_bytes_come_on_their_own_stream_until_its_end(monkeypatch):
    async def talk(node: Node) -> None:
        first, second = await node.accept(), await node.accept()
        node.writer.write(data(second, b"two") + data(first, b"one") + data(first, b"", FIN) + data(second, b"!", FIN))

    async with talking(talk, monkeypatch) as session:
        first, second = await session.stream({"streamtype": "a"}), await session.stream({"streamtype": "b"})
        assert (await first.read_all(10), await second.read_all(10)) == (b"one", b"two!")


async def test_a_reset_stream_is_no_end(monkeypatch):
    async def talk(node: Node) -> None:
        number = await node.accept()
        node.writer.write(data(number, b"some") + control(RST_STREAM, number.to_bytes(4) + (5).to_bytes(4)))

    async with talking(talk, monkeypatch) as session:
        stream = await session.stream({"streamtype": "data"})
        assert await stream.read(100) == b"some"
        with pytest.raises(ConnectionResetError):
            await stream.read(100)


async def test_a_connection_that_is_lost_ends_every_stream_with_an_error(monkeypatch):
    async def talk(node: Node) -> None:
        await node.accept()
        node.writer.transport.abort()

    async with talking(talk, monkeypatch) as session:
        stream = await session.stream({"streamtype": "data"})
        with pytest.raises(ConnectionResetError):
            await stream.read(1)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'HTTP/1.1 401 Unauthorized\r\n\r\n{"message": "Unauthorized", "reason": "Unauthorized"}', NotAuthorised),
        (b'HTTP/1.1 403 Forbidden\r\n\r\n{"message": "User x cannot create resource pods/exec"}', NotAuthorised),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\nno", BackendUnavailable),
        (b"SSH-2.0-x\r\n\r\n", UnexpectedReply),
        (b"HTTP/1.1 200", BackendUnavailable),
    ],
)
async def test_a_server_that_does_not_change_over_says_why(answer, error, monkeypatch):
    async def nothing(node: Node) -> None: ...

    with pytest.raises(error):
        async with talking(nothing, monkeypatch, answer):
            pass


async def forwarded(session: Session, told: list[bool]) -> ForwardedPort:
    errors = await session.stream({"streamtype": "error"})
    return ForwardedPort(session, await session.stream({"streamtype": "data"}), errors, "pod port 80", told.append)


async def test_a_slow_node_is_given_longer_to_refuse(monkeypatch):
    async def talk(node: Node) -> None:
        errors = await node.accept()
        await node.accept()
        await asyncio.sleep(0.4)
        await node.answer_ping()
        await asyncio.sleep(0.5)  # longer than the silence that counts where nothing is slow
        node.writer.write(data(errors, b"connection refused", FIN))
        await asyncio.sleep(1)

    told: list[bool] = []
    async with talking(talk, monkeypatch) as session:
        port = await forwarded(session, told)
        with pytest.raises(PortClosed, match="refused"):
            await port.prove()
        await port.aclose()
    assert told == [False]


async def test_a_port_that_the_node_says_nothing_against_is_open(monkeypatch):
    async def talk(node: Node) -> None:
        await node.accept()
        number = await node.accept()
        await node.answer_ping()
        await asyncio.sleep(0.3)
        node.writer.write(data(number, b"late"))

    told: list[bool] = []
    async with talking(talk, monkeypatch) as session:
        channel = await forwarded(session, told)
        await channel.prove()
        assert told == [True]
        assert await channel.read(10) == b"late"


async def test_a_port_that_the_node_speaks_against_is_closed_also_later(monkeypatch):
    async def talk(node: Node) -> None:
        errors, number = await node.accept(), await node.accept()
        await node.answer_ping()
        node.writer.write(data(number, b"", FIN) + data(errors, b"connection refused", FIN))

    told: list[bool] = []
    async with talking(talk, monkeypatch) as session:
        channel = await forwarded(session, told)
        with pytest.raises(PortClosed, match="connection refused"):
            await channel.prove()
        assert told == [False]
        with pytest.raises(ConnectionRefusedError):
            await channel.read(10)


async def test_each_look_at_a_pod_is_a_proof_and_not_the_memory_of_the_one_before(monkeypatch):
    """A program that dies after one look is found at the next, whatever the time that either took."""
    now, listens = [100.0], [True]

    class Port:
        def __init__(self, session, data, errors, name, told) -> None:
            self.told = told

        async def prove(self) -> None:
            now[0] += 0.3
            if not listens[0]:
                raise PortClosed("nobody listens")
            self.told(True)

        async def aclose(self) -> None: ...

    async def running(remote_id: str, marker: str) -> dict:
        return {"metadata": {"name": "pod-1"}}

    async def session(*_: object) -> AsyncMock:
        return AsyncMock()

    host = KubernetesPodHost(AsyncMock(), Access("https://k8s", "token"), monotonic=lambda: now[0])
    monkeypatch.setattr(pods, "ForwardedPort", Port)
    monkeypatch.setattr(host, "_running", running)
    monkeypatch.setattr(host, "_session", session)
    await host.connect("uid", "marker", 80)
    listens[0] = False
    now[0] = 101.0
    await host.connect("uid", "marker", 80)  # a connection of somebody who waits is not made to wait again
    now[0] = 100.0 + PROBE_EVERY.total_seconds()
    with pytest.raises(PortClosed):
        await host.connect("uid", "marker", 80)


def test_the_end_of_a_command_is_read_as_the_node_writes_it():
    assert exit_code_of(b'{"status":"Success"}') == (0, "")
    code = b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}'
    assert exit_code_of(code) == (3, "")
    missing = b'{"status":"Failure","reason":"InternalError","message":"no-such-program: not found"}'
    assert exit_code_of(missing) == (127, "no-such-program: not found")
    for odd in (b"", b"[]", b'{"status":"Failure","reason":"NonZeroExitCode"}'):
        with pytest.raises(UnexpectedReply):
            exit_code_of(odd)


def test_what_a_pod_waits_for_is_said_in_words_for_people():
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image x"}
    status = {"phase": "Pending", "containerStatuses": [{"ready": False, "state": {"waiting": waiting}}]}
    seen = seen_of({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": status})
    assert (seen.phase, seen.node, seen.is_ready) == ("Pending", "n", False)
    assert seen.waits_for == "its image cannot be pulled: Back-off pulling image x"
    assert seen_of(None).waits_for
