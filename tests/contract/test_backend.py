"""The contract of Backend: at most one run per marker, and no guess about what is not known."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from backends.base import LOG_CHUNK_BYTES
from scheduler.model.errors import BackendUnavailable, NothingLearnt, SubmitError, SubmitRejected, UnexpectedReply
from scheduler.model.ids import Marker, RemoteId, marker_for, new_job_uuid
from scheduler.model.runs import Ending, RemoteState, StagedFile, StagePlan
from tests.contract.subjects import INTENDED_AT, Subject, eventually
from tests.contract.systems import BACKENDS


@pytest_asyncio.fixture(params=BACKENDS)
async def subject(request, tmp_path) -> AsyncIterator[Subject]:
    async with BACKENDS[request.param](tmp_path) as subject:
        yield subject


@pytest.fixture
def marker() -> Marker:
    return marker_for(new_job_uuid(), 1)


async def submitted(subject: Subject, marker: Marker) -> RemoteId:
    answer = (await subject.backend.submit([subject.intent(marker)]))[marker]
    assert not isinstance(answer, SubmitError), answer
    return answer


async def outcome(subject: Subject, marker: Marker) -> RemoteId | None:
    """What a caller does whose submission was cut: ask ``find``."""
    try:
        answer = (await subject.backend.submit([subject.intent(marker)]))[marker]
    except NothingLearnt:
        return await subject.backend.find(marker, INTENDED_AT)
    if isinstance(answer, SubmitError):
        assert not isinstance(answer, SubmitRejected), answer
        return await subject.backend.find(marker, INTENDED_AT)
    return answer


async def ended(subject: Subject, remote_id: RemoteId, marker: Marker):
    """The observation of a job that is coming to its end."""
    seen = {}

    async def has_ended() -> bool:
        seen.update(await subject.backend.observe({remote_id: marker}))
        return remote_id in seen and seen[remote_id].state is RemoteState.ENDED

    await eventually(has_ended, f"{remote_id} ends")
    return seen[remote_id]


async def test_a_job_runs_and_ends_with_its_code_and_its_output(subject, marker):
    remote_id = await submitted(subject, marker)
    await subject.running(marker)
    seen = (await subject.backend.observe({remote_id: marker}))[remote_id]
    assert (seen.state, seen.ending, seen.exit_code) == (RemoteState.RUNNING, None, None)
    await subject.finish(marker, output=b"hello\n")
    seen = await ended(subject, remote_id, marker)
    assert (seen.ending, seen.exit_code) == (Ending.COMPLETED, 0)
    assert seen.started_at is not None
    assert seen.ended_at >= seen.started_at
    assert (await subject.backend.read_log(remote_id, subject.log_path(marker), 0)).data == b"hello\n"


async def test_a_failing_job_ends_with_its_own_code(subject, marker):
    remote_id = await submitted(subject, marker)
    await subject.running(marker)
    await subject.finish(marker, exit_code=3)
    seen = await ended(subject, remote_id, marker)
    assert (seen.ending, seen.exit_code) == (Ending.FAILED, 3)


async def test_submitting_twice_with_one_marker_leaves_one_job(subject, marker):
    first = await submitted(subject, marker)
    assert await submitted(subject, marker) == first
    await subject.running(marker)
    assert await submitted(subject, marker) == first
    assert await subject.runs_of(marker) == 1


async def test_submitting_at_the_same_time_with_one_marker_leaves_one_job(subject, marker):
    answers = await asyncio.gather(*(subject.backend.submit([subject.intent(marker)]) for _ in range(4)))
    ids = {answer[marker] for answer in answers if not isinstance(answer[marker], SubmitError)}
    assert len(ids) == 1
    assert not [answer for answer in answers if isinstance(answer[marker], SubmitRejected)]
    await subject.running(marker)
    assert await subject.runs_of(marker) == 1


async def test_a_finished_job_is_not_run_again_by_a_late_submission(subject, marker):
    remote_id = await submitted(subject, marker)
    await subject.running(marker)
    await subject.finish(marker)
    await ended(subject, remote_id, marker)
    assert await submitted(subject, marker) == remote_id
    assert await subject.runs_of(marker) == 1


async def test_a_cut_connection_after_the_system_accepted_leaves_one_job(subject, marker):
    subject.lose_the_next_answer(accepted=True)
    remote_id = await outcome(subject, marker)
    assert remote_id is not None
    assert await submitted(subject, marker) == remote_id
    await subject.running(marker)
    assert await subject.runs_of(marker) == 1


async def test_a_cut_connection_before_the_system_accepted_is_proven_absent(subject, marker):
    subject.lose_the_next_answer(accepted=False)
    assert await outcome(subject, marker) is None
    assert await subject.runs_of(marker) == 0


async def test_what_find_proved_absent_can_never_start(subject, marker):
    assert await subject.backend.find(marker, INTENDED_AT) is None
    answer = (await subject.backend.submit([subject.intent(marker)]))[marker]
    assert isinstance(answer, SubmitError)
    assert await subject.backend.find(marker, INTENDED_AT) is None
    assert await subject.runs_of(marker) == 0


async def test_find_sees_the_job_in_every_state(subject, marker):
    remote_id = await submitted(subject, marker)
    assert await subject.backend.find(marker, INTENDED_AT) == remote_id
    await subject.running(marker)
    assert await subject.backend.find(marker, INTENDED_AT) == remote_id
    await subject.finish(marker)
    await ended(subject, remote_id, marker)
    assert await subject.backend.find(marker, INTENDED_AT) == remote_id


async def test_find_raises_while_the_system_does_not_answer(subject, marker):
    subject.cut()
    with pytest.raises(NothingLearnt):
        await subject.backend.find(marker, INTENDED_AT)
    subject.heal()
    await submitted(subject, marker)


async def test_a_lower_fence_starts_nothing(subject, marker):
    await subject.backend.submit([subject.intent(marker, fence=5)])
    await subject.running(marker)
    answer = (await subject.backend.submit([subject.intent(marker, fence=4)]))[marker]
    assert isinstance(answer, SubmitError) or answer == await subject.backend.find(marker, INTENDED_AT)
    assert await subject.runs_of(marker) == 1


async def test_many_intents_at_once_answer_every_marker(subject):
    markers = [marker_for(new_job_uuid(), 1) for _ in range(12)]
    answers = await subject.backend.submit([subject.intent(marker) for marker in markers])
    assert set(answers) == set(markers)
    assert len(set(answers.values())) == len(markers)
    for remote_id, marker in zip(answers.values(), answers, strict=True):
        await subject.backend.cancel(remote_id, marker)


async def test_a_refused_intent_does_not_stop_the_others(subject):
    first, bad, last = (marker_for(new_job_uuid(), 1) for _ in range(3))
    answers = await subject.backend.submit([subject.intent(first), subject.refused_intent(bad), subject.intent(last)])
    assert isinstance(answers[bad], SubmitRejected)
    assert str(answers[bad])
    assert not isinstance(answers[first], SubmitError)
    assert not isinstance(answers[last], SubmitError)
    assert await subject.runs_of(bad) == 0


async def test_an_unknown_word_is_an_unexpected_reply_and_changes_nothing(subject, marker):
    remote_id = await submitted(subject, marker)
    await subject.running(marker)
    await subject.speak_an_unknown_word(marker)
    with pytest.raises(UnexpectedReply) as raised:
        await subject.backend.observe({remote_id: marker})
    assert raised.value.raw
    subject.heal()
    assert (await subject.backend.observe({remote_id: marker}))[remote_id].state is RemoteState.RUNNING


async def test_what_has_not_ended_is_listed_by_its_marker(subject, marker):
    other = marker_for(new_job_uuid(), 3)
    ids = {each: await submitted(subject, each) for each in (marker, other)}
    await subject.running(marker)
    assert await subject.backend.unended() == ids
    await subject.finish(marker)
    await ended(subject, ids[marker], marker)
    assert await subject.backend.unended() == {other: ids[other]}


async def test_a_system_that_does_not_answer_lists_nothing(subject, marker):
    await submitted(subject, marker)
    subject.cut()
    with pytest.raises(NothingLearnt):
        await subject.backend.unended()


async def test_an_id_that_the_system_does_not_know_is_left_out(subject, marker):
    remote_id = await submitted(subject, marker)
    stranger = marker_for(new_job_uuid(), 1)
    seen = await subject.backend.observe({remote_id: marker, RemoteId("999999999"): stranger})
    assert set(seen) == {remote_id}


async def test_an_id_under_another_marker_is_not_ours(subject, marker):
    remote_id = await submitted(subject, marker)
    await subject.running(marker)
    stranger = marker_for(new_job_uuid(), 1)
    assert await subject.backend.observe({remote_id: stranger}) == {}
    await subject.backend.cancel(remote_id, stranger)
    assert (await subject.backend.observe({remote_id: marker}))[remote_id].state is RemoteState.RUNNING


async def test_nothing_asked_is_nothing_answered(subject):
    assert await subject.backend.observe({}) == {}
    assert await subject.backend.submit([]) == {}


async def test_a_system_that_does_not_answer_is_unavailable(subject, marker):
    remote_id = await submitted(subject, marker)
    subject.cut()
    with pytest.raises(BackendUnavailable):
        await subject.backend.observe({remote_id: marker})
    with pytest.raises(BackendUnavailable):
        await subject.backend.cancel(remote_id, marker)
    subject.heal()
    assert remote_id in await subject.backend.observe({remote_id: marker})


async def test_cancelling_twice_is_success_and_ends_the_job(subject, marker):
    remote_id = await submitted(subject, marker)
    await subject.running(marker)
    await subject.backend.cancel(remote_id, marker)
    await subject.backend.cancel(remote_id, marker)
    seen = await ended(subject, remote_id, marker)
    assert seen.ending is Ending.CANCELLED
    await subject.backend.cancel(remote_id, marker)
    assert await subject.runs_of(marker) == 1


async def test_the_end_of_a_job_that_had_begun_says_that_it_had(subject, marker):
    remote_id = await submitted(subject, marker)
    await subject.running(marker)
    assert await subject.backend.cancel(remote_id, marker) is True


async def test_withdrawing_leaves_alone_what_has_begun(subject, marker):
    remote_id = await submitted(subject, marker)
    await subject.running(marker)
    assert await subject.backend.withdraw(remote_id, marker) is False
    assert (await subject.backend.observe({remote_id: marker}))[remote_id].state is RemoteState.RUNNING
    await subject.finish(marker)
    assert (await ended(subject, remote_id, marker)).ending is Ending.COMPLETED


async def test_withdrawing_an_id_under_another_marker_proves_nothing(subject, marker):
    remote_id = await submitted(subject, marker)
    await subject.running(marker)
    assert await subject.backend.withdraw(remote_id, marker_for(new_job_uuid(), 1)) is False
    assert (await subject.backend.observe({remote_id: marker}))[remote_id].state is RemoteState.RUNNING


async def test_a_copy_runs_nothing_until_its_gate_is_opened(subject, marker):
    answer = (await subject.backend.submit([subject.gated_intent(marker)]))[marker]
    if not subject.backend.capabilities.copies:
        assert isinstance(answer, SubmitRejected), "what cannot wait at a gate must not begin"
        assert await subject.backend.find(marker, INTENDED_AT) is None
        return
    assert not isinstance(answer, SubmitError), answer
    await subject.at_its_gate(marker)
    assert (await subject.backend.observe({answer: marker}))[answer].state is RemoteState.RUNNING
    assert await subject.runs_of(marker) == 0
    subject.open_gate(marker)
    await subject.running(marker)
    await subject.finish(marker)
    assert (await ended(subject, answer, marker)).ending is Ending.COMPLETED
    assert await subject.runs_of(marker) == 1


async def test_a_copy_that_is_cancelled_at_its_gate_never_runs(subject, marker):
    answer = (await subject.backend.submit([subject.gated_intent(marker)]))[marker]
    if not subject.backend.capabilities.copies:
        assert isinstance(answer, SubmitRejected)
        assert await subject.runs_of(marker) == 0
        return
    await subject.backend.cancel(answer, marker)
    await ended(subject, answer, marker)
    subject.open_gate(marker)
    assert await subject.runs_of(marker) == 0


async def test_a_log_is_read_by_offset_in_bounded_pieces(subject, marker):
    remote_id = await submitted(subject, marker)
    await subject.running(marker)
    path = subject.log_path(marker)
    nothing = await subject.backend.read_log(remote_id, path, 0)
    assert (nothing.data, nothing.next_offset_bytes) == (b"", 0)
    text = b"0123456789" * (LOG_CHUNK_BYTES // 10 + 1000)
    await subject.finish(marker, output=text)
    await ended(subject, remote_id, marker)
    read, pieces = b"", 0
    while piece := (await subject.backend.read_log(remote_id, path, len(read))).data:
        assert len(piece) <= LOG_CHUNK_BYTES
        read, pieces = read + piece, pieces + 1
    assert read == text
    assert pieces == 2
    assert (await subject.backend.read_log(remote_id, path, 7)).offset_bytes == 7


async def test_a_log_that_is_not_there_yet_is_empty(subject, marker):
    remote_id = await submitted(subject, marker)
    chunk = await subject.backend.read_log(remote_id, subject.log_path(marker) + ".none", 5)
    assert (chunk.data, chunk.offset_bytes, chunk.next_offset_bytes) == (b"", 5, 5)


async def test_staging_puts_directories_and_files_in_place_and_may_be_repeated(subject, marker):
    base = subject.intent(marker).run.exec_dir
    plan = StagePlan(
        marker=marker, directories=(base, f"{base}/deep/er"), files=(StagedFile(f"{base}/deep/note", b"a\0b\n"),)
    )

    async def done() -> bool:
        return (await subject.backend.stage(plan)).done

    await eventually(done, "the plan is staged")
    assert await done()
    remote_id = await submitted(subject, marker)
    assert (await subject.backend.read_log(remote_id, f"{base}/deep/note", 0)).data == b"a\0b\n"


async def test_a_snapshot_shows_partitions_and_nodes(subject):
    snapshot = await subject.backend.snapshot()
    assert {node.partition for node in snapshot.nodes} <= {partition.name for partition in snapshot.partitions}
    assert all(node.cores > 0 and node.memory_mib > 0 for node in snapshot.nodes)
    assert snapshot.taken_at.tzinfo is not None
