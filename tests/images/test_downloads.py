"""SIF files from the web: only what was pinned, however often the connection breaks."""

from __future__ import annotations

import httpx
import pytest

from images.downloads import Library, WebFiles
from images.errors import (
    BlobCorrupt,
    ImagePrivate,
    ImageUnknown,
    ImageUnusable,
    RegistryMisbehaves,
    RegistryUnavailable,
)
from images.exchange import Exchange, Rules
from images.platforms import Platform
from images.reference import parse_reference
from images.sources import MemorySink
from tests.fakes.registry import Body, Endless, FakeWeb, content, digest_of, error, reply
from tests.fakes.tenant import BIG, busy, cut_after, redirect

AMD64 = Platform("linux", "amd64")
URL = f"https://files.org/app.sif#{digest_of(BIG)}"
HASH = digest_of(BIG).replace(":", ".")


async def no_wait(wait_s: float) -> None:
    """Time that a test does not spend."""


def exchange(web: FakeWeb) -> Exchange:
    return Exchange(httpx.AsyncClient(transport=web), Rules(attempts=2), no_wait)


def web_file(answer) -> FakeWeb:
    web = FakeWeb()
    web.hosts["files.org"] = answer
    return web


def library(hash_: str = HASH, arch: str | None = "amd64", size: object = len(BIG)) -> FakeWeb:
    """A library with one container; files come from a store of its own."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path in ("/v1/images/lab/tools/app:1", f"/v1/images/lab/tools/app:{HASH}"):
            return reply(200, {"data": {"hash": hash_, "size": size, "arch": arch}})
        if path == f"/v1/imagefile/lab/tools/app:{HASH}":
            return redirect("https://store.org/blob?signature=x", 303)(request)
        return error(404, "NOT_FOUND")

    web = FakeWeb()
    web.hosts |= {"library.org": answer, "store.org": lambda request: content(request, BIG)}
    return web


async def fetched(source, reference) -> bytes:
    found, sink = await source.resolve(reference, AMD64), MemorySink()
    await source.fetch(found.reference, found.manifest.sif, sink)
    return sink.blob


async def test_a_pinned_file_is_fetched_and_taken_up_where_it_broke():
    left = [cut_after(300_000)]
    web = web_file(lambda one: left.pop()(one) if one.method == "GET" and left else content(one, BIG))
    assert await fetched(WebFiles(exchange(web)), parse_reference(URL)) == BIG
    assert web.asked[-1].headers["range"] == "bytes=300000-"


async def test_a_file_that_is_not_pinned_is_not_asked_for():
    web = web_file(lambda one: content(one, BIG))
    with pytest.raises(ImageUnusable, match="add #sha256:"):
        await WebFiles(exchange(web)).resolve(parse_reference("https://files.org/app.sif"), AMD64)
    assert web.asked == []


@pytest.mark.parametrize(
    ("answer", "error_class"),
    [
        (lambda one: content(one, b"!" + BIG[1:]), BlobCorrupt),
        (lambda one: error(404, ""), ImageUnknown),
        (lambda one: error(403, ""), ImagePrivate),
        (lambda one: error(418, ""), RegistryMisbehaves),
        (lambda one: httpx.Response(200, stream=Body(b"")), RegistryMisbehaves),
        (lambda one: httpx.Response(200, headers={"Content-Length": str(2**49)}, stream=Body(b"")), ImageUnusable),
        (busy(503), RegistryUnavailable),
        (redirect("http://files.org/app.sif"), RegistryMisbehaves),
    ],
    ids=["a flipped byte", "unknown", "private", "a teapot", "no length", "too long", "busy", "to plain http"],
)
async def test_a_file_that_cannot_be_had_says_why(answer, error_class):
    with pytest.raises(error_class):
        await fetched(WebFiles(exchange(web_file(answer))), parse_reference(URL))


async def test_an_error_does_not_show_the_signature_in_a_url():
    reference = parse_reference(f"https://files.org/app.sif?signature=hunter2#{digest_of(BIG)}")
    with pytest.raises(ImagePrivate) as refused:
        await fetched(WebFiles(exchange(web_file(lambda _: error(403, "")))), reference)
    assert "hunter2" not in str(refused.value)


async def test_a_name_in_a_library_becomes_a_hash_and_then_a_file():
    web = library()
    found = await Library(exchange(web)).resolve(parse_reference("library://library.org/lab/tools/app:1"), AMD64)
    assert str(found.reference) == f"library://library.org/lab/tools/app:{HASH}"
    assert found.manifest_digest == digest_of(BIG)
    assert web.asked[0].url.params["arch"] == "amd64"
    assert await fetched(Library(exchange(library())), found.reference) == BIG


@pytest.mark.parametrize(
    ("web", "error_class", "words"),
    [
        (library(arch="arm64"), ImageUnusable, "for arm64 and not for linux/amd64"),
        (library(hash_="sif.0123"), ImageUnusable, "no sha256"),
        (library(hash_="sha256.../../x"), ImageUnusable, "no sha256"),
        (library(size="many"), ImageUnusable, "no sha256"),
        (FakeWeb(**{"library.org": lambda _: reply(200, {"data": None})}), RegistryMisbehaves, "not known"),
        (FakeWeb(**{"library.org": lambda _: error(404, "")}), ImageUnknown, "no such file"),
        (FakeWeb(**{"library.org": lambda _: httpx.Response(200, stream=Endless())}), RegistryMisbehaves, "not read"),
    ],
    ids=["another architecture", "an old hash", "a hostile hash", "no size", "no data", "unknown", "endless"],
)
async def test_a_library_that_does_not_have_it_says_why(web, error_class, words):
    with pytest.raises(error_class, match=words):
        await Library(exchange(web)).resolve(parse_reference("library://library.org/lab/tools/app:1"), AMD64)
