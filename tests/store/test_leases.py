"""One process at a time works on a job, whatever dies: leases, fences and SKIP LOCKED, with real concurrency."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta

import pytest

from scheduler.model.errors import StaleJob
from scheduler.model.jobs import Fact
from scheduler.model.states import E, S
from scheduler.store.jobs import JobStore
from tests.store.things import NOW, a_new_job, a_place, added, recorded, submitting

LEASE_S = 30.0
EXPIRED = NOW + timedelta(seconds=LEASE_S)


async def claimed(database, process="one", at=NOW, states=(S.PENDING,), limit=100):
    async with database.transaction() as db:
        return await JobStore(db).claim(states, process, LEASE_S, limit, at)


async def test_a_claimed_job_is_not_claimed_again_until_its_lease_ends(database):
    job = await added(database)
    assert [mine.uuid for mine in await claimed(database)] == [job.uuid]
    assert await claimed(database, at=EXPIRED - timedelta(seconds=1)) == []
    again = await claimed(database, "two", at=EXPIRED)
    assert [(mine.uuid, mine.fence) for mine in again] == [(job.uuid, 2)]


async def test_a_released_job_is_claimed_again_when_it_is_due(database):
    await added(database)
    (mine,) = await claimed(database)
    async with database.transaction() as db:
        await JobStore(db).release(mine, next_look_at=NOW + timedelta(seconds=5))
    assert await claimed(database) == []
    assert len(await claimed(database, at=NOW + timedelta(seconds=5))) == 1


async def test_a_release_without_an_instant_makes_a_job_free_at_once(database):
    await added(database)
    (mine,) = await claimed(database)
    async with database.transaction() as db:
        await JobStore(db).release(mine)
    assert len(await claimed(database, "two")) == 1


async def test_only_due_jobs_in_the_states_asked_for_are_claimed(database):
    await submitting(database)
    waiting = await added(database)
    await added(database, at=NOW + timedelta(hours=1))
    await recorded(database, await added(database), E.FAILED)
    assert [mine.uuid for mine in await claimed(database, states=(S.PENDING, S.FAILED))] == [waiting.uuid]


async def test_those_that_wait_longest_are_claimed_first(database):
    late = [await added(database, at=NOW - timedelta(minutes=minutes)) for minutes in (1, 3, 2)]
    first = await claimed(database, limit=2)
    assert {job.uuid for job in first} == {late[1].uuid, late[2].uuid}


async def test_a_holder_that_was_overtaken_can_no_longer_write(database):
    await added(database)
    (old,) = await claimed(database, "one")
    (new,) = await claimed(database, "two", at=EXPIRED)
    with pytest.raises(StaleJob):
        await recorded(database, old, E.PLACED)
    async with database.transaction() as db:
        await JobStore(db).release(old)
    assert await claimed(database, "three", at=EXPIRED) == []
    assert (await recorded(database, new, E.PLACED)).state is S.PROCESSING_INPUTS


async def test_a_move_keeps_the_lease(database):
    await added(database)
    (mine,) = await claimed(database)
    mine = await recorded(database, mine, E.PLACED, E.INPUTS_LISTED)
    assert await claimed(database, "two", states=(S.STAGING_INPUTS,)) == []
    async with database.transaction() as db:
        await JobStore(db).release(mine)
    assert len(await claimed(database, "two", states=(S.STAGING_INPUTS,))) == 1


async def test_a_cancel_wakes_a_job_that_was_put_off(database):
    job = await added(database)
    (mine,) = await claimed(database)
    async with database.transaction() as db:
        await JobStore(db).release(mine, next_look_at=NOW + timedelta(days=1))
        await JobStore(db).request_cancel("dev", job.uuid, NOW)
    assert len(await claimed(database)) == 1


async def test_jobs_on_busy_systems_are_left_for_later(database):
    await submitting(database)
    elsewhere = await submitting(database, place=a_place(system_id="other"))
    async with database.transaction() as db:
        mine = await JobStore(db).claim((S.SUBMITTING_JOB,), "one", LEASE_S, 9, NOW, busy={("dev", "cluster")})
    assert [job.uuid for job in mine] == [elsewhere.uuid]


async def test_claims_at_the_same_time_share_the_jobs_without_waiting(on_postgresql):
    async with on_postgresql.transaction() as db:
        await JobStore(db).add([a_new_job() for _ in range(60)])
    both_hold = asyncio.Barrier(3)

    async def worker(name):
        async with on_postgresql.transaction() as db:
            mine = await JobStore(db).claim((S.PENDING,), name, LEASE_S, 20, NOW)
            await both_hold.wait()  # each transaction is still open when the last one claims
        return {job.uuid for job in mine}

    async with asyncio.timeout(30):
        one, two, three = await asyncio.gather(*(worker(name) for name in ("one", "two", "three")))
    assert (len(one), len(two), len(three)) == (20, 20, 20)
    assert len(one | two | three) == 60


async def test_a_claim_that_is_rolled_back_frees_the_jobs(on_postgresql):
    await added(on_postgresql)
    async with on_postgresql.transaction() as db:
        assert len(await JobStore(db).claim((S.PENDING,), "one", LEASE_S, 9, NOW)) == 1
        await db.rollback()
    assert len(await claimed(on_postgresql, "two")) == 1


WORKER = """
import asyncio, sys
from scheduler.model.jobs import Fact
from scheduler.model.states import E, S
from scheduler.store.database import Database
from scheduler.store.jobs import JobStore
from tests.store.things import NOW

async def main(url, name):
    database = Database(url)
    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        async with database.transaction() as db:
            jobs = await JobStore(db).claim((S.PENDING,), name, 30.0, 7, NOW)
        if not jobs:
            break
        for job in jobs:
            async with database.transaction() as db:
                moved = await JobStore(db).record(job, Fact(E.PLACED, message=name), NOW)
                await JobStore(db).release(moved)
            print(job.uuid, flush=True)
    await database.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_two_processes_do_every_job_once(on_postgresql, postgresql_url):
    async with on_postgresql.transaction() as db:
        made = await JobStore(db).add([a_new_job() for _ in range(200)])
    done = await asyncio.to_thread(run_workers, postgresql_url, "one", "two")
    assert all(done), "one process did everything"
    assert sorted(done[0] + done[1]) == sorted(job.uuid for job in made)


def run_workers(url, *names):
    """Start processes, let them go at the same moment, and return what each says it did."""
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, url, name], **piped) for name in names]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * len(names)
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    done = [worker.communicate(timeout=120)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(names)
    return done


async def test_of_many_writers_at_once_one_moves_the_job(on_postgresql):
    job = await added(on_postgresql)

    async def writer(event):
        async with on_postgresql.transaction() as db:
            return await JobStore(db).record(job, Fact(event), NOW)

    events = [E.PLACED, E.BLOCKED, E.FAILED, E.CANCELLED, E.PAUSED] * 3
    outcomes = await asyncio.gather(*map(writer, events), return_exceptions=True)
    (winner,) = [outcome for outcome in outcomes if not isinstance(outcome, StaleJob)]
    async with on_postgresql.reading() as db:
        assert await JobStore(db).get("dev", job.uuid) == winner
        assert len(await JobStore(db).history("dev", job.uuid)) == 2
