"""What a route is handed: the ports, who is calling, which tenant is meant, and whether the request may come again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from scheduler.model.errors import Forbidden, SpecInvalid, Unauthenticated
from scheduler.model.tenants import Tenant
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.security.tokens import Tokens
from scheduler.services import auth
from scheduler.services.idempotency import Repeatable
from scheduler.services.presence import Presence

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")


def none_known(_: str) -> str:
    """Of a process without a gateway."""
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the edge itself is told by the settings.

    public_url: how clients reach Berth; None takes what each client typed. trusted_proxies: addresses whose
    ``X-Forwarded-Proto``, ``-Host`` and ``-For`` count. cors_origins: origins of pages that may call from browsers.
    log_poll_s: how often a followed log is looked at. default_pod_template: of pods that name neither template nor
    image; empty: they are refused. pods_domain: of pods of a tenant that answers under any name. pods_port: of the
    gateway in front of them. name_trouble: why clients refuse the names below a domain; empty: they do not.
    """

    public_url: str | None = None
    trusted_proxies: Sequence[str] = ()
    cors_origins: Sequence[str] = ()
    log_poll_s: float = 1.0
    default_pod_template: str = ""
    pods_domain: str = "pods.localhost"
    pods_port: int = 443
    name_trouble: Callable[[str], str] = none_known


@dataclass(frozen=True, slots=True)
class Edge:
    """What ``create_app`` was given, kept in ``app.state.edge``."""

    ports: Ports
    tokens: Tokens
    options: Options
    presence: Presence


async def _edge(request: Request) -> Edge:
    edge: Edge = request.app.state.edge
    return edge


TheEdge = Annotated[Edge, Depends(_edge)]


async def _ports(request: Request) -> Ports:
    edge: Edge = request.app.state.edge  # not by TheEdge: each dependency more is a cost of every request
    return edge.ports


ThePorts = Annotated[Ports, Depends(_ports)]


async def caller_of(
    request: Request,
    edge: TheEdge,
    x_tapis_token: Annotated[str | None, Header(description="Access token from POST /v3/oauth2/tokens")] = None,
) -> Principal:
    """Who calls, by the token in ``X-Tapis-Token`` or as a bearer. Naming someone else beside it is refused."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    token = x_tapis_token or (bearer.strip() if scheme.lower() == "bearer" else "")
    if not token:
        raise Unauthenticated("a token is needed; send one from POST /v3/oauth2/tokens in the header X-Tapis-Token")
    caller = edge.tokens.verify(token)
    await edge.presence.demand(caller)
    for header, own in (("x-tapis-tenant", caller.tenant), ("x-tapis-user", caller.username)):
        if request.headers.get(header, own) != own:
            raise Forbidden(f"the token speaks for {caller.username}@{caller.tenant}, not for what {header} says")
    return caller


Caller = Annotated[Principal, Depends(caller_of)]


async def _base_url(request: Request, edge: TheEdge) -> str:
    """The address under which the client reached Berth, without a trailing slash."""
    if edge.options.public_url:
        return edge.options.public_url.rstrip("/")
    headers, scheme = request.headers, request.url.scheme
    host = headers.get("host", "")
    if request.client and request.client.host in edge.options.trusted_proxies:
        scheme = headers.get("x-forwarded-proto", scheme)
        host = headers.get("x-forwarded-host", host)
    if _HOST.fullmatch(host) is None or scheme not in ("http", "https"):
        raise SpecInvalid.of("Host", f"'{host[:80]}' is not a host name", "send the name that the client connected to")
    return f"{scheme}://{host}"


BaseUrl = Annotated[str, Depends(_base_url)]


async def _address(request: Request, edge: TheEdge) -> str:
    """Where the request comes from, as far back as proxies tell that are trusted."""
    address = request.client.host if request.client else ""
    forwarded = [part.strip() for part in ",".join(request.headers.getlist("x-forwarded-for")).split(",")]
    while address in edge.options.trusted_proxies and forwarded and forwarded[-1]:
        address = forwarded.pop()
    return address


Address = Annotated[str, Depends(_address)]


async def _tenant(ports: ThePorts, base_url: BaseUrl) -> Tenant:
    """The tenant that answers under the host that the client typed."""
    host = base_url.split("://", 1)[1]
    return await auth.tenant_of_host(ports, re.sub(r":\d+$", "", host))


TheTenant = Annotated[Tenant, Depends(_tenant)]


async def _repeatable(
    request: Request,
    idempotency_key: Annotated[
        str | None, Header(description="A request that comes again under the same key has no second effect")
    ] = None,
) -> Repeatable | None:
    if idempotency_key is None:
        return None
    if _KEY.fullmatch(idempotency_key) is None:
        raise SpecInvalid.of("Idempotency-Key", "must be 1 to 255 visible ASCII characters", "use a UUID")
    digest = hashlib.sha256(request.url.query.encode() + b"\0" + await request.body()).hexdigest()
    return Repeatable(f"{request.method} {request.url.path}", idempotency_key, digest)


MayRepeat = Annotated[Repeatable | None, Depends(_repeatable)]


async def _tracking_id(request: Request) -> str | None:
    return getattr(request.state, "tracking_id", None)


TrackingId = Annotated[str | None, Depends(_tracking_id)]
