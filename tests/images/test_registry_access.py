"""Who asks is said to whom it concerns, and to nobody else."""

from __future__ import annotations

import gzip

import pytest

from images.credentials import Login
from images.errors import (
    ImagePrivate,
    RegistryMisbehaves,
    RegistryUnavailable,
    TagMoved,
)
from images.sources import MemorySink
from tests.fakes.registry import (
    always,
    basic,
    content,
    error,
    times,
)
from tests.fakes.tenant import World, redirect


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
        with pytest.raises(ImagePrivate, match=r"reg\.org.*: berth images login reg\.org$") as refused:
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


async def test_no_secret_is_in_an_error_or_a_repr():
    world = World(login="ann:hunter2")
    world.registry.push_image("private", "1")
    world.registry.realm, world.registry.private_to = "https://reg.org/token", "someone:else"
    with pytest.raises(ImagePrivate) as refused:
        await world.resolve("reg.org/private:1")
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(Login("ann", "hunter2"))


# -- redirects ---------------------------------------------------------------------------------------------------------


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
