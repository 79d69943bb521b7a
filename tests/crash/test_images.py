"""The reconciler dies at its awaits in turn while it brings an image: the job gets it whole, and no copy is stuck."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from scheduler.model.images import CopyState
from scheduler.model.jobs import Job
from scheduler.model.runs import RemoteState
from scheduler.model.states import TERMINAL, S
from tests.crash.fuse import Crash, Fuse, FusedConnections, fused_transactions
from tests.fakes.registry import digest_of
from tests.reconcile.imaging import IMAGE, ImageWorld, image_world
from tests.reconcile.world import LEASE_S, Process, database_in

MOST_MOMENTS = 600


async def live(world: ImageWorld, job: Job, fuse: Fuse) -> None:
    """Run the job's life in a process with a fuse, until it ends or the process dies."""
    ports = world.ports(
        connections=FusedConnections(world.connections, fuse),
        transaction=fused_transactions(world.database.transaction, fuse),
        reads=fused_transactions(world.database.reading, fuse),
    )
    world.loops = Process(ports)
    try:
        for _ in range(20):
            await world.run()
            await site_runs(world, job)
            if fuse.blown or (await world.job(job)).state in TERMINAL:
                return
    except Crash:
        return


async def site_runs(world: ImageWorld, job: Job) -> None:
    """The site starts what waits, and ends what was told of its image: nothing runs without one."""
    for attempt in await world.attempts(job):
        fake = world.system.jobs.get(attempt.marker)
        if fake is not None and fake.state is RemoteState.QUEUED:
            world.system.start(fake.marker)
        elif fake is not None and fake.state is RemoteState.RUNNING and world.told(attempt):
            world.system.end(fake.marker, output=b"once\n")


async def finish(world: ImageWorld, job: Job) -> Job:
    """A new process takes over, when the leases of the dead one have run out."""
    world.restart()
    world.later(LEASE_S + 1)
    for _ in range(40):
        if (now := await world.job(job)).state in TERMINAL:
            return now
        await world.run()
        await site_runs(world, job)
    raise AssertionError(f"job is {now.state}: {now.last_message}; {await world.copies()}")


@pytest.mark.parametrize("step", [pytest.param(13, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)])
async def test_a_process_that_dies_while_it_brings_an_image_leaves_a_job_that_gets_it(tmp_path: Path, step: int):
    for at in range(step, MOST_MOMENTS, step):
        home = tmp_path / str(at)
        home.mkdir()
        (home / "workshop").symlink_to(tmp_path / "workshop")
        (tmp_path / "workshop").mkdir(exist_ok=True)
        async with database_in(home) as database:
            world, fuse = await image_world(database, home), Fuse(at)
            [job] = await world.submit(image=IMAGE)
            await live(world, job, fuse)
            ended = await finish(world, job)
            await world.run(3)
            where = f"after dying {fuse.moments[-1]} ({at})"
            assert ended.state is S.FINISHED, f"{ended.last_message} {where}"
            assert len(world.system.jobs) == 1, where
            assert Counter(await world.history(job))["FINISHED"] == 1, where
            [copy], attempts = await world.copies(), await world.attempts(job)
            assert (copy.state, copy.message) == (CopyState.PRESENT, ""), where
            assert not any(attempt.awaits_image for attempt in attempts), where
            assert digest_of(world.image_of(attempts[-1])) == copy.file_digest, where
        if not fuse.blown:
            return
    raise AssertionError("the life of a job has more moments than this test tries")
