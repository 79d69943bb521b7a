"""TCP connections from a host whose sshd forwards none: a small program there carries all of them in one session.

See ``programs/bridge.py`` for the frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from functools import cache
from importlib.resources import files
from itertools import count

import asyncssh

from backends.beside import starting
from backends.ssh.connection import SshConnection
from backends.ssh.programs.bridge import CLOSE, DATA, END, FAILED, FRAME, OPEN, OPENED, ROOM, WINDOW_BYTES
from scheduler.model.errors import BackendUnavailable

PIECE_BYTES = 64 * 1024
START_TIMEOUT_S = 30.0


class Bridge:
    """The connections of one login by way of its host. It is begun when first needed, and anew when it was lost."""

    def __init__(self, connection: SshConnection) -> None:
        self._connection = connection
        self._beginning = asyncio.Lock()
        self._session: _Session | None = None

    async def open_stream(self, host: str, port: int, timeout_s: float) -> BridgedChannel:
        """As ``SshConnection.open_stream``."""
        async with self._beginning:
            if self._session is None or self._session.is_over:
                self._session = _Session(self._connection)
                await self._session.begin()
            session = self._session
        return await session.open_stream(host, port, timeout_s)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.aclose()
            self._session = None


class BridgedChannel:
    """One connection over a bridge; see ``Channel``."""

    def __init__(self, session: _Session, number: int) -> None:
        self._session, self._number = session, number
        self._heard = bytearray()
        self._changed = asyncio.Event()
        self._room_bytes = WINDOW_BYTES
        self._failure = ""
        self._has_ended = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def read(self, most_bytes: int) -> bytes:
        while not self._heard and not self._has_ended:
            self._check()
            await self._change()
        piece = bytes(self._heard[:most_bytes])
        del self._heard[: len(piece)]
        if piece and not self._failure:
            await self._session.send(self._number, ROOM, struct.pack("!I", len(piece)))
        return piece

    async def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            self._check()
            if self._room_bytes == 0:
                await self._change()
                continue
            piece = left[: min(self._room_bytes, PIECE_BYTES)]
            self._room_bytes -= len(piece)
            left = left[len(piece) :]
            await self._session.send(self._number, DATA, bytes(piece))

    async def end(self) -> None:
        self._check()
        await self._session.send(self._number, END)

    async def aclose(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._session.forget(self._number)

    def hear(self, kind: int, content: bytes) -> None:
        """A frame for this connection came."""
        if kind == DATA:
            self._heard += content
        elif kind == END:
            self._has_ended = True
        elif kind == ROOM:
            self._room_bytes += struct.unpack("!I", content)[0]
        elif kind == OPENED:
            if not self.opened.done():
                self.opened.set_result(None)
        else:
            self.break_off(content.decode("utf-8", "replace") if kind == FAILED else "the connection was broken")
        self._changed.set()

    def break_off(self, why: str) -> None:
        """Nothing more comes or goes."""
        self._failure = self._failure or why
        if not self.opened.done():
            kind = ConnectionRefusedError if why == "refused" else ConnectionError
            self.opened.set_exception(kind(why))
        self._changed.set()

    def _check(self) -> None:
        if self._failure:
            raise ConnectionError(self._failure)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class _Session:
    """One run of the program. What it says is always read: what a channel has not taken is bounded by its window."""

    def __init__(self, connection: SshConnection) -> None:
        self._connection = connection
        self._numbers = count(1)
        self._channels: dict[int, BridgedChannel] = {}
        self._process: asyncssh.SSHClientProcess[bytes] | None = None
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        return self._running is None or self._running.done()

    async def begin(self) -> None:
        self._running = asyncio.create_task(self._run())
        try:
            await asyncio.wait_for(asyncio.shield(self._begun), START_TIMEOUT_S)
        except (TimeoutError, ConnectionError, asyncssh.Error) as error:
            await self.aclose()
            raise BackendUnavailable(f"{self._connection}: no bridge to its nodes could be begun: {error}") from None

    async def open_stream(self, host: str, port: int, timeout_s: float) -> BridgedChannel:
        number = next(self._numbers)
        channel = self._channels[number] = BridgedChannel(self, number)
        try:
            await self.send(number, OPEN, f"{host} {port} {timeout_s:g}".encode())
            async with asyncio.timeout(timeout_s + 5):
                await channel.opened
        except BaseException as error:
            await channel.aclose()
            if isinstance(error, TimeoutError):
                raise ConnectionError(f"{host}:{port} did not answer within {timeout_s:g} s") from None
            raise
        return channel

    async def send(self, number: int, kind: int, content: bytes = b"") -> None:
        if self._process is None or self.is_over:
            raise ConnectionError("the bridge was lost")
        try:
            self._process.stdin.write(FRAME.pack(number, kind, len(content)) + content)
            await self._process.stdin.drain()
        except (asyncssh.Error, OSError) as error:
            raise ConnectionError(f"the bridge was lost: {error}") from None

    async def forget(self, number: int) -> None:
        if self._channels.pop(number, None) is not None:
            await self.send(number, CLOSE)

    async def aclose(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        why = "the bridge was lost"
        try:
            argv, first = starting(_program())
            async with self._connection.process(argv) as process:
                self._process = process
                process.stdin.write(first)
                while await process.stdout.readexactly(1) != b"\x02":
                    pass  # what login scripts print
                self._begun.set_result(None)
                await self._listen(process.stdout)
        except (asyncssh.Error, OSError, EOFError, BackendUnavailable) as error:
            why = f"the bridge was lost: {error}"
        finally:
            if not self._begun.done():
                self._begun.set_exception(ConnectionError(why))
            for channel in self._channels.values():
                channel.break_off(why)

    async def _listen(self, stdout: asyncssh.SSHReader[bytes]) -> None:
        while True:
            number, kind, length = FRAME.unpack(await stdout.readexactly(FRAME.size))
            content = await stdout.readexactly(length) if length else b""
            if (channel := self._channels.get(number)) is not None:
                channel.hear(kind, content)


@cache
def _program() -> bytes:
    return files("backends.ssh.programs").joinpath("bridge.py").read_bytes()
