"""The HTTP application: Tapis-v3-compatible routes over the services. ``api.main`` gives it its ports and runs it."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from api import problems
from api.context import Edge, Options
from api.envelope import API_VERSION
from api.middleware import BodyLimit, OneSpelling, TrackingId
from api.routes import (
    apps,
    authorize,
    copies,
    credentials,
    files,
    health,
    images,
    jobs,
    oauth2,
    oauth_clients,
    outputs,
    placement,
    pod_catalog,
    pod_files,
    pod_login,
    pod_proxy,
    pod_volumes,
    pods,
    pushes,
    registries,
    scheduler_profiles,
    systems,
    tenants,
)
from scheduler.ports import Ports
from scheduler.security.tokens import Tokens
from scheduler.services.presence import Presence

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

ROUTES = (
    health,
    jobs,
    outputs,
    placement,
    oauth2,
    oauth_clients,
    authorize,
    tenants,
    credentials,
    scheduler_profiles,
    systems,
    apps,
    files,
    pod_catalog,
    pod_login,
    pod_volumes,
    pod_files,
    pod_proxy,
    pods,
    registries,
    pushes,
    images,
    copies,
)
"""Tried one after another for each request, so those asked most often come early; first only what would else be taken
for the name of a job or system."""

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
    app.state.edge = Edge(ports, tokens, options, Presence(ports))
    problems.install(app)
    for module in ROUTES:
        app.include_router(module.router)
    return app


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
