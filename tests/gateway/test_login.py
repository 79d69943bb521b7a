"""Pods with a login: who gets in, what the pod learns of them, and what nobody can forge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from api.app import create_app
from api.context import Options
from gateway.login import NONCE, SESSION, SESSION_S, LoginGuard
from scheduler.model.ids import new_job_uuid
from scheduler.model.pods import Pod, PodCredentials, PodDefinition
from scheduler.model.tenants import Site, Tenant
from scheduler.model.users import User
from scheduler.ports import Ports
from scheduler.security import passwords
from scheduler.security.secrets import KEY_BYTES, SecretBox
from scheduler.security.tokens import PodPassKind, Tokens, new_signing_key
from scheduler.services.pod_login import CODE_S, TICKET_S
from scheduler.store.database import Database
from scheduler.store.pods import PodStore
from scheduler.store.tenants import TenantStore
from scheduler.store.users import UserStore
from tests.fakes.connections import FakeConnections
from tests.gateway.nets import net
from tests.gateway.world import DOMAIN, World, gateway

BEGIN = datetime.now(UTC)
PASSWORD = "correct horse"
HEADERS = {"X-Who": "<<tapisusername>>@<<tapistenantid>>.<<tapissiteid>>", "Content-Length": "7"}
RULES = {"needs_login": True, "allowed_users": ("ann",), "login_headers": HEADERS}
HTML = {"Accept": "text/html"}


@dataclass
class Door:
    """A gateway whose pods ``web`` and ``other`` have a login, and the API that asks people who they are."""

    world: World
    ports: Ports
    tokens: Tokens
    app: Callable[..., object]
    passed: list[timedelta] = field(default_factory=lambda: [timedelta()])

    def browser(self) -> httpx.AsyncClient:
        """Keeps cookies, and finds pods at the gateway and Berth at the API."""
        api = httpx.ASGITransport(app=self.app)  # type: ignore[arg-type]
        client = self.world.client(headers=HTML)
        client._mounts = {httpx._utils.URLPattern("http://berth.test"): api, **client._mounts}
        return client

    async def begin(self, browser: httpx.AsyncClient, path: str = "/a?b=c", pod_id: str = "web") -> dict[str, str]:
        """Ask for a page of the pod; the fields of the login page to which that leads."""
        sent = await browser.get(self.world.url(path, pod_id))
        assert sent.status_code == 302
        page = await browser.get(sent.headers["location"])
        assert page.status_code == 200
        query = parse_qs(urlsplit(sent.headers["location"]).query)
        return {"next": query["next"][0], "state": query["state"][0], "url": sent.headers["location"].split("?")[0]}

    async def log_in(
        self, browser: httpx.AsyncClient, fields: dict[str, str], user: str = "ann", password: str = PASSWORD
    ) -> httpx.Response:
        """The answer to the filled form: the page again, or the way to the pod to which its code leads."""
        form = {"username": user, "password": password, "next": fields["next"], "state": fields["state"]}
        answer = await browser.post(fields["url"], data=form)
        return await browser.get(answer.headers["location"]) if answer.status_code == 303 else answer


@pytest.fixture
async def door(proxy: str, tmp_path: Path) -> AsyncIterator[Door]:
    async with opened(tmp_path, proxy) as running:
        yield running


@asynccontextmanager
async def opened(tmp_path: Path, proxy: str = "embedded") -> AsyncIterator[Door]:
    passed = [timedelta()]
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'berth.sqlite'}", sealer=SecretBox(b"k" * KEY_BYTES))
    await database.create_tables()
    ports = Ports(database.transaction, FakeConnections({}), clock=lambda: BEGIN + passed[0])
    tokens = Tokens([new_signing_key(BEGIN)], clock=ports.clock)
    password_hash = await passwords.hash(PASSWORD)
    async with database.transaction() as db:
        await TenantStore(db).add_site(Site(id="here"))
        await TenantStore(db).add_tenant(Tenant(id="berth", site_id="here", created_at=BEGIN, updated_at=BEGIN))
        for name in ("ann", "bob"):
            user = User(tenant="berth", username=name, password_hash=password_hash, created_at=BEGIN)
            await UserStore(db).add(user)
        for name in ("web", "other"):
            definition = PodDefinition(image="x", nets=(net(**RULES),))
            owned = {"tenant": "berth", "id": name, "uuid": new_job_uuid(), "owner": "ann", "asked": {}}
            pod = Pod(**owned, definition=definition, created_at=BEGIN, updated_at=BEGIN)
            await PodStore(db).add(pod, PodCredentials(user_password="u", service_password="s"))
    async with gateway(proxy, guard=LoginGuard(ports, tokens, "http://berth.test", "here")) as world:
        await world.echo("web", **RULES)
        app = create_app(ports, tokens, Options(pods_domain=DOMAIN, pods_port=world.port))
        yield Door(world, ports, tokens, app, passed)
    await database.aclose()


def known(name: str) -> User:
    """A user as the store knows them."""
    return User(tenant="berth", username=name, created_at=BEGIN)


def seen(answer: httpx.Response, name: str) -> list[str]:
    return [value for key, value in answer.json()["headers"] if key == name]


async def test_a_browser_logs_in_once_and_the_pod_learns_who_it_is(door: Door):
    async with door.browser() as browser:
        fields = await door.begin(browser)
        there = await door.log_in(browser, fields)
        assert there.status_code == 303
        back = await browser.get(there.headers["location"])
        assert (back.status_code, back.headers["location"]) == (302, "/a?b=c")
        for _ in range(2):
            page = await browser.get(door.world.url("/a?b=c"), headers={"X-Who": "root", "X_Who": "root"})
            assert page.status_code == 200
            assert seen(page, "x-who") == ["ann@berth.here"]
            assert seen(page, "x_who") == []


async def test_the_pod_sees_neither_our_cookies_nor_tokens(door: Door):
    async with door.browser() as browser:
        there = await door.log_in(browser, await door.begin(browser))
        await browser.get(there.headers["location"])
        browser.cookies.set("own", "kept", domain=f"web.{DOMAIN}")
        page = await browser.get(door.world.url())
    assert SESSION not in page.text
    assert seen(page, "cookie") == ["own=kept"]


async def test_a_program_gets_in_with_its_access_token_which_the_pod_does_not_see(door: Door):
    token = door.tokens.access(known("ann")).token
    async with door.world.client() as client:
        answer = await client.get(door.world.url(), headers={"X-Tapis-Token": token})
        assert seen(answer, "x-who") == ["ann@berth.here"]
        assert token not in answer.text
        assert (await client.get(door.world.url())).status_code == 401
        refused = await client.get(door.world.url(), headers={"X-Tapis-Token": token + "x"})
        assert refused.status_code == 401


@pytest.mark.parametrize(
    ("said", "status", "shown"),
    [(" <<tapisusername>>", 200, "ann"), ("a\nb", 500, "makes no headers"), ("a\x00", 500, "makes no headers")],
)
async def test_what_makes_no_header_costs_blanks_or_a_page_and_never_the_answer(
    door: Door, said: str, status: int, shown: str
):
    await door.world.echo("web", **{**RULES, "login_headers": {"X-Who": said}})
    token = door.tokens.access(known("ann")).token
    async with door.world.client() as client:
        for _ in range(2):
            answer = await client.get(door.world.url(), headers={"X-Tapis-Token": token})
            assert answer.status_code == status
            assert seen(answer, "x-who") == [shown] if status == 200 else shown in answer.text


async def test_a_user_whom_the_pod_does_not_list_stays_outside(door: Door):
    async with door.browser() as browser:
        assert (await door.log_in(browser, await door.begin(browser), "bob")).status_code == 403
    token = door.tokens.access(known("bob")).token
    async with door.world.client() as client:
        assert (await client.get(door.world.url(), headers={"X-Tapis-Token": token})).status_code == 403


async def test_a_user_of_another_tenant_stays_outside(door: Door):
    session = door.tokens.pod_pass(PodPassKind.SESSION, User(tenant="lab", username="ann"), f"web.{DOMAIN}", 60)
    async with door.world.client() as client:
        answer = await client.get(door.world.url(), headers={"Cookie": f"{SESSION}={session.token}"})
    assert answer.status_code in (401, 403)
    assert door.world.place.connects == 0


async def test_a_wrong_password_shows_the_page_again_without_saying_which_was_wrong(door: Door):
    async with door.browser() as browser:
        fields = await door.begin(browser)
        wrong = await door.log_in(browser, fields, password="no")
        nobody = await door.log_in(browser, fields, user="nobody")
    assert (wrong.status_code, nobody.status_code) == (400, 400)
    assert wrong.text == nobody.text


async def test_a_ticket_is_good_once_for_a_minute_and_in_the_browser_that_asked(door: Door):
    async with door.browser() as browser, door.browser() as thief:
        there = (await door.log_in(browser, await door.begin(browser))).headers["location"]
        assert (await thief.get(there)).status_code == 403
        late = (await door.log_in(browser, await door.begin(browser))).headers["location"]
        assert (await browser.get(late)).status_code == 302
        assert (await browser.get(late)).status_code == 403
        third = (await door.log_in(browser, await door.begin(thief))).headers["location"]
        door.passed[0] = timedelta(seconds=TICKET_S + 1)
        assert (await thief.get(third)).status_code == 403


async def test_a_session_is_good_for_one_name_and_ends(door: Door):
    await door.world.echo("other", remote_id="r2", **RULES)
    user = known("ann")
    session = door.tokens.pod_pass(PodPassKind.SESSION, user, f"web.{DOMAIN}", SESSION_S).token
    cookie = {"Cookie": f"{SESSION}={session}"}
    async with door.world.client() as client:
        assert (await client.get(door.world.url(), headers=cookie)).status_code == 200
    async with door.world.client() as client:
        assert (await client.get(door.world.url(pod_id="other"), headers=cookie)).status_code == 401
    async with door.world.client() as client:
        door.passed[0] = timedelta(seconds=SESSION_S + 1)
        assert (await client.get(door.world.url(), headers=cookie)).status_code == 401


@pytest.mark.parametrize("kind", list(PodPassKind))
async def test_a_pass_is_no_access_token(door: Door, kind):
    token = door.tokens.pod_pass(kind, known("ann"), f"web.{DOMAIN}", 60).token
    transport = httpx.ASGITransport(app=door.app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://berth.test") as client:
        assert (await client.get("/v3/jobs/list", headers={"X-Tapis-Token": token})).status_code == 401


async def test_the_page_of_another_pod_cannot_act_with_the_cookie(door: Door):
    user = known("ann")
    session = door.tokens.pod_pass(PodPassKind.SESSION, user, f"web.{DOMAIN}", SESSION_S).token
    own, other = door.world.url().rstrip("/"), door.world.url(pod_id="other").rstrip("/")
    async with door.world.client() as client:
        for origin, status in ((own, 200), (other, 403), ("null", 403)):
            headers = {"Cookie": f"{SESSION}={session}", "Origin": origin}
            assert (await client.post(door.world.url(), headers=headers)).status_code == status


@pytest.mark.parametrize("after", ["https://evil.example.org/", "//evil.example.org/", "/\\evil.example.org", "x"])
async def test_nobody_is_sent_elsewhere_after_the_login(door: Door, after):
    async with door.browser() as browser:
        fields = await door.begin(browser)
        assert (await door.log_in(browser, {**fields, "next": after})).status_code == 400
        there = (await door.log_in(browser, fields)).headers["location"]
        back = await browser.get(there.replace("next=%2Fa%3Fb%3Dc", f"next={after}"))
    assert back.headers["location"] == "/"


async def test_what_has_no_login_has_no_page_and_what_is_written_is_shown_as_text(door: Door):
    transport = httpx.ASGITransport(app=door.app)  # type: ignore[arg-type]
    state = "0" * 64
    async with httpx.AsyncClient(transport=transport, base_url="http://berth.test") as client:
        assert (await client.get(f"/v3/pods/none/auth?state={state}")).status_code == 404
        assert (await client.get("/v3/pods/web/auth?state=x")).status_code == 400
        page = await client.get("/v3/pods/web/auth", params={"state": state, "next": '/"><script>'})
    assert "<script>" not in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


async def test_a_code_leads_to_its_own_pod_with_its_own_state_while_it_is_fresh(door: Door):
    await door.world.echo("other", remote_id="r2", **RULES)
    async with door.browser() as browser:
        fields = await door.begin(browser)
        form = {"username": "ann", "password": PASSWORD, "next": fields["next"], "state": fields["state"]}
        sent = await browser.post(fields["url"], data=form)
        there = sent.headers["location"]
        assert there.startswith("http://berth.test/v3/pods/web/auth/callback?")
        assert (await browser.get(there)).headers["location"].startswith(f"https://web.{DOMAIN}")
        assert (await browser.get(there.replace("/web/", "/other/"))).status_code in (401, 404)
        assert (await browser.get(there.replace(fields["state"], "0" * 64))).status_code == 401
        assert (await browser.get(there.replace("code=", "code=x"))).status_code == 401
        assert (await browser.get(there.replace("code=", "no="))).status_code == 400
        assert (await browser.get(there.replace("next=%2F", "next=%2F%2F"))).status_code == 400
        door.passed[0] = timedelta(seconds=CODE_S + 1)
        assert (await browser.get(there)).status_code == 401


async def test_the_cookies_are_for_one_host_over_tls_only(door: Door):
    async with door.browser() as browser:
        sent = await browser.get(door.world.url())
    cookie = sent.headers["set-cookie"]
    assert cookie.startswith(f"{NONCE}=")
    assert all(word in cookie for word in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"))
    assert "Domain" not in cookie


async def test_nobody_is_logged_in_as_another_by_a_link(door: Door):
    """The hash of an empty nonce is known to all; a ticket for it would log in whoever follows a link."""
    async with door.browser() as browser:
        fields = await door.begin(browser)
        of_nothing = sha256(b"").hexdigest()
        link = (await door.log_in(browser, {**fields, "state": of_nothing})).headers["location"]
    for cookie in ({}, {"Cookie": f"{NONCE}="}):
        async with door.world.client() as victim:
            answer = await victim.get(link, headers=cookie)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("planted", ["a=x {0}", 'a="x" {0}', "{0}; {1}"])
async def test_a_cookie_of_another_pod_cannot_be_read_as_ours(door: Door, planted):
    sessions = [
        f"{SESSION}={door.tokens.pod_pass(PodPassKind.SESSION, known('ann'), f'web.{DOMAIN}', 60).token}"
        for _ in range(2)
    ]
    async with door.world.client() as client:
        answer = await client.get(door.world.url(), headers={"Cookie": planted.format(*sessions)})
    assert answer.status_code == 401
