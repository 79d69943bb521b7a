"""Logins for registries of images: whose they are, and tried for real before they are kept."""

from __future__ import annotations

from dataclasses import replace

from images.credentials import Login
from images.reference import parse_registry
from scheduler.model.errors import SpecInvalid
from scheduler.model.pages import Page
from scheduler.model.registries import RegistryLogin
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.services.systems import Listed
from scheduler.store.registries import RegistryLoginStore
from scheduler.store.requests import AuditStore


async def put(
    ports: Ports, caller: Principal, registry: str, username: str, secret: str, *, check: bool
) -> RegistryLogin:
    """Keep the caller's login for a registry, replacing the earlier one. CredentialRefused when it is not taken there.

    check: the registry is asked; where it lets everyone in, nothing is learnt and ``verified_at`` stays empty.
    """
    host = parse_registry(registry)
    now = ports.clock()
    login = RegistryLogin(
        tenant=caller.tenant, user=caller.username, registry=host, username=username, secret=secret, created_at=now
    )
    if check:
        if ports.images is None or ports.images.try_login is None:
            raise SpecInvalid.of("registry", "cannot be asked: this server reads no images", "ask the operator")
        if await ports.images.try_login(host, Login(username, secret)):
            login = replace(login, verified_at=now)
    async with ports.transaction() as db:
        await RegistryLoginStore(db).put(login)
        detail = {"username": username}
        await AuditStore(db).add(caller.tenant, caller.username, "registry.login", host, detail, now)
    return login


async def get(ports: Ports, caller: Principal, registry: str) -> RegistryLogin:
    """The caller's login for a registry; showing its secret is not for the caller of this."""
    host = parse_registry(registry)
    async with ports.reading() as db:
        return await RegistryLoginStore(db).get(caller.tenant, caller.username, host)


async def list_logins(ports: Ports, caller: Principal, page: Page, *, total: bool) -> Listed:
    """The caller's logins, by registry or in the page's order."""
    async with ports.reading() as db:
        store, mine = RegistryLoginStore(db), (caller.tenant, caller.username, page)
        return Listed(await store.list(*mine), await store.count(*mine) if total else None)


async def remove(ports: Ports, caller: Principal, registry: str) -> None:
    """Forget the caller's login for a registry."""
    host = parse_registry(registry)
    async with ports.transaction() as db:
        await RegistryLoginStore(db).remove(caller.tenant, caller.username, host)
        await AuditStore(db).add(caller.tenant, caller.username, "registry.logout", host, {}, ports.clock())
