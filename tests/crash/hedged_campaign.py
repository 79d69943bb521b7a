"""Many jobs that wait in two places, while links break, requests are lost and Berth is killed. Each must run once.

What ran is told by the sites alone: each payload that begins adds a line to a list that Berth does not own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.model.errors import BackendUnavailable
from scheduler.model.ids import LoginKey
from scheduler.model.jobs import Job
from scheduler.model.runs import JobType, RemoteState
from scheduler.model.states import LIVE_ATTEMPTS, S
from scheduler.store.jobs import JobStore
from tests.crash.fuse import Crash, Fuse, FusedConnections, fused_transactions
from tests.fakes.system import FakeSystem
from tests.reconcile.hedging import HEDGED, both, runs, site_ends, site_starts
from tests.reconcile.world import LEASE_S, Process, World

BUSY_TICKS = 40
"""How long the sites are too busy to start anything, at most."""

LINKED = frozenset({"stage", "submit", "find", "observe", "cancel", "withdraw", "write"})
BEFORE, AFTER, CANCEL, KILL, TOGETHER = FAULTS = (
    "link cut before a call",
    "link cut after a call",
    "cancel lost",
    "berth killed",
    "both started at once",
)


@dataclass
class Chaos:
    """What goes wrong, by chance, while it lasts; every blow is counted."""

    chance: random.Random
    lasts: bool = True
    struck: Counter[str] = field(default_factory=Counter)

    def strikes(self, fault: str, share: float) -> bool:
        hit = self.lasts and self.chance.random() < share
        self.struck[fault] += hit
        return hit


class CutConnections:
    """Connections that may be cut before a call reaches its system, or before the answer comes back."""

    def __init__(self, inner: Any, chaos: Chaos) -> None:
        self._inner, self._chaos = inner, chaos

    async def backend(self, login: LoginKey, job_type: JobType) -> Any:
        return Cut(await self._inner.backend(login, job_type), self._chaos)

    async def storage(self, login: LoginKey) -> Any:
        return Cut(await self._inner.storage(login), self._chaos)


class Cut:
    """A backend or a storage behind such a link."""

    def __init__(self, inner: Any, chaos: Chaos) -> None:
        self._inner, self._chaos = inner, chaos

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in LINKED:
            return method

        async def call(*args: Any) -> Any:
            if self._chaos.strikes(BEFORE, 0.04):
                raise BackendUnavailable("cut before the call")
            answer = await method(*args)
            if self._chaos.strikes(AFTER, 0.04):
                raise BackendUnavailable("cut before the answer")
            return answer

        return call


class HedgedCampaign:
    """The disorder lasts ``stormy_ticks``; then everything works, and what is left must come to its end.

    The sites are busy until most jobs wait in both: leads and copies start side by side, however slowly they came.
    """

    def __init__(self, world: World, *, jobs: int, seed: int, stormy_ticks: int = 80) -> None:
        self.world, self._count, self._stormy_ticks = world, jobs, stormy_ticks
        self.chaos = Chaos(random.Random(seed))
        self.jobs: Sequence[Job] = ()
        for system in both(world):
            system.loses_cancel = lambda: self.chaos.strikes(CANCEL, 0.2)

    async def run(self) -> None:
        """Submit, strike, let end."""
        self.jobs = await self.world.submit(self._count, **HEDGED)
        fuse = await self._new_process()
        busy_ticks = 0
        for tick in range(BUSY_TICKS + self._stormy_ticks):
            try:
                await self.world.run()
            except Crash:
                fuse.blown = True
            if fuse.blown:
                self.chaos.struck[KILL] += 1
                fuse = await self._new_process()
            if busy_ticks < BUSY_TICKS and tick == busy_ticks and self._waiting_twice() < 0.6 * self._count:
                busy_ticks += 1
                continue
            self._site_works()
            if tick >= busy_ticks + self._stormy_ticks:
                break
        self.chaos.lasts = False
        fuse.blown = True
        self.world.loops = Process(self.world.ports(), at_once=self._count)
        self.world.later(LEASE_S + 1)
        for _ in range(200):
            if await self._all_over():
                return
            await self.world.run(step_s=10)
            site_starts(self.world)
            site_ends(self.world)

    async def _new_process(self) -> Fuse:
        """One that will die, after another that did; it may know that, or wait for the leases of the dead."""
        fuse = Fuse(self.chaos.chance.randint(1, 1500 + 2 * self._count))
        world = self.world
        if self.chaos.chance.random() < 0.8:
            async with world.database.transaction() as db:
                await JobStore(db).release_all(world.loops.ports.process_id)
        ports = world.ports(
            connections=FusedConnections(CutConnections(world.connections, self.chaos), fuse),
            transaction=fused_transactions(world.database.transaction, fuse),
            reads=fused_transactions(world.database.reading, fuse),
            process_id=f"process {self.chaos.struck[KILL]}",
        )
        world.loops = Process(ports, at_once=self._count)
        return fuse

    def _site_works(self) -> None:
        """Some of what waits starts, often both attempts of a job within one interval; some of what runs ends."""
        chance, started = self.chaos.chance, set()
        for system in both(self.world):
            for fake in list(system.jobs.values()):
                twin = fake.intent.run.job_uuid in started
                if fake.state is RemoteState.QUEUED and chance.random() < (0.5 if twin else 0.06):
                    system.start(fake.marker)
                    started.add(fake.intent.run.job_uuid)
                    self.chaos.struck[TOGETHER] += twin
                elif fake.begun and fake.ended_at is None and chance.random() < 0.4:
                    system.end(fake.marker)

    def _waiting_twice(self) -> int:
        """How many jobs are in the queues of both."""
        waiting = Counter(
            fake.intent.run.job_uuid
            for system in both(self.world)
            for fake in system.jobs.values()
            if fake.state is RemoteState.QUEUED
        )
        return sum(times > 1 for times in waiting.values())

    async def _all_over(self) -> bool:
        async with self.world.database.reading() as db:
            now = await JobStore(db).some([job.id for job in self.jobs])
            if any(job.state is not S.FINISHED for job in now.values()):
                return False
            attempts = await JobStore(db).attempts_of(list(now.values()))
        return not any(one.state in LIVE_ATTEMPTS for some in attempts.values() for one in some)

    # -- what is found ------------------------------------------------------------------------------------------------

    async def faults(self) -> Sequence[str]:
        """Every broken promise, in words. What still waits somewhere may start now, and must start in vain."""
        site_starts(self.world)
        ran = Counter(self._uuid_of(marker) for marker in runs(self.world))
        async with self.world.database.reading() as db:
            now = await JobStore(db).some([job.id for job in self.jobs])
            attempts = await JobStore(db).attempts_of(list(now.values()))
        found = [f"job {job.uuid} ran {ran[job.uuid]} times" for job in now.values() if ran[job.uuid] != 1]
        for job in now.values():
            if job.state is not S.FINISHED:
                found.append(f"job {job.uuid} is {job.state}: {job.last_message}")
            left = [one.marker for one in attempts[job.id] if one.state in LIVE_ATTEMPTS]
            found += [f"attempt {marker} was never brought to its end" for marker in left]
        for system in both(self.world):
            system.pass_gates()
        alive = [fake.marker for system in both(self.world) for fake in system.jobs.values() if fake.ended_at is None]
        return [*found, *(f"{marker} still holds its nodes" for marker in alive)]

    def handed_over(self) -> int:
        """Payloads that ran as copies."""
        return sum(self._job_of(marker).intent.run.gate_s > 0 for marker in runs(self.world))

    def _job_of(self, marker: str) -> Any:
        return next(system.jobs[marker] for system in both(self.world) if marker in system.jobs)

    def _uuid_of(self, marker: str) -> str:
        return self._job_of(marker).intent.run.job_uuid


def withdraws_without_claiming(system: FakeSystem) -> None:
    """A broken backend: it says that a job never begins, and keeps it from nothing."""
    system.withdraw = lambda job: True
