"""OAuth clients: each its owner's, and what a client got by a login only that client can refresh."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import httpx
import pytest

from tests.api.world import PASSWORD, World

CLIENTS, TOKENS = "/v3/oauth2/clients", "/v3/oauth2/tokens"
PORTAL = {"client_id": "portal", "client_key": "k" * 30, "callback_url": "https://portal.example.org/cb"}


def basic(client_id: str, key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{client_id}:{key}".encode()).decode()}


async def asked(world: World, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    grant = {"grant_type": "password", "username": "ada", "password": PASSWORD} | body
    if grant["grant_type"] != "password":
        grant = {name: grant[name] for name in grant if name not in ("username", "password")}
    return await world.call("POST", TOKENS, grant, user=None, headers=headers or {})


def refresh_token(response: httpx.Response) -> str:
    assert response.status_code == 201, response.text
    return str(response.json()["result"]["refresh_token"]["refresh_token"])


# -- keeping them ------------------------------------------------------------------------------------------------


async def test_id_and_key_are_made_up_where_they_are_left_out_and_shown_to_the_owner(world: World) -> None:
    made = await world.post(CLIENTS, {"description": "for tests"})
    assert len(made["client_key"]) >= 40
    assert made["callback_url"] == ""
    assert await world.get(f"{CLIENTS}/{made['client_id']}") == made
    assert await world.get(CLIENTS) == [made]


async def test_a_client_is_its_owners_alone(world: World) -> None:
    await world.post(CLIENTS, PORTAL)
    assert await world.get(CLIENTS, user="bob") == []
    for method, body in (("GET", None), ("PUT", {"display_name": "mine"}), ("DELETE", None)):
        assert (await world.call(method, f"{CLIENTS}/portal", body, user="bob")).status_code == 404
    taken = await world.call("POST", CLIENTS, PORTAL, user="bob")
    assert (taken.status_code, "client_key" in taken.text) == (409, False)


async def test_address_and_name_change_and_nothing_else(world: World) -> None:
    made = await world.post(CLIENTS, PORTAL)
    world.clock.now = world.clock.now.replace(microsecond=0)
    changed = await world.change("PUT", f"{CLIENTS}/portal", {"display_name": "The portal"})
    assert changed == made | {"display_name": "The portal", "last_update_time": changed["last_update_time"]}
    assert (await world.call("PUT", f"{CLIENTS}/portal", {"client_key": "x" * 30})).status_code == 400


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"client_id": "a:b"}, "client_id"),
        ({"client_id": "../x"}, "client_id"),
        ({"client_key": "short"}, "client_key"),
        ({"callback_url": "javascript:alert(1)"}, "callback_url"),
        ({"callback_url": "https://"}, "callback_url"),
        ({"callback_url": "https://h:99999/"}, "callback_url"),
        ({"callback_url": "https://u:p@h/"}, "callback_url"),
        ({"callback_url": "https://h/a b"}, "callback_url"),
        ({"secret": "x"}, "secret"),
    ],
)
async def test_what_no_client_can_be_is_refused_by_the_name_of_its_field(
    world: World, wrong: dict[str, str], field: str
) -> None:
    refused = await world.call("POST", CLIENTS, wrong)
    assert refused.status_code == 400
    assert field in refused.json()["message"]
    assert await world.get(CLIENTS) == []


async def test_an_owner_has_no_more_than_a_hundred(world: World) -> None:
    for number in range(100):
        await world.post(CLIENTS, {"client_id": f"c{number}"})
    assert (await world.call("POST", CLIENTS, {})).status_code == 400
    assert (await world.call("POST", CLIENTS, {}, user="bob")).status_code == 201


# -- logging in with them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["header", "body"])
async def test_what_a_client_got_only_that_client_refreshes(world: World, where: str) -> None:
    await world.post(CLIENTS, PORTAL)
    await world.post(CLIENTS, PORTAL | {"client_id": "other"})
    key = PORTAL["client_key"]
    proof: dict[str, Any] = (
        {"headers": basic("portal", key)} if where == "header" else {"client_id": "portal", "client_key": key}
    )
    token = refresh_token(await asked(world, **proof))
    again = {"grant_type": "refresh_token", "refresh_token": token}
    assert (await asked(world, **again)).status_code == 401
    assert (await asked(world, basic("other", key), **again)).status_code == 401
    newer = refresh_token(await asked(world, **proof, **again))
    assert newer != token, "those who had no right to it did not spend it"


@pytest.mark.parametrize(
    "headers",
    [
        basic("portal", "wrong"),
        basic("nobody", "wrong"),
        {"Authorization": "Basic ?"},
        basic("portal", ""),
        basic("po\0rtal", "x"),
    ],
    ids=["key", "id", "base64", "empty", "control"],
)
async def test_a_client_that_does_not_prove_itself_gets_nothing(world: World, headers: dict[str, str]) -> None:
    await world.post(CLIENTS, PORTAL)
    refused = await asked(world, headers)
    assert refused.status_code == 401
    assert "access_token" not in refused.text


async def test_with_a_client_its_refresh_tokens_end(world: World) -> None:
    await world.post(CLIENTS, PORTAL)
    proof = basic("portal", PORTAL["client_key"])
    token = refresh_token(await asked(world, proof))
    await world.change("DELETE", f"{CLIENTS}/portal")
    await world.post(CLIENTS, PORTAL)  # the same name again is another client
    assert (await asked(world, proof, grant_type="refresh_token", refresh_token=token)).status_code == 401
    assert (await asked(world, proof)).status_code == 201


async def test_clients_go_with_their_owner(world: World) -> None:
    await world.post(CLIENTS, PORTAL, user="bob")
    await world.change("DELETE", "/v3/oauth2/profiles/bob", user="admin")
    assert (await asked(world, basic("portal", PORTAL["client_key"]))).status_code == 401


async def test_a_refresh_token_can_be_revoked_and_that_always_succeeds(world: World) -> None:
    token = refresh_token(await asked(world))
    for word in (token, token, "no token"):
        assert (await world.call("POST", f"{TOKENS}/revoke", {"token": word}, user=None)).status_code == 200
    assert (await asked(world, grant_type="refresh_token", refresh_token=token)).status_code == 401
