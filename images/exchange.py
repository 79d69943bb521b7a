"""One careful HTTP request: redirects followed by hand, waits that a server asks for, and a bounded number of tries."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import httpx

from images.errors import RegistryMisbehaves, RegistryUnavailable

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]

MAX_ERROR_BYTES = 64 * 1024
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How registries are dealt with."""

    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Host -> places to ask before it, each ``host[:port][/prefix]``; ``docker.io`` stands for Docker Hub."""
    plain_http: frozenset[str] = frozenset()
    """``host[:port]`` of the only servers that may be asked without TLS."""
    attempts: int = 4
    longest_wait_s: float = 60.0
    """The most that one request waits because a server asks for it; a longer wish ends the request."""
    redirects_limit: int = 5


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to one server. ``authorization`` is for that server alone."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str = field(default="", repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)


class Exchange:
    """Sends requests by the rules. Answers come with their body unread; who gets one closes it."""

    def __init__(
        self, http: httpx.AsyncClient, rules: Rules, sleep: Sleep = asyncio.sleep, clock: Clock = time.time
    ) -> None:
        self._http, self.rules, self._sleep, self.clock = http, rules, sleep, clock

    async def send(self, ask: Ask, is_patient: bool = True) -> httpx.Response:
        """The answer to ``ask``, tried again while the server is busy or the connection breaks.

        RegistryUnavailable: it stays so, or the server asks for a longer wait than the rules allow. Not patient: the
        first trouble ends it, for there is somewhere else to ask.
        """
        host, waited_s = httpx.URL(ask.url).netloc.decode(), 0.0
        for attempt in range(self.rules.attempts if is_patient else 1):
            try:
                response = await self._follow(ask)
            except (httpx.TransportError, UnicodeError) as error:  # the latter from names that no resolver takes
                trouble, wish_s = f"{host} does not answer: {str(error) or type(error).__name__}", None
            else:
                if response.status_code not in _BUSY:
                    return response
                wish_s = retry_after_s(response, self.clock())
                trouble = await _trouble(response, host)
            wait_s = 0.5 * 2**attempt if wish_s is None else wish_s
            waited_s += wait_s
            if waited_s > self.rules.longest_wait_s:
                break
            if is_patient and attempt + 1 < self.rules.attempts:
                await self._sleep(wait_s)
        raise RegistryUnavailable(trouble, wish_s)

    async def pause(self, attempt: int) -> None:
        """Wait before the next try of something that broke half way."""
        await self._sleep(min(0.5 * 2**attempt, self.rules.longest_wait_s))

    async def _follow(self, ask: Ask) -> httpx.Response:
        """Follow redirects. The authorization stays with the first server: once left, it is not sent again."""
        url, authorization, seen = self._checked(httpx.URL(ask.url)), ask.authorization, set[str]()
        while True:
            seen.add(str(url))
            headers = {"User-Agent": "berth", "Accept-Encoding": "identity", **ask.headers}
            if authorization:
                headers["Authorization"] = authorization
            # A request made by hand carries no cookies: what one tenant's request was given must not reach another's.
            request = httpx.Request(ask.method, url, headers=headers, data=ask.form)
            response = await self._http.send(request, stream=True, follow_redirects=False)
            if response.next_request is None:
                return response
            await response.aclose()
            target = self._redirected(url, response.next_request.url, ask, seen)
            if _origin(target) != _origin(url):
                authorization = ""
            url = target

    def _redirected(self, url: httpx.URL, target: httpx.URL, ask: Ask, seen: set[str]) -> httpx.URL:
        if ask.form is not None:
            raise RegistryMisbehaves(f"{url.host} redirects a request that carries a login; it was not followed")
        if url.scheme == "https" and target.scheme != "https":
            raise RegistryMisbehaves(
                f"{url.host} redirects from https to {target.scheme} at {target.host}, which was not followed; "
                "whoever runs it must mend this"
            )
        if str(target) in seen:
            raise RegistryMisbehaves(f"{url.host} redirects in a loop; whoever runs it must mend this")
        if len(seen) > self.rules.redirects_limit:
            raise RegistryMisbehaves(f"{url.host} redirects more than {self.rules.redirects_limit} times")
        return self._checked(target)

    def _checked(self, url: httpx.URL) -> httpx.URL:
        if url.userinfo:
            raise RegistryMisbehaves(f"{url.host} is to be asked with a login in its URL, which is not done")
        if url.scheme == "https" or (url.scheme == "http" and url.netloc.decode() in self.rules.plain_http):
            return url
        raise RegistryMisbehaves(
            f"{url.host} would be asked over {url.scheme or 'nothing'}; only https is used, "
            "and http where the registry is listed as a plain-http one"
        )


def retry_after_s(response: httpx.Response, now_s: float) -> float | None:
    """Seconds that the answer asks to wait (RFC 9110, 10.2.3: a number or a date); None when it does not say."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, TypeError, OverflowError):
        return None


async def read_at_most(response: httpx.Response, limit_bytes: int) -> bytes | None:
    """The body, and the answer closed; None when it is longer than the limit."""
    body = bytearray()
    try:
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > limit_bytes:
                return None
    finally:
        await response.aclose()
    return bytes(body)


async def told(response: httpx.Response) -> str:
    """What a registry says in its error, short and printable, in brackets; "" when it says nothing readable."""
    try:
        first = json.loads(await read_at_most(response, MAX_ERROR_BYTES) or b"")["errors"][0]
        text = f"{first.get('code', '')}: {first.get('message', '')}"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, httpx.HTTPError):
        return ""
    return f" ({''.join(letter for letter in text if letter.isprintable())[:200].strip(': ')})"


async def _trouble(response: httpx.Response, host: str) -> str:
    said = await told(response)
    if response.status_code == 429:
        return f"{host} has had enough requests for now{said}; log in there, or put a mirror before it"
    return f"{host} answers {response.status_code}{said}"


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
