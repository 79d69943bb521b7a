"""Registries: asked little, waited for politely, trusted for nothing."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

from images.access import Access
from images.credentials import Login
from images.errors import (
    BlobCorrupt,
    ImagePrivate,
    ImageUnknown,
    ImageUnusable,
    RegistryMisbehaves,
    RegistryUnavailable,
    TagMoved,
)
from images.exchange import Exchange, Rules
from images.manifests import MAX_DOCUMENT_BYTES, Platform
from images.reference import parse_reference
from images.registry import Registry
from images.sources import FileSink, MemorySink
from tests.fakes.registry import (
    INDEX,
    MANIFEST,
    Body,
    Endless,
    FakeRegistry,
    FakeWeb,
    always,
    basic,
    content,
    digest_of,
    error,
    times,
)

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


# -- names to digests ------------------------------------------------------------------------------------------------


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


# -- who asks --------------------------------------------------------------------------------------------------------


async def test_a_token_is_bought_once_for_a_repository_and_again_when_it_runs_out():
    world = World()
    world.registry.push_image("app", "1")
    world.registry.realm = "https://reg.org/token"
    await world.layer()
    assert len(world.web.paths(containing="/token")) == 1
    world.now_s += 301
    await world.resolve()
    assert len(world.web.paths(containing="/token")) == 2


async def test_a_token_of_too_small_a_scope_is_exchanged_for_what_the_registry_asks():
    world = World()
    world.registry.push_image("app", "1")
    world.registry.realm, world.registry.extra_scope = "https://reg.org/token", "repository:base:pull"
    await world.resolve()
    assert list(world.registry.tokens.values())[-1] == "repository:app:pull repository:base:pull"


async def test_a_private_image_is_read_with_the_login_and_refused_without_it():
    for login in ("ann:secret", "", "ann:wrong"):
        world = World(login=login)
        world.registry.push_image("private", "1")
        world.registry.realm, world.registry.private_to = "https://reg.org/token", "ann:secret"
        if login == "ann:secret":
            await world.resolve("reg.org/private:1")
            continue
        with pytest.raises(ImagePrivate, match=r"berth images login reg\.org") as refused:
            await world.resolve("reg.org/private:1")
        assert "wrong" not in str(refused.value)


async def test_an_identity_token_buys_access_and_travels_in_the_body():
    world = World(login=":identity")
    world.registry.push_image("private", "1")
    world.registry.realm = "https://reg.org/token"
    await world.resolve("reg.org/private:1")
    (bought,) = [one for one in world.web.asked if one.url.path == "/token"]
    assert bought.method == "POST"
    assert "identity" not in str(bought.url)


async def test_a_registry_that_asks_for_basic_gets_it():
    world = World(login="ann:secret")
    world.registry.push_image("app", "1")
    world.registry.basic = "ann:secret"
    await world.layer()
    assert world.web.authorizations("reg.org")[:2] == [None, basic("ann:secret")]


async def test_one_tenant_never_profits_from_what_another_was_given():
    world = World(login="ann:secret")
    world.registry.push_image("private", "1")
    world.registry.realm, world.registry.private_to = "https://reg.org/token", "ann:secret"
    await world.resolve("reg.org/private:1")
    world.login, world.client = "", world.another()
    with pytest.raises(ImagePrivate):
        await world.resolve("reg.org/private:1")


async def test_a_known_digest_is_shown_only_to_who_may_read_it_now():
    world = World(login="ann:secret")
    pushed = world.registry.push_image("private", "1")
    world.registry.realm, world.registry.private_to = "https://reg.org/token", "ann:secret"
    await world.resolve("reg.org/private:1")
    world.login, world.now_s = "", world.now_s + 9999
    with pytest.raises(ImagePrivate):
        await world.resolve(f"reg.org/private@{pushed['digest']}")


@pytest.mark.parametrize("realm", ["", "nonsense", "http://reg.org/token", "https://user:pw@reg.org/token"])
async def test_a_token_server_that_cannot_be_asked_safely_is_not_asked(realm):
    world = World(login="ann:secret")
    world.registry.push_image("app", "1")
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}"'}
    world.registry.faults = [always(lambda _: error(401, "UNAUTHORIZED", challenge))]
    with pytest.raises(RegistryMisbehaves):
        await world.resolve()
    assert set(world.web.authorizations("reg.org")) == {None}


# -- redirects -------------------------------------------------------------------------------------------------------


def redirect(to: str, status: int = 307):
    return lambda _: httpx.Response(status, headers={"Location": to})


async def test_a_redirect_to_another_host_is_followed_without_the_authorization():
    world = World(login="ann:secret")
    world.registry.push_image("app", "1", (b"layer",))
    world.registry.realm, world.registry.private_to = "https://reg.org/token", "ann:secret"
    data = gzip.compress(b"layer", mtime=0)
    found = await world.resolve()
    world.registry.faults = [always(redirect("https://cdn.org/store?signature=x"), "blobs")]
    world.web.hosts["cdn.org"] = lambda one: content(one, data)
    sink = MemorySink()
    await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert sink.blob == data
    assert world.web.authorizations("cdn.org") == [None]
    assert world.web.authorizations("reg.org")[-1].startswith("Bearer ")


async def test_an_authorization_that_was_dropped_is_not_sent_again_when_the_way_leads_back():
    world = World(login="ann:secret")
    world.registry.push_image("app", "1")
    world.registry.basic = "ann:secret"
    found = await world.resolve()
    world.registry.faults = [times(1, redirect("https://cdn.org/away"), "blobs")]
    world.web.hosts["cdn.org"] = redirect("https://reg.org/v2/back")
    with pytest.raises(TagMoved):
        await world.client.fetch(found.reference, found.manifest.layers[0], MemorySink())
    assert world.web.paths()[-1] == "reg.org/v2/back"
    assert world.web.authorizations("reg.org")[-2:] == [basic("ann:secret"), None]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("https://reg.org/v2/app/manifests/1", "loop"),
        ("http://reg.org/v2/app/manifests/1", "https to http"),
        ("http://cdn.org/x", "https to http"),
        ("file:///etc/passwd", "https to file"),
        ("https://ann:secret@cdn.org/x", "login in its URL"),
    ],
)
async def test_a_redirect_that_must_not_be_followed_is_named(target, words):
    world = World()
    world.registry.faults = [always(redirect(target))]
    with pytest.raises(RegistryMisbehaves, match=words):
        await world.resolve()
    assert len(world.web.asked) == 1


async def test_redirects_end_somewhere():
    world = World()
    world.registry.faults = [always(lambda one: redirect(f"{one.url}0")(one))]
    with pytest.raises(RegistryMisbehaves, match="more than 5 times"):
        await world.resolve()


async def test_plain_http_is_for_registries_that_are_listed():
    world = World("login:5000")
    world.registry.push_image("app", "1")
    with pytest.raises(RegistryUnavailable):
        world.web.hosts.pop("login:5000")
        await world.resolve("login:5000/app:1")
    assert world.web.asked[0].url.scheme == "https"
    world = World("login:5000", plain_http=frozenset({"login:5000"}))
    world.registry.push_image("app", "1")
    await world.resolve("login:5000/app:1")
    assert {one.url.scheme for one in world.web.asked} == {"http"}


# -- trouble ---------------------------------------------------------------------------------------------------------


def busy(status: int, **headers: str):
    return lambda _: error(status, "TOOMANYREQUESTS", {name.replace("_", "-"): text for name, text in headers.items()})


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


# -- blobs -----------------------------------------------------------------------------------------------------------

BIG = (b"0123456789abcdef" * 1024 * 64,)


def big_world(**rules) -> World:
    """A world with an image whose layer is a megabyte as it is sent."""
    world = World(**rules)
    digest = world.registry.push_image("app", "1")["digest"]
    raw, media_type = world.registry.manifests.pop(("app", digest))
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", **world.registry.push("app", BIG[0])}
    world.registry.push_document("app", {**json.loads(raw), "layers": [layer]}, media_type, "1")
    return world


def cut_after(share_bytes: int):
    """The connection breaks after so many bytes of what was asked for."""

    def answer(request: httpx.Request) -> httpx.Response:
        whole = content(request, BIG[0])
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        return httpx.Response(
            whole.status_code, headers=whole.headers, stream=Body(BIG[0][start:][:share_bytes], cut=True)
        )

    return answer


async def test_a_transfer_that_breaks_goes_on_where_it_broke():
    world = big_world()
    found, sink = await world.resolve(), MemorySink()
    world.registry.faults = [times(2, cut_after(300_000), "blobs")]
    await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert sink.blob == BIG[0]
    ranges = [one.headers.get("range") for one in world.web.asked if one.url.path.endswith(digest_of(BIG[0]))]
    assert ranges == [None, "bytes=300000-", "bytes=600000-"]


async def test_a_registry_without_ranges_sends_it_all_again():
    world = big_world()
    world.registry.has_ranges = False
    found, sink = await world.resolve(), MemorySink()
    world.registry.faults = [times(1, cut_after(300_000), "blobs")]
    await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert sink.blob == BIG[0]


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
    assert (tmp_path / "layer").read_bytes() == BIG[0]


async def test_a_bad_beginning_that_was_kept_costs_one_more_transfer_and_no_more(tmp_path):
    world = big_world()
    found = await world.resolve()
    (tmp_path / "layer.part").write_bytes(b"not the layer")
    with FileSink(tmp_path / "layer") as sink:
        await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert (tmp_path / "layer").read_bytes() == BIG[0]


def flipped(request: httpx.Request) -> httpx.Response:
    return content(request, BIG[0][:500_000] + b"!" + BIG[0][500_001:])


@pytest.mark.parametrize(
    ("fault", "error_class", "words"),
    [
        (flipped, BlobCorrupt, "thrown away"),
        (lambda one: content(one, BIG[0] + b"!"), BlobCorrupt, "sends more than the 1048576 bytes"),
        (lambda one: content(one, BIG[0][:-1]), RegistryUnavailable, "breaks off after 1048575 of 1048576"),
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
    assert body.sent_bytes <= len(BIG[0]) + 2 * 2**20


async def test_a_part_that_was_not_asked_for_is_refused(tmp_path):
    world = big_world()
    found = await world.resolve()
    (tmp_path / "layer.part").write_bytes(BIG[0][:1000])
    wrong = httpx.Response(206, headers={"Content-Range": "bytes 0-9/10"}, stream=Body(b"0123456789"))
    world.registry.faults = [always(lambda _: wrong, "blobs")]
    with FileSink(tmp_path / "layer") as sink, pytest.raises(RegistryMisbehaves, match="another part"):
        await world.client.fetch(found.reference, found.manifest.layers[0], sink)


# -- mirrors ---------------------------------------------------------------------------------------------------------


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
    assert await world.layer() == BIG[0]
    assert world.web.paths()
    assert all(path.startswith(f"mirror.org/v2{prefix}/app/") for path in world.web.paths())


async def test_a_mirror_that_fails_costs_one_request_and_no_wait():
    for fault in (busy(503, Retry_After="30"), lambda _: error(404, ""), lambda _: error(403, ""), flipped):
        world, mirror = mirrored()
        mirror.faults = [always(fault)]
        assert await world.layer() == BIG[0]
        assert world.waits_s == []


async def test_what_a_mirror_began_the_registry_goes_on_with():
    world, mirror = mirrored()
    found, sink = await world.resolve(), MemorySink()
    mirror.faults = [times(1, cut_after(400_000), "blobs"), always(lambda _: error(500, ""), "blobs")]
    await world.client.fetch(found.reference, found.manifest.layers[0], sink)
    assert sink.blob == BIG[0]


async def test_a_mirror_never_hears_the_login_of_the_registry():
    world, mirror = mirrored()
    world.login, world.registry.basic = "ann:secret", "ann:secret"
    mirror.faults = [always(lambda _: error(404, ""))]
    await world.layer()
    assert set(world.asked_for) == {"reg.org"}
    assert set(world.web.authorizations("mirror.org")) == {None}


async def test_no_secret_is_in_an_error_or_a_repr():
    world = World(login="ann:hunter2")
    world.registry.push_image("private", "1")
    world.registry.realm, world.registry.private_to = "https://reg.org/token", "someone:else"
    with pytest.raises(ImagePrivate) as refused:
        await world.resolve("reg.org/private:1")
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(Login("ann", "hunter2"))
