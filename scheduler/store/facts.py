"""Everything that placement is told of a tenant's systems, gathered from the stores in few queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from placement.problem import ANYONE, Ask, Committed, Problem, SystemView
from scheduler.model.errors import NotFound
from scheduler.model.jobs import Job
from scheduler.model.pages import WHOLE_LIST
from scheduler.model.systems import BackendKind, System
from scheduler.model.users import Permission
from scheduler.store.grants import GrantStore
from scheduler.store.jobs import JobStore
from scheduler.store.learning import RunStore, SnapshotStore
from scheduler.store.systems import CredentialStore, SystemStore
from scheduler.store.users import UserStore

HISTORY = 2000
"""Ended runs that a plan looks back on."""


class PlacementFacts:
    """What the store knows that matters for where jobs go; one transaction, one moment."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def problem(self, tenant: str, asks: Sequence[Ask], now: datetime) -> Problem:
        """The question of where these jobs go."""
        return Problem(
            now=now,
            asks=tuple(asks),
            systems=await self.systems(tenant, {ask.owner for ask in asks}),
            history=tuple(await RunStore(self._db).recent(tenant, HISTORY)),
        )

    async def systems(self, tenant: str, owners: Collection[str]) -> tuple[SystemView, ...]:
        """Every system of the tenant as these owners' jobs may use it."""
        systems = await SystemStore(self._db).list(tenant, WHOLE_LIST)
        snapshots = await SnapshotStore(self._db).latest_all(tenant)
        granted = await GrantStore(self._db, "system").holders(tenant, Permission.EXECUTE)
        admins = frozenset([owner for owner in owners if await self._is_admin(tenant, owner)])
        credentials = {user: await CredentialStore(self._db).holders(tenant, user) for user in _users(systems, owners)}
        active: dict[str, dict[tuple[str | None, str], int]] = defaultdict(dict)
        for (system_id, queue, owner), count in (await JobStore(self._db).active_counts(tenant)).items():
            active[system_id][queue, owner] = count
        committed = await JobStore(self._db).committed(tenant, {name: s.taken_at for name, s in snapshots.items()})
        return tuple(
            SystemView(
                system=system,
                snapshot=snapshots.get(system.id),
                may_execute=_may_execute(system, granted.get(system.id, frozenset()) | admins),
                has_credential=_has_credential(system, owners, credentials),
                active=active[system.id],
                committed=tuple(_committed(job) for job in committed.get(system.id, ())),
            )
            for system in systems
        )

    async def _is_admin(self, tenant: str, owner: str) -> bool:
        try:
            return (await UserStore(self._db).get(tenant, owner)).is_admin
        except NotFound:
            return False


def _users(systems: Sequence[System], owners: Collection[str]) -> set[str]:
    """Under whose names credentials may lie."""
    return {system.credential_user(owner) for system in systems for owner in owners}


def _may_execute(system: System, granted: frozenset[str]) -> frozenset[str]:
    return ANYONE if system.is_public else granted | {system.owner}


def _has_credential(
    system: System, owners: Collection[str], credentials: Mapping[str, frozenset[str]]
) -> frozenset[str]:
    if system.backend is BackendKind.LOCAL:
        return ANYONE
    return frozenset(owner for owner in owners if system.id in credentials[system.credential_user(owner)])


def _committed(job: Job) -> Committed:
    return Committed(
        queue=job.place.queue if job.place else None,
        resources=job.spec.resources,
        placed_at=job.updated_at,
        submitted_at=job.remote_submitted_at,
        tasks=len(job.spec.array.indices) if job.spec.array else 1,
    )
