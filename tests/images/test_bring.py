"""From a name to one file: every step once, taken up where it was left, and nothing left behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import threading
import time
from dataclasses import replace

import pytest

from images.bring import Bringer
from images.bringers import Bringers
from images.convert import Compressor
from images.errors import BlobCorrupt, ImageUnusable
from images.needs import Source
from images.origins import Origins
from images.reference import parse_reference
from images.streams import Limits
from images.workshop import IN_USE_S, Workshop
from scheduler.model.errors import SpecInvalid
from tests.fakes.images import file, oci_image
from tests.fakes.registry import always, content, digest_of
from tests.fakes.tenant import AMD64, busy
from tests.fakes.tenant import World as Tenant
from tests.images.tarballs import entry, tar

ZSTD = frozenset(Compressor)
LAYERS = (tar(entry("usr/bin/app", b"#!/bin/sh\n", mode=0o755), entry("etc/old")), tar(entry("etc/.wh.old")))


class World(Tenant):
    """A registry with an image of two layers, and this host's workshop."""

    def __init__(self, home, **rules) -> None:
        super().__init__(**rules)
        self.home = home
        self.registry.push_image("app", "1", LAYERS, Entrypoint=["app"], Labels={"berth.require.cuda": ">=12.2"})
        self.restart()

    def restart(self) -> None:
        """Another process on the same folder."""
        self.origins = Origins(self.access.exchange, self._logins)
        self.bringer = Bringer(Workshop(self.home))

    async def learn(self, name: str = "reg.org/app:1"):
        return await self.bringer.learn(await self.origins.resolve(parse_reference(name), AMD64), self.origins)

    async def bring(self, name: str = "reg.org/app:1", mountable=ZSTD):
        resolved = await self.origins.resolve(parse_reference(name), AMD64)
        return await self.bringer.bring(resolved, mountable, self.origins)

    def blobs_asked_for(self) -> int:
        """Layers that were asked of the registry, its config left out."""
        layers = {digest for (_, digest), blob in self.registry.blobs.items() if blob[:2] == b"\x1f\x8b"}
        return sum(path.rpartition("/")[2] in layers for path in self.web.paths("GET", "/blobs/"))

    def left(self) -> list[str]:
        """What still lies where work is done."""
        return [path.name for path in (self.home / "work").iterdir()]


def listing(path) -> str:
    return subprocess.run(["unsquashfs", "-ls", path], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path / "images")


async def test_an_image_becomes_one_file_that_is_named_by_its_digest_and_holds_its_tree_and_its_run_files(world):
    brought = await world.bring()
    assert brought.digest == digest_of(brought.path.read_bytes())
    assert brought.path.name == brought.digest.removeprefix("sha256:")
    assert brought.size_bytes == brought.path.stat().st_size
    listed = listing(brought.path)
    assert "/usr/bin/app" in listed
    assert "/.singularity.d/runscript" in listed
    assert "/etc/old" not in listed
    assert world.left() == []


async def test_what_is_known_comes_from_the_config_and_the_files_with_evidence(world):
    needs = (await world.bring()).needs
    assert needs.tree_seen
    assert needs.unpacked_bytes == len(b"#!/bin/sh\n")
    assert needs.command.entrypoint == ("app",)
    assert [(each.fact, each.source) for each in needs.evidence] == [("declared.cuda", Source.LABEL)]


async def test_many_askers_make_one_pull_and_one_conversion(world):
    found = await asyncio.gather(*(world.bring() for _ in range(64)))
    assert len({brought.digest for brought in found}) == 1
    assert world.blobs_asked_for() == 2
    assert len(list((world.home / "made").iterdir())) == 1


async def test_the_same_image_gives_the_same_bytes_elsewhere_and_again_moves_nothing(world, tmp_path):
    first = await world.bring()
    world.restart()
    assert (await world.bring()).digest == first.digest
    assert world.blobs_asked_for() == 2
    other = World(tmp_path / "elsewhere")
    assert (await other.bring()).digest == first.digest


async def test_another_compressor_is_another_file_out_of_the_same_blobs(world):
    one, other = await world.bring(), await world.bring(mountable=frozenset({Compressor.GZIP}))
    assert one.digest != other.digest
    assert world.blobs_asked_for() == 2


async def test_a_file_that_was_removed_or_cut_is_made_again(world):
    brought = await world.bring()
    brought.path.write_bytes(b"short")
    assert digest_of((await world.bring()).path.read_bytes()) == brought.digest
    brought.path.unlink()
    assert (await world.bring()).path.exists()


async def test_layers_that_came_stay_when_another_one_fails(world):
    second = list(world.registry.blobs)[1][1]
    world.registry.faults.append(always(busy(503, retry_after="3600"), second))
    with pytest.raises(Exception, match=r"reg\.org"):
        await world.bring()
    came = [path.name for path in (world.home / "blobs").iterdir() if path.suffix != ".part"]
    world.registry.faults.clear()
    await world.bring()
    asked = [path for path in world.web.paths("GET", "/blobs/") if came and came[0] in path]
    assert len(asked) == len(came)
    assert world.left() == []


async def test_a_blob_that_the_disk_gives_back_wrongly_is_fetched_again(world):
    await world.bring()
    for path in (world.home / "blobs").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    for kind in ("made", "needs"):
        for path in (world.home / kind).iterdir():
            path.unlink()
    with pytest.raises((BlobCorrupt, ImageUnusable)):
        await world.bring()
    assert list((world.home / "blobs").iterdir()) == []
    assert (await world.bring()).needs.tree_seen


async def test_a_cancelled_asker_leaves_nothing_in_the_making_and_the_next_one_is_served(world, monkeypatch):
    reached, go_on = threading.Event(), threading.Event()
    real = Bringer._unpack

    def slow(self, *given):
        reached.set()
        go_on.wait(10)
        return real(self, *given)

    monkeypatch.setattr(Bringer, "_unpack", slow)
    asker = asyncio.create_task(world.bring())
    assert await asyncio.to_thread(reached.wait, 10)
    asker.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asker
    assert world.left() == []
    monkeypatch.undo()
    assert (await world.bring()).path.exists()


async def test_what_a_killed_process_left_is_removed_and_what_another_one_works_on_is_not(world):
    (world.home / "work" / "left").mkdir()
    (world.home / "work" / "left" / "tree").write_text("half")
    async with Workshop(world.home).room() as room:
        Workshop(world.home)
        assert world.left() == [room.name]


async def test_a_bomb_and_a_way_out_are_refused_and_leave_nothing(world):
    world.registry.push_image("bomb", "1", (tar(entry("zeros", bytes(2**20))),))
    world.registry.push_image("out", "1", (tar(entry("../out")),))
    world.bringer = Bringer(Workshop(world.home), limits=Limits(unpacked_bytes=2**19))
    with pytest.raises(ImageUnusable, match="more than 524288 bytes"):
        await world.bring("reg.org/bomb:1")
    with pytest.raises(ImageUnusable, match="leads out of the image"):
        await world.bring("reg.org/out:1")
    assert world.left() == []
    assert list((world.home / "files").iterdir()) == []


async def test_layers_and_the_digests_of_the_config_must_be_as_many(world):
    found = await world.origins.resolve(parse_reference("reg.org/app:1"), AMD64)
    found = replace(found, manifest=replace(found.manifest, layers=found.manifest.layers[:1]))
    with pytest.raises(ImageUnusable, match="has 1 layers, and its config names 2"):
        await world.bringer.learn(found, world.origins)


async def test_a_layout_on_this_host_is_brought_like_an_image_of_a_registry(tmp_path):
    oci_image(tmp_path / "shelf" / "app", [file("bin/sh", b"#!", 0o755)], Cmd=["sh"])
    tenant = Tenant()
    origins = Origins(tenant.access.exchange, folders=[tmp_path / "shelf"])
    found = await origins.resolve(parse_reference("oci:app"), AMD64)
    brought = await Bringer(Workshop(tmp_path / "home")).bring(found, ZSTD, origins)
    assert brought.needs.command.cmd == ("sh",)
    assert brought.digest == digest_of(brought.path.read_bytes())


async def test_a_sif_on_the_web_is_kept_as_it_came(world):
    sif = b"SIF" * 1000
    digest = hashlib.sha256(sif).hexdigest()
    world.web.hosts["files.org"] = lambda request: content(request, sif)
    brought = await world.bring(f"https://files.org/app.sif#sha256:{digest}")
    assert (brought.path.read_bytes(), brought.digest) == (sif, f"sha256:{digest}")
    assert not brought.needs.tree_seen


async def test_a_file_on_a_system_is_not_for_this_host_to_read(world):
    with pytest.raises(SpecInvalid, match="lies on a system"):
        await world.origins.resolve(parse_reference("/apps/tool.sif"), AMD64)


def test_what_nobody_used_for_longest_goes_first_and_what_is_in_use_stays(tmp_path):
    shop, digests = Workshop(tmp_path), [f"sha256:{number:064x}" for number in range(4)]
    old_s = time.time() - 2 * IN_USE_S
    for number, digest in enumerate(digests):
        path = shop.blob(digest) if number % 2 else shop.file(digest)
        path.write_bytes(bytes(10))
        os.utime(path, (old_s + number, old_s + number))
    shop.used(shop.file(digests[0]))
    shop.collect(most_bytes=20)
    there = [shop.blob(digest).exists() or shop.file(digest).exists() for digest in digests]
    assert there == [True, False, False, True]
    shop.collect(most_bytes=0)
    assert shop.file(digests[0]).exists()


async def test_what_one_user_alone_may_read_does_not_lie_where_others_images_are_made(world, tmp_path):
    async def alone(reference, tenant, user):
        return user == "alice"

    bringers = Bringers(tmp_path / "all", lambda home: Bringer(Workshop(home)), alone)
    found = await world.origins.resolve(parse_reference("reg.org/app:1"), AMD64)
    alices, again, elsewhere, bobs = [
        await bringers.of(found.reference, tenant, user)
        for tenant, user in (("dev", "alice"), ("dev", "alice"), ("other", "alice"), ("dev", "bob"))
    ]
    assert alices is again
    assert len({alices, elsewhere, bobs}) == 3
    assert bobs is bringers.shared
    brought = await alices.bring(found, ZSTD, world.origins)
    for other in (elsewhere, bobs):
        digests = [brought.digest, *(blob.digest for blob in found.manifest.layers)]
        assert not any(other.workshop.file(each).exists() or other.workshop.blob(each).exists() for each in digests)
