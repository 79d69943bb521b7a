"""Inputs from the web, fetched by the server: only from addresses that a user may make it talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from scheduler.addresses import GuardedTransport
from scheduler.model.errors import BackendUnavailable, FileRefused
from scheduler.settings import Network

MOST_REDIRECTS = 5
PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class WebRules:
    """``private_allow``: addresses that are not public and may be reached anyway. ``limit_bytes``: of one file."""

    private_allow: tuple[Network, ...] = ()
    limit_bytes: int = 100 * 1024**3
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class WebFile:
    """An answer that is being read; ``size_bytes`` is None when the server does not say."""

    chunks: AsyncIterator[bytes]
    size_bytes: int | None


@asynccontextmanager
async def open_url(url: str, rules: WebRules) -> AsyncIterator[WebFile]:
    """The content behind ``url``; redirects are followed, each to an address that is checked and then used.

    FileRefused: the address is not allowed, or the server refuses. BackendUnavailable: it does not answer now.
    """
    timeout = httpx.Timeout(rules.read_timeout_s, connect=rules.connect_timeout_s)
    guarded = GuardedTransport(rules.private_allow)
    async with httpx.AsyncClient(transport=guarded, timeout=timeout, trust_env=False) as client:
        try:
            response = await _follow(client, url)
        except httpx.InvalidURL as error:
            raise FileRefused(f"{url}: {error}") from None
        except httpx.HTTPError as error:
            raise BackendUnavailable(f"{url}: {str(error) or type(error).__name__}") from None
        try:
            size = response.headers.get("content-length", "")
            yield WebFile(_limited(response, url, rules), int(size) if size.isdecimal() else None)
        finally:
            await response.aclose()


async def _follow(client: httpx.AsyncClient, url: str) -> httpx.Response:
    """Step by step, so that each address is checked before it is asked."""
    for _ in range(MOST_REDIRECTS + 1):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FileRefused(f"{url}: only http:// and https:// with a host")
        response = await client.send(client.build_request("GET", url), stream=True, follow_redirects=False)
        if not response.has_redirect_location:
            _check_status(response.status_code, url)
            return response
        url = str(httpx.URL(url).join(response.headers["location"]))
        await response.aclose()
    raise FileRefused(f"{url}: more than {MOST_REDIRECTS} redirects")


def _check_status(status: int, url: str) -> None:
    if status >= 500 or status == 429:
        raise BackendUnavailable(f"{url}: the server answers {status}")
    if status != 200:
        raise FileRefused(f"{url}: the server answers {status}")


async def _limited(response: httpx.Response, url: str, rules: WebRules) -> AsyncIterator[bytes]:
    read = 0
    try:
        async for chunk in response.aiter_bytes(PIECE_BYTES):
            read += len(chunk)
            if read > rules.limit_bytes:
                raise FileRefused(f"{url}: larger than {rules.limit_bytes} bytes; see BERTH_INPUT_LIMIT_MIB")
            yield chunk
    except httpx.HTTPError as error:
        raise BackendUnavailable(f"{url}: {str(error) or type(error).__name__}") from None
