"""What an operator's own proxy in front of pods may ask: a page for an error, and which names lead where."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from api.context import Address, TheEdge, TheTenant, caller_of
from api.envelope import Envelope, answer
from api.strict import StrictRoute
from scheduler.model.errors import Forbidden
from scheduler.security.authorize import demand_admin
from scheduler.services import pod_requests

router = APIRouter(tags=["pods"], route_class=StrictRoute)

GATEWAY = "berth"
"""What Traefik calls Berth's gateway."""

Status = Annotated[int, Path(ge=400, le=599)]

WORDS = {
    404: "no pod answers under this name; look whether it is spelt as the pod's url says",
    502: "the pod does not answer; look at its status and its logs",
    503: "the pod is not there now: it is starting, stopped, or between two places; try again",
    504: "the pod took too long to answer",
}


@router.get("/v3/error-handler/{status}", operation_id="error_handler", response_model=Envelope[dict[str, Any]])
async def error_handler(status: Status) -> Response:
    """What a proxy may show in place of a pod that does not answer. Answers 200: the proxy keeps its own status."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    return answer({"status": status, "title": phrase, "message": WORDS.get(status, phrase)}, phrase)


@router.get("/v3/traefik-config", operation_id="traefik_config")
async def traefik_config(request: Request, edge: TheEdge, tenant: TheTenant, address: Address) -> dict[str, Any]:
    """What Traefik's HTTP provider reads, bare: TLS for each name of a pod is passed through to Berth's gateway, under
    the host name by which Traefik asks. For ``trusted_proxies`` and admins of the tenant.

    Source: https://doc.traefik.io/traefik/providers/http/ and .../routing/routers/#configuring-tcp-routers.
    """
    if address not in edge.options.trusted_proxies:
        caller = await caller_of(request, edge, request.headers.get("x-tapis-token"))
        demand_admin(caller, "see where all pods are")
        if caller.tenant != tenant.id:
            raise Forbidden(f"the token is of tenant {caller.tenant}, and these pods are of {tenant.id}")
    names = await pod_requests.names_outside(edge.ports, tenant, edge.options.pods_domain)
    if not names:  # Traefik takes an empty section for a mistake
        return {}
    routers = {name: {"rule": f"HostSNI(`{name}`)", "service": GATEWAY, "tls": {"passthrough": True}} for name in names}
    server = {"address": f"{request.url.hostname}:{edge.options.pods_port}"}
    return {"tcp": {"routers": routers, "services": {GATEWAY: {"loadBalancer": {"servers": [server]}}}}}
