"""Jobs are stored whole, found by their tenant only, and every change of state leaves its line of history."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from scheduler.model.errors import IllegalMove, NotFound, StaleJob
from scheduler.model.ids import new_job_uuid
from scheduler.model.jobs import Fact, HistoryEvent, InFlight
from scheduler.model.plan import Decision
from scheduler.model.runs import JobType, Observation, RemoteState
from scheduler.model.states import AttemptState, Condition, E, S
from scheduler.store.jobs import JobStore
from tests.store.things import (
    NOW,
    a_new_job,
    a_place,
    a_spec,
    added,
    an_attempt,
    in_state,
    recorded,
    submitting,
)

LATER = NOW + timedelta(minutes=5)


async def reread(database, job):
    async with database.reading() as db:
        return await JobStore(db).get(job.tenant, job.uuid)


async def attempt_of(database, job):
    async with database.reading() as db:
        return await JobStore(db).newest_attempt(job)


async def test_a_stored_job_is_read_back_as_it_was_returned(database):
    spec = a_spec(notes={"a": [1, None, {"b": "ü"}]}, env={"X": "1"}, args=("--fast", ""))
    job = await added(database, spec=spec, decision=Decision(winner=None, sentence="nowhere"), tracking_id="t.1")
    assert await reread(database, job) == job
    assert job.state is S.PENDING
    assert job.spec == spec


async def test_many_jobs_are_stored_at_once_in_the_order_given(database):
    new = [a_new_job(spec=a_spec(name=f"job {n}")) for n in range(1000)]
    async with database.transaction() as db:
        made = await JobStore(db).add(new)
    assert [job.uuid for job in made] == [job.uuid for job in new]
    for n in (0, 499, 999):
        assert await reread(database, made[n]) == made[n]
    async with database.reading() as db:
        assert await JobStore(db).count("dev", "ann") == 1000
        assert len(await JobStore(db).history("dev", new[999].uuid)) == 1


async def test_storing_no_jobs_is_no_error(database):
    async with database.transaction() as db:
        assert await JobStore(db).add([]) == []


async def test_what_was_rolled_back_was_never_there(database):
    new = a_new_job()
    async with database.transaction() as db:
        await JobStore(db).add([new])
        await db.rollback()
    async with database.reading() as db:
        with pytest.raises(NotFound):
            await JobStore(db).get("dev", new.uuid)


async def test_a_job_is_not_found_from_another_tenant(database):
    job = await added(database)
    async with database.transaction() as db:
        store = JobStore(db)
        for asking in (store.get, store.history):
            with pytest.raises(NotFound, match=job.uuid):
                await asking("other", job.uuid)
        with pytest.raises(NotFound):
            await store.request_cancel("other", job.uuid, NOW)
        assert await store.list("other", None) == []
        assert await store.active_counts("other") == {}
        assert (await store.find(job.id)).uuid == job.uuid


@pytest.mark.parametrize("name", ["", "no\0such", "\ud800", "'; DROP TABLE jobs; --", "x" * 100_000])
async def test_a_hostile_name_is_just_not_found(database, name):
    async with database.reading() as db:
        with pytest.raises(NotFound):
            await JobStore(db).get("dev", name)


async def test_every_move_is_written_with_its_history(database):
    job = await recorded(database, await added(database), E.PLACED, E.INPUTS_LISTED)
    assert (await reread(database, job)).state is S.STAGING_INPUTS
    async with database.reading() as db:
        lines = await JobStore(db).history("dev", job.uuid)
        assert await JobStore(db).history("dev", job.uuid, limit=1, skip=1) == lines[1:2]
    assert [(line.event, line.detail) for line in lines] == [
        ("JOB_NEW_STATUS", "PENDING"),
        ("JOB_NEW_STATUS", "PROCESSING_INPUTS"),
        ("JOB_NEW_STATUS", "STAGING_INPUTS"),
    ]
    assert "previous job status was PROCESSING_INPUTS" in lines[2].description


async def test_a_message_becomes_the_last_message_and_the_line_of_history(database):
    job = await added(database)
    async with database.transaction() as db:
        job = await JobStore(db).record(job, Fact(E.BLOCKED, message="login node does not answer\0"), LATER)
        lines = await JobStore(db).history("dev", job.uuid)
    assert (await reread(database, job)).last_message == "login node does not answer\ufffd"
    assert lines[-1].description == "login node does not answer\ufffd"
    assert lines[-1].at == job.updated_at == LATER


async def test_an_illegal_move_writes_nothing(database):
    job = await added(database)
    with pytest.raises(IllegalMove):
        await recorded(database, job, E.ARCHIVED)
    assert await reread(database, job) == job


async def test_a_writer_with_an_old_version_is_told_and_writes_nothing(database):
    job = await added(database)
    newer = await recorded(database, job, E.PLACED)
    with pytest.raises(StaleJob):
        await recorded(database, job, E.FAILED)
    async with database.transaction() as db:
        with pytest.raises(StaleJob):
            await JobStore(db).note(job, {"last_message": "late"}, NOW)
    assert await reread(database, newer) == newer
    async with database.reading() as db:
        assert len(await JobStore(db).history("dev", job.uuid)) == 2


@pytest.mark.parametrize(
    ("events", "condition"),
    [
        ((E.CANCELLED,), Condition.CANCELLED_BY_USER),
        ((E.FAILED,), Condition.JOB_INTERNAL_ERROR),
    ],
)
async def test_an_ended_job_says_when_and_why(database, events, condition):
    job = await recorded(database, await added(database), *events)
    assert job == await reread(database, job)
    assert (job.condition, job.ended_at) == (condition, NOW)


async def test_a_fact_may_say_why_a_job_ended(database):
    job = await recorded(database, await added(database), E.FAILED, condition=Condition.JOB_UNABLE_TO_STAGE_JOB)
    assert (await reread(database, job)).condition is Condition.JOB_UNABLE_TO_STAGE_JOB


async def test_a_blocked_job_returns_to_where_it_was(database):
    job = await recorded(database, await added(database), E.PLACED, E.BLOCKED)
    assert (job.resume_state, job.blocked_count) == (S.PROCESSING_INPUTS, 1)
    job = await recorded(database, job, E.PAUSED)
    assert job.resume_state is S.PROCESSING_INPUTS
    job = await recorded(database, job, E.RESUMED, E.BLOCKED)
    assert (job.resume_state, job.blocked_count) == (S.PROCESSING_INPUTS, 2)
    job = await recorded(database, job, E.RESUMED)
    assert (job.state, job.resume_state) == (S.PROCESSING_INPUTS, None)
    assert await reread(database, job) == job


async def test_the_intent_and_the_move_are_one_write(database):
    job = await recorded(database, await added(database), E.PLACED, E.INPUTS_LISTED, E.INPUTS_READY)
    attempt = an_attempt(job)
    async with database.transaction() as db:
        submitted = await JobStore(db).intend(job, attempt, LATER)
    assert (submitted.state, submitted.attempt) == (S.SUBMITTING_JOB, 1)
    assert await reread(database, job) == submitted
    assert await attempt_of(database, job) == attempt
    with pytest.raises(StaleJob):
        async with database.transaction() as db:
            await JobStore(db).intend(job, an_attempt(job, 2), LATER)
    async with database.reading() as db:
        assert await JobStore(db).attempts(job) == [attempt]


async def test_a_second_attempt_under_one_number_is_refused_by_the_database(database):
    job = await submitting(database)
    back = await recorded(database, job, E.NEVER_ARRIVED, E.PLACED, E.INPUTS_LISTED, E.INPUTS_READY)
    with pytest.raises(Exception, match=r"(?i)unique"):
        async with database.transaction() as db:
            await JobStore(db).intend(back, an_attempt(job), NOW)
    assert await reread(database, back) == back


LIFE = [
    (E.ACCEPTED, S.QUEUED, AttemptState.QUEUED),
    (E.STARTED, S.RUNNING, AttemptState.CLAIMED),
    (E.REQUEUED, S.QUEUED, AttemptState.QUEUED),
    (E.STARTED, S.RUNNING, AttemptState.CLAIMED),
    (E.ENDED, S.ARCHIVING, AttemptState.ENDED),
    (E.ARCHIVED, S.FINISHED, AttemptState.ENDED),
]


async def test_the_newest_attempt_moves_with_its_job(database):
    job = await submitting(database)
    for event, state, attempt_state in LIFE:
        job = await recorded(database, job, event, **({"remote_id": "77"} if event is E.ACCEPTED else {}))
        attempt = await attempt_of(database, job)
        assert (job.state, attempt.state) == (state, attempt_state)
    assert (attempt.remote_id, attempt.submitted_at, attempt.started_at, attempt.ended_at) == ("77", NOW, NOW, NOW)
    assert job.condition is Condition.NORMAL_COMPLETION
    assert await reread(database, job) == job


async def test_a_lost_attempt_sends_the_job_back_and_takes_its_remote_id_along(database):
    job = await recorded(database, await submitting(database), E.ACCEPTED, remote_id="77")
    job = await recorded(database, job, E.LOST)
    assert (job.state, job.remote_id, job.attempt) == (S.PENDING, None, 1)
    assert await reread(database, job) == job
    attempt = await attempt_of(database, job)
    assert (attempt.state, attempt.remote_id) == (AttemptState.LOST, "77")


async def test_a_job_may_fail_with_an_event_of_its_own_for_the_attempt(database):
    job = await recorded(database, await submitting(database), E.ACCEPTED, E.STARTED)
    async with database.transaction() as db:
        fact = Fact(E.FAILED, attempt_event=E.LOST, attempt={"missing_since": NOW}, message="the site lost it")
        job = await JobStore(db).record(job, fact, LATER)
    attempt = await attempt_of(database, job)
    assert (job.state, attempt.state, attempt.missing_since) == (S.FAILED, AttemptState.LOST, NOW)


@pytest.mark.parametrize("event", [E.FAILED, E.CANCELLED])
async def test_a_job_whose_attempt_is_over_can_still_end(database, event):
    job = await recorded(database, await submitting(database), E.ACCEPTED, E.STARTED, E.ENDED, event)
    assert job.state in (S.FAILED, S.CANCELLED)
    assert (await attempt_of(database, job)).state is AttemptState.ENDED


async def test_a_note_changes_fields_without_a_move(database):
    job = await recorded(database, await submitting(database), E.ACCEPTED)
    seen = Observation(state=RemoteState.QUEUED, raw_state="PENDING", reason="Priority", expected_start_at=LATER)
    line = HistoryEvent(event="JOB_ERROR_MESSAGE", detail="", description="no answer", at=LATER)
    async with database.transaction() as db:
        job = await JobStore(db).note(job, {"observation": seen, "last_message": "waiting"}, LATER, line)
        assert (await JobStore(db).history("dev", job.uuid))[-1] == line
        [flight] = await JobStore(db).in_flight([job.id])
    assert await reread(database, job) == job
    assert (job.observation, job.updated_at) == (seen, LATER)
    assert flight.expected_start_at == LATER


async def test_a_new_place_is_found_where_it_is_searched(database):
    job = await added(database, place=None)
    async with database.transaction() as db:
        await JobStore(db).record(job, Fact(E.PLACED, {"place": a_place(system_id="big", queue="long")}), NOW)
        assert await JobStore(db).active_counts("dev") == {("big", "long", "ann"): 1}


async def test_an_attempt_is_noted_by_its_own_version(database):
    job = await submitting(database)
    attempt = await attempt_of(database, job)
    async with database.transaction() as db:
        noted = await JobStore(db).note_attempt(attempt, {"missing_since": NOW})
        with pytest.raises(StaleJob):
            await JobStore(db).note_attempt(attempt, {"missing_since": None})
    assert await attempt_of(database, job) == noted == replace(attempt, missing_since=NOW, version=1)


async def test_a_cancel_is_written_down_once(database):
    job = await added(database)
    async with database.transaction() as db:
        asked = await JobStore(db).request_cancel("dev", job.uuid, LATER)
        again = await JobStore(db).request_cancel("dev", job.uuid, LATER + timedelta(hours=1))
        lines = await JobStore(db).history("dev", job.uuid)
    assert asked.cancel_requested_at == LATER
    assert asked == again
    assert [line.detail for line in lines] == ["PENDING", "CANCEL_REQUESTED"]


async def test_a_cancel_of_an_ended_job_changes_nothing(database):
    job = await recorded(database, await added(database), E.FAILED)
    async with database.transaction() as db:
        assert await JobStore(db).request_cancel("dev", job.uuid, LATER) == job


async def test_watching_gets_what_may_exist_remotely(database):
    waiting = await added(database)
    flying = [await recorded(database, await submitting(database), E.ACCEPTED, remote_id=str(n)) for n in range(3)]
    over = await recorded(database, await submitting(database), E.ACCEPTED, E.STARTED, E.ENDED)
    async with database.reading() as db:
        versions = await JobStore(db).versions_in_flight()
        found = await JobStore(db).in_flight([job.id for job in (waiting, *flying, over)])
    assert [flight.uuid for flight in found] == [job.uuid for job in flying]
    assert versions == {flight.job_id: flight.versions for flight in found}
    job, attempt = flying[0], await attempt_of(database, flying[0])
    assert found[0] == InFlight(
        job_id=job.id,
        uuid=job.uuid,
        tenant="dev",
        owner="ann",
        state=S.QUEUED,
        version=job.version,
        system_id="cluster",
        job_type=JobType.BATCH,
        marker=attempt.marker,
        attempt=1,
        attempt_state=AttemptState.QUEUED,
        attempt_version=attempt.version,
        remote_id="0",
        submitted_at=NOW,
        expected_start_at=None,
        cancel_requested_at=None,
        missing_since=None,
        queue="normal",
        observation=None,
        last_message=job.last_message,
    )


async def test_notes_of_many_jobs_leave_those_alone_that_were_written_meanwhile(database):
    flying = [await recorded(database, await submitting(database), E.ACCEPTED) for _ in range(3)]
    seen = Observation(state=RemoteState.QUEUED, raw_state="PENDING", reason="Priority", expected_start_at=LATER)
    async with database.transaction() as db:
        flights = await JobStore(db).in_flight([job.id for job in flying])
        started = await JobStore(db).record(flying[1], Fact(E.STARTED), NOW)
        notes = {"observation": seen, "last_message": "waiting"}
        await JobStore(db).note_in_flight([(flights[0], notes), (flights[1], notes)], LATER)
        await JobStore(db).note_in_flight([(flights[2], {"last_message": "not reachable"})], LATER)
    first, second, third = [await reread(database, job) for job in flying]
    assert (first.observation, first.last_message) == (seen, "waiting")
    assert (first.version, first.updated_at, first.state) == (flying[0].version + 1, LATER, S.QUEUED)
    assert second == started
    assert (third.observation, third.last_message) == (None, "not reachable")


COUNTED = {S.PROCESSING_INPUTS, S.STAGING_INPUTS, S.STAGING_JOB, S.SUBMITTING_JOB, S.QUEUED, S.RUNNING}


@pytest.mark.parametrize("state", list(S))
async def test_limits_count_jobs_from_placing_until_they_have_run(database, state):
    await in_state(database, state)
    async with database.reading() as db:
        counts = await JobStore(db).active_counts("dev")
    assert counts == ({("cluster", "normal", "ann"): 1} if state in COUNTED else {})


async def test_a_placed_job_that_is_blocked_counts_against_the_limits(database):
    await recorded(database, await added(database), E.PLACED, E.BLOCKED)
    await recorded(database, await added(database), E.BLOCKED)
    async with database.reading() as db:
        assert await JobStore(db).active_counts("dev") == {("cluster", "normal", "ann"): 1}


async def test_a_uuid_that_is_taken_is_refused(database):
    job = await added(database, uuid=new_job_uuid())
    with pytest.raises(Exception, match=r"(?i)unique"):
        await added(database, uuid=job.uuid)
