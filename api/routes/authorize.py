"""The page on which people log in to an OAuth client. The client sends them here, and they go back with a code."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response

from api import pages
from api.context import Address, BaseUrl, TheEdge, TheTenant
from api.strict import StrictRoute
from scheduler.model.errors import LoginRefused, SpecInvalid, TooManyLogins
from scheduler.services import client_logins
from scheduler.services.client_logins import Asked, AskedWrongly

router = APIRouter(prefix="/v3/oauth2", tags=["authenticator"], route_class=StrictRoute, include_in_schema=False)

ASKED = ("client_id", "redirect_uri", "response_type", "state", "code_challenge", "code_challenge_method")
"""What the page keeps of what a client asks; whatever else it says is not looked at, as RFC 6749 wants it."""
MOST_CHARS = 2048


@router.get("/authorize", operation_id="authorize")
async def authorize(request: Request, edge: TheEdge, tenant: TheTenant) -> Response:
    """The page, in words that name the client, its owner and where it is called back."""
    try:
        query = _kept(request.query_params)
        return _page(await client_logins.asked(edge.ports, tenant.id, query), query).shown()
    except AskedWrongly as wrong:
        return pages.sent(wrong.location)
    except SpecInvalid as wrong:
        return pages.message("No login", str(wrong), 400)


@router.post("/authorize", operation_id="authorize_log_in")
async def authorize_log_in(
    request: Request, edge: TheEdge, tenant: TheTenant, base_url: BaseUrl, address: Address
) -> Response:
    """Take user name and password, and send the browser to the client; or show the page again."""
    try:
        form = await pages.form(request)
        query = _kept(form)
        asked = await client_logins.asked(edge.ports, tenant.id, query)
    except AskedWrongly as wrong:
        return pages.sent(wrong.location)
    except SpecInvalid as wrong:
        return pages.message("No login", str(wrong), 400)
    if form.get("refuse"):
        return pages.sent(asked.answer(error="access_denied", error_description="the user refused"))
    login = (form.get("username", ""), form.get("password", ""), address)
    try:
        return pages.sent(await client_logins.log_in(edge.ports, edge.tokens, asked, login, base_url))
    except (LoginRefused, TooManyLogins) as refused:
        return _page(asked, query).again(refused)


def _kept(said: Mapping[str, str]) -> dict[str, str]:
    kept = {name: said[name] for name in ASKED if name in said}
    for name, value in kept.items():
        if len(value) > MOST_CHARS or not value.isprintable():
            wrong = f"is longer than {MOST_CHARS} characters, or holds unprintable ones"
            raise SpecInvalid.of(name, wrong, "begin at the client's own page")
    return kept


def _page(asked: Asked, query: Mapping[str, str]) -> pages.LoginPage:
    client = asked.client
    name = client.display_name or client.client_id
    text = (
        f"{name} is a program of the user {client.owner}. It will be able to do everything that you can do here, and "
        f"you go on at {urlsplit(client.callback_url).netloc}. Log in only if you came from there."
    )
    return pages.LoginPage(f"Log in to {name}", query, text, may_refuse=True)
