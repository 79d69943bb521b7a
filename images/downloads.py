"""SIF and squashfs files over https: by a URL that pins its content, or by their name in a container library.

The library's interface is that of the Sylabs library, version 2: ``/v1/images`` describes, ``/v1/imagefile`` sends.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from images.documents import read_json
from images.errors import ImagePrivate, ImageUnknown, ImageUnusable, RegistryMisbehaves, RegistryUnavailable
from images.exchange import Ask, Exchange, read_at_most
from images.manifests import MAX_DOCUMENT_BYTES, MAX_IMAGE_BYTES, SIF_TYPE, Descriptor, Manifest
from images.platforms import Platform
from images.reference import LibraryReference, PushedReference, UrlReference, is_digest
from images.sources import Resolved, Sink
from images.transfer import transfer

File = TypeVar("File", UrlReference, LibraryReference, PushedReference)

DOCUMENT_TIMEOUT_S = 120.0
_NO_CONFIG = Descriptor("application/vnd.oci.empty.v1+json", f"sha256:{hashlib.sha256(b'{}').hexdigest()}", 2)


class WebFiles:
    """Files behind URLs. They are public: no login is sent."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def resolve(self, reference: UrlReference, target: Platform) -> Resolved[UrlReference]:
        """The file, which must be pinned: a URL may give anything tomorrow. The platform is in the file alone."""
        if not reference.digest:
            raise ImageUnusable(
                _name(reference), "is not pinned to its content", "add #sha256:<64 digits>; sha256sum FILE prints them"
            )
        async with _opened(self._exchange, reference.url, reference, method="HEAD") as response:
            text = response.headers.get("content-length", "")
        if not text.isdecimal() or len(text) > 15:
            raise RegistryMisbehaves(f"{_host(reference)} does not say how long {_name(reference)} is")
        return sif_file(reference, Descriptor(SIF_TYPE, reference.digest, int(text)))

    async def fetch(self, reference: UrlReference, blob: Descriptor, sink: Sink) -> None:
        """Bring the file into ``sink``."""
        await _fetch(self._exchange, reference.url, reference, blob, sink)


class Library:
    """SIF files in container libraries. They are public: no login is sent."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def resolve(self, reference: LibraryReference, target: Platform) -> Resolved[LibraryReference]:
        """What the tag means now for the target's architecture; the reference comes back pinned to its hash."""
        async with _opened(
            self._exchange, _library_url(reference, "images", target.architecture), reference
        ) as response:
            raw = await self._read(response, reference)
        try:
            data = read_json(raw)["data"]
            kind, _, digits = data["hash"].partition(".")
            digest, size_bytes, architecture = f"sha256:{digits}", data["size"], data.get("arch") or target.architecture
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise RegistryMisbehaves(
                f"{reference.host} describes {reference.name} in a way that is not known"
            ) from None
        if kind != "sha256" or not is_digest(digest) or not isinstance(size_bytes, int) or size_bytes < 0:
            raise ImageUnusable(
                str(reference), "has no sha256 or no size in its library", "push it again with a current tool"
            )
        if architecture != target.architecture:
            raise ImageUnusable(
                str(reference), f"is there for {str(architecture)[:40]} and not for {target}", "choose another tag"
            )
        return sif_file(replace(reference, tag=data["hash"]), Descriptor(SIF_TYPE, digest, size_bytes))

    async def fetch(self, reference: LibraryReference, blob: Descriptor, sink: Sink) -> None:
        """Bring the SIF into ``sink``."""
        await _fetch(self._exchange, _library_url(reference, "imagefile"), reference, blob, sink)

    async def _read(self, response: httpx.Response, reference: LibraryReference) -> bytes:
        try:
            async with asyncio.timeout(DOCUMENT_TIMEOUT_S):
                raw = await read_at_most(response, MAX_DOCUMENT_BYTES)
        except (httpx.TransportError, TimeoutError) as error:
            raise RegistryUnavailable(f"{reference.host} broke off: {str(error) or type(error).__name__}") from None
        if raw is None:
            raise RegistryMisbehaves(f"{reference.host} describes {reference.name} at a length that was not read")
        return raw


def _library_url(reference: LibraryReference, kind: str, architecture: str = "") -> str:
    query = f"?arch={architecture}" if architecture else ""
    return f"https://{reference.host}/v1/{kind}/{reference.name}:{reference.tag}{query}"


def sif_file(reference: File, file: Descriptor) -> Resolved[File]:
    """One file as an artifact. It has no manifest of its own, so its content stands for it."""
    if file.size_bytes > MAX_IMAGE_BYTES:
        raise ImageUnusable(_name(reference), f"is larger than {MAX_IMAGE_BYTES >> 30} GiB", "make it smaller")
    return Resolved(
        reference=reference,
        index_digest=None,
        manifest_digest=file.digest,
        manifest=Manifest(_NO_CONFIG, (file,)),
        config=None,
    )


async def _fetch(
    exchange: Exchange, url: str, reference: UrlReference | LibraryReference, blob: Descriptor, sink: Sink
) -> None:
    def opened(headers: Mapping[str, str]) -> AbstractAsyncContextManager[httpx.Response]:
        return _opened(exchange, url, reference, headers)

    await transfer(blob, sink, _host(reference), opened, exchange)


@asynccontextmanager
async def _opened(
    exchange: Exchange,
    url: str,
    reference: UrlReference | LibraryReference,
    headers: Mapping[str, str] = MappingProxyType({}),
    method: str = "GET",
) -> AsyncIterator[httpx.Response]:
    response = await exchange.send(Ask(method, url, headers))
    try:
        status = response.status_code
        if status in (401, 403):
            raise ImagePrivate(
                f"{_name(reference)} may not be read by everyone, and logins are not sent there; copy it to a system"
            )
        if status in (404, 410):
            raise ImageUnknown(_name(reference), f"{_host(reference)} has no such file; check the name")
        if status not in (200, 206, 416):
            raise RegistryMisbehaves(f"{_host(reference)} answers {status} for {_name(reference)}")
        yield response
    finally:
        await response.aclose()


def _host(reference: UrlReference | LibraryReference) -> str:
    return reference.host if isinstance(reference, LibraryReference) else urlsplit(reference.url).netloc


def _name(reference: UrlReference | LibraryReference | PushedReference) -> str:
    """How errors call the file: without the query of its URL, which may be a signature."""
    return reference.url.partition("?")[0] if isinstance(reference, UrlReference) else str(reference)
