"""Whatever is written in whatever order, a stored life follows the table, and no write is lost or half done."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.model.errors import IllegalMove, StaleJob
from scheduler.model.jobs import Fact
from scheduler.model.states import BEFORE_SUBMISSION, MOVES, TERMINAL, Event, JobState, move
from scheduler.store.jobs import JobStore
from tests.store.things import NOW, added, an_attempt

on_a_shared_database = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


async def happen(db, job, event, at):
    """``event`` as production writes it: a submission needs its intent."""
    if event is Event.JOB_READY:
        return await JobStore(db).intend(job, an_attempt(job, job.attempt + 1), at)
    return await JobStore(db).record(job, Fact(event), at)


@on_a_shared_database
@given(events=st.lists(st.sampled_from(Event), max_size=25), eager=st.booleans())
async def test_a_stored_life_is_a_walk_through_the_table(database, events, eager):
    job, walked = await added(database), [JobState.PENDING]
    for n, event in enumerate(events):
        at = NOW + timedelta(seconds=n)
        try:
            if eager:  # take any event that is possible here, so that walks get far
                possible = [one for one in Event if (job.state, one) in MOVES]
                event = possible[n % len(possible)] if possible and (job.state, event) not in MOVES else event
            expected = move(job.state, event, job.resume_state)
        except IllegalMove:
            expected = None
        try:
            async with database.transaction() as db:
                moved = await happen(db, job, event, at)
        except IllegalMove:
            assert expected is None
            continue
        assert moved.state is expected
        assert moved.version == job.version + 1
        job = moved
        walked.append(job.state)
    async with database.reading() as db:
        assert await JobStore(db).get("dev", job.uuid) == job
        lines = await JobStore(db).history("dev", job.uuid)
        attempts = await JobStore(db).attempts(job)
    assert [line.detail for line in lines] == walked
    assert [attempt.number for attempt in attempts] == list(range(1, job.attempt + 1))
    assert (job.ended_at is not None) == (job.state in TERMINAL) == (job.condition is not None)
    assert (job.resume_state in BEFORE_SUBMISSION) == (job.state in (JobState.BLOCKED, JobState.PAUSED))


@on_a_shared_database
@given(
    steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(Event)), min_size=1, max_size=15),
    rereads=st.lists(st.booleans(), min_size=15, max_size=15),
)
async def test_writers_that_do_not_know_of_each_other_never_overwrite(database, steps, rereads):
    """Three writers hold the job as they last saw it; a write counts exactly when its writer saw the last one."""
    truth = await added(database)
    seen = [truth, truth, truth]
    for (writer, event), reread in zip(steps, rereads, strict=False):
        if reread:
            async with database.reading() as db:
                seen[writer] = await JobStore(db).get("dev", truth.uuid)
        fresh = seen[writer].version == truth.version
        try:
            async with database.transaction() as db:
                moved = await happen(db, seen[writer], event, NOW)
        except StaleJob:
            assert not fresh
        except IllegalMove:
            pass
        else:
            assert fresh
            truth = seen[writer] = moved
    async with database.reading() as db:
        assert await JobStore(db).get("dev", truth.uuid) == truth
        assert len(await JobStore(db).history("dev", truth.uuid)) == truth.version + 1
