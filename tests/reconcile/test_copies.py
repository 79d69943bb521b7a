"""A job that waits in several places runs in one of them, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from placement.moves import Further, SecondThought
from placement.problem import PlaceKey
from scheduler.model.apps import FileInput
from scheduler.model.errors import BackendUnavailable
from scheduler.model.jobs import Role
from scheduler.model.plan import Estimate, Term
from scheduler.model.runs import Ending
from scheduler.model.states import A, S
from scheduler.reconcile.keep_right import UNMOVED_JOBS, KeepRight
from tests.fakes.system import Fault
from tests.reconcile.hedging import (
    HEDGED,
    finished,
    finished_anyhow,
    hedged,
    prepared_twice,
    runs,
    system_of,
    two_clusters,
)
from tests.reconcile.world import LOST_AFTER_S, RULES, World, database_in


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with database_in(tmp_path) as database:
        await prepared_twice(database)
        yield two_clusters(database)


async def test_a_hedged_job_waits_in_two_places_and_the_copy_has_a_gate_and_directories_of_its_own(world):
    job, lead, copy = await hedged(world)
    assert (job.attempt, job.last_attempt) == (1, 2)
    assert (lead.role, copy.role) == (Role.LEAD, Role.HEDGE)
    assert (lead.run.gate_s, copy.run.gate_s) == (0, 60)
    assert lead.system_id != copy.system_id
    assert copy.run.output_dir == f"/work/jobs/{job.uuid}/attempts/2/output"
    assert copy.run.env["_tapisExecSystemOutputDir"] == copy.run.output_dir
    assert "COPY_ACCEPTED" in await world.history(job)


async def test_the_lead_runs_when_it_starts_first_and_the_copy_goes(world):
    job, lead, copy = await hedged(world)
    system_of(world, lead).start(lead.marker)
    await finished(world, job)
    assert runs(world) == [lead.marker]
    assert system_of(world, copy).jobs[copy.marker].ending is Ending.CANCELLED
    assert [one.state for one in await world.attempts(job)] == [A.ENDED, A.WITHDRAWN]


async def test_the_copy_runs_when_it_starts_first_and_the_lead_never_will(world):
    job, lead, copy = await hedged(world)
    system_of(world, copy).start(copy.marker)
    ended = await finished(world, job)
    assert runs(world) == [copy.marker]
    assert (ended.attempt, ended.place.system_id, ended.place.output_dir) == (2, copy.system_id, copy.place.output_dir)
    assert ended.remote_id == copy.remote_id
    system_of(world, lead).start(lead.marker)  # a stray that scancel did not reach
    assert runs(world) == [copy.marker]
    assert "HANDED_OVER" in await world.history(job)


async def test_when_both_start_at_once_the_lead_runs_and_is_not_disturbed(world):
    job, lead, copy = await hedged(world)
    for one in (lead, copy):
        system_of(world, one).start(one.marker)
    await finished(world, job)
    assert runs(world) == [lead.marker]


async def test_a_copy_that_nobody_reaches_gives_up_and_the_lead_runs(world):
    job, lead, copy = await hedged(world)
    other = system_of(world, copy)
    other.start(copy.marker)
    other.fail("observe", Fault.UNAVAILABLE, times=30)
    await world.run(ticks=25)
    other.heal()
    system_of(world, lead).start(lead.marker)
    await finished(world, job)
    assert runs(world) == [lead.marker]
    assert other.jobs[copy.marker].ending is Ending.GATE_CLOSED


async def test_nothing_is_handed_over_while_nobody_knows_whether_the_lead_began(world):
    job, lead, copy = await hedged(world)
    system_of(world, lead).fail("withdraw", Fault.UNAVAILABLE, times=100)
    system_of(world, copy).start(copy.marker)
    await world.run(ticks=30)
    assert runs(world) == []
    assert (await world.job(job)).attempt == 1
    system_of(world, lead).heal()
    ended = await finished_anyhow(world, job)
    assert ended.state is S.FINISHED
    assert len(runs(world)) == 1


async def test_people_read_what_a_hand_over_waits_for_until_it_is_known(world):
    job, lead, copy = await hedged(world)
    site = system_of(world, lead)
    site.fail("withdraw", Fault.UNAVAILABLE, times=4)
    system_of(world, copy).start(copy.marker)
    await world.run(ticks=2)
    said = (await world.job(job)).last_message
    assert said.startswith("not reachable since")
    assert said.endswith(f"a copy waits to take over from {lead.system_id}")
    await world.run(ticks=20)
    assert (await world.job(job)).last_message.startswith("running")


async def test_what_a_withdrawn_copy_left_is_cleared_away_and_what_the_job_has_stays(world):
    job, lead, copy = await hedged(world)
    left = system_of(world, copy).files
    assert left.tree(copy.run.exec_dir)
    system_of(world, lead).start(lead.marker)
    await finished(world, job)
    await world.run(ticks=3)
    assert left.tree(copy.run.exec_dir) == []
    assert system_of(world, lead).files.tree(lead.run.output_dir)


async def test_what_a_copy_left_is_kept_when_the_job_ran_there(world):
    job, _, copy = await hedged(world)
    system_of(world, copy).start(copy.marker)
    await finished(world, job)
    await world.run(ticks=3)
    assert system_of(world, copy).files.tree(copy.run.output_dir)


async def test_what_a_copy_left_on_a_system_that_does_not_answer_is_cleared_away_when_it_does(world, monkeypatch):
    job, lead, copy = await hedged(world)
    system_of(world, lead).start(lead.marker)
    with monkeypatch.context() as patched:
        patched.setattr(system_of(world, copy), "storage", no_storage)
        await finished(world, job)
        await world.run(ticks=5)
    assert system_of(world, copy).files.tree(copy.run.exec_dir)
    await world.run(ticks=40)
    assert system_of(world, copy).files.tree(copy.run.exec_dir) == []
    assert [one.next_look_at for one in await world.attempts(job)] == [None, None]


async def test_a_copy_s_directories_are_left_when_a_system_does_not_answer_for_a_week(world, monkeypatch):
    job, lead, copy = await hedged(world)
    system_of(world, lead).start(lead.marker)
    monkeypatch.setattr(system_of(world, copy), "storage", no_storage)
    await finished(world, job)
    world.later(7 * 86_400)
    await world.run(ticks=2)
    assert [one.next_look_at for one in await world.attempts(job)] == [None, None]


def no_storage(root="/"):
    raise BackendUnavailable("no route to host")


async def test_a_cancelled_job_takes_its_copies_along(world):
    job, _, copy = await hedged(world)
    system_of(world, copy).fail("cancel", Fault.UNAVAILABLE, times=3)
    await world.cancel(job)
    await world.run_until(job, S.CANCELLED)
    await world.run(ticks=20)
    assert system_of(world, copy).jobs[copy.marker].ending is Ending.CANCELLED
    assert [one.state for one in await world.attempts(job)] == [A.WITHDRAWN, A.WITHDRAWN]
    assert runs(world) == []


async def test_a_gate_that_cannot_be_opened_sends_the_job_back_to_be_placed(world):
    job, _, copy = await hedged(world)
    other = system_of(world, copy)
    other.start(copy.marker)

    storage = world.connections.storage
    world.connections.storage = unreachable
    await world.run(ticks=30)
    world.connections.storage = storage
    assert other.jobs[copy.marker].ending is Ending.GATE_CLOSED
    ended = await finished_anyhow(world, job)
    assert len(runs(world)) == 1
    assert (await world.attempts(job))[1].state is A.LOST
    assert ended.last_attempt > 2


async def unreachable(login):
    raise BackendUnavailable("no route to host")


async def test_an_owner_who_does_not_allow_copies_gets_none(tmp_path):
    async with database_in(tmp_path) as database:
        await prepared_twice(database, allowCopies=None)
        world = two_clusters(database)
        [job] = await world.submit(**HEDGED)
        await world.run(ticks=40)
        assert [one.role for one in await world.attempts(job)] == [Role.LEAD]


async def test_a_job_is_moved_while_it_waits_and_keeps_its_old_place_until_it_has_the_new_one(world):
    [job] = await world.submit(**{**HEDGED, "hedge_count": 1})
    await world.run_until(job, S.QUEUED)
    [lead] = await world.attempts(job)
    there = "second" if lead.system_id == "cluster" else "cluster"

    def elsewhere(problem, standings, rules, spent):
        further = Further(promised(there, 60.0), True, 36_000.0)
        return {uuid: SecondThought(further) for uuid in standings}

    world.loops.keep_right = KeepRight(world.ports(), elsewhere, RULES, review_s=60.0)
    world.later(1000)
    await world.run(ticks=12)
    now = await world.job(job)
    lead, copy = await world.attempts(job)
    assert (now.state, now.attempt, now.place.system_id) == (S.QUEUED, 2, there)
    assert (lead.state, copy.state, copy.role) == (A.WITHDRAWN, A.QUEUED, Role.MOVE)
    assert copy.submitted_at < lead.ended_at
    system_of(world, copy).start(copy.marker)
    assert runs(world) == [copy.marker]  # its gate was opened while it waited
    ended = await finished(world, job)
    assert "moves to" in "; ".join(await world.words(job))
    assert ended.place.output_dir == copy.place.output_dir


def no_longer(attempt):
    """Second thoughts that take an attempt back."""

    def think(problem, standings, rules, spent):
        thought = SecondThought(no_longer=(PlaceKey(attempt.system_id, attempt.queue),))
        return dict.fromkeys(standings, thought)

    return think


async def test_a_copy_that_became_a_loss_is_taken_back_and_the_lead_runs(world):
    job, lead, copy = await hedged(world)
    world.loops.keep_right = KeepRight(world.ports(), no_longer(copy), RULES, review_s=60.0)
    world.later(100)
    await world.run(ticks=4)
    assert system_of(world, copy).jobs[copy.marker].ending is Ending.CANCELLED
    assert [one.state for one in await world.attempts(job)] == [A.QUEUED, A.WITHDRAWN]
    assert "COPY_UNWANTED" in await world.history(job)
    system_of(world, lead).start(lead.marker)
    await finished(world, job)
    assert runs(world) == [lead.marker]


async def test_a_lead_is_never_taken_back_as_a_loss(world):
    job, lead, _ = await hedged(world)
    world.loops.keep_right = KeepRight(world.ports(), no_longer(lead), RULES, review_s=60.0)
    world.later(100)
    await world.run(ticks=4)
    assert [one.state for one in await world.attempts(job)] == [A.QUEUED, A.QUEUED]


async def test_second_thoughts_know_what_was_spent(world):
    told = []

    def think(problem, standings, rules, spent):
        told.append((spent.jobs, spent.submissions))
        return {}

    await hedged(world)
    world.loops.keep_right = KeepRight(world.ports(), think, RULES, review_s=60.0)
    world.later(100)
    await world.run()
    assert told == [(UNMOVED_JOBS + 1, UNMOVED_JOBS + 2)]


def promised(system_id: str, wait_s: float) -> Estimate:
    wait, rest = Term(wait_s, 2 * wait_s), Term(60, 90)
    return Estimate(system_id=system_id, queue="normal", wait=wait, staging=rest, run=rest, archive=rest)


async def test_a_copy_that_its_system_forgot_is_withdrawn_and_the_lead_goes_on(world):
    job, lead, copy = await hedged(world)
    system_of(world, copy).forget(copy.marker)
    await world.run(ticks=10, step_s=LOST_AFTER_S / 5)
    assert [one.state for one in await world.attempts(job)][:2] == [A.QUEUED, A.WITHDRAWN]
    system_of(world, lead).start(lead.marker)
    await finished(world, job)
    assert runs(world) == [lead.marker]


async def test_a_copy_brings_its_inputs_to_its_own_place(world):
    world.system.files.put("/data/in.txt", b"42")
    one = FileInput(name="in", source_url="tapis://cluster/data/in.txt", target_path="in.txt")
    [job] = await world.submit(**HEDGED, file_inputs=(one,))
    await world.run_until(job, S.QUEUED)
    await world.run(ticks=8)
    lead, copy = await world.attempts(job)
    assert copy.state is A.QUEUED
    for attempt in (lead, copy):
        assert system_of(world, attempt).files.nodes[f"{attempt.run.input_dir}/in.txt"] == b"42"
    assert copy.run.input_dir.endswith("/attempts/2")


async def test_a_copy_that_its_system_refuses_is_over_and_the_lead_waits_on(world):
    for system in (world.system, *world.others.values()):
        system.refuse = lambda intent: "no copies today" if intent.run.gate_s else None
    [job] = await world.submit(**HEDGED)
    await world.run_until(job, S.QUEUED)
    await world.run(ticks=5)
    lead, copy = (await world.attempts(job))[:2]
    assert (lead.state, copy.state) == (A.QUEUED, A.ENDED)
    assert (await world.job(job)).state is S.QUEUED
