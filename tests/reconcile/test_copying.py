"""What is to be done with each attempt of a job that waits in several places, as sentences."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.jobs import Attempt, Job, JobSpec, Role
from scheduler.model.runs import ArraySpec, Ending, Observation, RemoteState, RunSpec, Runtime
from scheduler.model.states import A, AttemptState, Event, S
from scheduler.reconcile.copying import CopyStep, events_of, next_step, own_directories, own_trees, takes_over
from scheduler.reconcile.keep_right import standing
from tests.reconcile.hedging import SECOND
from tests.reconcile.world import CLUSTER
from tests.store.things import a_place

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SPEC = JobSpec(
    name="a job",
    app_id="hello",
    app_version="1",
    image="docker://busybox",
    runtime=Runtime.SINGULARITY,
    dynamic=True,
    hedge_count=2,
)
JOB = Job(
    id=1,
    uuid=new_job_uuid(),
    tenant="dev",
    owner="ann",
    spec=SPEC,
    state=S.QUEUED,
    version=1,
    created_at=NOW,
    updated_at=NOW,
    attempt=1,
    last_attempt=2,
)


def attempt(number: int, role: Role, state: AttemptState, **changes: object) -> Attempt:
    run = RunSpec(job_uuid=JOB.uuid, name="a job", image="x", exec_dir="/e", input_dir="/i", output_dir="/o")
    asked = {"job_id": 1, "job_uuid": JOB.uuid, "tenant": "dev", "owner": "ann", "number": number, "run": run}
    where = {"system_id": "cluster" if number == 1 else "second", "queue": "normal", "remote_id": str(number)}
    rest = {"marker": marker_for(JOB.uuid, number), "intended_at": NOW, "submitted_at": NOW}
    return Attempt(**{**asked, **where, **rest, "role": role, "state": state, **changes})


LEAD = attempt(1, Role.LEAD, A.QUEUED)
HEDGE = attempt(2, Role.HEDGE, A.QUEUED)
MOVE = attempt(2, Role.MOVE, A.QUEUED)


@pytest.mark.parametrize(
    ("copy", "step"),
    [
        (replace(HEDGE, state=A.PLANNED), CopyStep.PREPARE),
        (replace(MOVE, state=A.PLANNED), CopyStep.PREPARE),
        (replace(HEDGE, state=A.INTENDED), CopyStep.FIND),
        (replace(MOVE, state=A.INTENDED), CopyStep.FIND),
        (HEDGE, CopyStep.WAIT),
        (MOVE, CopyStep.TAKE_OVER),
        (replace(HEDGE, state=A.CLAIMED), CopyStep.TAKE_OVER),
        (replace(MOVE, state=A.CLAIMED), CopyStep.TAKE_OVER),
        (replace(HEDGE, state=A.CLAIMED, unwanted_at=NOW), CopyStep.WITHDRAW),
        *[(replace(HEDGE, state=state), CopyStep.CLEAR_AWAY) for state in (A.WITHDRAWN, A.LOST, A.ENDED)],
        *[(replace(LEAD, number=0, state=state), CopyStep.NOTHING) for state in (A.WITHDRAWN, A.LOST, A.ENDED)],
    ],
)
def test_a_copy_of_a_job_that_waits_goes_its_way(copy, step):
    assert next_step(JOB, copy) is step


@pytest.mark.parametrize("state", [A.PLANNED, A.INTENDED, A.QUEUED, A.CLAIMED])
@pytest.mark.parametrize("job", [replace(JOB, state=state) for state in S if state is not S.QUEUED])
def test_a_copy_of_a_job_that_waits_no_longer_is_withdrawn_in_every_state(job, state):
    assert next_step(job, replace(HEDGE, state=state)) is CopyStep.WITHDRAW


def test_a_copy_of_a_job_whose_end_was_asked_for_is_withdrawn():
    assert next_step(replace(JOB, cancel_requested_at=NOW), HEDGE) is CopyStep.WITHDRAW


@pytest.mark.parametrize("state", [A.WITHDRAWN, A.LOST, A.ENDED])
def test_what_a_job_ended_with_is_never_cleared_away(state):
    assert next_step(replace(JOB, state=S.FINISHED, attempt=2), replace(HEDGE, state=state)) is CopyStep.NOTHING


def test_a_lead_is_left_alone_until_somebody_wants_to_withdraw_it():
    assert next_step(JOB, LEAD) is CopyStep.NOTHING
    assert next_step(JOB, replace(LEAD, unwanted_at=NOW)) is CopyStep.DECIDE


@pytest.mark.parametrize("state", [S.QUEUED, S.RUNNING])
def test_a_copy_that_leads_has_its_gate_opened_once(state):
    job = replace(JOB, state=state, attempt=2)
    assert next_step(job, replace(HEDGE, state=A.CLAIMED)) is CopyStep.LET_GO
    assert next_step(job, replace(HEDGE, state=A.CLAIMED, go_at=NOW)) is CopyStep.NOTHING


def test_the_job_goes_to_the_copy_that_has_nodes_before_the_one_that_was_to_move_it():
    starts = attempt(3, Role.HEDGE, A.CLAIMED)
    assert takes_over([LEAD, MOVE, starts], LEAD) == starts
    assert takes_over([LEAD, MOVE], LEAD) == MOVE


@pytest.mark.parametrize(
    "copy",
    [
        HEDGE,
        replace(MOVE, state=A.INTENDED),
        replace(MOVE, unwanted_at=NOW),
        replace(HEDGE, state=A.WITHDRAWN),
        replace(HEDGE, state=A.CLAIMED, remote_id=None),
    ],
)
def test_the_job_goes_to_no_copy_that_could_not_run_it_now(copy):
    assert takes_over([LEAD, copy], LEAD) is None


def seen(state: RemoteState) -> Observation:
    ended = state is RemoteState.ENDED
    return Observation(state=state, raw_state=state, ending=Ending.GATE_CLOSED if ended else None)


@pytest.mark.parametrize(
    ("state", "remote", "events"),
    [
        (A.QUEUED, RemoteState.QUEUED, ()),
        (A.QUEUED, RemoteState.RUNNING, (Event.STARTED,)),
        (A.CLAIMED, RemoteState.RUNNING, ()),
        (A.CLAIMED, RemoteState.QUEUED, (Event.REQUEUED,)),
        (A.QUEUED, RemoteState.ENDED, (Event.FAILED,)),
        (A.CLAIMED, RemoteState.ENDED, (Event.FAILED,)),
    ],
)
def test_what_a_system_says_of_a_copy_is_news_of_the_copy_alone(state, remote, events):
    assert events_of(state, seen(remote)) == events


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        ("${JobWorkingDir}/jobs/${JobUUID}", "${JobWorkingDir}/jobs/${JobUUID}/attempts/2"),
        ("${JobWorkingDir}/jobs/${JobUUID}/output", "${JobWorkingDir}/jobs/${JobUUID}/attempts/2/output"),
        ("/results/", "/results/attempts/2"),
        ("${JobWorkingDir}/jobs/${JobUUID}-x", "${JobWorkingDir}/jobs/${JobUUID}-x/attempts/2"),
    ],
)
def test_a_copy_writes_where_no_other_attempt_does(asked, own):
    assert own_directories(replace(SPEC, output_dir=asked), 2).output_dir == own


@pytest.mark.parametrize(
    ("exec_dir", "output_dir", "trees"),
    [
        ("w/jobs/u", "w/jobs/u/output", ["w/jobs/u/attempts/2"]),
        ("w/jobs/u", "results", ["w/jobs/u/attempts/2", "results/attempts/2"]),
        ("w/attempts/2/mine", "w/attempts/2/mine/out", ["w/attempts/2/mine/attempts/2"]),
    ],
)
def test_of_what_a_copy_leaves_only_its_own_trees_are_cleared_away(exec_dir, output_dir, trees):
    asked = {"exec_dir": exec_dir, "input_dir": f"{exec_dir}/in", "output_dir": output_dir}
    own = own_directories(replace(SPEC, **asked), 2)
    directories = {"exec_dir": own.exec_dir, "input_dir": own.input_dir, "output_dir": own.output_dir}
    place = a_place(system_id="second", **directories)
    assert own_trees(replace(HEDGE, place=place)) == trees


def test_directories_that_are_not_a_copys_are_not_cleared_away():
    asked = {"exec_dir": "w/jobs/u", "input_dir": "w/jobs/u/in", "output_dir": "results"}
    assert own_trees(replace(HEDGE, place=a_place(system_id="second", **asked))) == []


# -- which copy a job should have ------------------------------------------------------------------------------------

ALLOWED = replace(SECOND, notes={"berth": {"allowCopies": True}})
REFUSED = replace(SECOND, notes={"berth": {"allowCopies": False}})
UNASKED = replace(SPEC, hedge_count=1)


def stands(job=JOB, attempts=(LEAD,), second=ALLOWED, waited_s=3600.0):
    return standing(job, attempts, [CLUSTER, second], NOW + timedelta(seconds=waited_s))


def test_a_job_stands_where_its_lead_and_its_live_copies_wait():
    found = stands(attempts=(LEAD, HEDGE, attempt(3, Role.HEDGE, A.WITHDRAWN)))
    assert set(found.in_line) == {("cluster", "normal"), (HEDGE.system_id, HEDGE.queue)}
    assert found.in_line[found.lead] == LEAD.remote_id
    assert (found.lead.system_id, found.hedge_count, found.waited_s) == ("cluster", 2, 3600.0)


@pytest.mark.parametrize(
    ("second", "hedges", "moves"), [(ALLOWED, True, True), (SECOND, False, True), (REFUSED, False, False)]
)
def test_where_it_may_go_the_owner_of_the_place_says(second, hedges, moves):
    found = stands(second=second)
    assert ("second" in found.hedges_to, "second" in found.moves_to) == (hedges, moves)


def test_what_the_site_promised_is_not_in_the_past():
    waits = Observation(state=RemoteState.QUEUED, raw_state="PENDING", expected_start_at=NOW)
    assert stands(replace(JOB, observation=waits)).start_at_s == (NOW + timedelta(seconds=3600)).timestamp()
    assert stands().start_at_s is None


def test_a_job_that_was_copied_too_often_is_left_alone():
    gone = [attempt(number, Role.MOVE, A.WITHDRAWN) for number in range(2, 10)]
    assert stands(attempts=(LEAD, *gone[:7])).move_count == 7
    assert stands(attempts=(LEAD, *gone)) is None


def test_a_job_on_its_way_elsewhere_gets_no_further_copy_and_loses_none():
    assert stands(attempts=(LEAD, MOVE)) is None
    assert stands(attempts=(LEAD, replace(HEDGE, state=A.CLAIMED))) is None


def test_what_has_begun_once_or_is_being_withdrawn_gets_no_copy():
    restarted = Observation(state=RemoteState.QUEUED, raw_state="PENDING", restarts=1)
    assert stands(replace(JOB, observation=restarted)) is None
    assert stands(attempts=(replace(LEAD, unwanted_at=NOW),)) is None
    assert stands(attempts=(replace(LEAD, state=A.CLAIMED),)) is None


@pytest.mark.parametrize(
    ("spec", "may"),
    [
        (SPEC, True),
        (UNASKED, True),
        (replace(UNASKED, dynamic=False), True),
        (replace(UNASKED, dynamic=False, exec_system_id="cluster"), False),
        (replace(SPEC, dynamic=False, exec_system_id="cluster"), True),
        (replace(SPEC, array=ArraySpec((1, 2))), False),
    ],
)
def test_a_job_may_be_copied_that_left_the_choice_to_berth_or_asked_for_it(spec, may):
    assert spec.may_be_copied is may
