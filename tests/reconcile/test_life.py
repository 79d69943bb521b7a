"""A job's way through the loops, on a system that behaves."""

from scheduler.model.runs import Ending
from scheduler.model.states import Condition, S
from tests.reconcile.world import World


async def test_a_job_runs_and_its_outputs_are_kept(world: World):
    [job] = await world.submit(archive_system_id="cluster", archive_dir="kept/${JobUUID}")
    job = await world.run_until(job, S.QUEUED)
    [attempt] = await world.attempts(job)
    world.system.start(attempt.marker)
    await world.run_until(job, S.RUNNING)
    world.system.end(attempt.marker, output=b"hello\n")
    job = await world.run_until(job, S.FINISHED)

    assert job.condition is Condition.NORMAL_COMPLETION
    assert job.remote_outcome == "FINISHED"
    assert world.system.files.nodes[f"/kept/{job.uuid}/tapisjob.out"] == b"hello\n"
    assert await world.history(job) == [
        "PENDING",
        "PLACEMENT",
        "PROCESSING_INPUTS",
        "STAGING_INPUTS",
        "STAGING_JOB",
        "SUBMITTING_JOB",
        "QUEUED",
        "RUNNING",
        "ARCHIVING",
        "FINISHED",
    ]


async def test_a_job_that_ended_between_two_looks_shows_both_steps(world: World):
    world.system.run_at_once = True
    [job] = await world.submit()
    job = await world.run_until(job, S.FINISHED)
    assert (await world.history(job))[-4:] == ["QUEUED", "RUNNING", "ARCHIVING", "FINISHED"]


async def test_a_failing_payload_fails_the_job_with_its_exit_code(world: World):
    [job] = await world.submit()
    job = await world.run_until(job, S.QUEUED)
    [attempt] = await world.attempts(job)
    world.system.end(attempt.marker, exit_code=3)
    job = await world.run_until(job, S.FAILED)
    assert job.condition is Condition.JOB_REMOTE_OUTCOME_ERROR
    assert job.remote_result == "3"
    assert "exit code 3" in job.last_message


async def test_a_job_cancelled_by_the_site_before_it_started_is_not_archived(world: World):
    [job] = await world.submit()
    job = await world.run_until(job, S.QUEUED)
    [attempt] = await world.attempts(job)
    fake = world.system.jobs[attempt.marker]
    world.system.end(attempt.marker, ending=Ending.CANCELLED)
    fake.started_at, fake.exit_code = None, None
    job = await world.run_until(job, S.FAILED)
    assert job.condition is Condition.SCHEDULER_CANCELLED
    assert "RUNNING" not in await world.history(job)
