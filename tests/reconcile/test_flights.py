"""Watching thousands of jobs costs what changes, not how many there are."""

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from scheduler.model.runs import Observation, RemoteState, TaskCounts
from scheduler.model.states import S
from scheduler.reconcile.differences import facts_of, same_news, waiting_in_words
from scheduler.reconcile.flights import Flights
from scheduler.store.jobs import JobStore
from tests.fakes.system import Fault
from tests.reconcile.world import Process, World


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the attempts whose rows were read for watching."""
    seen: list[int] = []
    in_flight = JobStore.in_flight

    async def counted(store, attempt_ids):
        seen.extend(attempt_ids)
        return await in_flight(store, attempt_ids)

    monkeypatch.setattr(JobStore, "in_flight", counted)
    return seen


async def all_queued(world: World, count: int):
    jobs = await world.submit(count)
    await world.run(ticks=5)
    assert {(await world.job(job)).state for job in jobs} == {S.QUEUED}
    return [await world.job(job) for job in jobs]


async def uuids(flights: Flights) -> set[str]:
    return {flight.uuid for group in (await flights.read()).values() for flight in group}


async def test_only_jobs_that_were_written_since_are_read_again(world: World, rows_read):
    jobs = await all_queued(world, 5)
    flights = Flights(world.ports())
    assert await uuids(flights) == {job.uuid for job in jobs}
    rows_read.clear()
    assert await uuids(flights) == {job.uuid for job in jobs}
    assert rows_read == []
    await world.cancel(jobs[2])
    found = [flight for group in (await flights.read()).values() for flight in group]
    assert len(rows_read) == 1
    assert [flight.uuid for flight in found if flight.cancel_requested_at] == [jobs[2].uuid]


async def test_a_job_that_ended_is_no_longer_watched(world: World):
    jobs = await all_queued(world, 2)
    flights = Flights(world.ports())
    await flights.read()
    [attempt] = await world.attempts(jobs[0])
    world.system.end(attempt.marker)
    await world.run_until(jobs[0], S.FINISHED)
    assert await uuids(flights) == {jobs[1].uuid}


async def test_a_new_process_writes_nothing_of_jobs_that_wait_as_before(world: World):
    before = await all_queued(world, 5)
    world.restart()
    await world.run(ticks=4, step_s=15)
    assert [await world.job(job) for job in before] == before


async def test_many_that_start_together_are_written_in_few_transactions(world: World):
    jobs = await all_queued(world, 30)
    for job in jobs:
        world.system.start((await world.attempts(job))[0].marker)
    count = 0

    @asynccontextmanager
    async def transaction():
        nonlocal count
        count += 1
        async with world.database.transaction() as db:
            yield db

    watch = Process(world.ports(transaction=transaction)).watch
    await watch.tick()
    await watch.crew.settle()
    assert {(await world.job(job)).state for job in jobs} == {S.RUNNING}
    assert count <= 2


async def test_an_outage_is_told_to_everyone_once(world: World):
    jobs = await all_queued(world, 5)
    world.system.fail("observe", Fault.UNAVAILABLE, times=20)
    await world.run(ticks=4, step_s=15)
    told = [await world.job(job) for job in jobs]
    assert {job.last_message.partition(" since")[0] for job in told} == {"not reachable"}
    await world.run(ticks=4, step_s=15)
    assert [await world.job(job) for job in jobs] == told


async def test_more_news_than_are_written_at_once_are_written_after_later_looks(world: World, monkeypatch):
    monkeypatch.setattr("scheduler.reconcile.watch.MOST_NEWS", 2)
    jobs = await all_queued(world, 5)
    await world.run(ticks=3, step_s=15)
    assert None not in [(await world.job(job)).observation for job in jobs]


async def test_a_job_that_cannot_be_understood_hides_none_of_the_others(world: World, monkeypatch):
    strange, *others = await all_queued(world, 4)
    for job in (strange, *others[:2]):
        world.system.start((await world.attempts(job))[0].marker)
    world.system.jobs[(await world.attempts(others[2]))[0].marker].reason = "Priority"

    def broken(job, *rest):
        if job.uuid == strange.uuid:
            raise RuntimeError("a bug")
        return facts_of(job, *rest)

    monkeypatch.setattr("scheduler.reconcile.watch.facts_of", broken)
    await world.run(ticks=2, step_s=15)
    assert [(await world.job(job)).state for job in (strange, *others[:2])] == [S.QUEUED, S.RUNNING, S.RUNNING]
    assert (await world.job(others[2])).last_message.endswith("Priority")


def test_people_read_how_far_the_tasks_of_an_array_are_and_each_that_ends_is_news():
    tasks = TaskCounts(queued=2, running=1)
    seen = Observation(state=RemoteState.RUNNING, raw_state="RUNNING", nodes="n1", tasks=tasks)
    assert waiting_in_words("normal", seen) == "running on n1; tasks: 2 queued, 1 running"
    assert same_news(seen, replace(seen))
    assert not same_news(seen, replace(seen, tasks=replace(tasks, running=0, completed=1)))


async def test_a_login_whose_answers_are_dear_is_not_asked_again_with_every_submission(world: World):
    await all_queued(world, 1)
    meet = world.system.meet

    async def dear(method: str):
        world.later(1 if method == "observe" else 0)
        return await meet(method)

    async def asked() -> int:
        world.loops.watch.soon(target)
        await world.loops.watch.tick()
        await world.loops.watch.crew.settle()
        return world.system.calls.count("observe")

    [target] = await Flights(world.ports()).read()
    world.later(60)
    world.system.meet = dear
    first = await asked()
    world.later(5)
    assert await asked() == first
    world.later(6)
    assert await asked() == first + 1
