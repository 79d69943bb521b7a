"""What waits in Slurm's queue is taken back for good, whatever Slurm itself does then."""

import pytest
import pytest_asyncio

from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.runs import Ending, RemoteState
from tests.contract.slurm import SlurmSubject, slurm_subject
from tests.contract.subjects import eventually


@pytest_asyncio.fixture
async def toy(tmp_path):
    async with slurm_subject(tmp_path) as subject:
        subject.say("queue.holds")
        yield subject


@pytest.fixture
def marker():
    return marker_for(new_job_uuid(), 1)


async def over(toy: SlurmSubject, remote_id, marker):
    seen = {}

    async def has_ended() -> bool:
        seen.update(await toy.backend.observe({remote_id: marker}))
        return remote_id in seen and seen[remote_id].state is RemoteState.ENDED

    await eventually(has_ended, "the job ends")
    return seen[remote_id]


async def test_a_job_that_waits_is_taken_back_and_leaves_the_queue(toy, marker):
    remote_id = (await toy.backend.submit([toy.intent(marker)]))[marker]
    assert await toy.backend.withdraw(remote_id, marker) is True
    assert (await over(toy, remote_id, marker)).raw_state == "CANCELLED"
    assert await toy.backend.withdraw(remote_id, marker) is True
    assert await toy.backend.cancel(remote_id, marker) is False
    toy.unsay("queue.holds")
    assert await toy.runs_of(marker) == 0


async def test_a_job_that_scancel_did_not_reach_starts_in_vain(toy, marker):
    remote_id = (await toy.backend.submit([toy.intent(marker)]))[marker]
    toy.say("down")
    assert await toy.backend.withdraw(remote_id, marker) is True
    toy.unsay("down")
    toy.unsay("queue.holds")

    async def gave_up() -> bool:
        return [job.get("code", "").strip() for job in toy.jobs()] == ["119"]

    await eventually(gave_up, "it finds its claim taken")
    assert await toy.backend.withdraw(remote_id, marker) is True
    assert await toy.runs_of(marker) == 0


async def test_nothing_is_proven_of_a_marker_that_nobody_knows(toy, marker):
    assert await toy.backend.withdraw("7", marker) is False


async def test_a_copy_that_nobody_let_go_says_so_and_is_proven_not_to_have_begun(toy, marker):
    toy.unsay("queue.holds")
    remote_id = (await toy.backend.submit([toy.intent(marker, gate_s=1)]))[marker]
    seen = await over(toy, remote_id, marker)
    assert (seen.ending, seen.exit_code) == (Ending.GATE_CLOSED, None)
    toy.open_gate(marker)
    assert await toy.backend.withdraw(remote_id, marker) is True
    assert await toy.backend.cancel(remote_id, marker) is False
    toy.say("queue.forgets")
    toy.say("sacct.down")
    assert (await toy.backend.observe({remote_id: marker}))[remote_id].ending is Ending.GATE_CLOSED
    assert await toy.runs_of(marker) == 0
