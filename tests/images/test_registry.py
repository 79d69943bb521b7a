"""Registries are asked little, and a mirror before them."""

from __future__ import annotations

import httpx
import pytest

from images.errors import (
    ImageUnusable,
)
from images.reference import parse_reference
from images.sources import MemorySink
from tests.fakes.registry import (
    INDEX,
    MANIFEST,
    FakeRegistry,
    always,
    digest_of,
    error,
    times,
)
from tests.fakes.tenant import ARM64, BIG, World, big_world, busy, cut_after, flipped


async def test_a_tag_becomes_four_digests_with_at_most_three_manifest_requests():
    world = World()
    index = world.registry.push_index("app", "1", "linux/amd64", "linux/arm64/v8")
    found = await world.resolve(target=ARM64)
    assert found.index_digest == found.reference.digest == index["digest"]
    assert found.reference.tag == "1"
    assert str(found.config.platform) == "linux/arm64/v8"
    assert digest_of(world.registry.manifests["app", found.manifest_digest][0]) == found.manifest_digest
    assert digest_of(world.registry.blobs["app", found.config_digest]) == found.config_digest
    assert [one.method for one in world.web.asked if "manifests" in one.url.path] == ["HEAD", "GET", "GET"]


async def test_an_image_that_is_known_costs_one_request_that_registries_do_not_count():
    world = World()
    world.registry.push_index("app", "1", "linux/amd64")
    first = await world.resolve()
    del world.web.asked[:]
    assert await world.resolve() == first
    assert [one.method for one in world.web.asked] == ["HEAD"]


async def test_a_tag_that_moved_is_seen_at_the_next_resolve():
    world = World()
    world.registry.push_image("app", "1", (b"old",))
    old = await world.resolve()
    world.registry.push_image("app", "1", (b"new",))
    assert (await world.resolve()).manifest_digest != old.manifest_digest


async def test_a_registry_that_says_no_digest_is_asked_for_the_tag_itself():
    world = World()
    pushed = world.registry.push_image("app", "1")
    world.registry.faults = [always(lambda one: httpx.Response(200) if one.method == "HEAD" else None, "manifests")]
    assert (await world.resolve()).manifest_digest == pushed["digest"]


async def test_docker_hub_is_asked_at_its_own_server_and_its_limit_is_read():
    world = World("registry-1.docker.io")
    world.registry.push_image("library/python", "3.12")
    world.registry.left = "76;w=21600"
    await world.resolve("python:3.12")
    assert world.access.rate_limits["docker.io"].left == 76
    assert world.access.rate_limits["docker.io"].window_s == 21600


async def test_a_reference_by_digest_needs_no_head():
    world = World()
    pushed = world.registry.push_image("app")
    await world.resolve(f"reg.org/app@{pushed['digest']}")
    assert [one.method for one in world.web.asked] == ["GET", "GET"]


async def test_a_sif_kept_by_oras_is_an_image_and_other_artifacts_are_not():
    world = World()
    sif = {"mediaType": "application/vnd.sylabs.sif.layer.v1.sif", **world.registry.push("tool", b"SIF")}
    config = {"mediaType": "application/vnd.oci.empty.v1+json", **world.registry.push("tool", b"{}")}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [sif]}
    world.registry.push_document("tool", manifest, MANIFEST, "1")
    found = await world.resolve("oras://reg.org/tool:1")
    assert (found.config, found.manifest.sif.digest) == (None, digest_of(b"SIF"))
    manifest["layers"] = [{**sif, "mediaType": "text/plain"}]
    world.registry.push_document("tool", manifest, MANIFEST, "2")
    with pytest.raises(ImageUnusable, match="artifact"):
        await world.resolve("oras://reg.org/tool:2")


@pytest.mark.parametrize("has_referrers", [True, False], ids=["by the call", "by the fallback tag"])
async def test_what_refers_to_an_image_is_found(has_referrers):
    world = World()
    image = world.registry.push_image("app", "1")
    subject = {name: image[name] for name in ("mediaType", "digest", "size")}
    world.registry.has_referrers = has_referrers
    note = {"schemaVersion": 2, "subject": subject, "artifactType": "text/note", "config": subject, "layers": []}
    pushed = {**world.registry.push_document("app", note, MANIFEST), "artifactType": "text/note"}
    if not has_referrers:
        tag = image["digest"].replace(":", "-")
        world.registry.push_document("app", {"schemaVersion": 2, "manifests": [pushed]}, INDEX, tag)
    reference = parse_reference("reg.org/app:1")
    (found,) = await world.client.referrers(reference, image["digest"], "text/note")
    assert found.digest == pushed["digest"]
    assert (await world.client.manifest(reference, found.digest)).artifact_type == "text/note"
    assert await world.client.referrers(reference, image["digest"], "other") == ()
    assert await world.client.referrers(reference, digest_of(b"lonely")) == ()


# -- mirrors -----------------------------------------------------------------------------------------------------------


def mirrored(prefix: str = "") -> tuple[World, FakeRegistry]:
    world = big_world(mirrors={"reg.org": (f"mirror.org{prefix}",)}, attempts=2)
    mirror = FakeRegistry(
        {(f"{prefix[1:]}/app".lstrip("/"), name[1]): blob for name, blob in world.registry.blobs.items()},
        {(f"{prefix[1:]}/app".lstrip("/"), name[1]): one for name, one in world.registry.manifests.items()},
        {(f"{prefix[1:]}/app".lstrip("/"), name[1]): one for name, one in world.registry.tags.items()},
    )
    world.web.hosts["mirror.org"] = mirror
    return world, mirror


@pytest.mark.parametrize("prefix", ["", "/proxy/hub"])
async def test_a_mirror_that_has_it_is_all_that_is_asked(prefix):
    world, _ = mirrored(prefix)
    assert await world.layer() == BIG
    assert world.web.paths()
    assert all(path.startswith(f"mirror.org/v2{prefix}/app/") for path in world.web.paths())


async def test_a_mirror_that_fails_costs_one_request_and_no_wait():
    for fault in (busy(503, Retry_After="30"), lambda _: error(404, ""), lambda _: error(403, ""), flipped):
        world, mirror = mirrored()
        mirror.faults = [always(fault)]
        assert await world.layer() == BIG
        assert world.waits_s == []


async def test_what_a_mirror_began_the_registry_goes_on_with():
    world, mirror = mirrored()
    found, sink = await world.resolve(), MemorySink()
    mirror.faults = [times(1, cut_after(400_000), "blobs"), always(lambda _: error(500, ""), "blobs")]
    await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert sink.blob == BIG


async def test_a_mirror_never_hears_the_login_of_the_registry():
    world, mirror = mirrored()
    world.login, world.registry.basic = "ann:secret", "ann:secret"
    mirror.faults = [always(lambda _: error(404, ""))]
    await world.layer()
    assert set(world.asked_for) == {"reg.org"}
    assert set(world.web.authorizations("mirror.org")) == {None}
