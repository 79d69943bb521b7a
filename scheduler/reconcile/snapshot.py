"""Looks at systems for placement: often while jobs wait for a place there, seldom while none do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from placement.problem import Ask, Problem
from scheduler.model.errors import NothingLearnt
from scheduler.model.ids import LoginKey
from scheduler.model.pages import WHOLE_LIST, Filter, Op, Page
from scheduler.model.runs import JobType
from scheduler.model.snapshots import StartProbe
from scheduler.model.states import JobState
from scheduler.model.systems import BackendKind, System
from scheduler.ports import Ports
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.sides import Target
from scheduler.reconcile.sightings import news
from scheduler.store.jobs import JobStore
from scheduler.store.learning import SightingStore, SnapshotStore
from scheduler.store.systems import CredentialStore, SystemStore
from scheduler.store.tenants import TenantStore

log = structlog.get_logger()

Prober = Callable[[Problem], Mapping[str, tuple[StartProbe, ...]]]

REFRESH_WAIT_S = 3.0
"""How long a placement may wait for fresh looks; a system that is slower is judged by its last one."""

IDLE_FACTOR = 10
"""How many times longer a system goes unseen while no job waits for a place."""

MOST_ASKS = 200
"""Waiting jobs from which the questions to the sites are made."""

WAITING = Page(limit=MOST_ASKS, filters=(Filter("state", Op.EQ, (JobState.PENDING,)),))


class Snapshots:
    """The loop of looks. One look at a time per login."""

    def __init__(self, ports: Ports, prober: Prober, *, interval_s: float) -> None:
        self._ports, self._prober, self._interval_s = ports, prober, interval_s
        self._looked_at: dict[tuple[str, str], datetime] = {}
        self.crew = Crew(16)

    async def tick(self) -> None:
        """Look at every system that is due."""
        async with self._ports.reading() as db:
            tenants = [tenant.id for tenant in await TenantStore(db).tenants()]
        for tenant in tenants:
            await self._look_around(tenant)

    async def refresh(self, tenant: str) -> None:
        """Look now at what is due, and wait a little for it: placement is about to choose between systems."""
        await self._look_around(tenant)
        await self.crew.settle(REFRESH_WAIT_S)

    async def _look_around(self, tenant: str) -> None:
        now = self._ports.clock()
        async with self._ports.reading() as db:
            listed = await SystemStore(db).list(tenant, WHOLE_LIST)
            systems = [s for s in listed if s.can_exec and s.enabled and self._is_due(s, now, busy=True)]
            if not systems:
                return
            waiting = await JobStore(db).list(tenant, None, WAITING)
            owners = {job.owner for job in waiting}
            targets = {s.id: await target_for(CredentialStore(db), s, owners) for s in systems}
        asks = [Ask.of(job) for job in waiting]
        probes: Mapping[str, Sequence[StartProbe]] = {}
        if asks:
            probes = self._prober(await self._ports.problem(tenant, asks))
        for system in systems:
            target = targets[system.id]
            if target is None or target in self.crew or self.crew.free <= 0:
                continue
            if self._is_due(system, now, busy=bool(waiting)):
                self._looked_at[system.tenant, system.id] = now
                self.crew.start(target, self._look(system, target, probes.get(system.id, ())), system=system.id)

    def _is_due(self, system: System, now: datetime, *, busy: bool) -> bool:
        looked_at = self._looked_at.get((system.tenant, system.id))
        interval = timedelta(seconds=self._interval_s * (1 if busy else IDLE_FACTOR))
        return looked_at is None or now - looked_at >= interval

    async def _look(self, system: System, target: Target, probes: Sequence[StartProbe]) -> None:
        try:
            backend = await self._ports.connections.backend(target.login, target.job_type)
            seen = await backend.snapshot(probes if backend.capabilities.start_estimates else ())
        except NothingLearnt as error:
            log.warning("no look at the system", system=system.id, why=str(error))
            return
        look = replace(seen, seen_by=target.login.owner)
        where = system.tenant, system.id
        async with self._ports.transaction() as db:
            before = await SnapshotStore(db).latest(*where, target.login.owner)
            await SightingStore(db).put(*where, news(before, look))
            await SnapshotStore(db).put(*where, target.login.owner, look)
        if self._ports.knowledge is not None:
            self._ports.knowledge.look(*where, look)
        self._ports.wake()  # jobs may wait for this look


async def target_for(credentials: CredentialStore, system: System, owners: Iterable[str]) -> Target | None:
    """As whom to look: someone whose job waits, else the system's owner; None when nobody can log in."""
    job_type = JobType.BATCH if system.can_run_batch else JobType.FORK
    for user in (*sorted(owners), system.owner):
        login = system.login_of(user)
        if system.backend is BackendKind.LOCAL or await _has_credential(credentials, login):
            return Target(login, job_type)
    return None


async def _has_credential(credentials: CredentialStore, login: LoginKey) -> bool:
    return login.system_id in await credentials.holders(login.tenant, login.owner)
