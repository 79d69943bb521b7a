"""The composition root: settings in, a running Berth out. Every ``berth`` command that starts a server begins here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import uvicorn
import uvloop

from api import logs
from api.app import create_app
from api.context import Options, none_known
from backends import open_files
from gateway.gateway import CERTIFICATES_S, ROUTES_S, Gateway
from gateway.gateway import Options as GatewayOptions
from gateway.login import LoginGuard
from migrations import run as migrations
from scheduler import wiring
from scheduler.collector import spare_the_collector
from scheduler.lock import only_process
from scheduler.model.errors import BerthError
from scheduler.ports import Ports
from scheduler.reconcile.loop import Bell, run_every
from scheduler.reconcile.reconciler import Reconciler
from scheduler.security.tokens import Tokens
from scheduler.services.first_start import Founding, found, signing_keys
from scheduler.settings import Settings, load
from scheduler.store.jobs import JobStore

GRACE_S = 5
"""How long answers under way (followed logs) may go on after a request to stop."""

BACKLOG = 2048


def up(**given: Any) -> None:
    """API and reconcilers in one process."""
    _main(given, serve_api=True, reconcile_jobs=True)


def api(**given: Any) -> None:
    """The API alone."""
    _main(given, serve_api=True, reconcile_jobs=False)


def reconcile(**given: Any) -> None:
    """The reconcilers alone."""
    _main(given, serve_api=False, reconcile_jobs=True)


def upgrade(**given: Any) -> None:
    """Bring the database to the form that this release needs."""
    with _told():
        settings = _prepared(given)
        with _alone(settings):
            copy = migrations.upgrade(settings.effective_database_url)
        _say(f"the database is at revision {migrations.head()}" + (f"; a copy from before is {copy}" if copy else ""))


def rotate_key(**given: Any) -> None:
    """Seal every secret in the store with a new key."""
    with _told():
        settings = _prepared(given)
        with _alone(settings):
            _migrate(settings)
            resealed = asyncio.run(wiring.rotate_key(settings))
        _say(f"{resealed} secrets are sealed with a new key in {settings.home}; back it up apart from the database")


def _main(given: dict[str, Any], *, serve_api: bool, reconcile_jobs: bool) -> None:
    with _told():
        settings = _prepared(given)
        with _alone(settings):
            _migrate(settings)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve(settings, serve_api=serve_api, reconcile_jobs=reconcile_jobs))


async def serve(settings: Settings, *, serve_api: bool = True, reconcile_jobs: bool = True) -> None:
    """Run until SIGTERM or SIGINT. Being killed instead loses nothing: everything is in the store."""
    open_files.raise_limit()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    bell = Bell()
    async with AsyncExitStack() as stack:
        database = wiring.database(settings, wiring.secret_box(settings))
        stack.push_async_callback(database.aclose)
        ports = wiring.ports(database, settings, bell.ring, _process_id(settings))
        stack.push_async_callback(ports.connections.aclose)
        if ports.knowledge is not None:
            stack.push_async_callback(ports.knowledge.aclose)
        if ports.images is not None:
            stack.push_async_callback(ports.images.aclose)
        await _found(ports, settings)
        async with asyncio.TaskGroup() as group:
            if reconcile_jobs:
                await _free_leases(ports)
                group.create_task(Reconciler(ports, settings, bell).run(stop))
            if serve_api:
                tokens = await _tokens(ports, settings)
                gateway = None
                if settings.gateway_port:
                    gateway = await _serve_pods(ports, settings, tokens, group, stop)
                await _serve_api(ports, settings, tokens, gateway, stop)
            elif reconcile_jobs:
                _say("berth: reconciling")
            await stop.wait()
        await _free_leases(ports)


async def _tokens(ports: Ports, settings: Settings) -> Tokens:
    keys = await signing_keys(ports)
    return Tokens(keys, access_ttl_s=settings.access_token_s, refresh_ttl_s=settings.refresh_token_s)


async def _serve_api(
    ports: Ports, settings: Settings, tokens: Tokens, gateway: Gateway | None, stop: asyncio.Event
) -> None:
    """Answer requests until ``stop`` is set."""
    options = Options(
        public_url=str(settings.public_url) if settings.public_url else None,
        trusted_proxies=settings.trusted_proxies,
        cors_origins=settings.cors_origins,
        pods_domain=settings.pods_domain,
        pods_port=settings.gateway_port or 443,
        default_pod_template=settings.default_pod_template,
        name_trouble=gateway.name_trouble if gateway else none_known,
    )
    config = uvicorn.Config(
        create_app(ports, tokens, options),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    with _listening(settings) as listener:
        server = _Server(config)
        spare_the_collector()
        stopping = asyncio.create_task(_stop_server(server, stop))
        try:
            await server.serve(sockets=[listener])
        finally:
            stopping.cancel()
            stop.set()


async def _serve_pods(
    ports: Ports, settings: Settings, tokens: Tokens, group: asyncio.TaskGroup, stop: asyncio.Event
) -> Gateway:
    """Begin to stand in front of pods, until ``stop`` is set."""
    options = GatewayOptions(
        home=settings.home,
        host=settings.gateway_host or settings.host,
        port=settings.gateway_port,
        pods_domain=settings.pods_domain,
        certificate=settings.gateway_certificate,
        key=settings.gateway_key,
        proxy=settings.gateway_proxy,
        retries=settings.gateway_retries,
    )
    gateway = Gateway(ports, options, LoginGuard(ports, tokens, settings.base_url, settings.site))
    await gateway.choose_proxy()
    listener = gateway.listener()
    await gateway.look_at_certificates()
    group.create_task(run_every(CERTIFICATES_S, asyncio.Event(), gateway.keep_certificates, stop))
    group.create_task(run_every(ROUTES_S, asyncio.Event(), gateway.look_at_pods, stop))
    group.create_task(gateway.serve(listener, stop))
    host, port = listener.getsockname()[:2]
    carrier = "HAProxy" if gateway.haproxy else "the embedded proxy"
    _say(f"berth: pods at https://<pod>.{settings.pods_domain}:{port} (listening on {host}, carried by {carrier})")
    return gateway


class _Server(uvicorn.Server):
    """Leaves signals to ``serve``, which stops the reconcilers too, and says when it listens."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if sockets:
            host, port = sockets[0].getsockname()[:2]
            _say(f"berth: listening on http://{f'[{host}]' if ':' in host else host}:{port}")


async def _stop_server(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotListen(f"BERTH_HOST, BERTH_PORT: {settings.host}:{settings.port}: {error.strerror}") from None
    with listener:
        yield listener


class CannotListen(BerthError):
    """The address is taken, or not ours."""


def _prepared(given: dict[str, Any]) -> Settings:
    settings = load(**given)
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    logs.configure(settings.log_level, settings.log_format)
    return settings


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """On SQLite, hold the home directory."""
    with ExitStack() as stack:
        if settings.is_sqlite:
            stack.enter_context(only_process(settings.home))
        yield


def _migrate(settings: Settings) -> None:
    """SQLite is brought up to date here, after a backup; PostgreSQL only on an operator's word."""
    url = settings.effective_database_url
    if settings.is_sqlite:
        migrations.upgrade(url)
    elif migrations.current(url) != migrations.head():
        raise NeedsUpgrade("the database is not in the form that this release needs; run: berth db upgrade")


class NeedsUpgrade(BerthError):
    """The database is of another release."""


async def _found(ports: Ports, settings: Settings) -> None:
    given = settings.admin_password.get_secret_value() if settings.admin_password else None
    founding = Founding(settings.site, settings.tenant, settings.admin_user, given)
    password = await found(ports, founding)
    if password is not None:
        _say(f"berth: first start; log in as '{settings.admin_user}' with the password (shown once): {password}")


async def _free_leases(ports: Ports) -> None:
    """Nobody else has our name: what it holds was held by a process that is gone, or by us, and we are going."""
    async with ports.transaction() as db:
        await JobStore(db).release_all(ports.process_id)


def _process_id(settings: Settings) -> str:
    """On SQLite always the same, for the next process is the heir; on PostgreSQL one of its own."""
    return "one" if settings.is_sqlite else f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What the operator must mend is said in one line, without a traceback."""
    try:
        yield
    except* BerthError as errors:
        raise SystemExit(f"berth: {_first(errors)}") from None


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
