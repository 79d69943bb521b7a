"""Bringing an image on bad days: killed anywhere, on a full disk, from a registry that fails in the middle."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from images.bring import Bringer
from images.convert import ConversionFailed
from images.errors import BlobCorrupt, ImageUnusable, RegistryMisbehaves, RegistryUnavailable
from images.origins import Origins
from images.reference import parse_reference
from images.streams import Limits
from images.workshop import Workshop
from scheduler.model.errors import FileRefused
from tests.fakes.registry import Body, Endless, FakeRegistry, always, content, digest_of, times
from tests.fakes.tenant import AMD64, World, busy, redirect
from tests.images.bring_kills import LAYER_BYTES, MOUNTABLE, STAGES, image, in_sight
from tests.images.small_disks import small_disk

ROOT = Path(__file__).parents[2]
MIB = 2**20


@pytest.mark.parametrize(("first", "rounds"), [(0, 12), pytest.param(1000, 60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", STAGES)
def test_after_any_kill_what_is_in_sight_is_whole_and_the_next_process_makes_the_same_file(
    stage, first, rounds, tmp_path
):
    command = [sys.executable, "-m", "tests.images.bring_kills", tmp_path, stage, str(first), str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 + rounds * 10)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{stage}: {rounds} kills")


class Site:
    """A registry with one image of two layers, and this host's workshop."""

    def __init__(self, home: Path, **rules) -> None:
        self.home, self.world = home, World(**rules)
        self.registry: FakeRegistry = self.world.registry
        image(self.registry, "pull", 1)

    async def bring(self, **options):
        """By a process that has just begun."""
        origins = Origins(self.world.access.exchange, self.world._logins)
        found = await origins.resolve(parse_reference("reg.org/app:1"), AMD64)
        return await Bringer(Workshop(self.home), **options).bring(found, MOUNTABLE, origins)

    def is_tidy(self) -> bool:
        """All in sight is whole, and nothing is left where work is done."""
        return in_sight(self.home) >= 0 and list((self.home / "work").iterdir()) == []


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path / "images")


# -- the registry ----------------------------------------------------------------------------------------------------


def half(request: httpx.Request, data: bytes) -> httpx.Response:
    """The connection breaks in the middle of what was asked for."""
    return part_of(request, data, share=0.5, cut=True)


def short(request: httpx.Request, data: bytes) -> httpx.Response:
    """Less than was promised, though nothing breaks."""
    return part_of(request, data, share=0.9)


def part_of(request: httpx.Request, data: bytes, share: float, cut: bool = False) -> httpx.Response:
    whole, start = content(request, data), int(request.headers.get("range", "bytes=0-")[6:-1])
    sent = data[start:][: int(share * len(data[start:]))]
    return httpx.Response(whole.status_code, headers=whole.headers, stream=Body(sent, cut=cut))


def flipped(request: httpx.Request, data: bytes) -> httpx.Response:
    """One byte in the middle is another."""
    return content(request, data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])


def endless(request: httpx.Request, data: bytes) -> httpx.Response:
    """Zeros, and no end of them."""
    return httpx.Response(200, stream=Endless())


ROUND = "https://reg.org/v2/round"
IN_THE_MIDDLE = {
    "429 with a long wait": (
        lambda request, _: busy(429, retry_after="3600")(request),
        RegistryUnavailable,
        "enough requests",
    ),
    "500": (lambda request, _: busy(500)(request), RegistryUnavailable, "500"),
    "redirect loop": (
        lambda request, _: redirect(f"{ROUND}/blobs/x")(request),
        RegistryMisbehaves,
        "redirects in a loop",
    ),
    "breaks off": (half, RegistryUnavailable, "breaks off"),
    "truncated": (short, RegistryUnavailable, "breaks off"),
    "flipped byte": (flipped, BlobCorrupt, "thrown away"),
    "zeros without end": (endless, BlobCorrupt, "stopped"),
}


@pytest.mark.parametrize(("fault", "error_class", "words"), IN_THE_MIDDLE.values(), ids=IN_THE_MIDDLE)
async def test_a_registry_that_fails_in_the_middle_is_told_and_what_came_is_not_asked_for_again(
    site, fault, error_class, words
):
    """One layer comes whole; of the other half comes, and from then on only trouble."""
    digests = [digest for (_, digest), blob in site.registry.blobs.items() if blob[:2] == b"\x1f\x8b"]
    first, second = digests
    data = site.registry.blobs["app", second]
    site.registry.faults = [
        times(1, lambda request: half(request, data), second),
        always(lambda request: fault(request, data), second),
        always(lambda request: fault(request, data), "/round/"),
    ]
    with pytest.raises(error_class, match=words):
        await site.bring()
    assert site.is_tidy()
    assert not list((site.home / "files").iterdir())
    part = site.home / "blobs" / f"{second.removeprefix('sha256:')}.part"
    kept_bytes = part.stat().st_size
    assert kept_bytes <= len(data)  # endless zeros are cut at what the manifest promised
    came = (site.home / "blobs" / first.removeprefix("sha256:")).exists()
    site.registry.faults.clear()
    site.world.web.asked.clear()
    brought = await site.bring()
    assert brought.digest == digest_of(brought.path.read_bytes())
    asked = {digest: [one for one in site.world.web.asked if digest in one.url.path] for digest in digests}
    assert len(asked[first]) <= (0 if came else 1)  # it may have come whole, and lacked its name only
    assert asked[second][0].headers.get("range") == (f"bytes={kept_bytes}-" if kept_bytes else None)
    assert site.is_tidy()


# -- this host's disk ------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A small file system."""
    with small_disk(tmp_path, "size=24m") as disk:
        yield disk


async def test_a_disk_that_gets_full_anywhere_on_the_way_says_so_and_is_left_as_it_was(disk):
    """The free room grows in steps until the image fits: blobs, the tree and the file are each too much once."""
    wanted = (await Site(disk / "enough").bring()).digest
    free_bytes, told = LAYER_BYTES // 2, []
    while True:
        site = Site(disk / f"home{free_bytes}")
        Workshop(site.home)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - free_bytes))
        try:
            brought = await site.bring()
        except FileRefused as refused:
            told.append(refused)
            assert site.is_tidy()
        else:
            break
        finally:
            ballast.unlink()
        assert (await site.bring()).digest == wanted
        shutil.rmtree(site.home)
        free_bytes += LAYER_BYTES // 2
    assert brought.digest == wanted
    assert any(".part" in str(each) for each in told)
    assert any(isinstance(each, ConversionFailed) for each in told)
    assert all("room" in str(each) or "free some space" in str(each) for each in told), told


async def test_gigabytes_of_zeros_in_a_layer_are_refused_before_they_fill_the_disk(disk):
    """Four of them, in four megabytes; the disk has room for a few more than may be unpacked."""
    site = Site(disk / "images")
    zeros = gzip.compress(bytes(16 * MIB), mtime=0) * 256
    header = b"zeros".ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"37777777777\0" + b"00000000000\0"
    padded = header + b" " * 8 + b"0" + bytes(355)
    summed = padded[:148] + b"%06o\0 " % sum(padded) + padded[156:]
    site.registry.push_image("app", "1", (b"",))
    bomb = gzip.compress(summed, mtime=0) + zeros
    push_layer(site.registry, bomb)
    with pytest.raises(ImageUnusable, match="more than 8 times its size"):
        await site.bring(limits=Limits(ratio_from_bytes=8 * MIB, ratio_limit=8), keeps_bytes=0)
    assert site.is_tidy()
    assert list((site.home / "blobs").iterdir()) == []


def push_layer(registry: FakeRegistry, packed: bytes) -> None:
    """Put a layer as it is in the place of the one that ``app:1`` has."""
    digest = registry.tags["app", "1"]
    raw, media_type = registry.manifests.pop(("app", digest))
    document = json.loads(raw)
    document["layers"] = [{**document["layers"][0], **registry.push("app", packed)}]
    registry.push_document("app", document, media_type, "1")
    assert hashlib.sha256(packed).hexdigest() in document["layers"][0]["digest"]
