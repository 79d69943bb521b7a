"""The page on which browsers log in to a pod. The pod's gateway sends them here, and they go back with a ticket."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request, Response

from api import pages
from api.context import Address, BaseUrl, TheEdge, TheTenant
from api.strict import StrictRoute
from scheduler.model.errors import Forbidden, LoginRefused, SpecInvalid, TooManyLogins
from scheduler.services import pod_login

router = APIRouter(prefix="/v3/pods", tags=["pods"], route_class=StrictRoute, include_in_schema=False)

Label = Annotated[str, Path(max_length=130)]
RETURN_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]{0,2000}")
STATE = re.compile(r"[0-9a-f]{64}")


@router.get("/{pod_id_net}/auth", operation_id="pod_auth")
async def pod_auth(
    edge: TheEdge,
    tenant: TheTenant,
    pod_id_net: Label,
    after: Annotated[str, Query(alias="next")] = "/",
    state: Annotated[str, Query()] = "",
) -> Response:
    """The page; 404 for what has no login."""
    _demand_sound(after, state)
    await pod_login.guarded_net(edge.ports, tenant.id, pod_id_net)
    return _page(pod_id_net, after, state).shown()


@router.post("/{pod_id_net}/auth", operation_id="pod_auth_log_in")
async def pod_auth_log_in(
    request: Request, edge: TheEdge, tenant: TheTenant, base_url: BaseUrl, address: Address, pod_id_net: Label
) -> Response:
    """Take user name and password, and send the browser on with a code; or show the page again."""
    form = await pages.form(request)
    after, state = form.get("next", "/"), form.get("state", "")
    _demand_sound(after, state)
    login = (form.get("username", ""), form.get("password", ""), address)
    try:
        code = await pod_login.code(edge.ports, edge.tokens, tenant.id, pod_id_net, login, state)
    except (LoginRefused, TooManyLogins, Forbidden) as refused:
        return _page(pod_id_net, after, state).again(refused)
    return _sent(f"{base_url}/v3/pods/{pod_id_net}/auth/callback", code=code, state=state, next=after)


@router.get("/{pod_id_net}/auth/callback", operation_id="pod_auth_callback")
async def pod_auth_callback(
    edge: TheEdge,
    tenant: TheTenant,
    pod_id_net: Label,
    code: Annotated[str, Query(min_length=1, max_length=8192)],
    state: Annotated[str, Query()] = "",
    after: Annotated[str, Query(alias="next")] = "/",
) -> Response:
    """Send a browser that logged in to the pod, with a ticket for the code that it got."""
    _demand_sound(after, state)
    host, ticket = await pod_login.ticket(
        edge.ports, edge.tokens, tenant, pod_id_net, edge.options.pods_domain, code, state
    )
    port = edge.options.pods_port
    return _sent(f"https://{host}{'' if port == 443 else f':{port}'}/.berth/login", ticket=ticket, next=after)


def _demand_sound(after: str, state: str) -> None:
    if RETURN_PATH.fullmatch(after) is None:
        raise SpecInvalid.of("next", "must be a path on the pod", "begin at the pod's own address")
    if STATE.fullmatch(state) is None:
        raise SpecInvalid.of("state", "is not what a gateway gives", "begin at the pod's own address")


def _sent(there: str, **query: str) -> Response:
    return pages.sent(f"{there}?{urlencode(query)}")


def _page(label: str, after: str, state: str) -> pages.LoginPage:
    return pages.LoginPage(f"Log in to {label}", {"next": after, "state": state})
