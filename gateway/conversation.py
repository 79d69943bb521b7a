"""One client's HTTP/1.1 connection: each request is checked, passed to the pod of its name, and answered.

h11 reads and writes both sides, so what the pod gets is written anew from what was understood: bytes about which two
parsers could differ do not get through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11

from backends.streams import CHUNK_BYTES, OwnChannel
from gateway import headers as rules
from gateway import pages
from gateway.channels import Idle, carry
from gateway.headers import Header, Seen
from gateway.pages import Page
from gateway.routes import Route
from gateway.upstream import REPEATABLE, PodSilent, Upstream, Upstreams
from gateway.ways import IDLE_S, Closed, Unknown, Ways

MOST_HEAD_BYTES = 64 * 1024
HEAD_S = 30
"""How long a head may take from its first byte, or the first after the handshake."""
KEEP_S = 75
"""How long a connection is kept between requests."""
NOT_PASSED = frozenset({b"CONNECT", b"TRACE"})


class Gone(Exception):
    """The client has left."""


class Refused(Exception):
    """The request is not passed on; the page says why. close: nothing after it on this connection can be trusted."""

    def __init__(self, page: Page, *, close: bool = False) -> None:
        super().__init__(page.title)
        self.page, self.close = page, close


@dataclass(frozen=True, slots=True)
class Client:
    """Who is connected: by address, under the name of its TLS handshake, at our TCP port."""

    address: str
    host_name: str
    port: int


Guard = Callable[[h11.Request, Route, Client], Awaitable["Page | Seen"]]
"""Lets a request to a net with a login through, with what the pod is to see, or answers it."""


async def nobody(request: h11.Request, route: Route, client: Client) -> Page | Seen:
    """The guard of a gateway that cannot ask who somebody is."""
    return pages.forbidden("This pod asks for a login, and this gateway has none.")


class Conversation:
    """Serves one connection until it ends."""

    def __init__(self, client: Client, channel: OwnChannel, ways: Ways, guard: Guard = nobody) -> None:
        self._client, self._channel, self._ways, self._guard = client, channel, ways, guard
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_BYTES)
        self._pods = Upstreams(ways, client.host_name)

    async def serve(self) -> None:
        """Answer one request after another. The channel is the caller's to close."""
        try:
            while (request := await self._next_request()) is not None and await self._one(request):
                self._http.start_next_cycle()
        except (Gone, OSError):
            self._channel.abort()
        finally:
            await self._pods.aclose()

    async def _next_request(self) -> h11.Request | None:
        """The next head; None at the end of the connection, or after the refusal of what cannot be read."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(KEEP_S) as limit:
                begun = False
                while (event := self._http.next_event()) is h11.NEED_DATA:
                    self._http.receive_data(await self._channel.read(CHUNK_BYTES))
                    if not begun:
                        begun = True
                        limit.reschedule(loop.time() + HEAD_S)
        except TimeoutError:
            return None
        except h11.RemoteProtocolError as error:
            await self._show(Page(error.error_status_hint, "The request cannot be read", f"{error}."), whole=False)
            return None
        return event if isinstance(event, h11.Request) else None

    async def _one(self, request: h11.Request) -> bool:
        """Answer one request; whether another may follow."""
        is_whole = not _has_body(request)
        try:
            _demand_plain(request)
            if is_whole:
                self._http.next_event()  # its end, which is here with its head
            route, seen = await self._admitted(request)
            return await self._passed(request, is_whole, route, seen)
        except Refused as refusal:
            return await self._show(refusal.page, whole=is_whole and not refusal.close)
        except Unknown:
            return await self._show(pages.unknown(self._client.host_name), whole=is_whole)
        except Closed as closed:
            return await self._show(pages.closed(str(closed)), whole=is_whole)

    async def _admitted(self, request: h11.Request) -> tuple[Route, Seen]:
        """The route of a request that may pass, and what the pod sees of the client. Raises Refused or Unknown."""
        host_name = self._client.host_name
        if (host := rules.host_of(request.headers)) != host_name:
            raise Refused(pages.misdirected(host, host_name))
        route = await self._ways.board.find(host_name)
        if route is None:
            raise Unknown(host_name)
        if not route.admits(self._client.address):
            raise Refused(pages.forbidden("This address may not reach the pod."))
        cors = route.net.cors
        if rules.is_preflight(cors, request.method, request.headers):
            raise Refused(Page(204, "", "", headers=rules.preflight_headers(cors, request.headers)))
        if not route.net.needs_login:
            return route, Seen(self._client.address, self._client.port)
        answer = await self._guard(request, route, self._client)
        if isinstance(answer, Page):
            raise Refused(answer)
        return route, answer

    async def _show(self, page: Page, *, whole: bool) -> bool:
        """Send a page of our own; whether another request may follow. whole: nothing of this one is still to come."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            raise Gone
        body = b"" if page.status == 204 else page.body
        headers = page.all_headers(len(body)) if body else list(page.headers)
        if not whole:
            headers.append((b"connection", b"close"))
        await self._say(h11.Response(status_code=page.status, headers=headers), h11.Data(body), h11.EndOfMessage())
        return self._is_ready()

    def _is_ready(self) -> bool:
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _say(self, *events: h11.Event) -> None:
        try:
            data = b"".join(self._http.send(event) or b"" for event in events)
        except h11.LocalProtocolError:  # the pod said more or less than it had announced
            raise Gone from None
        if data:
            await self._channel.write(data)

    # -- to the pod and back -----------------------------------------------------------------------------------------

    async def _passed(self, request: h11.Request, is_whole: bool, route: Route, seen: Seen) -> bool:
        """Pass a request to the pod and its answer back; whether another may follow."""
        headers = rules.to_pod(request.headers, seen)
        try:
            head = h11.Request(method=request.method, target=request.target, headers=headers)
        except h11.LocalProtocolError:  # those that the client sent were read by h11
            return await self._show(pages.no_header(), whole=is_whole)
        cors = rules.cors_headers(route.net.cors, request.headers)
        repeatable = is_whole and request.method in REPEATABLE
        for fresh in (not repeatable, True):
            pod = await self._pods.get(fresh=fresh)
            try:
                return await self._exchange(pod, head, is_whole, cors)
            except PodSilent:
                may_repeat = repeatable and pod.is_reused and self._http.our_state is h11.SEND_RESPONSE
                if not may_repeat:
                    break
            finally:
                await self._pods.put(pod)
        return await self._show(pages.bad_answer(), whole=is_whole)

    async def _exchange(self, pod: Upstream, head: h11.Request, is_whole: bool, cors: list[Header]) -> bool:
        """One request and its answer, at the same time: an answer may begin before the request has ended."""
        answering = asyncio.create_task(self._answer(pod, cors))
        sending = asyncio.create_task(self._send(pod, head, is_whole))
        idle = Idle(IDLE_S, answering.cancel)
        self._touch = idle.touch
        try:
            await asyncio.wait({answering, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() and isinstance(sending.exception(), Gone):
                raise Gone
            switched = await answering
        finally:
            idle.stop()
            for task in (answering, sending):
                task.cancel()
            await asyncio.gather(answering, sending, return_exceptions=True)
        if switched:
            await self._carry_on(pod)
            return False
        return self._is_ready()

    async def _send(self, pod: Upstream, head: h11.Request, is_whole: bool) -> None:
        """Send a request, then watch whether the client stays (Gone). That a pod takes no more is no matter here: its
        answer says what it made of the request."""
        try:
            await pod.send(head, *([h11.EndOfMessage()] if is_whole else []))
            while not is_whole:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    self._http.receive_data(await self._channel.read(CHUNK_BYTES))
                elif isinstance(event, h11.Data | h11.EndOfMessage):
                    self._touch()
                    is_whole = isinstance(event, h11.EndOfMessage)
                    await pod.send(event if isinstance(event, h11.Data) else h11.EndOfMessage())
        except h11.RemoteProtocolError:
            raise Gone from None
        except (OSError, PodSilent):
            return
        await self._watch()

    async def _watch(self) -> None:
        """Take in what the client sends already for later; Gone when it has left."""
        data = await self._channel.read(CHUNK_BYTES)
        if not data:
            raise Gone
        self._http.receive_data(data)

    async def _answer(self, pod: Upstream, cors: list[Header]) -> bool:
        """Pass the answer back as it comes; whether the connection has changed to another protocol with it."""
        said: list[h11.Event] = []
        while True:
            event = pod.take()
            if event is None:
                await self._say(*said)
                said = []
                await pod.read()
                self._touch()
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                headers = rules.to_client(event.headers, cors if isinstance(event, h11.Response) else ())
                if event.status_code == 101:
                    headers += [(b"connection", b"Upgrade"), (b"upgrade", rules.get(event.headers, b"upgrade"))]
                said.append(type(event)(status_code=event.status_code, headers=headers, reason=event.reason))
                if event.status_code == 101:
                    await self._say(*said)
                    return True
            elif isinstance(event, h11.Data):
                said.append(h11.Data(event.data))
            elif isinstance(event, h11.EndOfMessage):
                await self._say(*said, h11.EndOfMessage())
                return False

    async def _carry_on(self, pod: Upstream) -> None:
        """After a change of protocol: bytes both ways, first those that came early."""
        await pod.channel.write(self._http.trailing_data[0])
        await self._channel.write(pod.http.trailing_data[0])
        await carry(self._channel, pod.channel, IDLE_S)


def _has_body(request: h11.Request) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in request.headers
    )


def _demand_plain(request: h11.Request) -> None:
    """Refuse what proxies and servers could read differently, and more than is to be kept."""
    if sum(len(name) + len(value) for name, value in request.headers) + len(request.target) > MOST_HEAD_BYTES:
        raise Refused(pages.too_large(), close=True)
    named = {name for name, _ in request.headers}
    if {b"content-length", b"transfer-encoding"} <= named:
        raise Refused(pages.bad_request("Content-Length and Transfer-Encoding exclude each other."), close=True)
    if b"transfer-encoding" in named and request.http_version < b"1.1":
        raise Refused(pages.bad_request("HTTP/1.0 has no Transfer-Encoding."), close=True)
    if request.method in NOT_PASSED:
        raise Refused(pages.no_method(request.method.decode()), close=True)
    if not request.target.startswith(b"/") and (request.method, request.target) != (b"OPTIONS", b"*"):
        raise Refused(pages.bad_request("The target must begin with a slash."), close=True)
