"""Registries that answer in the test's own process, keep a record of what they were asked, and misbehave on request.

``FakeWeb`` is an httpx transport: every host that a test needs is a ``FakeRegistry`` or a function on it. Nothing else
can be reached.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import httpx

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

Answer = Callable[[httpx.Request], httpx.Response | None]


class Body(httpx.AsyncByteStream):
    """A body in pieces; ``cut``: the connection breaks after them."""

    def __init__(self, data: bytes, cut: bool = False, piece_bytes: int = 64 * 1024) -> None:
        self._data, self._cut, self._piece_bytes = data, cut, piece_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), self._piece_bytes):
            yield self._data[start : start + self._piece_bytes]
        if self._cut:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


class Endless(httpx.AsyncByteStream):
    """Zeros until the reader goes away; ``sent_bytes`` tells how many it took."""

    sent_bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.sent_bytes += 64 * 1024
            yield bytes(64 * 1024)


class FakeWeb(httpx.AsyncBaseTransport):
    """All that can be reached, by ``host[:port]``; ``asked`` is every request in order."""

    def __init__(self, **hosts: FakeRegistry) -> None:
        self.hosts: dict[str, Answer] = dict(hosts)
        self.asked: list[httpx.Request] = []
        self.elsewhere: Answer | None = None
        """What every other host answers; None: there is no way there."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.asked.append(request)
        host = request.url.netloc.decode()
        responder = self.hosts.get(host, self.elsewhere)
        if responder is None:
            raise httpx.ConnectError(f"no route to {host}")
        answer = responder(request)
        assert answer is not None
        return answer

    def paths(self, method: str = "", containing: str = "") -> list[str]:
        """What was asked for, as ``host/path``."""
        return [
            f"{one.url.netloc.decode()}{one.url.path}"
            for one in self.asked
            if method in ("", one.method) and containing in one.url.path
        ]

    def authorizations(self, host: str) -> list[str | None]:
        """Who the requests to a host said they came from."""
        return [one.headers.get("authorization") for one in self.asked if one.url.netloc.decode() == host]


@dataclass
class FakeRegistry:
    """One registry. ``faults`` are asked first, each for as long as it answers something."""

    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[bytes, str]] = field(default_factory=dict)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    realm: str = ""
    """Where tokens are had; "" asks for none."""
    basic: str = ""
    """``user:password`` that every request must bring, without tokens."""
    private_to: str = ""
    """``user:password`` that buys a token for the private repository; anyone gets tokens for the others."""
    extra_scope: str = ""
    """What the registry asks for, once more, of a token that lacks it."""
    token_s: int | None = 300
    has_ranges: bool = True
    has_referrers: bool = True
    left: str = ""
    faults: list[Answer] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    """Token -> scope."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        for fault in list(self.faults):
            if (answer := fault(request)) is not None:
                return answer
        if request.url.path == "/token":
            return self._token(request)
        if request.url.path == "/v2/":
            return self._door(request)
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|referrers)/([^/]+)", request.url.path)
        if match is None:
            return error(404, "NOT_A_PATH")
        repository, kind, name = match.groups()
        return self._refusal(request, repository) or getattr(self, f"_{kind}")(request, repository, name)

    # -- content -----------------------------------------------------------------------------------------------------

    def push(self, repository: str, data: bytes) -> dict[str, object]:
        """A blob; answers its descriptor, without a media type."""
        digest = digest_of(data)
        self.blobs[repository, digest] = data
        return {"digest": digest, "size": len(data)}

    def push_document(self, repository: str, value: object, media_type: str, tag: str = "") -> dict[str, object]:
        """A manifest or index, under its digest and a tag; answers its descriptor."""
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        digest = digest_of(raw)
        self.manifests[repository, digest] = raw, media_type
        if tag:
            self.tags[repository, tag] = digest
        return {"mediaType": media_type, "digest": digest, "size": len(raw)}

    def push_image(
        self,
        repository: str,
        tag: str = "",
        layers: tuple[bytes, ...] = (b"layer",),
        platform: str = "linux/amd64",
        **run: object,
    ) -> dict[str, object]:
        """An image of these layers; answers the manifest's descriptor with its platform. run: Entrypoint, Labels."""
        os, architecture, *variant = platform.split("/")
        where = {"os": os, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        config = {
            **where,
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], **run},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
        packed = [gzip.compress(layer, mtime=0) for layer in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **self.push(repository, json.dumps(config).encode())},
            "layers": [{"mediaType": LAYER, **self.push(repository, layer)} for layer in packed],
        }
        return {**self.push_document(repository, manifest, MANIFEST, tag), "platform": where}

    def push_index(self, repository: str, tag: str, *platforms: str) -> dict[str, object]:
        """One image per platform, and an attestation as builders add it."""
        images = [self.push_image(repository, layers=(p.encode(),), platform=p) for p in platforms]
        attestation = {**images[0], "platform": {"os": "unknown", "architecture": "unknown"}}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [attestation, *images]}
        return self.push_document(repository, index, INDEX, tag)

    # -- answers -----------------------------------------------------------------------------------------------------

    def _manifests(self, request: httpx.Request, repository: str, name: str) -> httpx.Response:
        digest = self.tags.get((repository, name), name)
        if (repository, digest) not in self.manifests:
            return error(404, "MANIFEST_UNKNOWN")
        raw, media_type = self.manifests[repository, digest]
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest, "Content-Length": str(len(raw))}
        if self.left:
            headers["RateLimit-Remaining"] = self.left
        return httpx.Response(200, headers=headers, stream=Body(b"" if request.method == "HEAD" else raw))

    def _blobs(self, request: httpx.Request, repository: str, name: str) -> httpx.Response:
        if (repository, name) not in self.blobs:
            return error(404, "BLOB_UNKNOWN")
        return content(request, self.blobs[repository, name], self.has_ranges)

    def _referrers(self, request: httpx.Request, repository: str, name: str) -> httpx.Response:
        if not self.has_referrers:
            return error(404, "")
        found = [
            {"mediaType": kind, "digest": digest, "size": len(raw), "artifactType": json.loads(raw)["artifactType"]}
            for (where, digest), (raw, kind) in self.manifests.items()
            if where == repository and json.loads(raw).get("subject", {}).get("digest") == name
        ]
        return reply(200, {"schemaVersion": 2, "mediaType": INDEX, "manifests": found})

    def _refusal(self, request: httpx.Request, repository: str) -> httpx.Response | None:
        said = request.headers.get("authorization", "")
        if self.basic and said != basic(self.basic):
            return error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="fake, registry"'})
        if not self.realm:
            return None
        wanted = f"repository:{repository}:pull"
        scope = self.tokens.get(said.removeprefix("Bearer "), "")
        if wanted in scope and self.extra_scope in scope:
            return None
        if wanted in scope:
            wanted = f"{wanted} {self.extra_scope}"
        challenge = f'Bearer realm="{self.realm}",service="fake",scope="{wanted}"'
        return error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})

    def _door(self, request: httpx.Request) -> httpx.Response:
        """Who asks for nothing yet is let in with any token."""
        said = request.headers.get("authorization", "")
        if self.realm and said.removeprefix("Bearer ") not in self.tokens:
            challenge = f'Bearer realm="{self.realm}",service="fake"'
            return error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
        if self.basic and said != basic(self.basic):
            return error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="fake, registry"'})
        return reply(200, {})

    def _token(self, request: httpx.Request) -> httpx.Response:
        form = parse_qs(request.content.decode())
        scope = form.get("scope", [""])[0] if form else request.url.params.get("scope", "")
        said = request.headers.get("authorization", "")
        if said and said != basic(self.private_to):
            return error(401, "UNAUTHORIZED")
        is_known = bool(said) or form.get("refresh_token") == ["identity"]
        granted = scope if is_known or "private" not in scope else ""
        token = f"token{len(self.tokens)}"
        self.tokens[token] = granted
        return reply(200, {"token": token, **({"expires_in": self.token_s} if self.token_s else {})})


def content(request: httpx.Request, data: bytes, has_ranges: bool = True) -> httpx.Response:
    """A blob, or the part of it that was asked for."""
    match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    if match is None or not has_ranges:
        return httpx.Response(200, headers={"Content-Length": str(len(data)), "ETag": '"fake"'}, stream=Body(data))
    start = int(match[1])
    if start >= len(data):
        return httpx.Response(416, headers={"Content-Range": f"bytes */{len(data)}"}, stream=Body(b""))
    headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
    return httpx.Response(206, headers=headers, stream=Body(data[start:]))


def error(status: int, code: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return reply(status, {"errors": [{"code": code, "message": "says the fake"}]}, headers)


def reply(status: int, value: object, headers: dict[str, str] | None = None) -> httpx.Response:
    """A JSON answer whose body is still to be read, as from a network."""
    return httpx.Response(status, headers=headers, stream=Body(json.dumps(value).encode()))


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


def times(count: int, answer: Answer, containing: str = "") -> Answer:
    """A fault that happens so often, to requests whose path contains that, and then no more."""
    left = count

    def fault(request: httpx.Request) -> httpx.Response | None:
        nonlocal left
        if left == 0 or containing not in request.url.path:
            return None
        left -= 1
        return answer(request)

    return fault


def always(answer: Answer, containing: str = "") -> Answer:
    """A fault that happens to every request whose path contains that."""
    return times(-1, answer, containing)
