"""What an operator's own proxy in front of pods may ask: a page for an error, and which names lead where."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from api.context import Caller, TheEdge
from api.envelope import Envelope, answer
from api.strict import StrictRoute
from scheduler.model.pod_names import host_name
from scheduler.services import pod_requests

router = APIRouter(tags=["pods"], route_class=StrictRoute)

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


@router.get("/v3/traefik-config", operation_id="traefik_config", response_model=Envelope[dict[str, Any]])
async def traefik_config(edge: TheEdge, caller: Caller) -> Response:
    """The names of pods with a Traefik rule each, and whether something answers there. For admins of the tenant."""
    domain = await pod_requests.domain(edge.ports, caller, edge.options.pods_domain)
    found = await pod_requests.open_nets(edge.ports, caller)
    routers: dict[str, dict[str, Any]] = {"http": {}, "tcp": {}}
    for each in found:
        name = host_name(each.pod_id, each.net.name, domain)
        kind = "http" if each.net.protocol == "http" else "tcp"
        rule = f"Host(`{name}`)" if kind == "http" else f"HostSNI(`{name}`)"
        shown = {"rule": rule, "tls": True, "status": each.status, "answers": each.instance is not None}
        routers[kind][name] = shown
    return answer({kind: {"routers": named} for kind, named in routers.items()}, "routes found")
