"""A tenant who asks fake registries: its client, what it was asked for, and ways in which registries go wrong."""

from __future__ import annotations

import json

import httpx

from images.access import Access
from images.credentials import Login
from images.exchange import Exchange, Rules
from images.platforms import Platform
from images.reference import parse_reference
from images.registry import Registry
from images.sources import MemorySink
from tests.fakes.registry import Answer, Body, FakeRegistry, FakeWeb, content, error

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
NOW_S = 1_000_000.0


class World:
    """A registry, others where a test adds them, and a client whose waits take no time."""

    def __init__(self, host: str = "reg.org", login: str = "", **rules) -> None:
        self.registry = FakeRegistry()
        self.web = FakeWeb()
        self.web.hosts[host] = self.registry
        self.waits_s: list[float] = []
        self.now_s = NOW_S
        self.login, self.asked_for = login, []
        self.rules = Rules(**rules)
        self.client = self.another()

    def another(self) -> Registry:
        """A client that knows nothing yet."""
        http = httpx.AsyncClient(transport=self.web)
        self.access = Access(Exchange(http, self.rules, self._sleep, lambda: self.now_s), self._logins)
        return Registry(self.access)

    async def _sleep(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)

    async def _logins(self, host: str, repository: str) -> Login | None:
        self.asked_for.append(host)
        user, _, secret = self.login.partition(":")
        return Login(user, secret) if self.login else None

    async def resolve(self, name: str = "reg.org/app:1", target: Platform = AMD64):
        return await self.client.resolve(parse_reference(name), target)

    async def layer(self, name: str = "reg.org/app:1") -> bytes:
        found, sink = await self.resolve(name), MemorySink()
        await self.client.fetch(found.reference, found.manifest.layers[0], sink)
        return sink.blob


BIG = b"0123456789abcdef" * 1024 * 64


def big_world(**rules) -> World:
    """A world with an image whose layer is a megabyte as it is sent."""
    world = World(**rules)
    digest = world.registry.push_image("app", "1")["digest"]
    raw, media_type = world.registry.manifests.pop(("app", digest))
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", **world.registry.push("app", BIG)}
    world.registry.push_document("app", {**json.loads(raw), "layers": [layer]}, media_type, "1")
    return world


def cut_after(share_bytes: int) -> Answer:
    """The connection breaks after so many bytes of what was asked for."""

    def answer(request: httpx.Request) -> httpx.Response:
        whole = content(request, BIG)
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        return httpx.Response(
            whole.status_code, headers=whole.headers, stream=Body(BIG[start:][:share_bytes], cut=True)
        )

    return answer


# -- ways to go wrong --------------------------------------------------------------------------------------------------


def redirect(to: str, status: int = 307) -> Answer:
    """Somewhere else has it."""
    return lambda _: httpx.Response(status, headers={"Location": to})


def busy(status: int, **headers: str) -> Answer:
    """Not now."""
    return lambda _: error(status, "TOOMANYREQUESTS", {name.replace("_", "-"): text for name, text in headers.items()})


def flipped(request: httpx.Request) -> httpx.Response:
    """One byte of the big layer is another."""
    return content(request, BIG[:500_000] + b"!" + BIG[500_001:])
