"""Who may pass to a net with a login: browsers by a cookie for its host name alone, programs by their access token.

A browser without a cookie is sent to Berth's login page with the hash of a number that only its own cookie for this
host holds; it comes back with a ticket that carries the hash, is good for a minute, and once.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from datetime import datetime
from urllib.parse import parse_qs, urlencode, urlsplit

import h11

from gateway import headers as rules
from gateway import pages
from gateway.conversation import Client
from gateway.headers import Header, Seen
from gateway.pages import Page
from gateway.routes import Route
from scheduler.model.errors import Unauthenticated
from scheduler.model.pod_names import label_of
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.security.tokens import PodPassKind, Tokens
from scheduler.services.pod_login import may_enter
from scheduler.services.presence import Presence

SESSION, NONCE = "__Host-berth-pod", "__Host-berth-login"
"""With this prefix browsers take them for one host name only, over TLS only."""
ENTRY = "/.berth/login"
SESSION_S = 8 * 3600
NONCE_S = 600
MOST_TICKETS = 10_000
RETURN_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]{0,2000}")
NEVER_ADDED = rules.HOP_BY_HOP | rules.OURS | {b"host", b"content-length", b"cookie", b"expect"}
HIDDEN = frozenset({b"x-tapis-token"})
SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})


class LoginGuard:
    """A ``Guard``. base_url: of Berth, without a slash at the end; site: for ``<<tapissiteid>>``."""

    def __init__(self, ports: Ports, tokens: Tokens, base_url: str, site: str) -> None:
        self._tokens, self._base_url, self._site = tokens, base_url, site
        self._presence, self._clock = Presence(ports), ports.clock
        self._spent = Spent(ports.clock)

    async def __call__(self, request: h11.Request, route: Route, client: Client) -> Page | Seen:
        target = urlsplit(request.target.decode("ascii", "replace"))
        cookies = _cookies(request)
        if target.path == ENTRY:
            return await self._enter(parse_qs(target.query), cookies, route)
        try:
            principal = await self._who(request, cookies, route)
        except Unauthenticated as unknown:
            return self._ask(request, route, str(unknown))
        if principal.tenant != route.tenant or not may_enter(route.net, principal.username):
            return pages.forbidden(f"The pod does not let {principal.username} in; ask its owner.")
        if not _is_of_this_origin(request, route, client):
            return pages.forbidden("A page of another origin sent this.")
        added = self._added(route, principal)
        return Seen(client.address, client.port, added, frozenset({SESSION, NONCE}), HIDDEN)

    async def _who(self, request: h11.Request, cookies: dict[str, str], route: Route) -> Principal:
        """Who sent a request; Unauthenticated."""
        if token := rules.get(request.headers, b"x-tapis-token").decode("latin-1"):
            principal = self._tokens.verify(token)
        elif session := cookies.get(SESSION):
            principal = self._tokens.read_pod_pass(PodPassKind.SESSION, session, route.host_name).principal
        else:
            raise Unauthenticated("log in to Berth")
        await self._presence.demand(principal)
        return principal

    def _ask(self, request: h11.Request, route: Route, why: str) -> Page:
        """Send a browser to the login page; tell everybody else what is needed."""
        if request.method not in SAFE or b"text/html" not in rules.get(request.headers, b"accept"):
            text = f"{why}; programs send an access token in X-Tapis-Token."
            return Page(401, "A login is needed", text, headers=[(b"www-authenticate", b'Bearer realm="berth"')])
        nonce = secrets.token_urlsafe(32)
        asked = route.net.return_path if route.net.return_path != "/" else request.target.decode("ascii", "replace")
        after = asked if RETURN_PATH.fullmatch(asked) else "/"
        query = urlencode({"next": after, "state": _state(nonce)})
        label = label_of(route.pod_id, route.net.name)
        location = f"{self._base_url}/v3/pods/{label}/auth?{query}"
        return _redirect(location, _set_cookie(NONCE, nonce, NONCE_S))

    async def _enter(self, query: dict[str, list[str]], cookies: dict[str, str], route: Route) -> Page:
        """Take a ticket for a session."""
        after = query.get("next", ["/"])[0]
        try:
            ticket = self._tokens.read_pod_pass(PodPassKind.TICKET, query.get("ticket", [""])[0], route.host_name)
        except Unauthenticated as refused:
            return pages.forbidden(f"{refused}.")
        nonce = cookies.get(NONCE, "")  # without one it would be anybody's: the hash of nothing is no secret
        own = nonce != "" and secrets.compare_digest(ticket.state, _state(nonce))
        if not own or ticket.principal.tenant != route.tenant or not self._spent.spend(ticket.jti, ticket.expires_at):
            return pages.forbidden("This login was begun elsewhere, or was used; begin at the pod's own address.")
        issued = self._tokens.pod_pass(PodPassKind.SESSION, ticket.principal, route.host_name, SESSION_S)
        location = after if RETURN_PATH.fullmatch(after) else "/"
        return _redirect(location, _set_cookie(SESSION, issued.token, SESSION_S), _set_cookie(NONCE, "", 0))

    def _added(self, route: Route, principal: Principal) -> dict[str, str]:
        """The net's own headers, filled."""
        filled = {
            "<<tapisusername>>": principal.username,
            "<<tapistenantid>>": principal.tenant,
            "<<tapissiteid>>": self._site,
        }
        added = {}
        for name, template in route.net.login_headers.items():
            for placeholder, value in filled.items():
                template = template.replace(placeholder, value)
            if name.lower().encode("latin-1", "replace") not in NEVER_ADDED:
                added[name.lower()] = template
        return added


class Spent:
    """Tickets that were used and have not expired: each is good once."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._until: dict[str, datetime] = {}

    def spend(self, jti: str, expires_at: datetime) -> bool:
        """Whether the ticket was good until now."""
        if jti in self._until:
            return False
        if len(self._until) >= MOST_TICKETS:
            now = self._clock()
            self._until = {each: until for each, until in self._until.items() if now < until}
        self._until[jti] = expires_at
        return True


def _is_of_this_origin(request: h11.Request, route: Route, client: Client) -> bool:
    """Whether a page of the pod itself, or of an origin that the net names, may have sent this with its cookie.

    Pods of one domain are one site to browsers, so ``SameSite`` alone keeps no pod's page from another pod.
    """
    origin = rules.get(request.headers, b"origin").decode("latin-1").lower()
    if not origin or (request.method in SAFE and rules.upgrade_of(request.headers) is None):
        return True
    named = {str(each).lower() for each in route.net.cors.get("cors_allow_origins") or ()}
    return urlsplit(origin).hostname == route.host_name or origin in named


def _cookies(request: h11.Request) -> dict[str, str]:
    """Cookies as browsers write them, divided by semicolons alone: another pod of the domain may have set one whose
    value holds a space and the name of ours. Of two of one name, neither."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for pair in b";".join(value for name, value in request.headers if name == b"cookie").decode("latin-1").split(";"):
        name, _, value = pair.strip().partition("=")
        if name in found:
            twice.add(name)
        found[name] = value
    return {name: value for name, value in found.items() if name not in twice}


def _set_cookie(name: str, value: str, age_s: int) -> Header:
    return b"set-cookie", f"{name}={value}; Max-Age={age_s}; Path=/; Secure; HttpOnly; SameSite=Lax".encode()


def _redirect(location: str, *headers: Header) -> Page:
    kept = [(b"location", location.encode("ascii", "replace")), (b"referrer-policy", b"no-referrer"), *headers]
    return Page(302, "Log in", "You are sent on.", headers=kept)


def _state(nonce: str) -> str:
    return hashlib.sha256(nonce.encode()).hexdigest()
