"""Which server is asked for a repository, in which order, and as whom."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx

from images.credentials import Login, Logins, no_logins
from images.errors import ImagePrivate, ImageUnknown, RegistryMisbehaves, RegistryUnavailable, TagMoved
from images.exchange import Ask, Exchange
from images.reference import DOCKER_HUB, HUB_SERVER, RegistryReference, registry_at
from images.tokens import Tokens, no_access
from scheduler.model.errors import SpecInvalid

_CHALLENGES = 2
_REMAINING = re.compile(r"(\d{1,9})(?:;w=(\d{1,9}))?")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many more manifests a registry says it will give; in a window of so many seconds, 0 when it does not say."""

    left: int
    window_s: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """One place to ask: a mirror, with the prefix that it keeps a registry under, or, last, the registry itself."""

    host: str
    prefix: str = ""
    is_origin: bool = True


Found = TypeVar("Found")
Asking = Callable[[Server], Awaitable[Found]]


class Access:
    """Asks registries and their mirrors with one tenant's logins, which go to the server that they are for alone."""

    def __init__(self, exchange: Exchange, logins: Logins = no_logins) -> None:
        self.exchange, self._logins = exchange, logins
        self._tokens = Tokens(exchange)
        self.rate_limits: dict[str, RateLimit] = {}
        """By host, as last heard; Docker Hub says it with every manifest."""

    async def from_any(self, host: str, ask: Asking[Found]) -> Found:
        """The first good answer: mirrors in their order, then the registry, whose word is the last."""
        for server in self._servers(host):
            try:
                return await ask(server)
            except (ImageUnknown, ImagePrivate, TagMoved, RegistryUnavailable, RegistryMisbehaves):
                if server.is_origin:
                    raise
        raise AssertionError("the registry itself is always asked")

    @asynccontextmanager
    async def answer(
        self, server: Server, reference: RegistryReference, method: str, path: str, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """The answer about a repository; who asks is said as far as the server demands it."""
        repository = server.prefix + reference.repository
        url = f"{_base_url(self.exchange, server)}{repository}/{path}"
        login: Login | None = None
        for challenge in range(_CHALLENGES + 1):
            authorization = self._tokens.known(server.host, repository)
            response = await self.exchange.send(Ask(method, url, headers, authorization), server.is_origin)
            try:
                self._note_limit(reference.host if server.is_origin else server.host, response)
                if response.status_code != 401:
                    yield response
                    return
                if response.url.host != httpx.URL(url).host:
                    raise RegistryMisbehaves(f"{server.host} redirects to {response.url.host}, which asks for a login")
                self._tokens.forget(server.host, repository)
                if challenge < _CHALLENGES:
                    login = await self._logins(registry_at(server.host), repository)
                    await self._tokens.answer(response, server.host, repository, login)
            finally:
                await response.aclose()
        raise no_access(server.host, repository, login)

    def _servers(self, host: str) -> list[Server]:
        servers = []
        for mirror in self.exchange.rules.mirrors.get(host, ()):
            name, _, prefix = mirror.partition("/")
            servers.append(Server(name, f"{prefix.strip('/')}/" if prefix else "", is_origin=False))
        return [*servers, origin_of(host)]

    def _note_limit(self, host: str, response: httpx.Response) -> None:
        if match := _REMAINING.fullmatch(response.headers.get("ratelimit-remaining", "").replace(" ", "")):
            self.rate_limits[host] = RateLimit(int(match[1]), int(match[2] or 0))


async def try_login(exchange: Exchange, host: str, login: Login) -> bool:
    """Show a login to a registry; False where that proves nothing, since everyone is let in there.

    CredentialRefused when it is not taken, SpecInvalid when no registry answers under that name.
    """
    server, tokens = origin_of(host), Tokens(exchange)
    url, authorization = _base_url(exchange, server), ""
    for _ in range(_CHALLENGES):
        response = await exchange.send(Ask("GET", url, authorization=authorization))
        try:
            if response.status_code != 401:
                break
            if response.url.host != httpx.URL(url).host:
                raise RegistryMisbehaves(f"{host} redirects to {response.url.host}, which asks for a login")
            await tokens.answer(response, server.host, "", login)
            authorization = tokens.known(server.host, "")
        finally:
            await response.aclose()
    if response.status_code in (401, 403):
        raise no_access(server.host, "", login)
    if response.status_code != 200:
        wrong = f"'{host}' is no registry: it answers {response.status_code} to /v2/"
        raise SpecInvalid.of("registry", wrong, "check its name")
    return bool(authorization)


def origin_of(host: str) -> Server:
    """The registry itself; Docker Hub answers under a name that is not its own."""
    return Server(HUB_SERVER if host == DOCKER_HUB else host)


def _base_url(exchange: Exchange, server: Server) -> str:
    scheme = "http" if server.host in exchange.rules.plain_http else "https"
    return f"{scheme}://{server.host}/v2/"
