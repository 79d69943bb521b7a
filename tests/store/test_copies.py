"""Attempts beside a lead: claimed by one process at a time, numbered once, and handed the job in one guarded write."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from scheduler.model.errors import IllegalMove, StaleJob
from scheduler.model.jobs import Fact, Job, Role
from scheduler.model.runs import JobType, Observation, RemoteState, Resources
from scheduler.model.snapshots import SystemSnapshot
from scheduler.model.states import LIVE_ATTEMPTS, A, E, S
from scheduler.model.systems import System
from scheduler.store.changes import Change, write_changes
from scheduler.store.copies import CopyStore
from scheduler.store.facts import PlacementFacts
from scheduler.store.jobs import JobStore
from scheduler.store.learning import SnapshotStore
from scheduler.store.systems import SystemStore
from tests.store.things import NOW, a_place, a_spec, an_attempt, recorded, submitting

LATER = NOW + timedelta(minutes=5)
ELSEWHERE = a_place(system_id="second", queue="long", partition="q", output_dir="w/attempts/2/o")
HEDGED = a_spec(dynamic=True, hedge_count=2)


async def queued(database, spec=HEDGED) -> Job:
    return await recorded(database, await submitting(database, spec=spec), E.ACCEPTED, remote_id="1")


def a_copy(job: Job, number: int = 2, **changes):
    asked = {"system_id": "second", "queue": "long", "place": ELSEWHERE, "role": Role.HEDGE, "state": A.PLANNED}
    return an_attempt(job, number, **{**asked, "next_look_at": NOW, **changes})


async def planned(database, job: Job, **changes):
    copy = a_copy(job, **changes)
    async with database.transaction() as db:
        return await CopyStore(db).plan(job, copy, "it is better there", NOW), copy


async def attempts(database, job: Job):
    async with database.reading() as db:
        return await JobStore(db).attempts(job)


async def claimed(database, at=NOW, process_id="one"):
    async with database.transaction() as db:
        return await CopyStore(db).claim(process_id, 30.0, 10, at)


async def test_a_planned_copy_is_stored_with_its_place_and_takes_the_next_number(database):
    job, copy = await planned(database, await queued(database))
    assert (job.attempt, job.last_attempt) == (1, 2)
    assert [one.number for one in await attempts(database, job)] == [1, 2]
    assert (await attempts(database, job))[1] == copy
    async with database.reading() as db:
        assert await JobStore(db).get("dev", job.uuid) == job
        assert (await JobStore(db).newest_attempt(job)).number == 1
        lines = await JobStore(db).history("dev", job.uuid)
    assert (lines[-1].detail, lines[-1].description) == ("COPY_PLANNED", "it is better there")


async def test_of_two_who_plan_a_copy_one_does(database):
    job = await queued(database)
    await planned(database, job)
    with pytest.raises(StaleJob):
        await planned(database, job, number=3)
    assert len(await attempts(database, job)) == 2


async def test_a_copy_is_worked_on_by_one_process_until_its_lease_ends(database):
    await planned(database, await queued(database))
    [mine] = await claimed(database)
    assert mine.fence == 1
    assert await claimed(database, process_id="two") == []
    [theirs] = await claimed(database, at=NOW + timedelta(seconds=31), process_id="two")
    assert theirs.fence == 2
    async with database.transaction() as db:
        with pytest.raises(StaleJob):
            await CopyStore(db).extend(mine, 30.0, LATER)


async def test_what_is_written_gives_the_copy_back_until_it_is_due_again(database):
    await planned(database, await queued(database))
    [copy] = await claimed(database)
    async with database.transaction() as db:
        copy = await CopyStore(db).move(copy, E.PREPARED, NOW, keep=True)
    assert await claimed(database, at=NOW) == []
    async with database.transaction() as db:
        copy = await CopyStore(db).move(copy, E.ACCEPTED, NOW, "there", remote_id="9", next_look_at=LATER)
        assert not await CopyStore(db).is_any_due(NOW)
        assert await CopyStore(db).is_any_due(LATER)
    assert (copy.state, copy.remote_id, copy.submitted_at) == (A.QUEUED, "9", NOW)
    assert await claimed(database, at=LATER - timedelta(seconds=1)) == []
    assert [one.marker for one in await claimed(database, at=LATER)] == [copy.marker]


async def test_a_copy_is_due_at_once_when_its_job_waits_no_longer(database):
    job, _ = await planned(database, await queued(database), next_look_at=LATER)
    assert await claimed(database) == []
    await recorded(database, job, E.STARTED)
    [copy] = await claimed(database)
    async with database.transaction() as db:
        copy = await CopyStore(db).note(copy, unwanted_at=NOW, next_look_at=LATER)
    assert await claimed(database) == []  # being withdrawn, it has its own pace
    assert len(await claimed(database, at=LATER)) == 1


async def test_what_is_over_is_looked_at_once_more_at_its_own_pace(database):
    job, copy = await planned(database, await queued(database))
    async with database.transaction() as db:
        over = await CopyStore(db).move(copy, E.WITHDRAWN, NOW, "gone")
        with pytest.raises(IllegalMove):
            await CopyStore(db).move(over, E.ACCEPTED, NOW)
    assert (over.state, over.ended_at) == (A.WITHDRAWN, NOW)
    [over] = await claimed(database, at=NOW)
    async with database.transaction() as db:
        await CopyStore(db).release(over, LATER)
    await recorded(database, job, E.CANCELLED)
    assert await claimed(database, at=NOW) == []
    [over] = await claimed(database, at=LATER)
    async with database.transaction() as db:
        await CopyStore(db).note(over, next_look_at=None)
    assert await claimed(database, at=LATER) == []


@pytest.mark.parametrize(
    ("state", "counted"),
    [(state, int(state in LIVE_ATTEMPTS)) for state in A],
)
async def test_a_copy_counts_against_limits_where_it_waits_until_it_is_over(database, state, counted):
    await planned(database, await queued(database), state=state, next_look_at=NOW if counted else None)
    async with database.reading() as db:
        counts = await JobStore(db).active_counts("dev")
        assert await JobStore(db).active_counts("other") == {}
    assert counts == {("cluster", "normal", "ann"): 1} | ({("second", "long", "ann"): 1} if counted else {})


async def test_a_copy_is_load_on_its_place_until_a_look_can_show_it(database):
    await add_system(database, "second")
    spec = a_spec(dynamic=True, hedge_count=2, resources=Resources(nodes=3))
    _, copy = await planned(database, await queued(database, spec))

    async def committed():
        async with database.reading() as db:
            [view] = await PlacementFacts(db).systems("dev", {"ann"})
        return [(each.queue, each.resources.nodes, each.submitted_at) for each in view.committed]

    assert await committed() == [("long", 3, None)]
    await looked(database, "second", at=NOW)
    assert await committed() == [("long", 3, None)], "it is about to be submitted"
    async with database.transaction() as db:
        copy = await CopyStore(db).move(copy, E.PREPARED, NOW)
        await CopyStore(db).move(copy, E.ACCEPTED, LATER, remote_id="9", next_look_at=LATER)
    assert await committed() == [("long", 3, LATER)]
    await looked(database, "second", at=LATER)
    assert await committed() == []


async def add_system(database, system_id):
    system = System(tenant="dev", id=system_id, uuid=system_id, owner="ann", host="h.example.org", can_exec=True)
    async with database.transaction() as db:
        await SystemStore(db).add(system)


async def looked(database, system_id, at):
    async with database.transaction() as db:
        await SnapshotStore(db).put("dev", system_id, "ann", SystemSnapshot(taken_at=at))


async def test_the_job_is_handed_over_in_one_write(database):
    job, copy = await planned(database, await queued(database), state=A.CLAIMED, remote_id="9", started_at=NOW)
    lead = (await attempts(database, job))[0]
    async with database.transaction() as db:
        now = await CopyStore(db).hand_over(job, lead, copy, "it starts first", LATER)
    assert (now.state, now.attempt, now.place, now.remote_id) == (S.QUEUED, 2, ELSEWHERE, "9")
    async with database.reading() as db:
        assert await JobStore(db).get("dev", job.uuid) == now
        assert (await JobStore(db).newest_attempt(now)).number == 2
        [flight] = await JobStore(db).in_flight(range(20))
        counts = await JobStore(db).active_counts("dev")
    assert [(one.state, one.ended_at) for one in await attempts(database, job)] == [
        (A.WITHDRAWN, LATER),
        (A.QUEUED, None),
    ]
    assert (flight.system_id, flight.is_copy, flight.runs_as) == ("second", False, JobType.BATCH)
    assert counts == {("second", "long", "ann"): 1}
    assert [one.number for one in await claimed(database, at=LATER)] == [2]  # its gate is to be opened


@pytest.mark.parametrize("moved", ["the job", "the lead", "the copy"])
async def test_nothing_is_handed_over_when_anything_changed_since_it_was_looked_at(database, moved):
    job, copy = await planned(database, await queued(database), state=A.CLAIMED, remote_id="9")
    lead = (await attempts(database, job))[0]
    async with database.transaction() as db:
        if moved == "the job":
            await JobStore(db).note(job, {"last_message": "news"}, NOW)
        else:
            await CopyStore(db).note(lead if moved == "the lead" else copy, missing_since=NOW)
    with pytest.raises(StaleJob):
        async with database.transaction() as db:
            await CopyStore(db).hand_over(job, lead, copy, "too late", LATER)
    async with database.reading() as db:
        assert (await JobStore(db).get("dev", job.uuid)).attempt == 1
    assert [one.state for one in await attempts(database, job)] == [A.QUEUED, A.CLAIMED]


async def test_a_lead_that_is_being_withdrawn_and_a_copy_that_is_are_not_watched(database):
    job, copy = await planned(database, await queued(database), state=A.QUEUED, remote_id="9")
    lead = (await attempts(database, job))[0]
    async with database.reading() as db:
        flights = await JobStore(db).in_flight(range(20))
    assert [(one.number, one.is_copy) for one in flights] == [(1, False), (2, True)]
    async with database.transaction() as db:
        for one in (lead, copy):
            await CopyStore(db).note(one, unwanted_at=NOW)
        assert await JobStore(db).versions_in_flight() == {}


async def test_a_lead_whose_withdrawal_began_cannot_be_started_by_an_older_look(database):
    job = await queued(database)
    lead = (await attempts(database, job))[0]
    async with database.transaction() as db:
        await CopyStore(db).note(lead, unwanted_at=NOW)
    seen = Observation(state=RemoteState.RUNNING, raw_state="RUNNING")
    with pytest.raises(StaleJob):
        async with database.transaction() as db:
            change = Change(job=job, facts=[Fact(E.STARTED, {"observation": seen})], attempt=lead)
            await write_changes(db, [change], LATER)


@pytest.mark.parametrize(
    ("spec", "due_at"),
    [
        (HEDGED, NOW),
        (replace(HEDGED, hedge_count=1), LATER),
        (replace(HEDGED, hedge_count=1, dynamic=False, exec_system_id="cluster"), None),
    ],
)
async def test_a_queued_job_is_thought_over_when_it_is_due_and_by_one_process(database, spec, due_at):
    job = await queued(database, spec)
    again_at = LATER + timedelta(minutes=5)
    async with database.transaction() as db:
        store = CopyStore(db)
        if due_at is None:
            assert not await store.is_any_for_review(again_at)
            return
        assert await store.for_review(10, due_at - timedelta(seconds=1), again_at) == []
        assert [one.uuid for one in await store.for_review(10, due_at, again_at)] == [job.uuid]
        assert await store.for_review(10, due_at, again_at) == []
    await recorded(database, job, E.STARTED)
    async with database.reading() as db:
        assert not await CopyStore(db).is_any_for_review(again_at)
