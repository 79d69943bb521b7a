"""Logging in, tokens, users, tenants."""

from dataclasses import replace
from datetime import timedelta

import httpx

from scheduler.model.users import Principal
from scheduler.security.throttle import BY_ADDRESS, BY_NAME
from scheduler.services.presence import BELIEVED, Presence
from scheduler.store.users import UserStore
from tests.api.world import PASSWORD, World


async def logged_in(world: World, **body) -> httpx.Response:
    return await world.call("POST", "/v3/oauth2/tokens", body, user=None)


async def test_a_password_gives_tokens_in_the_shape_that_tapipy_reads(world: World):
    response = await logged_in(world, username="ada", password=PASSWORD, grant_type="password")
    assert response.status_code == 201
    access = response.json()["result"]["access_token"]
    assert access["expires_in"] == 4 * 3600
    assert access["expires_at"].endswith("+00:00")
    me = await world.get("/v3/oauth2/userinfo", user=None, headers={"X-Tapis-Token": access["access_token"]})
    assert me["username"] == "ada"


async def test_a_form_is_taken_as_well_as_json(world: World):
    form = {"username": "ada", "password": PASSWORD, "grant_type": "password"}
    response = await world.call("POST", "/v3/oauth2/tokens", user=None, data=form)
    assert response.status_code == 201


async def test_wrong_name_and_wrong_password_look_the_same(world: World):
    wrong = await logged_in(world, username="ada", password="wrong", grant_type="password")
    nobody = await logged_in(world, username="nobody", password="wrong", grant_type="password")
    assert wrong.status_code == nobody.status_code == 400
    assert wrong.json()["message"] == nobody.json()["message"] == "Invalid username/password combination."


async def test_too_many_refused_logins_are_told_when_to_come_again(world: World):
    for number in range(BY_NAME.attempts):
        world.ports.logins.begin("dev", "ada", f"192.0.{number // 10}.2", world.clock())
    refused = await logged_in(world, username="ada", password=PASSWORD, grant_type="password")
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    assert "try again in 1 s" in refused.json()["message"]
    assert (await logged_in(world, username="bob", password=PASSWORD, grant_type="password")).status_code == 201
    world.clock.now += timedelta(seconds=2)
    assert (await logged_in(world, username="ada", password=PASSWORD, grant_type="password")).status_code == 201


async def test_a_refused_login_counts_for_the_address_that_a_trusted_proxy_names(world: World):
    edge = world.app.state.edge
    world.app.state.edge = replace(edge, options=replace(edge.options, trusted_proxies=("127.0.0.1", "10.0.0.1")))
    for _ in range(BY_ADDRESS.attempts - 1):
        world.ports.logins.begin("dev", "nobody", "192.0.2.7", world.clock.now)
        world.clock.now += timedelta(milliseconds=1)
        world.ports.logins._spent.pop(("both", "dev", "nobody", "192.0.2.7"))

    async def status(forwarded: str) -> int:
        body = {"username": "ada", "password": "wrong", "grant_type": "password"}
        headers = {"X-Forwarded-For": forwarded}
        return (await world.call("POST", "/v3/oauth2/tokens", body, user=None, headers=headers)).status_code

    assert await status("198.51.100.1, 192.0.2.7, 10.0.0.1") == 400
    assert await status("198.51.100.1, 192.0.2.7, 10.0.0.1") == 429
    assert await status("192.0.2.7, 198.51.100.1") == 400


async def test_a_refresh_token_is_good_once_and_its_theft_ends_the_family(world: World):
    first = (await logged_in(world, username="ada", password=PASSWORD, grant_type="password")).json()["result"]
    old = first["refresh_token"]["refresh_token"]
    second = (await logged_in(world, grant_type="refresh_token", refresh_token=old)).json()["result"]
    assert second["access_token"]["access_token"] != first["access_token"]["access_token"]
    stolen = await logged_in(world, grant_type="refresh_token", refresh_token=old)
    assert stolen.status_code == 401
    newer = second["refresh_token"]["refresh_token"]
    assert (await logged_in(world, grant_type="refresh_token", refresh_token=newer)).status_code == 401


async def test_a_grant_that_is_not_whole_says_what_is_missing(world: World):
    response = await logged_in(world, grant_type="password", username="ada")
    assert response.status_code == 400
    assert "password" in response.json()["message"]
    assert (await logged_in(world, grant_type="implicit")).status_code == 400


async def test_the_tenant_has_the_address_that_the_client_typed(world: World):
    for host in ("localhost:8080", "127.0.0.1:9", "[::1]:80", "berth.example.org"):
        (tenant,) = await world.get("/v3/tenants", user=None, headers={"Host": host})
        assert tenant["base_url"] == f"http://{host}"
        assert tenant["public_key"].startswith("-----BEGIN PUBLIC KEY-----")
        assert (await world.get("/v3/sites", user=None, headers={"Host": host}))[0]["site_id"] == tenant["site_id"]


async def test_a_host_that_is_no_host_is_refused(world: World):
    assert (await world.call("GET", "/v3/tenants", user=None, headers={"Host": "a b<script>"})).status_code == 400


async def test_repeated_and_trailing_slashes_mean_the_same(world: World):
    assert await world.get("/v3///tenants//", user=None) == await world.get("/v3/tenants", user=None)


async def test_an_admin_makes_users_and_is_told_a_made_up_password_once(world: World):
    body = {"username": "cy", "email": "cy@example.org", "name": "Cy Young"}
    assert (await world.call("POST", "/v3/oauth2/profiles", body)).status_code == 403
    headers = {"Idempotency-Key": "u1"}
    made = await world.post("/v3/oauth2/profiles", body, user="admin", headers=headers)
    assert (made["given_name"], made["last_name"], made["admin"]) == ("Cy", "Young", False)
    again = await world.post("/v3/oauth2/profiles", body, user="admin", headers=headers)
    assert "password" not in again
    assert (await logged_in(world, username="cy", password=made["password"], grant_type="password")).status_code == 201
    shown = await world.get("/v3/oauth2/profiles/cy")
    assert "password" not in str(shown)
    assert [user["username"] for user in await world.get("/v3/oauth2/profiles")] == ["ada", "admin", "bob", "cy"]


async def test_a_new_password_ends_the_old_logins(world: World):
    login = (await logged_in(world, username="bob", password=PASSWORD, grant_type="password")).json()["result"]
    assert (await world.call("POST", "/v3/oauth2/profiles/bob/password", {"password": "x" * 12})).status_code == 403
    await world.post("/v3/oauth2/profiles/bob/password", {"password": "another horse"}, user="bob")
    refreshed = await logged_in(
        world, grant_type="refresh_token", refresh_token=login["refresh_token"]["refresh_token"]
    )
    assert refreshed.status_code == 401
    assert (await logged_in(world, username="bob", password="another horse", grant_type="password")).status_code == 201


async def test_a_deleted_user_cannot_log_in(world: World):
    await world.change("DELETE", "/v3/oauth2/profiles/bob", user="admin")
    assert (await logged_in(world, username="bob", password=PASSWORD, grant_type="password")).status_code == 400
    assert (await world.call("DELETE", "/v3/oauth2/profiles/admin", user="admin")).status_code == 400


async def test_a_deleted_user_s_token_soon_opens_nothing(world: World):
    token = {"X-Tapis-Token": world.token("bob")}
    await world.get("/v3/oauth2/userinfo", user=None, headers=token)
    await world.change("DELETE", "/v3/oauth2/profiles/bob", user="admin")
    world.clock.now += BELIEVED
    refused = await world.call("GET", "/v3/oauth2/userinfo", user=None, headers=token)
    assert refused.status_code == 401
    assert "was deleted" in refused.json()["message"]


async def test_a_token_of_a_deleted_user_opens_nothing_to_whoever_has_the_name_since(world: World):
    old = {"X-Tapis-Token": world.token("bob")}
    await world.get("/v3/oauth2/userinfo", user=None, headers=old)
    await world.change("DELETE", "/v3/oauth2/profiles/bob", user="admin")
    world.clock.now += timedelta(seconds=1)
    body = {"username": "bob", "password": PASSWORD, "email": "another@example.org"}
    await world.post("/v3/oauth2/profiles", body, user="admin")
    login = (await logged_in(world, username="bob", password=PASSWORD, grant_type="password")).json()["result"]
    new = {"X-Tapis-Token": login["access_token"]["access_token"]}
    assert (await world.get("/v3/oauth2/userinfo", user=None, headers=new))["email"] == "another@example.org"
    world.clock.now += BELIEVED
    assert (await world.call("GET", "/v3/oauth2/userinfo", user=None, headers=old)).status_code == 401


async def test_a_locked_user_s_token_opens_nothing(world: World):
    async with world.ports.transaction() as db:
        await UserStore(db).delete("dev", "bob")
        await UserStore(db).add(replace(world.users["bob"], enabled=False))
    assert (await world.call("GET", "/v3/systems", user="bob")).status_code == 401


async def test_a_burst_of_requests_looks_for_its_user_once(world: World):
    looks = 0

    def counted():
        nonlocal looks
        looks += 1
        return world.database.reading()

    presence = Presence(replace(world.ports, reads=counted))
    for _ in range(100):
        await presence.demand(Principal(tenant="dev", username="ada", account=world.users["ada"].account))
    assert looks == 1


async def test_keys_and_metadata_are_public(world: World):
    keys = (await world.call("GET", "/v3/oauth2/jwks", user=None)).json()["keys"]
    assert {key["alg"] for key in keys} == {"RS256"}
    metadata = await world.get("/v3/oauth2/.well-known/oauth-authorization-server", user=None)
    assert metadata["token_endpoint"] == "http://berth.test/v3/oauth2/tokens"


async def test_every_service_says_that_it_is_ready(world: World):
    for path in ("systems/healthcheck", "apps/readycheck", "jobs/healthcheck", "jobs/ready", "oauth2/hello"):
        assert (await world.get(f"/v3/{path}", user=None))["databaseAccess"] is True
