"""A client of registries that speak the OCI distribution protocol: names to digests, and blobs to where they belong.

Registries are asked little (at most three manifest requests for an image that was never seen, none of them counted
when it was), waited for politely, and trusted for nothing: every byte is checked against the digest that named it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlencode

import httpx

from images.access import Access, Server, origin_of
from images.errors import (
    BlobCorrupt,
    ImagePrivate,
    ImageUnknown,
    ImageUnusable,
    RegistryMisbehaves,
    RegistryUnavailable,
    TagMoved,
    login_command,
)
from images.exchange import read_at_most, told
from images.manifests import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT_BYTES,
    Config,
    Descriptor,
    Index,
    Manifest,
    choose,
    parse_config,
    parse_document,
)
from images.platforms import Platform
from images.reference import RegistryReference, is_digest
from images.sources import MemorySink, Resolved, Sink
from images.transfer import transfer

DOCUMENT_TIMEOUT_S = 120.0
KEPT_DOCUMENTS_BYTES = 32 * 2**20
_ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
_MOST_PAGES = 8


class Registry:
    """Images of all registries as one tenant sees them."""

    def __init__(self, access: Access) -> None:
        self._access, self._documents = access, _Documents()

    async def resolve(self, reference: RegistryReference, target: Platform) -> Resolved[RegistryReference]:
        """Tag -> index -> manifest -> config, each by digest from the first answer on.

        A HEAD, which registries do not count, names the content; only what is not known by digest yet is fetched.
        ImageUnknown, ImagePrivate, TagMoved, ImageUnusable, RegistryUnavailable or RegistryMisbehaves say why not.
        """
        name = str(reference)
        digest = await self._current_digest(reference)
        digest, raw, media_type = await self._document(reference, digest)
        document, index_digest = parse_document(raw, name, media_type), None
        pinned = reference.pinned(digest)
        if isinstance(document, Index):
            entry = choose(document, target, name)
            index_digest, digest = digest, entry.digest
            _, raw, media_type = await self._document(pinned.pinned(digest), digest, entry.size_bytes)
            document = parse_document(raw, name, media_type)
        if not isinstance(document, Manifest):
            raise ImageUnusable(name, "is an index of indexes", "name the inner one by its digest")
        if not document.is_image and document.sif is None:
            kind = document.artifact_type or document.config.media_type or "unknown kind"
            raise ImageUnusable(
                name, f"is no image but an artifact ({kind[:100]})", "name an image, or a SIF pushed by oras"
            )
        return Resolved(
            reference=pinned,
            index_digest=index_digest,
            manifest_digest=digest,
            manifest=document,
            config=await self._config(pinned, document),
        )

    async def fetch(self, reference: RegistryReference, blob: Descriptor, sink: Sink) -> None:
        """Bring a blob into ``sink``, from a mirror or the registry, going on where an earlier transfer broke.

        The next place continues what the last one began. BlobCorrupt: the bytes are others everywhere.
        """

        async def pull(server: Server) -> None:
            @asynccontextmanager
            async def opened(headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
                path = f"blobs/{blob.digest}"
                async with self._access.answer(server, reference, "GET", path, headers) as response:
                    _check(response, await _said(response), reference, is_pinned=True)
                    yield response

            await transfer(blob, sink, server.host, opened, self._access.exchange, server.is_origin)

        await self._access.from_any(reference.host, pull)

    async def manifest(self, reference: RegistryReference, digest: str) -> Manifest:
        """The manifest of that digest beside the image: an artifact that refers to it, for example."""
        _, raw, media_type = await self._document(reference, digest)
        document = parse_document(raw, str(reference), media_type)
        if not isinstance(document, Manifest):
            raise ImageUnusable(str(reference.pinned(digest)), "is an index", "name a manifest")
        return document

    async def referrers(
        self, reference: RegistryReference, digest: str, artifact_type: str = ""
    ) -> tuple[Descriptor, ...]:
        """What refers to the image of that digest: signatures, software lists, compatibility notes.

        Old registries lack the call; there a tag made of the digest lists them. Nothing refers to it: ().
        """
        found = await self._referrer_pages(reference, digest, artifact_type)
        if found is None:
            try:
                fallback = RegistryReference(reference.host, reference.repository, digest.replace(":", "-"))
                _, raw, media_type = await self._document(fallback, "")
            except ImageUnknown:
                return ()
            document = parse_document(raw, str(fallback), media_type)
            found = document.manifests if isinstance(document, Index) else ()
        return tuple(one for one in found if artifact_type in ("", one.artifact_type))

    # -- documents ---------------------------------------------------------------------------------------------------

    async def _current_digest(self, reference: RegistryReference) -> str:
        """What the tag means now, and the proof that this tenant may know; "" when the registry does not say."""
        if reference.digest and not self._documents.has(reference.digest):
            return reference.digest

        async def head(server: Server) -> str:
            path = f"manifests/{reference.digest or reference.tag}"
            async with self._access.answer(server, reference, "HEAD", path, {"Accept": _ACCEPT}) as response:
                _check(response, "", reference)
                digest = reference.digest or response.headers.get("docker-content-digest", "")
            if is_digest(digest):
                return digest
            if server.is_origin:
                return ""
            raise RegistryMisbehaves(f"{server.host} does not say what its tags mean")

        return await self._access.from_any(reference.host, head)

    async def _document(
        self, reference: RegistryReference, digest: str, size_bytes: int | None = None
    ) -> tuple[str, bytes, str]:
        """Digest, bytes and media type of an index or manifest: by digest, or by tag when there is none."""
        if digest and (kept := self._documents.get(digest)):
            return digest, *kept

        async def get(server: Server) -> tuple[str, bytes, str]:
            path = f"manifests/{digest or reference.tag}"
            async with self._access.answer(server, reference, "GET", path, {"Accept": _ACCEPT}) as response:
                _check(response, await _said(response), reference, is_pinned=bool(digest))
                media_type = response.headers.get("content-type", "").partition(";")[0].strip()
                raw = await self._read(response, server)
            found = f"sha256:{hashlib.sha256(raw).hexdigest()}"
            if digest and (found != digest or size_bytes not in (None, len(raw))):
                raise BlobCorrupt(
                    f"{server.host} sent other bytes ({found}) for the manifest {digest}; nothing was kept"
                )
            return found, raw, media_type

        origin = origin_of(reference.host)
        found, raw, media_type = await (self._access.from_any(reference.host, get) if digest else get(origin))
        self._documents.keep(found, raw, media_type)
        return found, raw, media_type

    async def _config(self, reference: RegistryReference, manifest: Manifest) -> Config | None:
        if not manifest.is_image:
            return None
        digest = manifest.config.digest
        if kept := self._documents.get(digest):
            return parse_config(kept[0], str(reference))
        sink = MemorySink()
        await self.fetch(reference, manifest.config, sink)
        assert sink.blob is not None
        self._documents.keep(digest, sink.blob, manifest.config.media_type)
        return parse_config(sink.blob, str(reference))

    async def _read(self, response: httpx.Response, server: Server) -> bytes:
        try:
            async with asyncio.timeout(DOCUMENT_TIMEOUT_S):
                raw = await read_at_most(response, MAX_DOCUMENT_BYTES)
        except (httpx.TransportError, TimeoutError) as error:
            raise RegistryUnavailable(f"{server.host} broke off: {str(error) or type(error).__name__}") from None
        if raw is None:
            raise RegistryMisbehaves(
                f"{server.host} sends a manifest of more than {MAX_DOCUMENT_BYTES >> 20} MiB; it was not read"
            )
        return raw

    async def _referrer_pages(
        self, reference: RegistryReference, digest: str, artifact_type: str
    ) -> tuple[Descriptor, ...] | None:
        """None where the registry does not know the call."""
        server, found = origin_of(reference.host), list[Descriptor]()
        path, query = f"referrers/{digest}", artifact_type and urlencode({"artifactType": artifact_type})
        for _ in range(_MOST_PAGES):
            address = path + (query and f"?{query}")
            async with self._access.answer(server, reference, "GET", address, {"Accept": INDEX_TYPES[0]}) as response:
                if response.status_code == 404:
                    return None
                _check(response, await _said(response), reference)
                following = response.links.get("next", {}).get("url", "")
                document = parse_document(await self._read(response, server), str(reference), INDEX_TYPES[0])
            found += document.manifests if isinstance(document, Index) else ()
            if not following:
                break
            query = urlencode(parse_qsl(following.partition("?")[2]))  # the path stays ours, whatever the link says
        return tuple(found)


class _Documents:
    """Manifests and configs by digest, the newest of them: what a digest names never changes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[bytes, str]] = OrderedDict()
        self._bytes = 0

    def has(self, digest: str) -> bool:
        return digest in self._kept

    def get(self, digest: str) -> tuple[bytes, str] | None:
        return self._kept.get(digest)

    def keep(self, digest: str, raw: bytes, media_type: str) -> None:
        if digest in self._kept:
            return
        self._kept[digest] = raw, media_type
        self._bytes += len(raw)
        while self._bytes > KEPT_DOCUMENTS_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1][0])


def _check(response: httpx.Response, said: str, reference: RegistryReference, is_pinned: bool = False) -> None:
    """Let pass what can be read; say of everything else what it means. ``is_pinned``: it was asked for by digest."""
    status = response.status_code
    if status in (200, 206, 416):
        return
    if status == 404 and is_pinned and reference.tag:
        raise TagMoved(
            f"{reference.host} no longer holds all of {reference.repository}:{reference.tag} as it was resolved{said}; "
            "the tag has moved, or a clean-up took it: submit again"
        )
    if status == 404:
        raise ImageUnknown(
            str(reference), f"{reference.host} has no such repository, tag or digest{said}; check the name"
        )
    if status == 403:
        raise ImagePrivate(
            f"{reference.host}/{reference.repository} may not be read{said}; log in as someone who may: "
            + login_command(reference.host)
        )
    raise RegistryMisbehaves(f"{reference.host} answers {status}{said} for {reference.repository}")


async def _said(response: httpx.Response) -> str:
    return await told(response) if response.status_code >= 400 else ""
