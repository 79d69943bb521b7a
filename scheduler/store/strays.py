"""Strays as they were seen, what the store knows of markers, and where pods have been."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.helper_jobs import LIVE_HELPERS
from scheduler.model.ids import LoginKey, Marker, RemoteId, run_of
from scheduler.model.pods import InstanceState, PodInstance
from scheduler.model.runs import JobType
from scheduler.model.states import LIVE_ATTEMPTS
from scheduler.model.strays import RULES, PodPlace, Standing, Stray
from scheduler.store import schema
from scheduler.store.statements import changed, insert_new, put_row

strays, pod_places = schema.strays, schema.pod_places
attempts, instances, helpers = schema.attempts, schema.pod_instances, schema.helper_jobs

ASKED_TOGETHER = 500
"""Markers in one query: databases bound how many values a statement may hold."""


class StrayStore:
    """What two looks at a login agreed on. A row of one look alone is only a suspicion."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def standings(self, markers: Collection[Marker]) -> Mapping[Marker, Standing]:
        """What the rows of now say of these markers."""
        found: dict[Marker, Standing] = {}
        asked = sorted(markers)
        for start in range(0, len(asked), ASKED_TOGETHER):
            found |= await self._standings(asked[start : start + ASKED_TOGETHER])
        return found

    async def _standings(self, markers: Sequence[Marker]) -> Mapping[Marker, Standing]:
        uuids = {marker: run_of(marker) for marker in markers}
        ours: set[str] = set()
        for column in (schema.jobs.c.uuid, schema.pods.c.uuid, pod_places.c.pod_uuid):
            ours |= set((await self._db.execute(select(column).where(column.in_(uuids.values())))).scalars())
        found = {marker: Standing.FORGOTTEN if uuid in ours else Standing.UNKNOWN for marker, uuid in uuids.items()}
        for table, live in (
            (attempts, LIVE_ATTEMPTS),
            (instances, frozenset(InstanceState) - {InstanceState.ENDED}),
            (helpers, LIVE_HELPERS),
        ):
            rows = await self._db.execute(select(table.c.marker, table.c.state).where(table.c.marker.in_(markers)))
            found |= {row.marker: Standing.OWNED if row.state in live else Standing.ENDED for row in rows}
        return found

    async def note(
        self,
        login: LoginKey,
        job_type: JobType,
        seen: Mapping[Marker, RemoteId],
        at: datetime,
        apart: timedelta,
    ) -> Sequence[Stray]:
        """Keep what of a look nobody waits for, and forget what was not seen again; those of now by marker.

        apart: how long after the first look a second one must be that confirms it.
        """
        standings = await self.standings(seen)
        stray = {marker: standing for marker, standing in standings.items() if RULES[standing].is_stray}
        here = self._here(login, job_type)
        before = {one.marker: one for one in await self._all(here)}
        for marker in before.keys() - stray.keys():
            await self._db.execute(delete(strays).where(here, strays.c.marker == marker))
        now = []
        for marker, standing in sorted(stray.items()):
            one = before.get(marker)
            if one is None or one.standing is not standing or one.remote_id != seen[marker]:
                one = Stray(
                    tenant=login.tenant,
                    system_id=login.system_id,
                    owner=login.owner,
                    job_type=job_type,
                    marker=marker,
                    remote_id=seen[marker],
                    standing=standing,
                    first_seen_at=at,
                    last_seen_at=at,
                )
            agreed = one.confirmed_at or (at if at - one.first_seen_at >= apart else None)
            now.append(replace(one, last_seen_at=at, confirmed_at=agreed))
            await put_row(self._db, strays, {column.name: getattr(now[-1], column.name) for column in strays.columns})
        return now

    async def of_system(self, tenant: str, system_id: str) -> Sequence[Stray]:
        """Those of a system that two looks agreed on, the oldest first."""
        here = and_(strays.c.tenant == tenant, strays.c.system_id == system_id, strays.c.confirmed_at.is_not(None))
        return sorted(await self._all(here), key=lambda one: (one.first_seen_at, one.marker))

    async def _all(self, which: ColumnElement[bool]) -> Sequence[Stray]:
        return [Stray(**row) for row in (await self._db.execute(select(strays).where(which))).mappings()]

    @staticmethod
    def _here(login: LoginKey, job_type: JobType) -> ColumnElement[bool]:
        return and_(
            strays.c.tenant == login.tenant,
            strays.c.system_id == login.system_id,
            strays.c.owner == login.owner,
            strays.c.job_type == job_type,
        )


class PodPlaceStore:
    """Where pods have been: written with each instance, and kept for a while when a pod is gone."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def visit(self, instance: PodInstance) -> None:
        """An instance of the pod is about to be handed over there."""
        row = {
            "pod_uuid": instance.pod_uuid,
            "tenant": instance.tenant,
            "system_id": instance.system_id,
            "owner": instance.owner,
            "directory": instance.run.exec_dir.rpartition("/")[0],
            "since_at": instance.intended_at,
        }
        await insert_new(self._db, pod_places, row)

    async def leave(self, pod_uuid: str, at: datetime) -> None:
        """The pod is removed."""
        await self._db.execute(update(pod_places).where(pod_places.c.pod_uuid == pod_uuid).values(gone_at=at))

    async def left(self, since: datetime) -> Sequence[LoginKey]:
        """Logins where directories are still there of pods that are gone since then."""
        login = pod_places.c.tenant, pod_places.c.system_id, pod_places.c.owner
        found = await self._db.execute(select(*login).where(_left(since)).distinct().order_by(*login))
        return [LoginKey(*row) for row in found]

    async def left_at(self, login: LoginKey, since: datetime) -> Sequence[PodPlace]:
        """Those directories of one login; of the pods gone longest first."""
        here = and_(
            pod_places.c.tenant == login.tenant,
            pod_places.c.system_id == login.system_id,
            pod_places.c.owner == login.owner,
        )
        query = select(pod_places).where(here, _left(since)).order_by(pod_places.c.gone_at)
        return [PodPlace(**row) for row in (await self._db.execute(query)).mappings()]

    async def cleared(self, place: PodPlace, at: datetime) -> None:
        """Nothing of the pod lies there any more."""
        here = and_(
            pod_places.c.pod_uuid == place.pod_uuid,
            pod_places.c.system_id == place.system_id,
            pod_places.c.owner == place.owner,
        )
        await self._db.execute(update(pod_places).where(here).values(cleared_at=at))

    async def sweep(self, before: datetime) -> int:
        """Forget pods that are gone since before then; how many places they had."""
        return changed(await self._db.execute(delete(pod_places).where(pod_places.c.gone_at < before)))


def _left(since: datetime) -> ColumnElement[bool]:
    return and_(pod_places.c.gone_at >= since, pod_places.c.cleared_at.is_(None))


async def used_since(db: AsyncSession, since: datetime) -> Mapping[tuple[str, str], frozenset[str]]:
    """Users who had something handed over lately, jobs, pods or looks at nodes, by tenant and system."""
    found: dict[tuple[str, str], set[str]] = {}
    for table, at in (
        (attempts, attempts.c.intended_at),
        (pod_places, pod_places.c.since_at),
        (helpers, helpers.c.intended_at),
        (strays, strays.c.last_seen_at),
    ):
        query = select(table.c.tenant, table.c.system_id, table.c.owner).where(at >= since).distinct()
        for row in await db.execute(query):
            found.setdefault((row.tenant, row.system_id), set()).add(row.owner)
    live = select(instances.c.tenant, instances.c.system_id, instances.c.owner)
    for row in await db.execute(live.where(instances.c.state != InstanceState.ENDED).distinct()):
        found.setdefault((row.tenant, row.system_id), set()).add(row.owner)
    return {key: frozenset(owners) for key, owners in found.items()}
