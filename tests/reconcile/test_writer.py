"""Changes of many jobs share a transaction, and none of them pays for another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from scheduler.model.errors import IllegalMove, StaleJob
from scheduler.model.jobs import Fact
from scheduler.model.states import E, S
from scheduler.reconcile.writer import Writer
from scheduler.store.changes import Change
from scheduler.store.jobs import JobStore
from tests.reconcile.world import LEASE_S, World

TO_STAGING = (Fact(E.PLACED), Fact(E.INPUTS_LISTED), Fact(E.INPUTS_READY))


class Counted:
    """Ports' transactions, counted."""

    def __init__(self, world: World) -> None:
        self.count = 0
        self._inner = world.database.transaction
        self.ports = world.ports(transaction=self.transaction)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[object]:
        self.count += 1
        async with self._inner() as db:
            yield db


async def claimed(world: World, count: int):
    await world.submit(count=count)
    async with world.database.transaction() as db:
        return await JobStore(db).claim({S.PENDING}, "one", LEASE_S, count, world.now)


async def test_changes_that_come_together_share_a_transaction_with_the_release_of_their_leases(world: World):
    jobs, counted = await claimed(world, 20), Counted(world)
    writer = Writer(counted.ports)
    written = await asyncio.gather(*(writer.write(Change(job=j, facts=TO_STAGING, lets_go=True)) for j in jobs))
    assert counted.count == 1
    for job in written:
        assert await world.job(job) == job
        assert job.state is S.STAGING_JOB
        assert await world.history(job) == ["PENDING", "PROCESSING_INPUTS", "STAGING_INPUTS", "STAGING_JOB"]
    async with world.database.transaction() as db:
        assert len(await JobStore(db).claim({S.STAGING_JOB}, "two", LEASE_S, 20, world.now)) == 20


async def test_a_stale_job_and_an_impossible_move_spoil_nobody_else(world: World):
    jobs = await claimed(world, 5)
    await world.cancel(jobs[1])  # its row moves on under the writer's hands
    changes = [Change(job=job, facts=TO_STAGING) for job in jobs]
    changes[3] = Change(job=jobs[3], facts=[Fact(E.ARCHIVED)])
    writer = Writer(world.ports())
    answers = await asyncio.gather(*map(writer.write, changes), return_exceptions=True)
    assert [type(answer) for answer in (answers[1], answers[3])] == [StaleJob, IllegalMove]
    states = [(await world.job(job)).state for job in jobs]
    assert states == [S.STAGING_JOB, S.PENDING, S.STAGING_JOB, S.PENDING, S.STAGING_JOB]


async def test_who_was_overtaken_by_a_newer_lease_writes_nothing(world: World):
    [job] = await claimed(world, 1)
    world.later(LEASE_S + 1)
    async with world.database.transaction() as db:
        [taken_over] = await JobStore(db).claim({S.PENDING}, "two", LEASE_S, 1, world.now)
    assert taken_over.version == job.version
    with pytest.raises(StaleJob):
        await Writer(world.ports()).write(Change(job=job, facts=TO_STAGING, lets_go=True))
    assert (await world.job(job)) == taken_over
    assert await world.history(job) == ["PENDING"]


async def test_nobody_waits_for_an_answer_when_the_process_ends_during_a_commit(world: World):
    @asynccontextmanager
    async def ends() -> AsyncIterator[object]:
        raise asyncio.CancelledError
        yield

    jobs = await claimed(world, 3)
    writer = Writer(world.ports(transaction=ends))
    answers = await asyncio.gather(
        *(writer.write(Change(job=j, facts=TO_STAGING)) for j in jobs), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 3
    assert [(await world.job(job)).state for job in jobs] == [S.PENDING] * 3
