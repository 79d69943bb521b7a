"""Apps and systems as last read, checked in one statement to be still what the database holds.

Submitting asks for the same few definitions again and again. What is remembered is used only when the versions of its
rows, read now, are the same: no process ever works with what another has changed. Submissions that arrive together
share that look, and each sees only looks that began after it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from sqlalchemy import bindparam, exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.apps import App
from scheduler.model.systems import System
from scheduler.store import schema
from scheduler.store.together import Together

MOST_REMEMBERED = 1_000

T = TypeVar("T")

apps, systems, credentials = schema.apps, schema.systems, schema.credentials

_NOW = select(
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


class Definition(NamedTuple):
    """What a request names; ``system_id`` None takes the app's."""

    tenant: str
    app_id: str
    app_version: str
    system_id: str | None
    owner: str


@dataclass(frozen=True, slots=True)
class Current:
    """An app, the system that its job goes to, and whether the job's owner has a credential there; as they are now."""

    app: App
    system: System
    has_credential: bool


class _Asked(NamedTuple):
    """The rows that a job depends on, by name; ``holder`` is whose credential it would use."""

    tenant: str
    app_id: str
    app_version: str
    system_id: str
    holder: str


class _Seen(NamedTuple):
    """What the database holds of them; None: no such row."""

    app_version: int | None
    system_version: int | None
    has_credential: bool


class Definitions:
    """What one process remembers; safe to lose at any time. ``reading`` opens the store for a look at the versions."""

    def __init__(self, reading: Callable[[], AbstractAsyncContextManager[AsyncSession]]) -> None:
        self._reading = reading
        self._apps = _Remembered[App]()
        self._systems = _Remembered[System]()
        self._versions = Together(self._look)

    def remember_app(self, app: App) -> None:
        """As it was just read."""
        self._apps.put((app.tenant, app.id, app.version), app)

    def remember_system(self, system: System) -> None:
        """As it was just read."""
        self._systems.put((system.tenant, system.id), system)

    async def current(self, named: Definition) -> Current | None:
        """What a job needs, when all of it is remembered and unchanged; None: read it from the stores."""
        app = self._apps.get((named.tenant, named.app_id, named.app_version))
        system_id = named.system_id or (app.attributes.exec_system_id if app else None)
        system = self._systems.get((named.tenant, system_id or ""))
        if app is None or system is None:
            return None
        rows = _Asked(app.tenant, app.id, app.version, system.id, system.credential_user(named.owner))
        now = await self._versions.ask(rows)
        if (now.app_version, now.system_version) != (app.row_version, system.version):
            return None
        return Current(app, system, now.has_credential)

    async def _look(self, asked: Collection[_Asked]) -> Mapping[_Asked, _Seen]:
        async with self._reading() as db:
            return {each: _Seen(*(await db.execute(_NOW, each._asdict())).one()) for each in asked}


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
