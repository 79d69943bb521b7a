"""The reconciler dies at each await in turn and is started again: the system holds exactly one job, which ends once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from scheduler.model.jobs import Job
from scheduler.model.runs import RemoteState
from scheduler.model.states import TERMINAL, S
from scheduler.security.secrets import SecretBox
from scheduler.store.database import Database
from tests.crash.fuse import Crash, Fuse, FusedConnections, fused_transactions
from tests.fakes.system import FakeSystem, Fault
from tests.reconcile.world import LEASE_S, Process, World, prepared

MOST_MOMENTS = 400


@pytest.fixture
async def make_world(tmp_path: Path) -> AsyncIterator[Callable[[], World]]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite", sealer=SecretBox(bytes(32)))
    await database.create_tables()
    await prepared(database)

    def make() -> World:
        return World(database, FakeSystem())

    yield make
    await database.aclose()


async def live(world: World, job: Job, fuse: Fuse) -> None:
    """Run the job's life in a process with a fuse, until it ends or the process dies."""
    ports = world.ports(
        connections=FusedConnections(world.connections, fuse),
        transaction=fused_transactions(world.database.transaction, fuse),
        reads=fused_transactions(world.database.reading, fuse),
    )
    world.loops = Process(ports)
    try:
        for _ in range(40):
            await world.run()
            site_runs(world)
            if fuse.blown or (await world.job(job)).state in TERMINAL:
                return
    except Crash:
        return


def site_runs(world: World) -> None:
    """The site starts what waits and ends what runs, one step at a time."""
    for fake in world.system.jobs.values():
        if fake.state is RemoteState.QUEUED:
            world.system.start(fake.marker)
        elif fake.state is RemoteState.RUNNING:
            world.system.end(fake.marker, output=b"once\n")


async def finish(world: World, job: Job) -> Job:
    """A new process takes over, when the leases of the dead one have run out."""
    world.restart()
    world.later(LEASE_S + 1)
    for _ in range(60):
        if (now := await world.job(job)).state in TERMINAL:
            return now
        await world.run()
        site_runs(world)
    raise AssertionError(f"job is {now.state}: {now.last_message}")


@pytest.mark.parametrize(
    "fault",
    [
        None,
        pytest.param(Fault.BEFORE_ACCEPT, marks=pytest.mark.slow),
        pytest.param(Fault.AFTER_ACCEPT, marks=pytest.mark.slow),
    ],
)
async def test_a_process_that_dies_at_any_moment_leaves_exactly_one_job(make_world, fault):
    for at in range(1, MOST_MOMENTS):
        world, fuse = make_world(), Fuse(at)
        if fault is not None:
            world.system.fail("submit", fault)
        [job] = await world.submit(archive_system_id="cluster", archive_dir="kept/${JobUUID}")
        await live(world, job, fuse)
        ended = await finish(world, job)
        where = f"after dying {fuse.moments[-1]} ({at})"
        assert ended.state is S.FINISHED, f"{ended.last_message} {where}"
        assert len(world.system.jobs) == 1, where
        assert world.system.files.nodes[f"/kept/{job.uuid}/tapisjob.out"] == b"once\n", where
        assert Counter(await world.history(job))["FINISHED"] == 1, where
        if not fuse.blown:
            return
    raise AssertionError("the life of a job has more moments than this test tries")
