"""A gateway on a port of loopback, with pods that are real servers behind Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from backends.base import Channel
from backends.pods.sockets import OpenSocket
from gateway import certificates
from gateway.board import Board
from gateway.embedded import Embedded, Names
from gateway.haproxy import HAProxy
from gateway.haproxy_process import PROGRAMS, find_program
from gateway.routes import routes
from gateway.ways import Ways
from scheduler.model.errors import PortClosed
from scheduler.model.ids import LoginKey, Marker, RemoteId
from scheduler.model.pods import NetProtocol, OpenNet, PodStatus
from scheduler.ports import utc_now
from tests.gateway.nets import DOMAINS, instance, net, open_net

DOMAIN = DOMAINS["berth"]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Place:
    """Keeps pods whose ports are Unix sockets; the only ``PodHost`` here."""

    ports: dict[tuple[str, int], Path] = field(default_factory=dict)
    connects: int = 0

    async def pod_host(self, login: LoginKey) -> Place:
        return self

    async def connect(self, remote_id: RemoteId, marker: Marker, port: int) -> Channel:
        self.connects += 1
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, str(self.ports[remote_id, port]))
            return OpenSocket(connection)
        except (KeyError, OSError):
            connection.close()
            raise PortClosed(f"nobody listens on {port}") from None


@dataclass
class World:
    """The gateway, and what it knows."""

    folder: Path
    place: Place
    board: Board
    port: int
    ca: Path
    proxy: str
    haproxy: HAProxy | None = None
    nets: dict[str, OpenNet] = field(default_factory=dict)
    behind_s: float = 0.0
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    def now(self) -> datetime:
        return utc_now() + timedelta(seconds=self.behind_s)

    def know(self, *changed: OpenNet) -> None:
        """What the store says from now on of these nets; all others stay."""
        for each in changed:
            self.nets[f"{each.pod_id}-{each.net.name}"] = each
        self.board.show(routes(self.nets.values(), DOMAINS, self.board.routes, self.now()))

    async def shown(self) -> None:
        """Returns when a HAProxy runs and was told of the routes of now."""
        if self.haproxy is not None:
            async with asyncio.timeout(20):
                while not self.haproxy.is_told:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.01)

    def forget(self) -> None:
        self.nets.clear()
        self.know()

    async def pod(self, serve: Serve, pod_id: str = "web", remote_id: str = "r1", **of_net: Any) -> OpenNet:
        """A pod whose port is served by a function, AVAILABLE."""
        path = self.folder / f"{pod_id}-{remote_id}.sock"
        server = await asyncio.start_unix_server(serve, path)
        self.stack.callback(server.close)
        made = self.at(path, pod_id, remote_id, **of_net)
        await self.shown()
        return made

    def at(self, path: Path, pod_id: str = "web", remote_id: str = "r1", **of_net: Any) -> OpenNet:
        """A pod whose port is a Unix socket that is there, AVAILABLE."""
        made = open_net(pod_id, net(**of_net), behind=instance(1, remote_id))
        self.place.ports[remote_id, made.net.port] = path
        self.know(made)
        return made

    async def echo(self, pod_id: str = "web", **of_net: Any) -> OpenNet:
        """A pod with a real HTTP server that answers with what it was sent."""
        path = self.folder / f"{pod_id}.sock"
        server = uvicorn.Server(uvicorn.Config(echo, uds=str(path), log_config=None, lifespan="off"))
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        running = asyncio.create_task(server.serve())

        async def end() -> None:
            server.should_exit = server.force_exit = True
            await running

        self.stack.push_async_callback(end)
        while not server.started:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        made = self.at(path, pod_id, **of_net)
        await self.shown()
        return made

    def tls(self, *alpn: str) -> ssl.SSLContext:
        """As a client that trusts our CA."""
        context = ssl.create_default_context(cafile=self.ca)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    async def connect(
        self, pod_id: str = "web", *alpn: str, name: str | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TLS connection under a pod's name."""
        name = name or f"{pod_id}.{DOMAIN}"
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls(*alpn), server_hostname=name)

    async def say(self, raw: bytes, pod_id: str = "web") -> bytes:
        """Everything that comes back for these bytes, until the gateway closes."""
        reader, writer = await self.connect(pod_id, "http/1.1")
        writer.write(raw)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        return answer

    def client(self, **options: Any) -> httpx.AsyncClient:
        """A browser that finds every name here."""
        transport = _Here(self.port, self.tls())
        return httpx.AsyncClient(transport=transport, trust_env=False, timeout=20, **options)

    def url(self, path: str = "/", pod_id: str = "web") -> str:
        return f"https://{pod_id}.{DOMAIN}:{self.port}{path}"


class _Here(httpx.AsyncHTTPTransport):
    """Connects to loopback whatever the name; TLS and ``Host`` keep the name."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(verify=context)
        self._port = port

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        here = httpx.Request(
            request.method,
            request.url.copy_with(host="127.0.0.1"),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": request.url.host},
        )
        return await super().handle_async_request(here)


def proxies() -> Sequence[str]:
    """The proxies that this machine has."""
    return ("embedded", "haproxy") if any(map(shutil.which, PROGRAMS)) else ("embedded",)


@asynccontextmanager
async def gateway(proxy: str = "embedded", **more: Any) -> AsyncIterator[World]:
    """A gateway that runs."""
    folder = Path(tempfile.mkdtemp(prefix="berth-gw-"))
    listener = socket.create_server(("127.0.0.1", 0))
    certificate = certificates.own(folder, DOMAIN, utc_now())
    assert certificate.ca is not None
    place = Place()
    world = World(folder, place, Board(utc_now), listener.getsockname()[1], certificate.ca, proxy)
    world.board = Board(world.now)
    names = Names()
    names.serve({DOMAIN: certificate})
    stop = asyncio.Event()
    ways = Ways(place, world.board)  # type: ignore[arg-type]
    embedded = Embedded(names, ways, **more)
    if proxy == "haproxy":
        program = await find_program(required=True)
        assert program is not None
        world.haproxy = HAProxy(program, folder / "gateway", embedded, ways)
        world.haproxy.serve_certificates({DOMAIN: certificate})
    running = asyncio.create_task((world.haproxy or embedded).serve(listener, stop))
    try:
        async with world.stack:
            await world.shown()
            yield world
            stop.set()
            await running
    finally:
        shutil.rmtree(folder)


async def echo(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
    """An ASGI application: JSON of the request; over a WebSocket, each message as it came."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[0]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    seen = {
        "method": scope["method"],
        "target": scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else ""),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": body.decode("latin-1") if len(body) < 10_000 else len(body),
    }
    answer = json.dumps(seen).encode()
    headers = [(b"content-type", b"application/json"), (b"access-control-allow-origin", b"https://pod.says")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for at in range(0, len(answer), 100):
        await send({"type": "http.response.body", "body": answer[at : at + 100], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def as_status(known: OpenNet, status: PodStatus) -> OpenNet:
    return replace(known, status=status)


TCP, POSTGRES = NetProtocol.TCP, NetProtocol.POSTGRES
