"""Jobs that are placed with others in mind: gangs, what waits behind a job, and where it was to go before."""

from __future__ import annotations

from placement.problem import PlaceKey
from scheduler.model.jobs import After, Gang
from scheduler.model.states import S
from scheduler.reconcile.place import _last_plan
from scheduler.store.behind import waiting_behind
from scheduler.store.jobs import JobStore
from tests.fakes.system import Fault
from tests.reconcile.world import World


async def test_a_gang_is_placed_once_all_of_it_waits_whenever_its_jobs_came(world: World):
    [first] = await world.submit(gang=Gang("ring", 3))
    await world.run(1, step_s=3.3)
    [second] = await world.submit(gang=Gang("ring", 3))
    await world.run(3, step_s=3.1)
    assert "waits for the rest of the gang: 2 of 3 jobs are there" in (await world.job(first)).last_message
    [third] = await world.submit(gang=Gang("ring", 3))
    for job in (first, second, third):
        await world.run_until(job, S.QUEUED, step_s=2.9)
    assert not (await world.job(first)).spec.may_be_copied


async def test_what_waits_behind_a_job_is_read_from_the_store(world: World):
    [head] = await world.submit()
    [middle] = await world.submit(after=(After(head.uuid),), weight=2.0)
    await world.submit(2, after=(After(middle.uuid),), weight=3.0)
    async with world.database.reading() as db:
        assert await waiting_behind(db, "dev") == {head.uuid: 8.0, middle.uuid: 6.0}
        assert await waiting_behind(db, "other") == {}


async def test_a_job_that_is_placed_again_knows_where_it_was_to_go(world: World):
    world.system.fail("submit", Fault.BEFORE_ACCEPT)
    [job] = await world.submit()
    assert _last_plan([await world.job(job)]) == {}
    for _ in range(20):
        await world.run()
        job = await world.job(job)
        if job.state is S.PENDING:
            break
    async with world.database.transaction() as db:
        lines = await JobStore(db).history("dev", job.uuid)
    assert "PENDING" in [line.detail for line in lines[1:]]
    assert _last_plan([job]) == {job.uuid: PlaceKey("cluster", "normal")}
