"""HAProxy in front of the embedded proxy: plain names are its business, all others pass through it.

It is a child of ours and dies with us. The listening socket stays ours, too: while no HAProxy runs, the embedded
proxy serves it. What is decided, here and there, is decided on the same routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import structlog

from backends.pods.sockets import OpenSocket
from backends.streams import SocketChannel
from gateway import haproxy_config as config
from gateway.accepting import Accepting, Serve
from gateway.certificates import Certificate
from gateway.conversation import Client
from gateway.embedded import HANDSHAKE_S, Embedded
from gateway.haproxy_process import Failed, HAProxyProcess, Numbers, start
from gateway.plain import PlainWays, plain_targets
from gateway.proxied import Header, read_header
from gateway.routes import Routes, Target
from gateway.ways import Ways

MOST_PATH_BYTES = 70
"""Of a directory of sockets: Linux keeps 107 for a socket's whole name."""
AGAIN_S = 1.0
"""Until another is started after one that did not start."""

log = structlog.get_logger()


class HAProxy:
    """Serves what comes to a listening socket. program: its file; folder: for sockets, ours alone; retries: see
    ``haproxy_config.Shape``."""

    def __init__(self, program: str, folder: Path, embedded: Embedded, ways: Ways, *, retries: int = 1) -> None:
        self._program, self._folder, self._embedded, self._board = program, folder, embedded, ways.board
        self._ways, self._retries = PlainWays(ways), retries
        self._certificates: Mapping[str, Certificate] = {}
        self._renewed = asyncio.Event()
        self._numbering = Numbering()
        self._connections = Accepting()
        self._retiring: set[asyncio.Task[None]] = set()
        self.process: HAProxyProcess | None = None

    def serve_certificates(self, certificates: Mapping[str, Certificate]) -> None:
        """From now on these count, by domain. Connections that are open go on as they are."""
        self._certificates = dict(certificates)
        self._renewed.set()

    @property
    def is_told(self) -> bool:
        """Whether one runs that carries by itself what it may."""
        return self.process is not None and self.process.shown == self._numbering.of(self._board.routes)

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then cut the connections that are left. Closes the listener."""
        folder = await asyncio.to_thread(_emptied, self._folder)
        try:
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(self._connections.aclose)
                for name, serve in self._doors(listener.getsockname()[1]).items():
                    await stack.enter_async_context(self._accepted(_unix_listener(folder / name), serve))
                keeping = asyncio.create_task(self._keep_one(listener, folder))
                stack.push_async_callback(_cancel, keeping)
                await stop.wait()
        finally:
            for task in list(self._retiring):
                await _cancel(task)
            listener.close()
            shutil.rmtree(folder, ignore_errors=True)

    # -- what comes to us ----------------------------------------------------------------------------------------------

    def _doors(self, port: int) -> Mapping[str, Serve]:
        """What is done with connections that HAProxy hands on, by the socket to which they come."""

        async def embedded(connection: socket.socket, _: Any) -> None:
            header = await _header(connection)
            await self._embedded.serve_one(connection, header.address, port)

        async def named(connection: socket.socket, _: Any) -> None:
            header = await _header(connection)
            channel = SocketChannel(*await asyncio.open_unix_connection(sock=connection))
            try:
                await self._embedded.serve_named(Client(header.address, header.name, port), channel)
            finally:
                channel.abort()

        async def ways(connection: socket.socket, _: Any) -> None:
            header = await _header(connection)
            channel = OpenSocket(connection)
            try:
                await self._ways.serve(header.name, channel)
            finally:
                await channel.aclose()

        return {config.EMBEDDED: embedded, config.NAMED: named, config.WAYS: ways}

    @contextlib.asynccontextmanager
    async def _accepted(self, listener: socket.socket, serve: Serve) -> AsyncIterator[None]:
        accepting = asyncio.create_task(self._connections.accept(listener, serve))
        try:
            yield
        finally:
            await _cancel(accepting)
            listener.close()

    @contextlib.asynccontextmanager
    async def _served_by_us(self, listener: socket.socket) -> AsyncIterator[None]:
        """What comes meanwhile is served by the embedded proxy."""
        port = listener.getsockname()[1]

        async def serve(connection: socket.socket, address: Any) -> None:
            await self._embedded.serve_one(connection, str(address[0]), port)

        accepting = asyncio.create_task(self._connections.accept(listener, serve))
        try:
            yield
        finally:
            await _cancel(accepting)

    # -- the process -------------------------------------------------------------------------------------------------

    async def _keep_one(self, listener: socket.socket, folder: Path) -> None:
        """Have one that runs, with the certificates and routes of now, for ever."""
        try:
            for number in itertools.count():
                try:
                    before = self.process
                    async with self._served_by_us(listener):
                        self.process = await self._started(listener, folder / str(number))
                    if before is not None:
                        self._retire(before)
                    await self._driven(self.process)
                except (Failed, OSError) as failed:
                    log.error("haproxy does not run; pods are reached without it", why=str(failed)[:2000])
                    async with self._served_by_us(listener):
                        await self._end()
                        await asyncio.sleep(AGAIN_S)
        finally:
            await self._end()

    async def _started(self, listener: socket.socket, folder: Path) -> HAProxyProcess:
        self._renewed.clear()
        shape = config.shape_here(listener.fileno(), self._retries)
        numbers = self._numbering.of(self._board.routes)
        return await start(self._program, folder, listener, shape, self._certificates, numbers)

    async def _driven(self, process: HAProxyProcess) -> None:
        """Tell it of each change of routes until other certificates are to be served. Failed, also when it ends."""
        ended, renewed = asyncio.create_task(process.ended()), asyncio.create_task(self._renewed.wait())
        try:
            while not renewed.done():
                changed = asyncio.create_task(self._board.next_change.wait())
                try:
                    await process.show(self._numbering.of(self._board.routes))
                    await asyncio.wait({ended, renewed, changed}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                if ended.done():
                    raise Failed(process.said)
        finally:
            ended.cancel()
            renewed.cancel()

    def _retire(self, process: HAProxyProcess) -> None:
        """Its connections go on; new ones come to its successor."""
        task = asyncio.create_task(process.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _end(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            await process.end()


class Numbering:
    """Gives what stands behind a plain name a number: another one for each place to which the name leads."""

    def __init__(self) -> None:
        self._given: dict[str, tuple[Target, int]] = {}
        self._next = itertools.count(1)

    def of(self, routes: Routes) -> Numbers:
        targets = {protocol: plain_targets(routes, protocol) for protocol in config.MAPS}
        before, self._given = self._given, {}
        for name, target in (pair for each in targets.values() for pair in each.items()):
            known = before.get(name)
            self._given[name] = known if known is not None and known[0] == target else (target, next(self._next))
        return {protocol: {name: self._given[name][1] for name in each} for protocol, each in targets.items()}


async def _header(connection: socket.socket) -> Header:
    """What HAProxy says of a connection, which any error closes."""
    try:
        connection.setblocking(False)
        async with asyncio.timeout(HANDSHAKE_S):
            return await read_header(connection)
    except BaseException:
        connection.close()
        raise


def _emptied(folder: Path) -> Path:
    """The directory without what a process that was killed had left there; another one where its path is too long for
    names of sockets."""
    if len(os.fsencode(folder.absolute())) > MOST_PATH_BYTES:
        return Path(tempfile.mkdtemp(prefix="berth-gateway-"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    return folder.absolute()


def _unix_listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1024)
    return listener


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
