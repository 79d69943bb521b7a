"""Systems: define them, say who may use them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backends.k8s.site import site_of
from backends.local.own_places import overlapped
from images.policy import policy_of
from scheduler.model.errors import Forbidden, SpecInvalid
from scheduler.model.pages import WHOLE_LIST, Page, Scope
from scheduler.model.probes import ProbeAsk, ProbeReport
from scheduler.model.systems import BackendKind, Credential, System
from scheduler.model.users import Permission, Principal
from scheduler.ports import Ports
from scheduler.security.authorize import Action, demand, may
from scheduler.services.idempotency import Names, Repeatable, earlier, once
from scheduler.services.scheduler_profiles import taken_by_system
from scheduler.store.requests import AuditStore
from scheduler.store.systems import CredentialStore, SystemStore


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of a list, and how many there are in all where that was asked."""

    items: Sequence[Any]
    total: int | None = None


async def create(
    ports: Ports,
    caller: Principal,
    system: System,
    credential: Credential | None,
    *,
    check_credential: bool,
    repeatable: Repeatable | None,
) -> str:
    """Define a system, with the credential of its static account where one is given; its id.

    SpecInvalid where its notes say what cannot be meant.
    """
    known = await earlier(ports, caller, repeatable)
    if known is not None:
        return str(known["id"])
    _demand_own(caller, system)
    _check(ports, system)
    now = ports.clock()
    system = replace(system, created_at=now, updated_at=now)
    if credential is not None and check_credential:
        verified = await ports.connections.verify(system, credential)
        system, credential = replace(system, host_key=verified.host_key), replace(credential, verified_at=now)

    async def add(db: Any) -> Names:
        await SystemStore(db).add(await taken_by_system(db, system))
        if credential is not None:
            await CredentialStore(db).put(credential)
        await AuditStore(db).add(caller.tenant, caller.username, "system.create", system.id, {}, now)
        return {"id": system.id}

    return str((await once(ports, caller, repeatable, add))["id"])


async def get(ports: Ports, caller: Principal, system_id: str, action: Action = Action.READ) -> System:
    """A system that the caller may see; deleted ones only their owner and admins."""
    async with ports.reading() as db:
        return await readable(db, caller, system_id, action)


async def readable(
    db: Any, caller: Principal, system_id: str, action: Action = Action.READ, *, deleted: bool = False
) -> System:
    """The same inside a transaction. NotFound when it is not for the caller to know, Forbidden for the action only."""
    store = SystemStore(db)
    system = await store.get(caller.tenant, system_id, deleted=deleted)
    grants = frozenset[Permission]()
    if system.owner != caller.username and not caller.is_admin:
        grants = await store.grants(caller.tenant, system_id, caller.username)
    demand(caller, action, system, "system", system_id, grants)
    return system


async def executable(db: Any, caller: Principal) -> Sequence[System]:
    """Every system where the caller may run jobs, by id."""
    store, found = SystemStore(db), []
    scope = Scope() if caller.is_admin else Scope(visible_to=caller.username)
    for system in await store.list(caller.tenant, WHOLE_LIST, scope):
        own = system.is_public or may(caller, Action.EXECUTE, system)
        grants = frozenset[Permission]() if own else await store.grants(caller.tenant, system.id, caller.username)
        if may(caller, Action.EXECUTE, system, grants):
            found.append(system)
    return found


async def has_credential(ports: Ports, caller: Principal, system: System) -> bool:
    """Whether a login for the caller is known to Berth."""
    async with ports.reading() as db:
        holder = system.credential_user(caller.username)
        return system.id in await CredentialStore(db).holders(caller.tenant, holder)


async def list_systems(ports: Ports, caller: Principal, page: Page, scope: Scope, *, total: bool) -> Listed:
    """The systems in a scope."""
    async with ports.reading() as db:
        store = SystemStore(db)
        items = await store.list(caller.tenant, page, scope)
        return Listed(items, await store.count(caller.tenant, page, scope) if total else None)


def scope_of(caller: Principal, list_type: str, *, deleted: bool) -> Scope:
    """Whose things a ``listType`` means: OWNED, SHARED_PUBLIC, or all that the caller may see (admins: all)."""
    match list_type:
        case "OWNED":
            return Scope(owner=caller.username, deleted=deleted)
        case "SHARED_PUBLIC":
            return Scope(public=True, deleted=deleted and caller.is_admin)
        case _ if caller.is_admin:
            return Scope(deleted=deleted)
        case _:
            return Scope(visible_to=caller.username)


async def change(
    ports: Ports,
    caller: Principal,
    system_id: str,
    action: Action,
    what: str,
    changed: Callable[[System], System],
    *,
    deleted: bool = False,
) -> System:
    """Replace a system by what ``changed`` makes of it, and forget connections opened to the old one.

    SpecInvalid where a change makes its notes say what cannot be meant.
    """
    now = ports.clock()
    async with ports.transaction() as db:
        system = await readable(db, caller, system_id, action, deleted=deleted)
        newer = replace(changed(system), updated_at=now, version=system.version)
        _demand_own(caller, newer, system)
        if newer.notes != system.notes or newer.effective_user_id != system.effective_user_id:
            _check(ports, newer)
        if (newer.host, newer.port) != (system.host, system.port):
            newer = replace(newer, host_key=None)
        newer = await SystemStore(db).replace(await taken_by_system(db, newer, system))
        await AuditStore(db).add(caller.tenant, caller.username, f"system.{what}", system_id, {}, now)
    await ports.connections.forget(newer.login_of(caller.username))
    return newer


async def permissions(ports: Ports, caller: Principal, system_id: str, user: str) -> frozenset[Permission]:
    """What a user may do with a system; the owner may do everything."""
    async with ports.reading() as db:
        system = await readable(db, caller, system_id)
        if user not in (caller.username, system.owner):
            demand(caller, Action.OWN, system, "system", system_id, frozenset({Permission.READ}))
        if user == system.owner:
            return frozenset(Permission)
        return await SystemStore(db).grants(caller.tenant, system_id, user)


async def grant(
    ports: Ports, caller: Principal, system_id: str, user: str, names: Collection[Permission], *, revoke: bool = False
) -> None:
    """Give permissions on a system to a user, or take them away. For its owner and admins."""
    async with ports.transaction() as db:
        await readable(db, caller, system_id, Action.OWN)
        store = SystemStore(db)
        await (store.revoke if revoke else store.grant)(caller.tenant, system_id, user, names)
        what, detail = "system.revoke" if revoke else "system.grant", {"user": user, "permissions": sorted(names)}
        await AuditStore(db).add(caller.tenant, caller.username, what, system_id, detail, ports.clock())


async def probe(
    ports: Ports, caller: Principal, ask: ProbeAsk, *, stored_credential_of: str | None = None
) -> ProbeReport:
    """Look at a host, as the user of the credential. For admins and owners of systems, since the server connects.

    stored_credential_of: a system whose stored credential of the caller is used in place of the one in ``ask``.
    """
    async with ports.reading() as db:
        if not caller.is_admin and not await SystemStore(db).count(caller.tenant, scope=Scope(owner=caller.username)):
            raise Forbidden("only admins and owners of a system may probe hosts; ask an admin")
        if stored_credential_of is not None:
            system = await readable(db, caller, stored_credential_of, Action.EXECUTE)
            holder = system.credential_user(caller.username)
            credential = await CredentialStore(db).get(caller.tenant, system.id, holder)
            same_host = (ask.host, ask.port) == (system.host, system.port)
            if not same_host and not caller.is_admin:
                raise Forbidden(f"the credential for '{system.id}' may only be sent to {system.host}:{system.port}")
            ask = replace(ask, credential=credential, host_key=system.host_key if same_host else None)
    return await ports.connections.probe(ask)


def _check(ports: Ports, system: System) -> None:
    """SpecInvalid where the notes say what cannot be meant, or this machine's files would be given away."""
    policy_of(system)
    if system.backend is BackendKind.K8S:
        site_of(system)
    if system.backend is BackendKind.LOCAL and overlapped(system.root_dir, ports.own_places) is not None:
        raise SpecInvalid.of(
            "rootDir",
            f"{system.root_dir} holds files of Berth's own, or lies among them",
            "name a directory apart from Berth's home, its database and its volumes of pods",
        )


def _demand_own(caller: Principal, system: System, before: System | None = None) -> None:
    """What only admins may do: systems of others, and jobs on the machine that Berth itself runs on."""
    if caller.is_admin:
        return
    if before is None and system.owner != caller.username:
        raise Forbidden(f"only an admin may make a system for another owner ('{system.owner}')")
    if system.backend is BackendKind.LOCAL and (before is None or before.backend is not BackendKind.LOCAL):
        raise Forbidden("only an admin may make a system of the machine that Berth runs on (notes.berth.backend)")
