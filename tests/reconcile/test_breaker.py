"""A system that breaks jobs: what the loops write down of it, and how little it gets after that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scheduler.model.runs import Ending
from scheduler.model.states import A, S
from scheduler.store.facts import PlacementFacts
from scheduler.store.learning import RunStore
from tests.reconcile.hedging import SECOND, add_system, two_clusters
from tests.reconcile.world import CLUSTER, LOST_AFTER_S, World, database_in, prepared

CHOOSES = {"dynamic": True, "exec_system_id": None}
FAST = replace(CLUSTER, notes={"berth": {"speedFactor": 5, "allowCopies": False}})


async def runs_of(world: World):
    async with world.database.transaction() as db:
        return await RunStore(db).recent("dev", 1000)


async def breakers_of(world: World):
    async with world.database.transaction() as db:
        problem = await PlacementFacts(db).problem("dev", [], world.now)
    return {view.system.id: view.breakers for view in problem.systems}


def break_all(world: World) -> None:
    """Nodes of ``cluster`` die under whatever is sent there; the others run what they have."""
    for job in list(world.system.jobs.values()):
        if job.ended_at is None:
            world.system.end(job.marker, ending=Ending.NODE_FAILURE)
    for job in list(world.others["second"].jobs.values()):
        if job.started_at is None:
            world.others["second"].start(job.marker)
        elif job.ended_at is None:
            world.others["second"].end(job.marker)


async def test_a_system_that_breaks_everything_gets_a_trial_now_and_then(tmp_path: Path):
    async with database_in(tmp_path) as database:
        await prepared(database, FAST)
        await add_system(database, replace(SECOND, notes=FAST.notes | {"berth": {"allowCopies": False}}))
        world = two_clusters(database)
        jobs = []
        for _ in range(6):
            jobs += await world.submit(4, **CHOOSES)
            await world.run(2, step_s=40)
            break_all(world)
        await world.run(2)
        states = [(await world.job(job)).state for job in jobs]
        assert 3 <= states.count(S.FAILED) == len(world.system.jobs) <= 8
        assert states.count(S.FINISHED) >= 12
        assert {run.broken for run in await runs_of(world) if run.system_id == "cluster"} == {True}


async def test_jobs_that_named_the_system_wait_for_the_next_trial_and_a_restart_forgets_nothing(world: World):
    for job in await world.submit(3):
        await world.run_until(job, S.QUEUED)
    for job in list(world.system.jobs.values()):
        world.system.end(job.marker, ending=Ending.NODE_FAILURE)
    await world.run(3)
    jobs = await world.submit(4)
    world.restart()
    await world.run(3)
    assert {(await world.job(job)).state for job in jobs} == {S.PENDING}
    assert "broke our last 3 jobs at once; it may have the next at 12:0" in (await world.job(jobs[0])).last_message
    world.later(60)
    await world.run(4)
    on_trial = [job for job in jobs if (await world.job(job)).state is S.QUEUED]
    assert len(on_trial) == 1
    [attempt] = await world.attempts(on_trial[0])
    world.system.start(attempt.marker)
    world.later(90)
    await world.run(8)
    assert {(await world.job(job)).state for job in jobs} == {S.QUEUED, S.RUNNING}
    assert (await breakers_of(world))["cluster"] == {}


async def test_a_job_that_the_system_lost_was_broken_by_it(world: World):
    [job] = await world.submit()
    await world.run_until(job, S.QUEUED)
    [attempt] = await world.attempts(job)
    world.system.start(attempt.marker)
    await world.run_until(job, S.RUNNING)
    world.system.jobs[attempt.marker].visible = False
    await world.run_until(job, S.FAILED, ticks=30, step_s=LOST_AFTER_S / 10)
    assert (await world.attempts(job))[0].state is A.LOST
    [run] = await runs_of(world)
    assert run.broken
    assert not run.completed


async def test_a_payload_that_fails_at_once_is_no_fault_of_the_system(world: World):
    for job in await world.submit(4):
        await world.run_until(job, S.QUEUED)
    for job in list(world.system.jobs.values()):
        world.system.end(job.marker, exit_code=1)
    await world.run(4)
    assert [run.broken for run in await runs_of(world)] == [False] * 4
    assert (await breakers_of(world))["cluster"] == {}
