"""Registries are waited for politely, and trusted for nothing."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest

from images.errors import (
    BlobCorrupt,
    ImageUnknown,
    ImageUnusable,
    RegistryMisbehaves,
    RegistryUnavailable,
    TagMoved,
)
from images.manifests import MAX_DOCUMENT_BYTES
from images.platforms import Platform
from images.sources import FileSink, MemorySink
from tests.fakes.registry import (
    Body,
    Endless,
    always,
    content,
    digest_of,
    times,
)
from tests.fakes.tenant import BIG, World, big_world, busy, cut_after, flipped


async def test_a_busy_registry_is_waited_for_as_long_as_it_asks():
    world = World()
    world.registry.push_image("app", "1")
    date = "Mon, 12 Jan 1970 13:46:47 GMT"  # seven seconds after NOW_S
    world.registry.faults = [times(1, busy(429, Retry_After="3")), times(1, busy(503, Retry_After=date))]
    await world.resolve()
    assert world.waits_s == [3.0, 7.0]


async def test_without_a_wish_the_waits_grow_and_end():
    world = World(attempts=4)
    world.registry.faults = [always(busy(500))]
    with pytest.raises(RegistryUnavailable, match=r"reg.org answers 500 \(TOOMANYREQUESTS: says the fake\)"):
        await world.resolve()
    assert world.waits_s == [0.5, 1.0, 2.0]
    assert len(world.web.asked) == 4


async def test_a_wish_to_wait_longer_than_we_may_ends_it_at_once_and_is_handed_on():
    world = World(longest_wait_s=60)
    world.registry.faults = [always(busy(429, Retry_After="3600"))]
    with pytest.raises(RegistryUnavailable, match="had enough requests") as refused:
        await world.resolve()
    assert refused.value.retry_after_s == 3600
    assert (world.waits_s, len(world.web.asked)) == ([], 1)


async def test_a_registry_that_is_not_there_is_said_to_be_so():
    world = World(attempts=2)
    with pytest.raises(RegistryUnavailable, match=r"other\.org does not answer: no route"):
        await world.resolve("other.org/app:1")


async def test_an_unknown_image_is_said_to_be_so():
    world = World()
    with pytest.raises(ImageUnknown, match=r"'docker://reg\.org/app:1' was not found.*check the name"):
        await world.resolve()


async def test_an_image_without_the_platform_says_which_it_has():
    world = World()
    world.registry.push_index("app", "1", "linux/amd64", "linux/arm64")
    with pytest.raises(ImageUnusable, match="no manifest for linux/s390x; it has linux/amd64, linux/arm64"):
        await world.resolve(target=Platform("linux", "s390x"))


async def test_a_tag_that_moves_between_resolve_and_pull_is_told_from_an_unknown_image():
    world = World()
    world.registry.push_image("app", "1")
    found = await world.resolve()
    world.registry.blobs.clear()
    with pytest.raises(TagMoved, match=r"app:1 as it was resolved.*submit again"):
        await world.client.fetch(found.reference, found.manifest.layers[0], MemorySink())


async def test_a_manifest_with_one_flipped_byte_is_refused():
    world = World()
    pushed = world.registry.push_image("app", "1")
    raw, media_type = world.registry.manifests["app", pushed["digest"]]
    world.registry.manifests["app", pushed["digest"]] = raw.replace(b"2", b"3", 1), media_type
    with pytest.raises(BlobCorrupt, match="other bytes"):
        await world.resolve()


async def test_a_manifest_that_does_not_end_is_not_read_to_its_end():
    world, body = World(), Endless()
    world.registry.faults = [always(lambda one: httpx.Response(200, stream=body) if one.method == "GET" else None)]
    pushed = world.registry.push_image("app", "1")
    with pytest.raises(RegistryMisbehaves, match="more than 4 MiB"):
        await world.resolve()
    assert body.sent_bytes <= MAX_DOCUMENT_BYTES + 2**20
    assert pushed


# -- blobs -------------------------------------------------------------------------------------------------------------


async def test_a_transfer_that_breaks_goes_on_where_it_broke():
    world = big_world()
    found, sink = await world.resolve(), MemorySink()
    world.registry.faults = [times(2, cut_after(300_000), "blobs")]
    await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert sink.blob == BIG
    ranges = [one.headers.get("range") for one in world.web.asked if one.url.path.endswith(digest_of(BIG))]
    assert ranges == [None, "bytes=300000-", "bytes=600000-"]


async def test_a_registry_without_ranges_sends_it_all_again():
    world = big_world()
    world.registry.has_ranges = False
    found, sink = await world.resolve(), MemorySink()
    world.registry.faults = [times(1, cut_after(300_000), "blobs")]
    await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert sink.blob == BIG


async def test_a_later_try_goes_on_with_the_file_that_an_earlier_one_left(tmp_path):
    world = big_world(attempts=2)
    found = await world.resolve()
    world.registry.faults = [times(1, cut_after(300_000), "blobs"), times(2, cut_after(0), "blobs")]
    with FileSink(tmp_path / "layer") as sink, pytest.raises(RegistryUnavailable, match="breaks off after 300000"):
        await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert [path.name for path in tmp_path.iterdir()] == ["layer.part"]
    with FileSink(tmp_path / "layer") as sink:
        await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert world.web.asked[-1].headers["range"] == "bytes=300000-"
    assert [path.name for path in tmp_path.iterdir()] == ["layer"]
    assert (tmp_path / "layer").read_bytes() == BIG


async def test_a_cancelled_transfer_ends_only_when_nothing_writes_any_more(tmp_path, monkeypatch):
    reached, go_on = threading.Event(), threading.Event()
    real = FileSink.write

    def slow(sink, piece):
        reached.set()
        assert go_on.wait(60)
        real(sink, piece)

    monkeypatch.setattr(FileSink, "write", slow)
    world = big_world()
    found = await world.resolve()
    with FileSink(tmp_path / "layer") as sink:
        fetching = asyncio.create_task(world.client.fetch(found.reference, found.manifest.layers[0], sink))
        assert await asyncio.to_thread(reached.wait, 60)
        fetching.cancel()
        ended, _ = await asyncio.wait([fetching], timeout=0.1)
        assert not ended
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert (tmp_path / "layer.part").read_bytes() == BIG


async def test_a_bad_beginning_that_was_kept_costs_one_more_transfer_and_no_more(tmp_path):
    world = big_world()
    found = await world.resolve()
    (tmp_path / "layer.part").write_bytes(b"not the layer")
    with FileSink(tmp_path / "layer") as sink:
        await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert (tmp_path / "layer").read_bytes() == BIG


@pytest.mark.parametrize(
    ("fault", "error_class", "words"),
    [
        (flipped, BlobCorrupt, "thrown away"),
        (lambda one: content(one, BIG + b"!"), BlobCorrupt, "sends more than the 1048576 bytes"),
        (lambda one: content(one, BIG[:-1]), RegistryUnavailable, "breaks off after 1048575 of 1048576"),
        (lambda _: httpx.Response(200, stream=Body(b"")), RegistryUnavailable, "breaks off after 0 of"),
    ],
    ids=["one flipped byte", "one byte too many", "one byte too few", "nothing"],
)
async def test_a_blob_that_is_not_what_it_should_be_is_never_seen(tmp_path, fault, error_class, words):
    world = big_world()
    found = await world.resolve()
    world.registry.faults = [always(fault, "blobs")]
    with FileSink(tmp_path / "layer") as sink, pytest.raises(error_class, match=words):
        await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert not (tmp_path / "layer").exists()
    if error_class is BlobCorrupt:
        assert (tmp_path / "layer.part").stat().st_size == 0


async def test_gigabytes_of_zeros_are_stopped_at_the_size_that_was_promised(tmp_path):
    world, body = big_world(), Endless()
    found = await world.resolve()
    world.registry.faults = [always(lambda _: httpx.Response(200, stream=body), "blobs")]
    with FileSink(tmp_path / "layer") as sink, pytest.raises(BlobCorrupt, match="stopped"):
        await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert body.sent_bytes <= len(BIG) + 2 * 2**20


async def test_a_part_that_was_not_asked_for_is_refused(tmp_path):
    world = big_world()
    found = await world.resolve()
    (tmp_path / "layer.part").write_bytes(BIG[:1000])
    wrong = httpx.Response(206, headers={"Content-Range": "bytes 0-9/10"}, stream=Body(b"0123456789"))
    world.registry.faults = [always(lambda _: wrong, "blobs")]
    with FileSink(tmp_path / "layer") as sink, pytest.raises(RegistryMisbehaves, match="another part"):
        await world.client.fetch(found.reference, found.manifest.layers[0], sink)
