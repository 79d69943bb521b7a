"""Logins for registries: tried before they are kept, shown to nobody, and used for their owner's images alone."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import text

from images.access import try_login
from images.credentials import Login
from scheduler.model.errors import CredentialRefused, SpecInvalid
from scheduler.store.users import UserStore
from tests.api.world import World
from tests.fakes.registry import FakeRegistry, always, basic, error, reply
from tests.fakes.tenant import World as Registries
from tests.fakes.tenant import redirect

LOGINS, LOGIN = "/v3/images/logins", "/v3/images/logins/registry.test"
INSPECT = "/v3/images/inspect"
SECRET = "tok-3n-nobody-sees"
ADA = {"username": "ada9", "password": SECRET}
PRIVATE = {"reference": "registry.test/private:1"}


@pytest.fixture
def private(world: World) -> World:
    """``registry.test`` sells tokens, and ``private:1`` is for ada9 alone."""
    world.registry.realm, world.registry.private_to = "https://registry.test/token", f"ada9:{SECRET}"
    world.registry.push_image("private", "1")
    return world


async def status(world: World, user: str, **params: str) -> int:
    return (await world.call("GET", INSPECT, params=params or PRIVATE, user=user)).status_code


# -- keeping them ------------------------------------------------------------------------------------------------


async def test_a_login_is_tried_kept_listed_and_forgotten(private: World):
    kept = await private.change("PUT", LOGIN, ADA)
    assert (kept["registry"], kept["username"], bool(kept["verifiedAt"])) == ("registry.test", "ada9", True)
    assert await private.get(LOGIN) == kept
    assert await private.get(LOGINS) == [kept]
    assert await private.change("DELETE", LOGIN) == {"changes": 1}
    assert await private.get(LOGINS) == []
    for method in ("GET", "DELETE"):
        gone = await private.call(method, LOGIN)
        assert (gone.status_code, gone.json()["message"]) == (404, "login 'registry.test' was not found")


async def test_logins_are_searched_sorted_and_paged_like_other_lists(private: World):
    names = ["a.example.org", "b.example.org", "registry.test"]
    for name in names:
        await private.change("PUT", f"{LOGINS}/{name}?skipCredentialCheck=true", ADA)
    assert [each["registry"] for each in await private.get(LOGINS)] == names
    page = (await private.call("GET", LOGINS, params={"limit": 1, "skip": 1, "computeTotal": "true"})).json()
    assert [each["registry"] for each in page["result"]] == names[1:2]
    assert page["metadata"]["totalCount"] == 3
    assert page["metadata"]["berth"]["next"] == {"skip": 2, "limit": 1}
    search = {"search": "registry.like.*.example.org", "orderBy": "registry(desc)", "select": "registry"}
    assert await private.get(LOGINS, params=search) == [{"registry": names[1]}, {"registry": names[0]}]
    assert await private.get(LOGINS, params={"search": "username.eq.other"}) == []
    for unknown in ({"search": "secret.like.*"}, {"orderBy": "secretSealed"}, {"select": "password"}):
        refused = await private.call("GET", LOGINS, params=unknown)
        assert (refused.status_code, "use " in refused.json()["message"]) == (400, True)


async def test_a_login_that_the_registry_refuses_is_not_kept(private: World):
    refused = await private.call("PUT", LOGIN, {**ADA, "password": "wrong one"})
    assert refused.status_code == 400
    assert refused.json()["message"] == (
        "registry.test does not take the login of 'ada9'; check the name, password or access token"
    )
    assert await private.get(LOGINS) == []


async def test_an_earlier_login_stays_until_a_better_one_is_known(private: World):
    await private.change("PUT", LOGIN, ADA)
    assert (await private.call("PUT", LOGIN, {**ADA, "password": "wrong one"})).status_code == 400
    assert await status(private, "ada") == 200


async def test_where_everyone_is_let_in_nothing_proves_a_login(world: World):
    assert (await world.change("PUT", LOGIN, ADA))["verifiedAt"] is None


async def test_a_login_can_be_kept_without_asking(private: World):
    private.registry.faults.append(always(lambda _: error(503, "DOWN")))
    kept = await private.change("PUT", LOGIN, ADA, params={"skipCredentialCheck": "true"})
    assert kept["verifiedAt"] is None
    assert not private.web.asked


async def test_docker_hub_has_one_login_under_all_its_names(world: World):
    for name in ("docker.io", "index.docker.io", "registry-1.docker.io", "Docker.io"):
        await world.change("PUT", f"{LOGINS}/{name}", ADA, params={"skipCredentialCheck": "true"})
    assert [login["registry"] for login in await world.get(LOGINS)] == ["docker.io"]


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("-x", ADA, "registry: '-x' names a host that cannot be"),
        ("a b", ADA, "write it as in an image's name: ghcr.io or localhost:5000"),
        ("registry.test:99999", ADA, "names a host that cannot be"),
        ("user:secret@registry.test", ADA, "names a host that cannot be"),
        ("elsewhere.test", ADA, "registry: 'elsewhere.test' is no registry: it answers 404 to /v2/; check its name"),
        ("registry.test", {**ADA, "username": "a:b"}, "username: holds ':'"),
        ("registry.test", {**ADA, "username": ""}, "username: is too short"),
        ("registry.test", {**ADA, "username": "a\nb"}, "username: holds the control character"),
        ("registry.test", {**ADA, "password": ""}, "password: is too short"),
        ("registry.test", {**ADA, "password": f"{SECRET}\x1b"}, "password: holds the control character"),
        ("registry.test", {**ADA, "password": SECRET * 1000}, "password: is too long"),
        ("registry.test", {"username": "ada9"}, "password: is missing"),
        ("registry.test", {**ADA, "secret": SECRET}, "secret: is not a known field"),
    ],
)
async def test_what_cannot_be_a_login_says_why(world: World, name: str, body: dict[str, str], said: str):
    response = await world.call("PUT", f"{LOGINS}/{name}", body)
    assert response.status_code == 400
    assert said in response.json()["message"]
    assert SECRET not in response.text


# -- whose they are ----------------------------------------------------------------------------------------------


async def test_a_login_opens_images_to_its_owner_and_to_nobody_else(private: World):
    assert await status(private, "ada") == 400
    await private.change("PUT", LOGIN, ADA)
    assert [await status(private, user) for user in ("ada", "bob", "admin", "ada")] == [200, 400, 400, 200]
    private.registry.private_to = "bob9:other"
    await private.change("PUT", LOGIN, {"username": "bob9", "password": "other"}, user="bob")
    assert [await status(private, user) for user in ("bob", "admin")] == [200, 400]
    assert [login["username"] for login in await private.get(LOGINS, user="bob")] == ["bob9"]
    assert await private.get(LOGINS, user="admin") == []
    assert (await private.call("DELETE", LOGIN, user="admin")).status_code == 404


async def test_what_one_user_read_is_not_told_to_another_who_knows_its_digest(private: World):
    await private.change("PUT", LOGIN, ADA)
    shown = await private.get(INSPECT, params=PRIVATE)
    by_digest = f"registry.test/private@{shown['digest']}"
    assert [await status(private, user, reference=by_digest) for user in ("ada", "bob")] == [200, 400]
    copied = f"registry.test/copied@{shown['digest']}"
    assert await status(private, "bob", reference=copied) == 404


async def test_without_the_login_the_next_look_is_refused(private: World):
    await private.change("PUT", LOGIN, ADA)
    assert await status(private, "ada") == 200
    await private.change("DELETE", LOGIN)
    assert await status(private, "ada") == 400


async def test_a_user_of_the_same_name_does_not_inherit_them(private: World):
    await new_user(private, "cy")
    await private.change("PUT", LOGIN, ADA, user="cy")
    await private.change("DELETE", "/v3/oauth2/profiles/cy", user="admin")
    await new_user(private, "cy")
    assert await private.get(LOGINS, user="cy") == []
    assert await status(private, "cy") == 400


async def new_user(world: World, name: str) -> None:
    profile = {"username": name, "email": f"{name}@example.org", "password": "a good password"}
    await world.post("/v3/oauth2/profiles", profile, user="admin")
    async with world.ports.reading() as db:
        world.users[name] = await UserStore(db).get("dev", name)


async def test_a_login_reaches_its_registry_alone(private: World):
    other = private.web.hosts["other.test"] = FakeRegistry(realm="https://other.test/token")
    other.push_image("app", "1")
    await private.change("PUT", LOGIN, ADA)
    assert await status(private, "ada", reference="other.test/app:1") == 200
    assert await status(private, "ada") == 200
    shown = {value for value in private.web.authorizations("registry.test") if value and value.startswith("Basic")}
    assert shown == {basic(f"ada9:{SECRET}")}
    assert not [value for value in private.web.authorizations("other.test") if value and value.startswith("Basic")]


async def test_the_secret_is_in_no_answer_no_log_and_not_in_the_database(
    private: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    caplog.set_level(logging.DEBUG)
    answers = [await private.call("PUT", LOGIN, ADA)]
    answers += [await private.call("GET", path) for path in (LOGIN, LOGINS)]
    answers.append(await private.call("GET", INSPECT, params=PRIVATE))
    private.registry.private_to = "somebody:else"
    private.registry.tokens.clear()
    answers.append(await private.call("GET", INSPECT, params=PRIVATE))
    answers.append(await private.call("PUT", LOGIN, ADA))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 400, 400]
    async with private.ports.reading() as db:
        rows = [str((await db.execute(text(f"SELECT * FROM {table}"))).all()) for table in ("registry_logins", "audit")]
    encoded = basic(f"ada9:{SECRET}")
    told = [*(answer.text for answer in answers), *rows, caplog.text, *capfd.readouterr()]
    assert not [where for where in told if SECRET in where or encoded.removeprefix("Basic ") in where]
    assert "registry.login" in rows[1]


# -- how a registry is asked -------------------------------------------------------------------------------------


async def test_a_login_is_tried_by_basic_where_the_registry_asks_for_that():
    world = Registries()
    world.registry.basic = "ann:secret"
    assert await try_login(world.access.exchange, "reg.org", Login("ann", "secret"))
    with pytest.raises(CredentialRefused):
        await try_login(world.access.exchange, "reg.org", Login("ann", "other"))


async def test_a_login_does_not_follow_a_redirect_to_another_host():
    world = Registries()
    thief = world.web.hosts["thief.org"] = FakeRegistry(basic="ann:secret")
    world.registry.faults.append(always(redirect("https://thief.org/v2/")))
    with pytest.raises(Exception, match=r"redirects to thief\.org, which asks for a login"):
        await try_login(world.access.exchange, "reg.org", Login("ann", "secret"))
    assert thief is not None
    assert world.web.authorizations("thief.org") == [None]


async def test_a_web_server_is_told_from_a_registry():
    world = Registries()
    world.registry.faults.append(always(lambda _: reply(204, {})))
    with pytest.raises(SpecInvalid, match="is no registry: it answers 204"):
        await try_login(world.access.exchange, "reg.org", Login("ann", "secret"))
