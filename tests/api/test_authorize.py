"""Logging in to OAuth clients on Berth's page: codes that hold once, for the client that began, and nobody else."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from datetime import timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from scheduler.security.throttle import BY_BOTH
from scheduler.security.tokens import CODE_TTL_S
from scheduler.services.client_logins import called_back
from tests.api.test_oauth_clients import CLIENTS, PORTAL, TOKENS, basic
from tests.api.world import PASSWORD, World

AUTHORIZE = "/v3/oauth2/authorize"
BACK = PORTAL["callback_url"]
VERIFIER = "v" * 43
PKCE = {
    "code_challenge": urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).decode().rstrip("="),
    "code_challenge_method": "S256",
}
ASKED = {"client_id": "portal", "redirect_uri": BACK, "response_type": "code", "state": "s/1"}
KEY = basic("portal", PORTAL["client_key"])


@pytest.fixture
async def portal(world: World) -> World:
    """A world where bob has a portal with which others log in."""
    await world.post(CLIENTS, PORTAL | {"display_name": "The <b>portal</b>"}, user="bob")
    return world


async def shown(world: World, **query: str) -> httpx.Response:
    return await world.http.get(AUTHORIZE, params=query)


async def sent(world: World, fields: dict[str, str], **more: str) -> httpx.Response:
    """The answer to the page's form."""
    login = {"username": "ada", "password": PASSWORD}
    return await world.http.post(AUTHORIZE, data={**fields, **login, **more})


def told(answer: httpx.Response, back: str = BACK) -> dict[str, str]:
    """What the browser tells the client to which it is sent."""
    assert answer.status_code == 303, answer.text
    location = answer.headers["location"]
    assert location.startswith(back + "?")
    return dict(parse_qsl(location[len(back) + 1 :], strict_parsing=True))


async def code_of(world: World, **more: str) -> str:
    return told(await sent(world, ASKED | more))["code"]


async def traded(world: World, code: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK} | more
    return await world.call("POST", TOKENS, grant, user=None, headers=headers or {})


# -- the page ----------------------------------------------------------------------------------------------------


async def test_the_page_says_whose_program_asks_and_keeps_what_it_asked(portal: World) -> None:
    page = await shown(portal, **ASKED, use_iframe_redirect="true")
    assert page.status_code == 200
    assert "The &lt;b&gt;portal&lt;/b&gt;" in page.text
    assert "bob" in page.text
    assert "portal.example.org" in page.text
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    assert fields == ASKED
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"client_id": "nobody"}, "client_id"),
        ({"client_id": ""}, "client_id"),
        ({"redirect_uri": "https://evil.example.org/"}, "redirect_uri"),
        ({"redirect_uri": f"{BACK}/more"}, "redirect_uri"),
        ({"redirect_uri": ""}, "redirect_uri"),
        ({"state": "x" * 3000}, "state"),
    ],
)
async def test_nobody_is_sent_where_no_client_is_known_to_be(portal: World, wrong: dict[str, str], field: str) -> None:
    for answer in (await shown(portal, **ASKED | wrong), await sent(portal, ASKED | wrong)):
        assert (answer.status_code, "location" in answer.headers) == (400, False)
        assert field in answer.text
        assert "text/html" in answer.headers["content-type"]


@pytest.mark.parametrize(("name", "value"), [("state", "a\r\nLocation: b"), ("client_id", "a\0b")])
async def test_control_characters_go_nowhere(portal: World, name: str, value: str) -> None:
    assert (await shown(portal, **ASKED | {name: value})).status_code == 400
    answer = await sent(portal, ASKED | {name: value})
    assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert name in answer.text


async def test_a_client_without_an_address_gets_nobody(world: World) -> None:
    await world.post(CLIENTS, PORTAL | {"callback_url": ""})
    for redirect in ({}, {"redirect_uri": ""}):
        asked = {name: ASKED[name] for name in ("client_id", "response_type")} | redirect
        assert (await shown(world, **asked)).status_code == 400


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"response_type": "id_token"}, "unsupported_response_type"),
        ({"response_type": ""}, "unsupported_response_type"),
        ({"code_challenge": "short", "code_challenge_method": "S256"}, "invalid_request"),
        ({"code_challenge": PKCE["code_challenge"]}, "invalid_request"),
        ({**PKCE, "code_challenge_method": "plain"}, "invalid_request"),
    ],
)
async def test_what_a_client_asks_wrongly_it_is_told(portal: World, wrong: dict[str, str], error: str) -> None:
    for answer in (await shown(portal, **ASKED | wrong), await sent(portal, ASKED | wrong)):
        said = told(answer)
        assert (said["error"], said["state"]) == (error, "s/1")
        assert said["error_description"]
        assert "code" not in said


async def test_who_refuses_is_sent_back_without_a_login(portal: World) -> None:
    said = told(await sent(portal, ASKED, refuse="yes", password=""))
    assert (said["error"], said["state"]) == ("access_denied", "s/1")
    assert not said.keys() & {"code", "access_token"}


async def test_a_wrong_password_shows_the_page_again_and_too_many_close_it(portal: World) -> None:
    answer = await sent(portal, ASKED, password="wrong")
    assert answer.status_code == 400
    assert "Invalid username/password" in answer.text
    assert 'value="s/1"' in answer.text
    for _ in range(BY_BOTH.attempts):
        answer = await sent(portal, ASKED, password="wrong")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


async def test_a_body_that_is_no_form_is_a_clear_400(portal: World) -> None:
    answer = await portal.http.post(AUTHORIZE, content=b"\xff\xfe" * 10)
    assert answer.status_code == 400
    assert "form" in answer.text


# -- codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("challenge", [{}, PKCE], ids=["plain", "PKCE"])
async def test_a_client_trades_a_code_for_tokens_of_who_logged_in(portal: World, challenge: dict[str, str]) -> None:
    verifier = {"code_verifier": VERIFIER} if challenge else {}
    pair = (await traded(portal, await code_of(portal, **challenge), KEY, **verifier)).json()["result"]
    bearer = {"X-Tapis-Token": pair["access_token"]["access_token"]}
    assert (await portal.http.get("/v3/oauth2/userinfo", headers=bearer)).json()["result"]["username"] == "ada"
    again = {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]["refresh_token"]}
    assert (await portal.call("POST", TOKENS, again, user=None)).status_code == 401, "only the client may"
    assert (await portal.call("POST", TOKENS, again, user=None, headers=KEY)).status_code == 201


async def test_a_client_without_a_key_proves_that_it_began_and_gets_no_refresh_token(portal: World) -> None:
    code = await code_of(portal, **PKCE)
    for wrong in ({}, {"code_verifier": "w" * 43}):
        assert (await traded(portal, code, client_id="portal", **wrong)).status_code == 401
    answer = await traded(portal, code, client_id="portal", code_verifier=VERIFIER)
    assert answer.status_code == 201
    assert answer.json()["result"].keys() == {"access_token"}


async def test_a_code_that_comes_twice_ends_what_it_gave(portal: World) -> None:
    code = await code_of(portal)
    pair = (await traded(portal, code, KEY)).json()["result"]
    assert (await traded(portal, code, KEY)).status_code == 401
    again = {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]["refresh_token"]}
    assert (await portal.call("POST", TOKENS, again, user=None, headers=KEY)).status_code == 401


async def test_codes_hold_for_their_client_their_address_and_two_minutes(portal: World) -> None:
    await portal.post(CLIENTS, PORTAL | {"client_id": "other"}, user="bob")
    code = await code_of(portal)
    other = basic("other", PORTAL["client_key"])
    assert (await traded(portal, code, other)).status_code == 401
    assert (await traded(portal, code, KEY, redirect_uri=f"{BACK}/x")).status_code == 401
    assert (await traded(portal, code, KEY, code_verifier=VERIFIER)).status_code == 401, "it began without one"
    assert (await traded(portal, code)).status_code == 401, "nobody proved anything"
    assert (await traded(portal, code, client_id="portal")).status_code == 401
    assert (await traded(portal, code, basic("portal", "wrong"))).status_code == 401
    later = await code_of(portal)
    assert (await traded(portal, code, KEY)).status_code == 201, "no wrong try spent it"
    portal.clock.now += timedelta(seconds=CODE_TTL_S + 1)
    assert (await traded(portal, later, KEY)).status_code == 401


async def test_a_code_is_no_other_token_and_no_other_token_is_a_code(portal: World) -> None:
    code = await code_of(portal)
    assert (await portal.http.get("/v3/oauth2/userinfo", headers={"X-Tapis-Token": code})).status_code == 401
    again = {"grant_type": "refresh_token", "refresh_token": code}
    assert (await portal.call("POST", TOKENS, again, user=None, headers=KEY)).status_code == 401
    access = (await traded(portal, code, KEY)).json()["result"]["access_token"]["access_token"]
    for word in (access, "no code", "a.b.c"):
        assert (await traded(portal, word, KEY)).status_code == 401


@pytest.mark.parametrize("gone", ["client", "user", "password"])
async def test_a_code_ends_with_its_client_and_its_user(portal: World, gone: str) -> None:
    code = await code_of(portal, **PKCE)
    if gone == "client":
        await portal.change("DELETE", f"{CLIENTS}/portal", user="bob")
        await portal.post(CLIENTS, PORTAL, user="bob")  # the same name again is another client
    elif gone == "user":
        await portal.change("DELETE", "/v3/oauth2/profiles/ada", user="admin")
    else:
        await portal.post("/v3/oauth2/profiles/ada/password", {"password": "another horse"}, user="admin")
    assert (await traded(portal, code, client_id="portal", code_verifier=VERIFIER)).status_code == 401


@pytest.mark.parametrize("missing", ["code", "redirect_uri"])
async def test_what_is_missing_is_named(portal: World, missing: str) -> None:
    grant = {"grant_type": "authorization_code", "code": "x", "redirect_uri": BACK, missing: None}
    refused = await portal.call("POST", TOKENS, grant, user=None, headers=KEY)
    assert refused.status_code == 400
    assert missing in refused.json()["message"]


# -- without a code ----------------------------------------------------------------------------------------------


async def test_an_application_in_the_browser_is_told_its_token_in_tapis_shape(portal: World) -> None:
    back = "https://ui.example.org/#/oauth2"
    await portal.post(CLIENTS, PORTAL | {"client_id": "ui", "callback_url": back}, user="bob")
    asked = ASKED | {"client_id": "ui", "redirect_uri": back, "response_type": "token"}
    assert (await shown(portal, **asked)).status_code == 200
    said = told(await sent(portal, asked), back)
    assert (said["state"], said["token_type"], said["expires_in"]) == ("s/1", "Bearer", "14400")
    bearer = {"X-Tapis-Token": said["access_token"]}
    assert (await portal.http.get("/v3/oauth2/userinfo", headers=bearer)).json()["result"]["username"] == "ada"


@pytest.mark.parametrize(
    ("callback", "location"),
    [
        ("https://h/cb", "https://h/cb?code=x%26y"),
        ("https://h/cb?a=b", "https://h/cb?a=b&code=x%26y"),
        ("https://h/?a=b#/in", "https://h/?a=b#/in?code=x%26y"),
        ("https://h/#/in?a=b", "https://h/#/in?a=b&code=x%26y"),
        ("https://h/#", "https://h/#?code=x%26y"),
    ],
)
def test_what_a_client_is_told_comes_last(callback: str, location: str) -> None:
    assert called_back(callback, code="x&y", state="") == location
    assert urlsplit(location).netloc == "h"
