"""A job that waits in several places: what is to be done with each attempt, as one table. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from scheduler.model.ids import marker_for
from scheduler.model.jobs import Attempt, Job, JobSpec, Role
from scheduler.model.macros import place_of
from scheduler.model.plan import Estimate
from scheduler.model.runs import Observation, RemoteState
from scheduler.model.states import LIVE_ATTEMPTS, A, AttemptState, Event, S
from scheduler.reconcile.runspec import awaited_image, identity_of, run_spec
from scheduler.reconcile.sides import Side

GATE_S = 60
"""How long a copy that has nodes waits for the job. What it costs when nobody comes is that much of its nodes' time."""


class CopyStep(StrEnum):
    """What is to be done next with an attempt."""

    PREPARE = "PREPARE"
    """Bring what it reads to its place, and submit it."""
    FIND = "FIND"
    """Learn whether the submission arrived."""
    WAIT = "WAIT"
    TAKE_OVER = "TAKE_OVER"
    """Write down that the lead is to be withdrawn, then do it."""
    WITHDRAW = "WITHDRAW"
    DECIDE = "DECIDE"
    """Of a lead: learn whether it has begun, and hand the job over when it never will."""
    LET_GO = "LET_GO"
    """Of a lead: open its gate."""
    CLEAR_AWAY = "CLEAR_AWAY"
    """Of what is over: delete its directories."""
    NOTHING = "NOTHING"


STEPS: Mapping[tuple[AttemptState, Role], CopyStep] = MappingProxyType(
    {
        **{(A.PLANNED, role): CopyStep.PREPARE for role in (Role.HEDGE, Role.MOVE)},
        **{(A.INTENDED, role): CopyStep.FIND for role in (Role.HEDGE, Role.MOVE)},
        (A.QUEUED, Role.HEDGE): CopyStep.WAIT,
        (A.QUEUED, Role.MOVE): CopyStep.TAKE_OVER,
        **{(A.CLAIMED, role): CopyStep.TAKE_OVER for role in (Role.HEDGE, Role.MOVE)},
    }
)
"""Of a copy that is wanted. It is, while its job waits and nobody asked for its end."""


def next_step(job: Job, attempt: Attempt) -> CopyStep:
    """What is to be done with an attempt of ``job`` that is looked at."""
    if attempt.state not in LIVE_ATTEMPTS:
        is_left = attempt.role is not Role.LEAD and attempt.number != job.attempt
        return CopyStep.CLEAR_AWAY if is_left else CopyStep.NOTHING
    if attempt.number == job.attempt:
        if attempt.unwanted_at is not None:
            return CopyStep.DECIDE
        return CopyStep.LET_GO if attempt.role is not Role.LEAD and attempt.go_at is None else CopyStep.NOTHING
    if attempt.unwanted_at is not None or job.state is not S.QUEUED or job.cancel_requested_at is not None:
        return CopyStep.WITHDRAW
    return STEPS[attempt.state, attempt.role]


def takes_over(copies: Iterable[Attempt], lead: Attempt) -> Attempt | None:
    """The copy to which a job goes whose lead is withdrawn: one that has nodes first, else one that was to move it."""
    able = [
        copy
        for copy in copies
        if copy.number != lead.number and copy.unwanted_at is None and copy.remote_id is not None
        if copy.state is A.CLAIMED or (copy.state is A.QUEUED and copy.role is Role.MOVE)
    ]
    return min(able, key=lambda copy: (copy.state is not A.CLAIMED, copy.number), default=None)


def events_of(state: AttemptState, seen: Observation) -> tuple[Event, ...]:
    """What an observation says of a copy. None of its states says that anything of the user's ran: its gate is shut."""
    match state, seen.state:
        case (A.QUEUED, RemoteState.RUNNING):
            return (Event.STARTED,)
        case (A.CLAIMED, RemoteState.QUEUED):
            return (Event.REQUEUED,)
        case (A.QUEUED | A.CLAIMED, RemoteState.ENDED):
            return (Event.FAILED,)
    return ()


def copy_of(job: Job, role: Role, side: Side, chosen: Estimate, at: datetime) -> Attempt:
    """A further attempt of a queued job, frozen before anything remote. Raises what ``place_of`` raises."""
    number = job.last_attempt + 1
    queue = side.system.queue(chosen.queue) if chosen.queue else None
    place = place_of(own_directories(job.spec, number), side.system, queue, identity_of(job, side.login_user))
    there = at_copy(job, number)
    run = replace(run_spec(there, place, side.system, side.login_user, chosen), gate_s=GATE_S)
    return Attempt(
        job_id=job.id,
        job_uuid=job.uuid,
        tenant=job.tenant,
        owner=job.owner,
        number=number,
        marker=marker_for(job.uuid, number),
        system_id=place.system_id,
        queue=place.queue,
        state=A.PLANNED,
        role=role,
        place=place,
        run=run,
        intended_at=at,
        next_look_at=at,
        awaits_image=awaited_image(job, run),
    )


def at_copy(job: Job, number: int) -> Job:
    """The job as the steps of its life see it that work for one of its copies."""
    return replace(job, spec=own_directories(job.spec, number))


def own_directories(spec: JobSpec, number: int) -> JobSpec:
    """A copy has directories of its own: where two systems share their files it must disturb no other attempt."""
    whole = spec.exec_dir.rstrip("/")

    def own(directory: str) -> str:
        if directory.rstrip("/") == whole or directory.startswith(f"{whole}/"):
            return f"{whole}{_own_part(number)}{directory[len(whole) :]}"
        return f"{directory.rstrip('/')}{_own_part(number)}"

    return replace(spec, exec_dir=own(spec.exec_dir), input_dir=own(spec.input_dir), output_dir=own(spec.output_dir))


def own_trees(copy: Attempt) -> Sequence[str]:
    """The directories under which everything lies that is the copy's alone, relative to its system's root."""
    part = _own_part(copy.number)
    place = copy.place
    directories = (place.exec_dir, place.input_dir, place.output_dir) if place else ()
    heads = [f"{directory}/".rpartition(f"{part}/") for directory in directories]
    return [f"{head}{part}" for head in dict.fromkeys(head for head, found, _ in heads if found)]


def _own_part(number: int) -> str:
    return f"/attempts/{number}"


def named(copy: Attempt) -> str:
    """A copy, for people."""
    where = f"{copy.system_id}/{copy.queue}" if copy.queue else copy.system_id
    return f"copy {copy.number} of the job on {where}"


def cost_in_words(copy: Attempt, until: datetime) -> str:
    """What a copy that had nodes has cost, to follow on its end; nothing of one that never had any."""
    if copy.started_at is None:
        return ""
    seconds = max(0.0, (until - copy.started_at).total_seconds()) * copy.run.resources.nodes
    return f"; it held its nodes for {seconds:.0f} node-seconds"
