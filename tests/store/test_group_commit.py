"""Submissions that share a transaction are each stored whole, answered when durable, and fail alone."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from sqlalchemy.exc import IntegrityError

from scheduler.model.errors import AlreadyExists
from scheduler.store.group_commit import MOST_TOGETHER, GroupCommit
from scheduler.store.jobs import JobStore
from scheduler.store.requests import IdempotencyStore
from tests.store.things import NOW, a_new_job, added


class Counted:
    """A database that counts its transactions and can hold them up."""

    def __init__(self, database) -> None:
        self.database, self.count, self.go = database, 0, asyncio.Event()
        self.go.set()

    @asynccontextmanager
    async def transaction(self):
        self.count += 1
        await self.go.wait()
        async with self.database.transaction() as db:
            yield db


async def stored(database):
    async with database.reading() as db:
        return {job.uuid for job in await JobStore(db).list("dev", None)}


async def test_every_caller_gets_its_own_jobs_in_its_own_order(database):
    asked = [[a_new_job() for _ in range(size)] for size in (1, 3, 0, 2, 5)]
    group = GroupCommit(database.transaction)
    answers = await asyncio.gather(*map(group.add, asked))
    assert [[job.uuid for job in answer] for answer in answers] == [[job.uuid for job in new] for new in asked]
    async with database.reading() as db:
        for job in (job for answer in answers for job in answer):
            assert await JobStore(db).get("dev", job.uuid) == job


async def test_those_who_come_while_a_group_commits_share_the_next_transaction(database):
    counted = Counted(database)
    counted.go.clear()
    group = GroupCommit(counted.transaction)
    callers = [asyncio.create_task(group.add([a_new_job()])) for _ in range(MOST_TOGETHER + 3)]
    await asyncio.sleep(0)
    counted.go.set()
    await asyncio.gather(*callers)
    assert counted.count == 2
    assert await group.add([a_new_job()])
    assert counted.count == 3


async def test_one_that_cannot_be_stored_fails_alone(database):
    taken = await added(database)
    good = [a_new_job() for _ in range(4)]
    group = GroupCommit(database.transaction)
    asked = [[good[0]], [a_new_job(uuid=taken.uuid)], good[1:3], [a_new_job(tenant="nobody")], [good[3]]]
    outcomes = await asyncio.gather(*map(group.add, asked), return_exceptions=True)
    assert [isinstance(outcome, IntegrityError) for outcome in outcomes] == [False, True, False, True, False]
    assert await stored(database) == {taken.uuid, *(job.uuid for job in good)}


async def test_what_else_belongs_to_a_submission_is_stored_with_it_or_not_at_all(database):
    def remembering(key):
        async def also(db, made):
            await IdempotencyStore(db).put("dev", "ann", "submit", key, "hash", [job.uuid for job in made], NOW)

        return also

    group = GroupCommit(database.transaction)
    asked = [group.add([a_new_job()], remembering(key)) for key in ("one", "two", "two", "three")]
    outcomes = await asyncio.gather(*asked, group.add([a_new_job()]), return_exceptions=True)
    assert [isinstance(outcome, AlreadyExists) for outcome in outcomes] == [False, False, True, False, False]
    made = {job.uuid for outcome in outcomes if not isinstance(outcome, AlreadyExists) for job in outcome}
    assert await stored(database) == made
    async with database.reading() as db:
        assert await IdempotencyStore(db).get("dev", "ann", "submit", "two") == ("hash", [outcomes[1][0].uuid])


async def test_an_answer_means_that_the_jobs_can_be_read(database):
    group = GroupCommit(database.transaction)

    async def submit_and_read():
        (job,) = await group.add([a_new_job()])
        async with database.reading() as db:
            return await JobStore(db).get("dev", job.uuid)

    assert len(await asyncio.gather(*(submit_and_read() for _ in range(20)))) == 20


async def test_a_caller_that_goes_away_takes_nobody_along(database):
    counted = Counted(database)
    counted.go.clear()
    group, staying = GroupCommit(counted.transaction), a_new_job()
    leaving = asyncio.create_task(group.add([a_new_job()]))
    stays = asyncio.create_task(group.add([staying]))
    await asyncio.sleep(0)
    leaving.cancel()
    counted.go.set()
    (job,) = await stays
    assert leaving.cancelled() or leaving.cancelling()
    async with database.reading() as db:
        assert (await JobStore(db).get("dev", job.uuid)).uuid == staying.uuid


async def test_a_transaction_that_cannot_begin_is_told_to_all():
    @asynccontextmanager
    async def broken():
        raise OSError("disk full")
        yield

    group = GroupCommit(broken)
    outcomes = await asyncio.gather(*(group.add([a_new_job()]) for _ in range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["disk full"] * 3
