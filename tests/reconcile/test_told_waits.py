"""What was said of a job's wait when its place was chosen is kept with what came of it."""

from dataclasses import replace

from scheduler.model.snapshots import VisibleJob
from scheduler.model.states import S
from scheduler.store.learning import RunStore
from tests.reconcile.world import START, World

BUSY = VisibleJob(
    remote_id="7",
    partition="fake",
    running=True,
    nodes=2,
    cores=8,
    walltime_s=3600,
    submitted_at=START,
    started_at=START,
)


async def test_an_ended_run_tells_what_each_estimator_had_said_of_its_wait(world: World):
    world.system.nodes = tuple(replace(kind, free=0, free_cores=0) for kind in world.system.nodes)
    world.system.others = (BUSY,)
    [job] = await world.submit(dynamic=True, exec_system_id=None)
    await world.run_until(job, S.QUEUED)
    world.system.others = ()
    [marker] = world.system.jobs
    world.system.end(marker)
    await world.run_until(job, S.FINISHED)
    async with world.database.reading() as db:
        [run] = await RunStore(db).recent("dev", 9)
    assert "replay" in run.told_waits_s
    assert 0 <= run.told_waits_s["replay"][0] <= 3600
