"""What goes wrong on the way: nothing is lost, nothing runs twice, and people are told in words."""

import asyncio
import contextlib

import pytest

from scheduler.model.jobs import After
from scheduler.model.runs import Ending
from scheduler.model.states import AttemptState, Condition, S
from scheduler.reconcile.submit import Submit
from scheduler.store.jobs import JobStore
from tests.fakes.system import Fault
from tests.reconcile.world import LEASE_S, LOST_AFTER_S, World


async def queued(world: World):
    [job] = await world.submit()
    job = await world.run_until(job, S.QUEUED)
    [attempt] = await world.attempts(job)
    return job, attempt


async def running(world: World):
    job, attempt = await queued(world)
    world.system.start(attempt.marker)
    return await world.run_until(job, S.RUNNING), attempt


# -- before submission -------------------------------------------------------------------------------------------


async def test_one_silent_call_before_submission_is_not_worth_a_word_of_blocking(world: World):
    world.system.fail("stage", Fault.UNAVAILABLE)
    [job] = await world.submit()
    job = await world.run_until(job, S.QUEUED)
    assert "BLOCKED" not in await world.history(job)


async def test_an_outage_before_submission_blocks_the_job_and_it_resumes_by_itself(world: World):
    world.system.fail("stage", Fault.UNAVAILABLE, times=5)
    [job] = await world.submit()
    job = await world.run_until(job, S.BLOCKED)
    assert "no route to host" in job.last_message
    assert job.resume_state is S.STAGING_JOB
    assert job.blocked_count == 1
    job = await world.run_until(job, S.QUEUED)
    history = await world.history(job)
    assert history.count("BLOCKED") == 1
    assert history[-4:] == ["BLOCKED", "STAGING_JOB", "SUBMITTING_JOB", "QUEUED"]


async def test_a_refused_login_blocks_the_job_and_says_so(world: World):
    world.system.fail("stage", Fault.LOGIN_FAILS, times=50)
    [job] = await world.submit()
    job = await world.run_until(job, S.BLOCKED)
    assert job.last_message.startswith("the login fails: ")
    world.system.heal()
    await world.run_until(job, S.QUEUED, step_s=10)


async def test_a_blocked_job_is_asked_for_less_and_less_often(world: World):
    world.system.fail("stage", Fault.UNAVAILABLE, times=10_000)
    await world.submit()
    await world.run(ticks=600, step_s=1)
    assert 6 <= world.system.calls.count("stage") <= 14


# -- submission --------------------------------------------------------------------------------------------------


async def test_a_cut_connection_after_the_system_accepted_leaves_one_job(world: World):
    world.system.fail("submit", Fault.AFTER_ACCEPT)
    _, attempt = await queued(world)
    assert list(world.system.jobs) == [attempt.marker]


async def test_a_connection_cut_before_the_system_accepted_makes_a_new_attempt(world: World):
    world.system.fail("submit", Fault.BEFORE_ACCEPT)
    [job] = await world.submit()
    job = await world.run_until(job, S.QUEUED)
    first, second = await world.attempts(job)
    assert (first.state, second.state) == (AttemptState.WITHDRAWN, AttemptState.QUEUED)
    assert list(world.system.jobs) == [second.marker]


async def test_while_neither_submit_nor_find_answers_the_job_stays_and_says_what_is_unknown(world: World):
    world.system.fail("submit", Fault.AFTER_ACCEPT)
    world.system.fail("find", Fault.UNAVAILABLE, times=5)
    [job] = await world.submit()
    await world.run(ticks=4)
    job = await world.job(job)
    assert job.state is S.SUBMITTING_JOB
    assert "not known yet" in job.last_message
    job = await world.run_until(job, S.QUEUED)
    assert len(world.system.jobs) == 1


async def test_a_refusal_fails_the_job_with_the_systems_own_words(world: World):
    world.system.refuse = lambda intent: "sbatch: error: invalid account"
    [job] = await world.submit()
    job = await world.run_until(job, S.FAILED)
    assert job.condition is Condition.JOB_LAUNCH_FAILURE
    assert "invalid account" in job.last_message
    [attempt] = await world.attempts(job)
    assert attempt.state is AttemptState.ENDED


async def test_jobs_of_one_login_go_together_in_one_call(world: World):
    jobs = await world.submit(count=12)
    for job in jobs:
        await world.run_until(job, S.QUEUED)
    assert world.system.calls.count("submit") <= 2


# -- watching ----------------------------------------------------------------------------------------------------


async def test_an_outage_while_queued_keeps_the_state_and_says_since_when(world: World):
    job, _ = await queued(world)
    world.system.fail("observe", Fault.UNAVAILABLE, times=20)
    await world.run(ticks=10)
    job = await world.job(job)
    assert job.state is S.QUEUED
    assert job.last_message.startswith("not reachable since 2026-03-01 12:")
    world.system.heal()
    await world.run(ticks=4, step_s=10)
    assert (await world.job(job)).last_message == "waiting in queue normal"


async def test_an_unknown_word_of_the_system_changes_nothing(world: World):
    job, _ = await running(world)
    world.system.fail("observe", Fault.UNKNOWN_WORD, times=3)
    await world.run(ticks=3)
    assert (await world.job(job)).state is S.RUNNING


async def test_a_job_unseen_for_a_while_is_not_lost(world: World):
    job, attempt = await queued(world)
    world.system.forget(attempt.marker)
    await world.run(ticks=50, step_s=LOST_AFTER_S / 60)
    world.system.jobs[attempt.marker].visible = True
    await world.run(ticks=3, step_s=10)
    job = await world.job(job)
    [attempt] = await world.attempts(job)
    assert (job.state, attempt.missing_since) == (S.QUEUED, None)


async def test_a_job_unseen_after_an_outage_no_longer_says_that_the_system_is_away(world: World):
    job, attempt = await queued(world)
    world.system.fail("observe", Fault.UNAVAILABLE, times=20)
    await world.run(ticks=10)
    assert (await world.job(job)).last_message.startswith("not reachable since")
    world.system.heal()
    world.system.forget(attempt.marker)
    await world.run(ticks=6, step_s=10)
    assert (await world.job(job)).last_message.startswith("the system has not known the job since")
    world.system.jobs[attempt.marker].visible = True
    await world.run(ticks=3, step_s=10)
    assert (await world.job(job)).last_message == "waiting in queue normal"


async def test_a_job_lost_before_it_started_is_placed_again_under_a_new_marker(world: World):
    job, attempt = await queued(world)
    world.system.forget(attempt.marker)
    await world.run(ticks=50, step_s=15)
    job = await world.job(job)
    first, second = await world.attempts(job)
    assert (first.state, second.state) == (AttemptState.LOST, AttemptState.QUEUED)
    assert world.system.jobs[first.marker].ending is Ending.CANCELLED, "a lost job must not start later"
    assert job.state is S.QUEUED


async def test_a_lost_job_that_began_while_nobody_looked_never_runs_again(world: World):
    job, attempt = await queued(world)
    world.system.start(attempt.marker)
    world.system.forget(attempt.marker)
    job = await world.run_until(job, S.FAILED, step_s=60)
    assert job.condition is Condition.JOB_EXECUTION_MONITORING_ERROR
    assert list(world.system.jobs) == [attempt.marker]


async def test_a_job_lost_while_it_ran_fails(world: World):
    job, attempt = await running(world)
    world.system.forget(attempt.marker)
    await world.run(ticks=50, step_s=15)
    job = await world.job(job)
    assert (job.state, job.condition) == (S.FAILED, Condition.JOB_EXECUTION_MONITORING_ERROR)


async def test_an_id_that_the_system_issued_twice_speaks_for_the_job_of_its_name_alone(world: World):
    forgotten, first = await queued(world)
    world.system.forget(first.marker)
    world.system.next_id -= 1  # the controller came back with an older state
    told, second = await running(world)
    assert first.remote_id == second.remote_id
    assert (await world.job(forgotten)).state is S.QUEUED
    world.system.end(second.marker)
    await world.run_until(told, S.FINISHED)
    assert (await world.job(forgotten)).state is S.QUEUED


async def test_one_late_answer_after_a_long_pause_does_not_lose_a_job(world: World):
    job, attempt = await queued(world)
    world.system.forget(attempt.marker)
    await world.run(ticks=1)
    world.later(10 * LOST_AFTER_S)
    await world.run(ticks=1)
    assert (await world.job(job)).state is S.QUEUED


async def test_a_job_put_back_by_the_site_waits_and_runs_again(world: World):
    job, attempt = await running(world)
    world.system.requeue(attempt.marker)
    job = await world.run_until(job, S.QUEUED)
    world.system.end(attempt.marker)
    job = await world.run_until(job, S.FINISHED)
    assert (await world.history(job)).count("RUNNING") == 2


async def test_a_job_that_the_site_started_and_could_not_launch_is_placed_again(world: World):
    job, attempt = await queued(world)
    world.system.end(attempt.marker, ending=Ending.LAUNCH_FAILURE)
    world.system.jobs[attempt.marker].exit_code = None
    await world.run(ticks=3)
    assert (await world.job(job)).state is S.QUEUED, "its traces may show late"
    await world.run(ticks=20, step_s=10)
    first, second = await world.attempts(job)
    assert (first.state, second.state) == (AttemptState.LOST, AttemptState.QUEUED)


async def test_a_job_is_failed_when_systems_could_not_launch_it_three_times_and_moves_do_not_count(world: World):
    job, attempt = await queued(world)
    async with world.database.transaction() as db:  # as after some copies
        await JobStore(db).note(await JobStore(db).find(job.id), {"last_attempt": 5}, world.now)
    for launch in range(3):
        attempt = (await world.attempts(job))[-1]
        assert attempt.number == (5 + launch if launch else 1)
        world.system.end(attempt.marker, ending=Ending.LAUNCH_FAILURE)
        world.system.jobs[attempt.marker].exit_code = None
        await world.run(ticks=20, step_s=10)
    assert (await world.job(job)).state is S.FAILED
    states = [one.state for one in await world.attempts(job)]
    assert states == [AttemptState.LOST, AttemptState.LOST, AttemptState.ENDED]


async def test_a_job_that_was_called_running_and_could_not_be_launched_is_placed_again(world: World):
    job, attempt = await running(world)
    world.system.end(attempt.marker, ending=Ending.LAUNCH_FAILURE)
    world.system.jobs[attempt.marker].exit_code = None
    await world.run(ticks=20, step_s=10)
    first, second = await world.attempts(job)
    assert (first.state, second.state) == (AttemptState.LOST, AttemptState.QUEUED)


# -- cancelling --------------------------------------------------------------------------------------------------


async def test_cancelling_a_queued_job_ends_it_on_the_system(world: World):
    job, attempt = await queued(world)
    await world.cancel(job)
    job = await world.run_until(job, S.CANCELLED)
    assert world.system.jobs[attempt.marker].ending is Ending.CANCELLED
    assert job.condition is Condition.CANCELLED_BY_USER


async def test_cancelling_a_running_job_keeps_asking_until_it_ended(world: World):
    job, attempt = await running(world)
    await world.cancel(job)
    world.system.fail("cancel", Fault.UNAVAILABLE, times=3)
    await world.run(ticks=1)
    assert (await world.job(job)).state is S.RUNNING
    job = await world.run_until(job, S.CANCELLED)
    assert world.system.jobs[attempt.marker].ending is Ending.CANCELLED


async def test_a_cancel_while_submission_is_in_doubt_leaves_nothing_behind(world: World):
    world.system.fail("submit", Fault.BEFORE_ACCEPT)
    world.system.fail("find", Fault.UNAVAILABLE, times=2)
    [job] = await world.submit()
    await world.run(ticks=1)
    assert (await world.job(job)).state is S.SUBMITTING_JOB
    await world.cancel(job)
    job = await world.run_until(job, S.CANCELLED)
    assert world.system.jobs == {}


async def test_a_cancel_while_submission_is_in_doubt_ends_the_job_that_did_arrive(world: World):
    world.system.fail("submit", Fault.AFTER_ACCEPT)
    world.system.fail("find", Fault.UNAVAILABLE, times=2)
    [job] = await world.submit()
    await world.run(ticks=1)
    await world.cancel(job)
    job = await world.run_until(job, S.CANCELLED)
    [fake] = world.system.jobs.values()
    assert fake.ending is Ending.CANCELLED


# -- leases ------------------------------------------------------------------------------------------------------


async def test_a_dead_processs_work_is_taken_over_when_its_lease_ends(world: World):
    [job] = await world.submit()
    world.system.fail("stage", Fault.SLOW)
    await world.loops.place.tick()
    await world.loops.advance.tick()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await world.loops.advance.crew.settle()
    assert "stage" in world.system.calls
    await world.loops.advance.crew.aclose()
    world.restart()
    await world.run(ticks=2, step_s=1)
    assert (await world.job(job)).state is S.STAGING_JOB
    world.later(LEASE_S)
    await world.run_until(job, S.QUEUED)


async def test_work_that_takes_longer_than_a_lease_is_not_begun_anew(world: World):
    [job] = await world.submit()
    world.system.fail("stage", Fault.SLOW)
    await world.loops.place.tick()
    await world.loops.advance.tick()
    async with asyncio.timeout(10):
        while "stage" not in world.system.calls:  # noqa: ASYNC110 - the fake tells nobody
            await asyncio.sleep(0.01)
    for _ in range(5):
        world.later(LEASE_S * 0.4)
        await world.loops.advance.tick()
    world.system.release()
    await world.loops.advance.crew.settle()
    assert world.system.calls.count("stage") == 1
    assert (await world.job(job)).state is S.SUBMITTING_JOB


async def test_intents_of_a_system_that_takes_its_time_are_not_hoarded(world: World):
    world.system.fail("submit", Fault.SLOW, times=2)
    submit = Submit(world.ports(), lease_s=LEASE_S, batch=2)
    await world.submit(count=12)
    await world.loops.place.tick()
    await world.loops.advance.tick()
    await world.loops.advance.crew.settle()
    for _ in range(6):
        await submit.tick()
        await asyncio.sleep(0)
    async with world.database.transaction() as db:
        left = await JobStore(db).claim({S.SUBMITTING_JOB}, "another", LEASE_S, 100, world.now)
    assert len(left) == 12 - 3 * 2  # two calls under way, and one more batch at hand
    world.system.release()
    await submit.crew.settle()
    assert len(world.system.jobs) == 6


async def test_what_became_of_one_call_is_written_while_the_next_is_under_way(world: World):
    submit = Submit(world.ports(), lease_s=LEASE_S, batch=1)
    world.system.fail("submit", Fault.SLOW)
    await world.submit(count=2)
    await world.loops.place.tick()
    await world.loops.advance.tick()
    await world.loops.advance.crew.settle()
    for _ in range(2):
        await submit.tick()
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while not world.system.jobs:  # noqa: ASYNC110 - the fake tells nobody
            await asyncio.sleep(0.01)
    world.system.release()
    await submit.crew.settle()
    assert len(world.system.jobs) == 2


async def test_an_unexpected_error_is_tried_again_and_ends_nothing(world: World):
    def broken(intent):
        raise RuntimeError("a bug")

    world.system.refuse = broken
    [job] = await world.submit()
    await world.run(ticks=3)
    assert (await world.job(job)).state is S.SUBMITTING_JOB
    world.system.refuse = lambda intent: None
    await world.run_until(job, S.QUEUED, step_s=LEASE_S)
    assert len(world.system.jobs) == 1


@pytest.mark.parametrize("condition", ["ok", "notok", "any"])
@pytest.mark.parametrize("exit_code", [0, 1])
async def test_a_job_after_another_runs_or_ends_as_it_asked(world: World, condition: str, exit_code: int):
    first, attempt = await queued(world)
    [second] = await world.submit(after=(After(first.uuid, condition),))
    await world.run(ticks=3)
    waiting = await world.job(second)
    assert waiting.state is S.PENDING
    assert f"waiting for job {first.uuid}" in waiting.last_message
    world.system.end(attempt.marker, exit_code=exit_code)
    await world.run(ticks=8)
    may_run = condition == "any" or (condition == "ok") == (exit_code == 0)
    second = await world.job(second)
    assert second.state is (S.QUEUED if may_run else S.CANCELLED), second.last_message
