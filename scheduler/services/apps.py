"""Apps and their versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from scheduler.model.apps import ANONYMOUS_APP_ID, App
from scheduler.model.errors import Forbidden, IllegalMove, NotFound, SpecInvalid
from scheduler.model.pages import Page, Scope
from scheduler.model.users import Permission, Principal
from scheduler.ports import Ports
from scheduler.security.authorize import Action, demand
from scheduler.services.idempotency import Names, Repeatable, once
from scheduler.services.scheduler_options import scheduler_options
from scheduler.services.systems import Listed
from scheduler.store.apps import AppStore
from scheduler.store.requests import AuditStore


async def create(ports: Ports, caller: Principal, app: App, repeatable: Repeatable | None) -> tuple[str, str]:
    """Define a version of an app; its id and version. An id belongs to the owner of its first version."""
    if app.owner != caller.username and not caller.is_admin:
        raise Forbidden(f"only an admin may make an app for another owner ('{app.owner}')")
    check(app)
    now = ports.clock()
    app = replace(app, created_at=now, updated_at=now)

    async def add(db: Any) -> Names:
        store = AppStore(db)
        earlier = await store.versions(caller.tenant, app.id, deleted=True)
        if earlier:
            grants = await store.grants(caller.tenant, app.id, caller.username)
            demand(caller, Action.MODIFY, earlier[0], "app", app.id, grants)
        inherited = replace(app, owner=earlier[0].owner, is_public=earlier[0].is_public) if earlier else app
        await store.add(inherited)
        await AuditStore(db).add(caller.tenant, caller.username, "app.create", f"{app.id} {app.version}", {}, now)
        return {"id": app.id, "version": app.version}

    names = await once(ports, caller, repeatable, add)
    return str(names["id"]), str(names["version"])


def check(app: App) -> None:
    """What can be said of an app before any job: SpecInvalid for options that no job could use."""
    if app.id == ANONYMOUS_APP_ID:
        raise SpecInvalid.of("id", f"'{ANONYMOUS_APP_ID}' is the app of jobs that name an image", "choose another id")
    scheduler_options(arg for arg in app.attributes.parameters.scheduler_options if arg.arg)


async def get(ports: Ports, caller: Principal, app_id: str, version: str, action: Action = Action.READ) -> App:
    """One version of an app that the caller may use."""
    async with ports.reading() as db:
        return await readable(db, caller, await AppStore(db).get(caller.tenant, app_id, version), action)


async def latest(ports: Ports, caller: Principal, app_id: str, action: Action = Action.READ) -> App:
    """The version made last of those that are enabled."""
    async with ports.reading() as db:
        return await readable(db, caller, await AppStore(db).latest(caller.tenant, app_id), action)


async def readable(db: Any, caller: Principal, app: App, action: Action = Action.READ) -> App:
    """``app``, when the caller may do this with it; NotFound or Forbidden otherwise."""
    grants = frozenset[Permission]()
    if app.owner != caller.username and not caller.is_admin and not app.is_public:
        grants = await AppStore(db).grants(caller.tenant, app.id, caller.username)
    demand(caller, action, app, "app", app.id, grants)
    return app


async def list_apps(ports: Ports, caller: Principal, page: Page, scope: Scope, *, total: bool) -> Listed:
    """The versions of apps in a scope."""
    async with ports.reading() as db:
        store = AppStore(db)
        items = await store.list(caller.tenant, page, scope)
        return Listed(items, await store.count(caller.tenant, page, scope) if total else None)


async def change_version(
    ports: Ports,
    caller: Principal,
    app_id: str,
    version: str,
    what: str,
    changed: Callable[[App], App],
    *,
    locked_too: bool = False,
) -> App:
    """Replace one version by what ``changed`` makes of it; IllegalMove when it is locked."""
    now = ports.clock()
    async with ports.transaction() as db:
        store = AppStore(db)
        app = await readable(db, caller, await store.get(caller.tenant, app_id, version), Action.MODIFY)
        if app.locked and not locked_too:
            raise IllegalMove(f"app '{app_id}' version '{version}' is locked; unlock it first")
        newer = replace(changed(app), updated_at=now, row_version=app.row_version)
        check(newer)
        newer = await store.replace(newer)
        await AuditStore(db).add(caller.tenant, caller.username, f"app.{what}", f"{app_id} {version}", {}, now)
    return newer


async def change_all(
    ports: Ports, caller: Principal, app_id: str, what: str, changed: Callable[[App], App], *, deleted: bool = False
) -> int:
    """Replace every version of an id; how many really changed."""
    now = ports.clock()
    changes = 0
    async with ports.transaction() as db:
        store = AppStore(db)
        versions = await store.versions(caller.tenant, app_id, deleted=deleted)
        if not versions:
            raise NotFound("app", app_id)
        await readable(db, caller, versions[0], Action.OWN if what in ("delete", "undelete") else Action.MODIFY)
        for app in versions:
            newer = changed(app)
            if newer != app:
                await store.replace(replace(newer, updated_at=now))
                changes += 1
        await AuditStore(db).add(caller.tenant, caller.username, f"app.{what}", app_id, {}, now)
    return changes


async def is_enabled(ports: Ports, caller: Principal, app_id: str, version: str | None) -> bool:
    """Whether the app may be run: this version, else any."""
    async with ports.reading() as db:
        versions = await AppStore(db).versions(caller.tenant, app_id)
        asked = [app for app in versions if version in (None, app.version)]
        if not asked:
            raise NotFound("app", app_id if version is None else f"{app_id} {version}")
        await readable(db, caller, asked[0])
    return any(app.enabled and (version is None or app.version_enabled) for app in asked)
