"""Who may do what with pods and what stands around them. An admin of the tenant may do everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.model.errors import Forbidden, IllegalMove, NotFound, SpecInvalid
from scheduler.model.pod_catalog import PodKind, PodLevel
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.store.pod_grants import PodGrantStore
from scheduler.store.requests import AuditStore


async def may(db: Any, caller: Principal, kind: PodKind | str, name: str, level: PodLevel) -> bool:
    """Whether the caller holds this level on a thing of the caller's tenant."""
    if caller.is_admin:
        return True
    held = await PodGrantStore(db, PodKind(kind)).level_of(caller.tenant, name, caller.username)
    return held is not None and held >= level


async def demand(db: Any, caller: Principal, kind: PodKind | str, name: str, level: PodLevel) -> None:
    """Forbidden when the caller may see the thing but not do this; NotFound when even that is not for them to know."""
    if await may(db, caller, kind, name, level):
        return
    if level is not PodLevel.READ and await may(db, caller, kind, name, PodLevel.READ):
        raise Forbidden(f"{caller.username} needs {level.name} on {kind} '{name}'; ask one who has ADMIN on it")
    raise NotFound(str(kind), name)


async def visible(db: Any, caller: Principal, kind: PodKind | str) -> frozenset[str] | None:
    """The names of all that the caller may READ; None: everything in the tenant."""
    return None if caller.is_admin else await PodGrantStore(db, PodKind(kind)).names(caller.tenant, caller.username)


async def begin(db: Any, tenant: str, kind: PodKind | str, name: str, creator: str) -> None:
    """A thing was made: what an earlier one of its name granted is void, and its creator gets ADMIN."""
    store = PodGrantStore(db, PodKind(kind))
    await store.remove_all(tenant, name)
    await store.put(tenant, name, creator, PodLevel.ADMIN)


async def end(db: Any, tenant: str, kind: PodKind | str, name: str) -> None:
    """A thing is gone, and so is what was granted on it."""
    await PodGrantStore(db, PodKind(kind)).remove_all(tenant, name)


async def permissions(ports: Ports, caller: Principal, kind: PodKind, name: str) -> Mapping[str, PodLevel]:
    """Everyone's level on a thing, for those who have USER on it."""
    async with ports.reading() as db:
        await demand(db, caller, kind, name, PodLevel.USER)
        return await _there(db, caller, kind, name)


async def grant(
    ports: Ports, caller: Principal, kind: PodKind, name: str, user: str, level: PodLevel
) -> Mapping[str, PodLevel]:
    """Give a user a level, in place of an earlier one; everyone's level then. IllegalMove for the last ADMIN's own."""
    return await _change(ports, caller, kind, name, user, level)


async def revoke(ports: Ports, caller: Principal, kind: PodKind, name: str, user: str) -> Mapping[str, PodLevel]:
    """Take a user's level away; everyone's level then. IllegalMove for the last ADMIN; NotFound when there is none."""
    return await _change(ports, caller, kind, name, user, None)


async def _change(
    ports: Ports, caller: Principal, kind: PodKind, name: str, user: str, level: PodLevel | None
) -> Mapping[str, PodLevel]:
    async with ports.transaction() as db:
        await demand(db, caller, kind, name, PodLevel.ADMIN)
        store = PodGrantStore(db, kind)
        before = await _there(db, caller, kind, name, to_change=True)
        if level is None and user not in before:
            raise NotFound("permission", f"{user} on {kind} {name}")
        after = {**before, user: level} if level else {each: held for each, held in before.items() if each != user}
        if PodLevel.ADMIN not in after.values():
            raise IllegalMove(f"'{user}' is the last with ADMIN on {kind} '{name}'; give ADMIN to someone else first")
        if level is None:
            await store.remove(caller.tenant, name, user)
        else:
            await store.put(caller.tenant, name, user, level)
        detail = {"user": user, "level": level.name if level else None}
        await AuditStore(db).add(caller.tenant, caller.username, f"{kind}.grant", name, detail, ports.clock())
    return dict(sorted(after.items()))


async def _there(
    db: Any, caller: Principal, kind: PodKind, name: str, *, to_change: bool = False
) -> Mapping[str, PodLevel]:
    """Everyone's level; NotFound for a thing that is not there, on which not even an admin can grant."""
    found = await PodGrantStore(db, kind).of(caller.tenant, name, to_change=to_change)
    if not found:
        raise NotFound(kind, name)
    return found


def level_of(text: str) -> PodLevel:
    """A level as the wire writes it."""
    try:
        return PodLevel[text.upper()]
    except KeyError:
        words = ", ".join(level.name for level in PodLevel)
        raise SpecInvalid.of("level", f"'{text[:80]}' is not a level", f"use one of {words}") from None
