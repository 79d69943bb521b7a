"""Apps and systems as last read, checked in one statement to be still what the database holds.

Submitting asks for the same few definitions again and again. What is remembered is used only when the versions of its
rows, read now, are the same: no process ever works with what another has changed.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import bindparam, exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.apps import App
from scheduler.model.systems import System
from scheduler.store import schema

MOST_REMEMBERED = 1_000

T = TypeVar("T")

apps, systems, credentials = schema.apps, schema.systems, schema.credentials

NOW = select(
    select(apps.c.row_version)
    .where(
        apps.c.tenant == bindparam("tenant"),
        apps.c.app_id == bindparam("app_id"),
        apps.c.version == bindparam("app_version"),
    )
    .scalar_subquery(),
    select(systems.c.version)
    .where(systems.c.tenant == bindparam("tenant"), systems.c.id == bindparam("system_id"))
    .scalar_subquery(),
    exists().where(
        credentials.c.tenant == bindparam("tenant"),
        credentials.c.system_id == bindparam("system_id"),
        credentials.c.user == bindparam("holder"),
    ),
)
"""Row versions of an app and a system, and whether the holder has a credential there. Built once: it is asked often."""


@dataclass(frozen=True, slots=True)
class Current:
    """An app, the system that its job goes to, and whether the job's owner has a credential there; as they are now."""

    app: App
    system: System
    has_credential: bool


class Definitions:
    """What one process remembers; safe to lose at any time."""

    def __init__(self) -> None:
        self._apps = _Remembered[App]()
        self._systems = _Remembered[System]()

    def remember_app(self, app: App) -> None:
        """As it was just read."""
        self._apps.put((app.tenant, app.id, app.version), app)

    def remember_system(self, system: System) -> None:
        """As it was just read."""
        self._systems.put((system.tenant, system.id), system)

    async def current(
        self, db: AsyncSession, tenant: str, app_id: str, version: str, system_id: str | None, owner: str
    ) -> Current | None:
        """What a job needs, when all of it is remembered and unchanged; None: read it from the stores.

        system_id: as the request names it; None takes the app's.
        """
        app = self._apps.get((tenant, app_id, version))
        named = system_id or (app.attributes.exec_system_id if app else None)
        system = self._systems.get((tenant, named or ""))
        if app is None or system is None:
            return None
        named_so = {
            "tenant": tenant,
            "app_id": app_id,
            "app_version": version,
            "system_id": system.id,
            "holder": system.credential_user(owner),
        }
        app_version, system_version, has_credential = (await db.execute(NOW, named_so)).one()
        if (app_version, system_version) != (app.row_version, system.version):
            return None
        return Current(app, system, bool(has_credential))


class _Remembered(Generic[T]):
    """The things used last, by key."""

    def __init__(self) -> None:
        self._things: OrderedDict[tuple[str, ...], T] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> T | None:
        if key in self._things:
            self._things.move_to_end(key)
        return self._things.get(key)

    def put(self, key: tuple[str, ...], thing: T) -> None:
        self._things[key] = thing
        if len(self._things) > MOST_REMEMBERED:
            self._things.popitem(last=False)
