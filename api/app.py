"""The HTTP application: Tapis-v3-compatible routes over the services. ``api.main`` gives it its ports and runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from api import problems
from api.context import Edge, Options
from api.envelope import API_VERSION
from api.middleware import BodyLimit, OneSpelling, TrackingId
from api.routes import apps, credentials, health, jobs, oauth2, outputs, placement, systems, tenants
from scheduler.ports import Ports
from scheduler.security.tokens import Tokens

BROWSER_HEADERS = (
    "Content-Type",
    "Authorization",
    "Idempotency-Key",
    "Last-Event-ID",
    "X-Tapis-Token",
    "X-Tapis-Tenant",
    "X-Tapis-User",
    "X-Tapis-User-Token-Hash",
    "X-Tapis-Tracking-ID",
)

DESCRIPTION = """Berth places container jobs on the system and queue where the result comes soonest.

It speaks the Tapis v3 API: clients of Tapis work with only the base URL changed. Every JSON answer is an envelope of
`status`, `message`, `version`, `result` and `metadata`; an error has the members of RFC 9457 in `metadata.problem`.
"""


def create_app(ports: Ports, tokens: Tokens, options: Options = Options()) -> FastAPI:  # noqa: B008 - frozen
    """The application. Nothing is opened or started here."""
    app = FastAPI(
        title="Berth",
        version=API_VERSION,
        description=DESCRIPTION,
        openapi_url="/v3/openapi.json",
        docs_url="/v3/docs",
        redoc_url=None,
        redirect_slashes=False,
        middleware=_middleware(options),
        generate_unique_id_function=lambda route: route.operation_id or route.name,
    )
    app.state.edge = Edge(ports, tokens, options)
    problems.install(app)
    for module in (health, tenants, oauth2, credentials, systems, apps, outputs, placement, jobs):
        module.router.route_class = StrictRoute
        app.include_router(module.router)
    return app


class StrictRequest(Request):
    """Reads JSON as the standard says: no NaN, no half surrogates, no NUL, which databases cannot hold."""

    async def json(self) -> Any:
        if not hasattr(self, "_strict_json"):
            body = await self.body()
            content = orjson.loads(body)
            if b"\\u0000" in body and _holds_nul(content):
                raise orjson.JSONDecodeError("a NUL character is in a text; leave it out", body.decode(), 0)
            self._strict_json = content
        return self._strict_json


class StrictRoute(APIRoute):
    """A route whose handler reads strict JSON."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            response: Response = await handler(StrictRequest(request.scope, request.receive))
            return response

        return strict


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _holds_nul(child) for key, child in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))


def _middleware(options: Options) -> list[Middleware]:
    """Outermost first."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(options.cors_origins),
        allow_methods=["*"],
        allow_headers=list(BROWSER_HEADERS),
        expose_headers=["X-Tapis-Tracking-ID"],
    )
    ours = [Middleware(OneSpelling), Middleware(BodyLimit), Middleware(TrackingId)]
    return [cors, *ours] if options.cors_origins else ours
