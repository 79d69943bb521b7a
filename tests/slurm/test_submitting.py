"""At most once, with a toy Slurm that loses answers, hangs and forgets."""

import asyncio
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from scheduler.model.errors import BackendUnavailable, NothingLearnt, SubmitRejected, SubmitUncertain
from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.runs import Ending, RemoteState, StagePlan
from tests.contract.slurm import SlurmSubject, slurm_subject
from tests.contract.subjects import eventually


@pytest_asyncio.fixture
async def toy(tmp_path):
    async with slurm_subject(tmp_path) as subject:
        yield subject


@pytest.fixture
def marker():
    return marker_for(new_job_uuid(), 1)


async def answer(toy: SlurmSubject, marker, **changes):
    return (await toy.backend.submit([toy.intent(marker, **changes)]))[marker]


def is_there(path: str) -> bool:
    return Path(path).exists()


async def ended(toy: SlurmSubject, remote_id, marker) -> None:
    async def has_ended() -> bool:
        return (await toy.backend.observe({remote_id: marker}))[remote_id].state is RemoteState.ENDED

    await eventually(has_ended, "the job ends")


async def test_an_answer_that_timed_out_is_uncertain_and_find_finds_the_job(toy, marker):
    toy.say("sbatch.loses")
    assert isinstance(await answer(toy, marker), SubmitUncertain)
    toy.unsay("sbatch.loses")
    assert isinstance(await answer(toy, marker), SubmitUncertain)  # sbatch is not run again
    assert await toy.backend.find(marker, datetime.now(UTC)) == "7"
    assert len(toy.jobs()) == 1


async def test_a_controller_that_is_away_leaves_the_job_unproven(toy, marker):
    toy.say("down")
    assert isinstance(await answer(toy, marker), SubmitUncertain)
    with pytest.raises(NothingLearnt, match=r"squeue: .*Unable to contact slurm controller"):
        await toy.backend.find(marker, datetime.now(UTC))
    toy.unsay("down")
    assert await toy.backend.find(marker, datetime.now(UTC)) is None
    assert toy.jobs() == []


async def test_absence_is_not_proven_while_accounting_is_away(toy, marker):
    toy.say("sacct.down")
    with pytest.raises(NothingLearnt, match=r"sacct: .*Connection refused"):
        await toy.backend.find(marker, datetime.now(UTC))
    assert not (toy.marker_dir(marker) / "void").exists()
    assert not isinstance(await answer(toy, marker), Exception)


async def test_a_site_without_accounting_can_still_prove_absence(toy, marker):
    toy.say("no.accounting")
    assert await toy.backend.find(marker, datetime.now(UTC)) is None


async def test_a_refusal_is_said_again_and_starts_nothing(toy, marker):
    toy.say("sbatch.refuses", marker)
    first = await answer(toy, marker)
    toy.unsay("sbatch.refuses")
    again = await answer(toy, marker)
    assert isinstance(first, SubmitRejected)
    assert (
        str(first)
        == str(again)
        == ("Batch job submission failed: Invalid account or account/partition combination specified")
    )
    assert toy.jobs() == []


async def test_a_cancelled_job_that_never_began_can_begin_no_more(toy, marker):
    toy.marker_dir(marker).mkdir(parents=True)
    assert await toy.backend.cancel("7", marker) is False  # the controller lost it
    assert isinstance(await answer(toy, marker), SubmitUncertain)
    assert await toy.backend.find(marker, datetime.now(UTC)) is None
    assert toy.jobs() == []


async def test_a_submission_that_comes_after_its_marker_was_given_up_makes_no_directories(toy, marker):
    assert await toy.backend.find(marker, datetime.now(UTC)) is None
    intent = toy.intent(marker)
    shutil.rmtree(intent.run.exec_dir, ignore_errors=True)  # as of a pod that is gone
    said = (await toy.backend.submit([intent]))[marker]
    assert isinstance(said, SubmitUncertain)
    assert not is_there(intent.run.exec_dir)


async def test_a_marker_directory_that_is_gone_proves_nothing_about_its_job(toy, marker):
    assert await toy.backend.cancel("7", marker) is True


async def test_a_job_that_the_controller_forgot_is_found_by_its_claim(toy, marker):
    remote_id = await answer(toy, marker)
    await toy.running(marker)
    (toy.marker_dir(marker) / "id").unlink()
    toy.say("queue.forgets")
    toy.say("no.accounting")
    assert await toy.backend.find(marker, datetime.now(UTC)) == remote_id


async def test_a_marker_under_lock_is_neither_submitted_nor_declared_absent(toy, marker):
    directory = toy.marker_dir(marker)
    directory.mkdir(parents=True)
    holder = await asyncio.create_subprocess_exec(
        "flock", str(directory / "lock"), "-c", "echo held; read _", stdin=-1, stdout=-1
    )
    assert await holder.stdout.readline() == b"held\n"
    assert isinstance(await answer(toy, marker), SubmitUncertain)
    with pytest.raises(BackendUnavailable, match="under way"):
        await toy.backend.find(marker, datetime.now(UTC))
    holder.stdin.close()
    await holder.wait()
    assert await answer(toy, marker) == "7"


async def test_a_stray_duplicate_runs_nothing_and_the_claimed_job_is_watched_instead(toy, marker):
    first = await answer(toy, marker)
    await toy.running(marker)
    directory = toy.marker_dir(marker)
    for name in ("id", "tried"):
        (directory / name).unlink()
    stray = await answer(toy, marker)  # as if a retry inside Slurm had made two
    assert stray != first

    async def found_the_claim() -> bool:
        return any(job.get("code", "").strip() == "119" for job in toy.jobs())

    await eventually(found_the_claim, "the stray gives up")
    seen = (await toy.backend.observe({stray: marker}))[stray]
    assert (seen.state, seen.ending) == (RemoteState.RUNNING, None)
    assert await toy.runs_of(marker) == 1


async def test_what_squeue_no_longer_shows_is_told_by_sacct_or_by_the_job_itself(toy, marker):
    remote_id = await answer(toy, marker)
    await toy.running(marker)
    await toy.finish(marker, exit_code=3)
    await ended(toy, remote_id, marker)
    toy.say("queue.forgets")
    by_sacct = (await toy.backend.observe({remote_id: marker}))[remote_id]
    toy.say("sacct.down")
    by_itself = (await toy.backend.observe({remote_id: marker}))[remote_id]
    assert [(seen.ending, seen.exit_code) for seen in (by_sacct, by_itself)] == [(Ending.FAILED, 3)] * 2


async def test_a_strangers_job_of_the_same_login_hides_none_of_ours(toy, marker):
    remote_id = await answer(toy, marker)
    await toy.running(marker)
    toy.add_job("98", "by hand", state="GONE_FISHING")
    toy.add_job("99", "two\x1fcolumns\nand lines")
    assert (await toy.backend.observe({remote_id: marker}))[remote_id].state is RemoteState.RUNNING


async def test_a_running_job_that_nobody_shows_is_left_out(toy, marker):
    remote_id = await answer(toy, marker)
    await toy.running(marker)
    toy.say("queue.forgets")
    toy.say("sacct.down")
    assert await toy.backend.observe({remote_id: marker}) == {}


async def test_an_impossible_directory_is_told_in_the_systems_words(toy, marker):
    (toy.work / "file").write_text("")
    plan = StagePlan(marker=marker, directories=(f"{toy.work}/file/below",))
    other = StagePlan(marker=marker, directories=(f"{toy.work}/fine",))
    failed, done = await asyncio.gather(toy.backend.stage(plan), toy.backend.stage(other), return_exceptions=True)
    assert "Not a directory" in str(failed)
    assert done.done
    submitted = await answer(toy, marker, exec_dir=f"{toy.work}/file/below")
    assert isinstance(submitted, SubmitUncertain)
    assert "Not a directory" in str(submitted)
    assert toy.jobs() == []


async def test_a_login_that_prints_and_sets_things_changes_nothing(toy, marker):
    (toy.work / "home" / ".bashrc").write_text(
        "echo Welcome; export SQUEUE_FORMAT=%i SBATCH_ACCOUNT=x SLURM_TIME_FORMAT=%c\n"
    )
    remote_id = await answer(toy, marker)
    assert (await toy.backend.observe({remote_id: marker}))[remote_id].state is RemoteState.RUNNING


async def test_the_environment_of_the_login_does_not_reach_the_job(toy, marker):
    intent = toy.intent(marker)
    intent = replace(intent, run=replace(intent.run, args=("env",), env={"MINE": "yes"}))
    toy.login_env["LEAK"] = "yes"
    remote_id = (await toy.backend.submit([intent]))[marker]
    await ended(toy, remote_id, marker)
    names = {
        line.partition(b"=")[0]
        for line in (await toy.backend.read_log(remote_id, toy.log_path(marker), 0)).data.splitlines()
    }
    assert b"MINE" in names
    assert not {name for name in names if name.startswith((b"SSH_", b"LEAK", b"SBATCH_"))}
