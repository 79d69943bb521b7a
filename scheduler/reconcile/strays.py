"""Find what no row waits for: runs at places whose end was lost, and directories of pods that are gone.

Absence is no outcome, and nor is presence seen once: a run counts as a stray when two looks, apart, showed it without a
row that waits for it, each row read after the place was asked. What follows is the table ``RULES``.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from scheduler.model.errors import FileMissing, FileRefused, NotFound, NothingLearnt
from scheduler.model.ids import LoginKey
from scheduler.model.runs import JobType
from scheduler.model.strays import RULES, PodPlace, Stray
from scheduler.model.systems import BackendKind, System
from scheduler.ports import Ports
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.sides import Target
from scheduler.store.strays import PodPlaceStore, StrayStore, used_since
from scheduler.store.systems import SystemStore

log = structlog.get_logger()

LOOK_EVERY = timedelta(minutes=10)
"""Between two looks at a login where nothing is amiss."""

APART = timedelta(seconds=60)
"""Between two looks of which the second confirms the first: what ends just now has gone by then."""

USED_WITHIN = timedelta(days=30)
"""Logins are looked at that were used lately."""

LOOK_LIMIT_S = 60.0
LOGINS_AT_ONCE = 8

CLEARED_FOR = timedelta(days=7)
"""How long a directory of a pod that is gone is tried to be deleted, while its place does not answer."""

CLEAR_AGAIN = timedelta(minutes=1)
"""After a round of clearing at a login that something stood against."""


class Strays:
    """The loop that looks for them. What it keeps in memory is only when which login is due."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._due_at: dict[Target, datetime] = {}
        self._clear_at: dict[LoginKey, datetime] = {}
        """When directories of pods may be tried again, where something stood against it."""
        self.crew = Crew(LOGINS_AT_ONCE)

    async def tick(self) -> None:
        """Look at the logins that are due, and clear away what pods left that are gone."""
        at = self._ports.clock()
        targets = await self._targets(at)
        self._due_at = {target: due_at for target, due_at in self._due_at.items() if target in targets}
        for target in targets:
            due = self._due_at.get(target, at) <= at
            if due and target not in self.crew and self.crew.free > 0:
                self._due_at[target] = at + LOOK_EVERY
                self.crew.start(target, self._look(target), login="/".join(target.login))
        await self._clear(at)

    async def _targets(self, at: datetime) -> Sequence[Target]:
        """The logins that were used lately, each as often as it has a backend."""
        async with self._ports.reading() as db:
            used = await used_since(db, at - USED_WITHIN)
            found: dict[Target, None] = {}
            for (tenant, system_id), users in sorted(used.items()):
                try:
                    system = await SystemStore(db).get(tenant, system_id, deleted=True)
                except NotFound:
                    continue
                for user in sorted(users):
                    found |= {Target(system.login_of(user), each): None for each in _job_types(system)}
        return list(found)

    # -- runs ----------------------------------------------------------------------------------------------------------

    async def _look(self, target: Target) -> None:
        """List what a login has, and compare it with the rows of afterwards."""
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                backend = await self._ports.connections.backend(target.login, target.job_type)
                seen = await backend.unended()
        except (NothingLearnt, NotFound, TimeoutError) as error:
            log.info("no look at what runs", login="/".join(target.login), why=str(error) or "no answer")
            return
        at = self._ports.clock()
        async with self._ports.transaction() as db:
            found = await StrayStore(db).note(target.login, target.job_type, seen, at, APART)
        if found:
            self._due_at[target] = at + APART
        for stray in found:
            if stray.confirmed_at is not None:
                await self._confirmed(stray, at)

    async def _confirmed(self, stray: Stray, at: datetime) -> None:
        """Report it once, and tell what is ours to end at each look."""
        if stray.confirmed_at == at:
            where = f"{stray.system_id}/{stray.owner}"
            log.warning("stray", marker=stray.marker, id=stray.remote_id, where=where, why=stray.words)
        if not RULES[stray.standing].ends:
            return
        try:
            backend = await self._ports.connections.backend(stray.login, stray.job_type)
            await backend.cancel(stray.remote_id, stray.marker)
        except NothingLearnt as error:
            log.info("a stray is told to end later", marker=stray.marker, why=str(error))

    # -- directories ---------------------------------------------------------------------------------------------------

    async def _clear(self, at: datetime) -> None:
        """Each login beside the others: one that does not answer keeps none of them waiting."""
        async with self._ports.reading() as db:
            logins = await PodPlaceStore(db).left(at - CLEARED_FOR)
        self._clear_at = {login: again_at for login, again_at in self._clear_at.items() if login in logins}
        for login in logins:
            work = login, "clear"
            if self._clear_at.get(login, at) <= at and work not in self.crew and self.crew.free > 0:
                self.crew.start(work, self._clear_login(login, at), login="/".join(login))

    async def _clear_login(self, login: LoginKey, at: datetime) -> None:
        """Delete what pods kept there, one after the other until nothing is learnt."""
        async with self._ports.reading() as db:
            places = await PodPlaceStore(db).left_at(login, at - CLEARED_FOR)
        for place in places:
            try:
                await self._clear_one(place)
            except (NothingLearnt, FileRefused, TimeoutError) as error:
                self._clear_at[login] = self._ports.clock() + CLEAR_AGAIN
                why = str(error) or "no answer"
                log.info("a pod's directory stays for now", pod=place.pod_uuid, where=place.system_id, why=why)
                if not isinstance(error, FileRefused):
                    return

    async def _clear_one(self, place: PodPlace) -> None:
        """Delete what a pod kept there: nothing of it runs, for that was proven before it was removed."""
        with contextlib.suppress(FileMissing, NotFound):
            async with self._ports.reading() as db:
                system = await SystemStore(db).get(place.tenant, place.system_id, deleted=True)
            if system.backend is not BackendKind.K8S:  # there it lay in the pod itself, or on a volume that is not ours
                async with asyncio.timeout(LOOK_LIMIT_S):
                    storage = await self._ports.connections.storage(place.login)
                    await storage.delete(posixpath.relpath(place.directory, posixpath.join("/", system.root_dir)))
        async with self._ports.transaction() as db:
            await PodPlaceStore(db).cleared(place, self._ports.clock())


def _job_types(system: System) -> frozenset[JobType]:
    """How runs are listed there: a Kubernetes has one list for all, and what is no cluster has no queue."""
    if system.backend is BackendKind.K8S:
        return frozenset({JobType.BATCH})
    return system.job_types() if system.backend is BackendKind.SLURM else frozenset({JobType.FORK})
