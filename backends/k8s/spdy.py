"""Streams to a container over one upgraded connection: SPDY/3.1 as far as Kubernetes speaks it.

The API server hands such a connection on to the node, for a command (exec) or for ports (portforward). Of the two
protocols that it knows, this is the one in which one side can end what it sends and go on reading. A stream is opened
by SYN_STREAM with a few headers; bytes travel in data frames, and a flag on the last one ends that direction.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import lru_cache
from typing import Self
from urllib.parse import urlencode, urlsplit

from backends.k8s.api import error_of
from backends.k8s.site import Access
from backends.streams import OwnChannel, SocketChannel, TlsChannel, exactly
from scheduler.model.errors import BackendUnavailable, UnexpectedReply

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 0x01

CONNECT_S = 15.0
CLOSE_S = 1.0
ENDED = "it ended the connection"
FRAME_BYTES = 32 * 1024
"""Most bytes in a data frame of ours; what the other side sends may be longer."""
BUFFER_BYTES = 256 * 1024
"""So much that nobody has read yet of one stream, and nothing more is read from the connection."""
_LONGEST_FRAME = 16 * 1024 * 1024
_LONGEST_HEAD = 64 * 1024


# -- frames: pure ------------------------------------------------------------------------------------------------------


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    """A control frame."""
    return (0x8000 | VERSION).to_bytes(2) + kind.to_bytes(2) + bytes([flags]) + len(payload).to_bytes(3) + payload


def data(stream_id: int, content: bytes, flags: int = 0) -> bytes:
    """A data frame."""
    return stream_id.to_bytes(4) + bytes([flags]) + len(content).to_bytes(3) + content


class HeaderWriter:
    """Header blocks of one connection: all of them are one zlib stream. No dictionary is used, which readers allow."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj()

    def block(self, headers: Mapping[str, str]) -> bytes:
        """The next block."""
        plain = len(headers).to_bytes(4)
        for word in (word.encode() for pair in headers.items() for word in pair):
            plain += len(word).to_bytes(4) + word
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def upgrade_request(access: Access, path: str, query: Sequence[tuple[str, str]], protocol: str) -> bytes:
    """What asks an API server for such a connection."""
    target = path + (f"?{urlencode(query)}" if query else "")
    lines = (
        f"POST {target} HTTP/1.1",
        f"Host: {urlsplit(access.server).netloc}",
        f"Authorization: Bearer {access.token}",
        "Connection: Upgrade",
        "Upgrade: SPDY/3.1",
        f"X-Stream-Protocol-Version: {protocol}",
        "Content-Length: 0",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


# -- the connection ----------------------------------------------------------------------------------------------------


class Stream:
    """One stream of a session. What it meets raises ConnectionError."""

    def __init__(self, session: Session, number: int) -> None:
        self.number = number
        self._session, self._held, self._changed = session, bytearray(), asyncio.Event()
        self._drained = asyncio.Event()
        self._ended, self._failure = False, ""
        self.replied = asyncio.Event()

    async def read(self, most_bytes: int) -> bytes:
        """Some bytes; empty at the end."""
        while not self._held and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        if self._held:
            some = bytes(self._held[:most_bytes])
            del self._held[:most_bytes]
            self._drained.set()
            return some
        if self._failure:
            raise ConnectionResetError(self._failure)
        return b""

    async def read_all(self, most_bytes: int) -> bytes:
        """Everything until the end. UnexpectedReply when that is more than so much."""
        said = bytearray()
        while piece := await self.read(FRAME_BYTES):
            said += piece
            if len(said) > most_bytes:
                raise UnexpectedReply(f"a stream held more than {most_bytes} bytes")
        return bytes(said)

    async def wait(self) -> None:
        """Return when something came, or the end."""
        while not self._held and not self._ended:
            self._changed.clear()
            await self._changed.wait()

    async def write(self, content: bytes) -> None:
        """Returns when there is room for more."""
        for start in range(0, len(content), FRAME_BYTES):
            await self._session.send(data(self.number, content[start : start + FRAME_BYTES]))

    async def end(self) -> None:
        """No more will be written."""
        await self._session.send(data(self.number, b"", FIN))

    async def take(self, content: bytes, is_last: bool) -> None:
        """What came for this stream; waits while its reader is far behind."""
        self._held += content
        self._ended = self._ended or is_last
        self._changed.set()
        while len(self._held) > BUFFER_BYTES and not self._ended:
            self._drained.clear()
            await self._drained.wait()

    def fail(self, why: str) -> None:
        """Nothing more will come, and not because the other side had said all."""
        if not self._ended:
            self._ended, self._failure = True, why
        self.replied.set()
        self._changed.set()
        self._drained.set()


class Session:
    """Streams over one connection to an API server. Opened by ``open``; closed by whoever opened it."""

    def __init__(self, channel: OwnChannel) -> None:
        self._channel, self._headers = channel, HeaderWriter()
        self._streams: dict[int, Stream] = {}
        self._pinged = asyncio.Event()
        self.moved, self.is_held = 0, False
        """Frames that went either way; and whether no more are read, because what came was not taken yet."""
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, access: Access, path: str, query: Sequence[tuple[str, str]], protocol: str) -> Self:
        """Raises as a call of ``Api`` does: NothingLearnt, or Refused with the API server's words."""
        try:
            async with asyncio.timeout(CONNECT_S):
                channel = await _connect(access)
                try:
                    await channel.write(upgrade_request(access, path, query, protocol))
                    await _demand_switch(channel)
                except BaseException:
                    channel.abort()
                    raise
        except (OSError, ValueError) as error:
            words = str(error) or type(error).__name__
            raise BackendUnavailable(f"the API server does not answer: {words}") from None
        return cls(channel)

    async def stream(self, headers: Mapping[str, str]) -> Stream:
        """Open a stream; returns when the other side has heard of it."""
        stream = Stream(self, 2 * len(self._streams) + 1)
        self._streams[stream.number] = stream
        payload = stream.number.to_bytes(4) + bytes(4) + bytes(2) + self._headers.block(headers)
        await self.send(control(SYN_STREAM, payload))
        async with _in_time():
            await stream.replied.wait()
        return stream

    async def ping(self) -> None:
        """Return when the other side has read all that was sent so far."""
        self._pinged.clear()
        await self.send(control(PING, (1).to_bytes(4)))
        async with _in_time():
            await self._pinged.wait()

    async def send(self, frame: bytes) -> None:
        if self._reading.done():
            raise ConnectionResetError("the connection to the API server has ended")
        await self._channel.write(frame)
        self.moved += 1

    def abort(self) -> None:
        """End it now: whoever reads or writes is told so. For a connection that has died without a word."""
        self._reading.cancel()
        self._channel.abort()

    async def aclose(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._channel.aclose()

    async def _read(self) -> None:
        why = "the connection to the API server has ended"
        try:
            while True:
                head = await exactly(self._channel, 8, ENDED)
                length = int.from_bytes(head[5:])
                if length > _LONGEST_FRAME:
                    why = "a frame of the API server was too long"
                    return
                payload = await exactly(self._channel, length, ENDED)
                self.moved, self.is_held = self.moved + 1, True
                await self._take(head, payload)
                self.is_held = False
        except OSError as error:
            why = f"the API server was lost: {error}"
        finally:
            self._pinged.set()
            for stream in self._streams.values():
                stream.fail(why)

    async def _take(self, head: bytes, payload: bytes) -> None:
        number = int.from_bytes(payload[:4]) & 0x7FFFFFFF
        if not head[0] & 0x80:
            stream = self._streams.get(int.from_bytes(head[:4]))
            if stream is not None:
                await stream.take(payload, bool(head[4] & FIN))
            return
        stream = self._streams.get(number)
        match int.from_bytes(head[2:4]):
            case kind if kind == SYN_REPLY and stream is not None:
                stream.replied.set()
                if head[4] & FIN:
                    await stream.take(b"", True)
            case kind if kind == RST_STREAM and stream is not None:
                stream.fail("the stream was reset")
            case kind if kind == PING and number % 2:
                self._pinged.set()
            case kind if kind == PING:
                await self.send(control(PING, payload))


async def _connect(access: Access) -> OwnChannel:
    server = urlsplit(access.server)
    plain = SocketChannel(*await asyncio.open_connection(server.hostname, server.port or 443))
    try:
        return await TlsChannel.begin(plain, _trust(access.ca), server_hostname=server.hostname)
    except BaseException:
        plain.abort()
        raise


async def _head(channel: OwnChannel) -> str:
    """The head of an HTTP answer, and no byte of what follows. ConnectionError; ValueError where it does not end."""
    said = bytearray()
    while not said.endswith(b"\r\n\r\n"):
        said += await exactly(channel, 1, ENDED)
        if len(said) > _LONGEST_HEAD:
            raise ValueError("the head of its answer does not end")
    return said.decode("latin-1")


async def _demand_switch(channel: OwnChannel) -> None:
    """Return when the server has changed to SPDY; raise what it says otherwise."""
    head = await _head(channel)
    status = head.split(" ", 2)[1] if head.startswith("HTTP/1.") else ""
    if status == "101":
        return
    body = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            body = await channel.read(_LONGEST_HEAD)
    if not status.isdigit():
        raise UnexpectedReply("the API server's answer was not understood", head)
    text = body.decode("utf-8", "replace")
    said: object = None
    with contextlib.suppress(ValueError):
        said = json.loads(text[text.find("{") : text.rfind("}") + 1])
    told = said if isinstance(said, dict) else {"message": text[:500]}
    raise error_of(int(status), str(told.get("reason", "")), str(told.get("message", "")))


@lru_cache(maxsize=64)
def _trust(ca: str | None) -> ssl.SSLContext:
    """Made once for many connections: reading the authorities of a host takes 20 ms of a core."""
    return ssl.create_default_context(cadata=ca)


@contextlib.asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(CONNECT_S):
            yield
    except TimeoutError:
        raise BackendUnavailable("the node does not answer through the API server") from None
