"""Whatever happens in whatever order: every job ends once, runs at most once, and none is lost.

Hypothesis makes up histories of submissions, cancels, faults, crashes and what the site does; the invariants are judged
when the storm is over and a healthy process had time to bring everything to its end.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.model.ids import Marker
from scheduler.model.jobs import Job
from scheduler.model.runs import RemoteState
from scheduler.model.states import TERMINAL, S
from scheduler.security.secrets import SecretBox
from scheduler.store.database import Database
from tests.crash.fuse import Crash, Fuse, FusedConnections, fused_transactions
from tests.fakes.system import FakeSystem, Fault
from tests.reconcile.world import LEASE_S, Process, World, prepared

METHODS = st.sampled_from(("stage", "submit", "find", "observe", "cancel", "snapshot"))
FAULTS = st.sampled_from(
    (Fault.UNAVAILABLE, Fault.BEFORE_ACCEPT, Fault.AFTER_ACCEPT, Fault.UNKNOWN_WORD, Fault.LOGIN_FAILS)
)

EVENTS = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 3)),
    st.tuples(st.just("run"), st.integers(1, 4)),
    st.tuples(st.just("die"), st.integers(1, 40)),
    st.tuples(st.just("fail"), METHODS, FAULTS, st.integers(1, 4)),
    st.tuples(st.just("wait"), st.sampled_from((1, 30, 120, 700))),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("start"), st.integers(0, 9)),
    st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from((0, 1))),
    st.tuples(st.just("requeue"), st.integers(0, 9)),
    st.tuples(st.just("lose"), st.integers(0, 9)),
)


class Story:
    """A world with a memory of what was asked and what really ran."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.jobs: list[Job] = []
        self.cancelled: set[str] = set()
        self.lost: set[Marker] = set()
        self.ended: Counter[Marker] = Counter()

    async def tell(self, event: tuple) -> None:
        kind, *rest = event
        await getattr(self, kind)(*rest)

    async def submit(self, count: int) -> None:
        self.jobs += await self.world.submit(count)

    async def run(self, ticks: int) -> None:
        await self.world.run(ticks)

    async def die(self, at: int) -> None:
        """The process dies at its n-th moment from now on, and another one takes its place."""
        world, fuse = self.world, Fuse(at)
        world.loops = Process(
            world.ports(
                connections=FusedConnections(world.connections, fuse),
                transaction=fused_transactions(world.database.transaction, fuse),
                reads=fused_transactions(world.database.reading, fuse),
            )
        )
        try:
            await world.run(3)
        except Crash:
            pass
        finally:
            fuse.blown = True
        world.restart()

    async def fail(self, method: str, fault: Fault, times: int) -> None:
        self.world.system.fail(method, fault, times)

    async def wait(self, seconds: int) -> None:
        self.world.later(seconds)

    async def cancel(self, number: int) -> None:
        if self.jobs:
            job = self.jobs[number % len(self.jobs)]
            await self.world.cancel(job)
            self.cancelled.add(job.uuid)

    async def start(self, number: int) -> None:
        for marker in self._chosen(number, RemoteState.QUEUED):
            self.world.system.start(marker)

    async def end(self, number: int, exit_code: int) -> None:
        for marker in self._chosen(number, RemoteState.RUNNING):
            self.world.system.end(marker, exit_code=exit_code)
            self.ended[marker] += 1

    async def requeue(self, number: int) -> None:
        for marker in self._chosen(number, RemoteState.RUNNING):
            self.world.system.requeue(marker)

    async def lose(self, number: int) -> None:
        """The site forgets a job that has not started; it can start no more."""
        for marker in self._chosen(number, RemoteState.QUEUED):
            self.world.system.forget(marker)
            self.lost.add(marker)

    def _chosen(self, number: int, state: RemoteState) -> list[Marker]:
        jobs = [job for job in self.world.system.jobs.values() if job.state is state and job.marker not in self.lost]
        return [jobs[number % len(jobs)].marker] if jobs else []

    async def come_to_an_end(self) -> None:
        """The storm is over: everything works, and the site runs what it holds."""
        self.world.system.heal()
        self.world.restart()
        self.world.later(LEASE_S + 121)
        for _ in range(120):
            await self.world.run(step_s=20)
            for state in (RemoteState.RUNNING, RemoteState.QUEUED):
                for marker in [m for n in range(len(self.world.system.jobs)) for m in self._chosen(n, state)]:
                    if state is RemoteState.QUEUED and self.world.system.jobs[marker].state is state:
                        self.world.system.start(marker)
                    elif self.world.system.jobs[marker].state is state:
                        self.world.system.end(marker)
                        self.ended[marker] += 1
            if all([(await self.world.job(job)).state in TERMINAL for job in self.jobs]):
                return

    async def judge(self) -> None:
        for job in self.jobs:
            now = await self.world.job(job)
            history = Counter(await self.world.history(job))
            assert now.state in TERMINAL, f"{now.state}: {now.last_message}"
            assert sum(history[state] for state in TERMINAL) == 1, history
            ran = sum(count for marker, count in self.ended.items() if job.uuid in marker)
            assert ran <= 1, f"{ran} runs"
            if now.state is S.FINISHED:
                assert ran == 1
            if now.state is S.CANCELLED:
                assert job.uuid in self.cancelled
            if job.uuid not in self.cancelled and now.state is S.FAILED:
                assert "exit code 1" in now.last_message, now.last_message


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(EVENTS, max_size=25))
def test_every_job_ends_once_runs_at_most_once_and_none_is_lost(events: list[tuple]):
    async def play() -> None:
        with TemporaryDirectory() as directory:
            database = Database(f"sqlite+aiosqlite:///{Path(directory)}/berth.sqlite", sealer=SecretBox(bytes(32)))
            try:
                await database.create_tables()
                await prepared(database)
                story = Story(World(database, FakeSystem()))
                await story.submit(1)
                for event in events:
                    await story.tell(event)
                await story.come_to_an_end()
                await story.judge()
            finally:
                await database.aclose()

    asyncio.run(play())
