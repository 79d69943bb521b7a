"""Everything that placement is told of a tenant's systems, gathered from the stores in few queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, or_, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession

from placement.problem import ANYONE, Ask, Committed, Problem, Stores, SystemView
from scheduler.model.errors import NotFound
from scheduler.model.images import CopyState
from scheduler.model.jobs import FinishedRun, JobSpec
from scheduler.model.pages import WHOLE_LIST
from scheduler.model.snapshots import SystemSnapshot
from scheduler.model.systems import BackendKind, System
from scheduler.model.users import Permission
from scheduler.store import schema
from scheduler.store.codec import load
from scheduler.store.grants import GrantStore
from scheduler.store.jobs import IN_A_QUEUE, JobStore
from scheduler.store.learning import RunStore, SnapshotStore
from scheduler.store.leases import LIVE_COPY
from scheduler.store.systems import CredentialStore, SystemStore
from scheduler.store.trials import with_breakers
from scheduler.store.users import UserStore

HISTORY = 2000
"""Ended runs that a plan looks back on."""

MOST_COMMITTED = 2000
"""Most jobs that count as sent and not yet seen; the newest of them."""

PACES = 20
"""Images that were brought to a system last, whose pace is expected of the next."""

LOOKED_THROUGH = 10 * PACES
"""Most copies in which these are looked for, the newest."""

jobs, attempts, copies = schema.jobs, schema.attempts, schema.image_copies
_spec_text = type_coerce(jobs.c.spec, Text)


class PlacementFacts:
    """What the store knows that matters for where jobs go; one transaction, one moment."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def problem(
        self,
        tenant: str,
        asks: Sequence[Ask],
        now: datetime,
        looks: Mapping[str, SystemSnapshot] = MappingProxyType({}),
        runs: Collection[FinishedRun] | None = None,
    ) -> Problem:
        """The question of where these jobs go. looks: at systems, that were read before; runs: that ended last."""
        runs = tuple(await RunStore(self._db).recent(tenant, HISTORY) if runs is None else runs)
        digests = {ask.image.manifest_digest for ask in asks if ask.image is not None}
        views = await self.systems(tenant, {ask.owner for ask in asks}, looks, digests)
        return Problem(
            now=now,
            asks=tuple(asks),
            systems=await with_breakers(self._db, tenant, views, runs, now),
            history=runs,
        )

    async def systems(
        self,
        tenant: str,
        owners: Collection[str],
        looks: Mapping[str, SystemSnapshot] = MappingProxyType({}),
        digests: Collection[str] = (),
    ) -> tuple[SystemView, ...]:
        """Every system of the tenant as these owners' jobs may use it.

        looks: at them, that were read before. digests: of the images of which is told where they lie.
        """
        systems = await SystemStore(self._db).list(tenant, WHOLE_LIST)
        snapshots = await SnapshotStore(self._db).latest_all(tenant, looks)
        granted = await GrantStore(self._db, "system").holders(tenant, Permission.EXECUTE)
        admins = frozenset([owner for owner in owners if await self._is_admin(tenant, owner)])
        credentials = {user: await CredentialStore(self._db).holders(tenant, user) for user in _users(systems, owners)}
        active: dict[str, dict[tuple[str | None, str], int]] = defaultdict(dict)
        for (system_id, queue, owner), count in (await JobStore(self._db).active_counts(tenant)).items():
            active[system_id][queue, owner] = count
        committed = await self._committed(tenant, {name: s.taken_at for name, s in snapshots.items()})
        keepers = [system.id for system in systems if "images" in system.berth_notes]
        stores = await self._stores(tenant, keepers, digests)
        return tuple(
            SystemView(
                system=system,
                snapshot=snapshots.get(system.id),
                may_execute=_may_execute(system, granted.get(system.id, frozenset()) | admins),
                has_credential=_has_credential(system, owners, credentials),
                active=active[system.id],
                committed=tuple(committed[system.id]),
                stores=stores.get(system.id),
            )
            for system in systems
        )

    async def _stores(self, tenant: str, system_ids: Sequence[str], digests: Collection[str]) -> Mapping[str, Stores]:
        """Which of these images lie on the systems that keep some. Where none is asked for, nothing is read."""
        if not system_ids or not digests:
            return {system_id: Stores() for system_id in system_ids}
        here = select(copies.c.system_id, copies.c.owner, copies.c.manifest_digest)
        here = here.where(copies.c.tenant == tenant, copies.c.state == CopyState.PRESENT)
        present: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for system_id, owner, digest in await self._db.execute(here.where(copies.c.manifest_digest.in_(digests))):
            present[system_id].append((owner, digest))
        return {
            system_id: Stores(
                present=frozenset(present[system_id]), paces_bytes_per_s=await self._paces(tenant, system_id)
            )
            for system_id in system_ids
        }

    async def _paces(self, tenant: str, system_id: str) -> tuple[float, ...]:
        """Of the images that were brought there last, oldest first; those fetched for another system have none."""
        last = select(copies.c.figures).where(copies.c.tenant == tenant, copies.c.system_id == system_id)
        last = last.where(copies.c.state == CopyState.PRESENT, copies.c.present_at.is_not(None))
        last = last.order_by(copies.c.present_at.desc()).limit(LOOKED_THROUGH)
        found = [figures for (figures,) in await self._db.execute(last)]
        paces = [each["fetched_bytes"] / each["took_s"] for each in found if _was_fetched(each)]
        return tuple(reversed(paces[:PACES]))

    async def _committed(self, tenant: str, seen_at: Mapping[str, datetime]) -> Mapping[str, list[Committed]]:
        """Jobs, and copies of jobs, that were sent to a system but cannot show in the look taken at ``seen_at``, by
        system id.

        Only what counts is read, and what jobs say in the same words is decoded once: a plan is made while thousands
        are under way.
        """
        leads = select(jobs.c.system_id, jobs.c.queue, _spec_text, jobs.c.updated_at, jobs.c.remote_submitted_at)
        leads = leads.where(jobs.c.tenant == tenant, jobs.c.state.in_(IN_A_QUEUE), jobs.c.system_id.is_not(None))
        leads = leads.where(_unseen(jobs.c.system_id, jobs.c.remote_submitted_at, seen_at))
        copies = select(
            attempts.c.system_id, attempts.c.queue, _spec_text, attempts.c.intended_at, attempts.c.submitted_at
        )
        copies = copies.join(jobs, jobs.c.id == attempts.c.job_id).where(attempts.c.tenant == tenant, LIVE_COPY)
        copies = copies.where(_unseen(attempts.c.system_id, attempts.c.submitted_at, seen_at))
        specs: dict[str, JobSpec] = {}
        found: dict[str, list[Committed]] = defaultdict(list)
        for query in (leads.order_by(jobs.c.id.desc()), copies.order_by(attempts.c.id.desc())):
            for system_id, queue, text, placed_at, submitted_at in await self._db.execute(query.limit(MOST_COMMITTED)):
                spec = specs[text] = specs.get(text) or load(JobSpec, text)
                tasks = len(spec.array.indices) if spec.array else 1
                found[system_id].append(
                    Committed(
                        queue=queue,
                        resources=spec.resources,
                        placed_at=placed_at,
                        submitted_at=submitted_at,
                        tasks=tasks,
                    )
                )
        return found

    async def _is_admin(self, tenant: str, owner: str) -> bool:
        try:
            return (await UserStore(self._db).get(tenant, owner)).is_admin
        except NotFound:
            return False


def _was_fetched(figures: Mapping[str, float]) -> bool:
    return bool(figures.get("fetched_bytes") and figures.get("took_s"))


def _unseen(
    system_id: ColumnElement[Any], submitted_at: ColumnElement[Any], seen_at: Mapping[str, datetime]
) -> ColumnElement[bool]:
    """That a submission came after the look at its system, or that nobody has looked there."""
    later = [and_(system_id == name, or_(submitted_at.is_(None), submitted_at > at)) for name, at in seen_at.items()]
    return or_(system_id.not_in(list(seen_at)), *later)


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
