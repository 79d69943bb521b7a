"""What placement learns from, and what is remembered of requests."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from scheduler.model.errors import AlreadyExists
from scheduler.model.jobs import FinishedRun
from scheduler.model.runs import Resources
from scheduler.model.snapshots import NodeKind, PartitionState, Sighting, StartProbe, SystemSnapshot
from scheduler.store.learning import RunStore, SightingStore, SnapshotStore
from scheduler.store.requests import AuditStore, IdempotencyStore
from scheduler.store.schema import audit, snapshots
from tests.store.things import NOW

RUN = FinishedRun(
    tenant="dev",
    owner="ann",
    app_id="hello",
    image="docker://busybox",
    system_id="cluster",
    queue="normal",
    resources=Resources(nodes=2),
    submitted_at=NOW,
    started_at=NOW + timedelta(seconds=5),
    ended_at=NOW + timedelta(seconds=65),
    completed=True,
)
LOOK = SystemSnapshot(
    taken_at=NOW,
    partitions=(PartitionState(name="p", up=True),),
    nodes=(NodeKind(partition="p", cores=4, memory_mib=1000, total=2, free=1),),
    starts=((StartProbe("p", Resources()), NOW),),
)


async def test_ended_runs_come_newest_first_and_only_to_their_tenant(database):
    runs = [replace(RUN, ended_at=RUN.ended_at + timedelta(hours=n)) for n in (1, 3, 2)]
    async with database.transaction() as db:
        for run in (*runs, replace(RUN, tenant="other")):
            await RunStore(db).add([run])
        assert await RunStore(db).recent("dev", 2) == [runs[1], runs[2]]


async def test_runs_at_hand_are_not_read_again(database):
    async with database.transaction() as db:
        store = RunStore(db)
        await store.add([RUN, replace(RUN, ended_at=RUN.ended_at + timedelta(hours=1))])
        (newest,) = at_hand = await store.recent_by_id("dev", 1)
        await store.add([replace(RUN, ended_at=RUN.ended_at + timedelta(hours=2))])
        found = await store.recent_by_id("dev", 3, at_hand)
        assert list(found.values()) == await store.recent("dev", 3)
        assert found[newest] is at_hand[newest]


async def test_the_newest_look_of_an_hour_stays_and_weeks_old_ones_go(database):
    async def look(at):
        async with database.transaction() as db:
            await SnapshotStore(db).put("dev", "cluster", "ann1", replace(LOOK, taken_at=at))

    async def kept():
        async with database.reading() as db:
            return [row.taken_at for row in await db.execute(snapshots.select().order_by(snapshots.c.taken_at))]

    for minutes in (0, 20, 40, 60, 70):
        await look(NOW + timedelta(minutes=minutes))
    assert await kept() == [NOW + timedelta(minutes=40), NOW + timedelta(minutes=70)]
    await look(NOW + timedelta(days=20))
    assert await kept() == [NOW + timedelta(days=20)]


async def test_the_newest_look_of_any_login_is_the_latest(database):
    newer = replace(LOOK, taken_at=NOW + timedelta(seconds=10))
    async with database.transaction() as db:
        store = SnapshotStore(db)
        await store.put("dev", "cluster", "bob1", newer)
        await store.put("dev", "cluster", "ann1", LOOK)
        await store.put("dev", "big", "ann1", LOOK)
        await store.put("other", "cluster", "ann1", replace(LOOK, taken_at=NOW + timedelta(days=1)))
        assert await store.latest("dev", "cluster") == newer
        assert await store.latest("dev", "unseen") is None
        assert await store.latest_all("dev") == {"cluster": newer, "big": LOOK}


SEEN = Sighting(
    remote_id="7",
    partition="p",
    cores=4,
    walltime_s=3600,
    user="bob",
    submitted_at=NOW,
    seen_at=NOW + timedelta(minutes=1),
)


async def test_of_a_job_that_looks_showed_the_newest_word_stays(database):
    started = replace(SEEN, started_at=NOW + timedelta(minutes=2), seen_at=NOW + timedelta(minutes=3))
    later = replace(SEEN, submitted_at=NOW + timedelta(hours=1), user="eve")
    async with database.transaction() as db:
        store = SightingStore(db)
        for seen in (SEEN, started, SEEN):
            await store.put("dev", "cluster", [seen])
        await store.put("dev", "cluster", [later])
        await store.put("dev", "big", [SEEN])
        await store.put("other", "cluster", [SEEN])
        assert await store.recent("dev", "cluster", 9) == [started, later], "numbers are used again"
        assert await store.recent("dev", "cluster", 1) == [later]


async def test_jobs_that_nothing_was_heard_of_for_long_are_forgotten(database):
    async with database.transaction() as db:
        store = SightingStore(db)
        await store.put("dev", "cluster", [SEEN, replace(SEEN, remote_id="8", seen_at=NOW + timedelta(minutes=9))])
        assert await store.sweep(NOW + timedelta(minutes=5)) == 1
        assert [seen.remote_id for seen in await store.recent("dev", "cluster", 9)] == ["8"]


KEY = ("dev", "ann", "POST /v3/jobs/submit", "k-1")


async def test_an_answer_is_remembered_by_tenant_user_route_and_key(database):
    answer = {"uuid": "x", "n": [1, None]}
    async with database.transaction() as db:
        store = IdempotencyStore(db)
        assert await store.get(*KEY) is None
        await store.put(*KEY, "hash", answer, NOW)
        assert await store.get(*KEY) == ("hash", answer)
        for n, different in enumerate(("other", "bob", "POST /v3/apps", "k-2")):
            assert await store.get(*KEY[:n], different, *KEY[n + 1 :]) is None
        with pytest.raises(AlreadyExists):
            await store.put(*KEY, "hash", answer, NOW)


async def test_answers_are_forgotten_when_they_are_old(database):
    async with database.transaction() as db:
        store = IdempotencyStore(db)
        await store.put(*KEY, "hash", 1, NOW)
        assert await store.sweep(NOW) == 0
        assert await store.sweep(NOW + timedelta(seconds=1)) == 1
        assert await store.get(*KEY) is None


async def test_of_two_requests_with_one_key_at_once_one_is_stored(on_postgresql):
    async def ask(answer):
        async with on_postgresql.transaction() as db:
            await IdempotencyStore(db).put(*KEY, "hash", answer, NOW)
            return answer

    outcomes = await asyncio.gather(*map(ask, range(6)), return_exceptions=True)
    (winner,) = [outcome for outcome in outcomes if not isinstance(outcome, AlreadyExists)]
    async with on_postgresql.reading() as db:
        assert await IdempotencyStore(db).get(*KEY) == ("hash", winner)


async def test_who_did_what_is_written_down(database):
    async with database.transaction() as db:
        await AuditStore(db).add("dev", "ann", "system.delete", "cluster", {"why": "old"}, NOW)
        (row,) = (await db.execute(audit.select())).mappings()
    assert (row["actor"], row["action"], row["detail"], row["at"]) == ("ann", "system.delete", {"why": "old"}, NOW)
