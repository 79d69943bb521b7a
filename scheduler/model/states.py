"""The life of a job and of an attempt, each as one table. State names are those of the Tapis v3 Jobs API."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from scheduler.model.errors import IllegalMove


class JobState(StrEnum):
    """Where a job stands, as the wire says it."""

    PENDING = "PENDING"
    PROCESSING_INPUTS = "PROCESSING_INPUTS"
    STAGING_INPUTS = "STAGING_INPUTS"
    STAGING_JOB = "STAGING_JOB"
    SUBMITTING_JOB = "SUBMITTING_JOB"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    ARCHIVING = "ARCHIVING"
    BLOCKED = "BLOCKED"
    PAUSED = "PAUSED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Event(StrEnum):
    """What happened to a job."""

    PLACED = "PLACED"
    INPUTS_LISTED = "INPUTS_LISTED"
    INPUTS_READY = "INPUTS_READY"
    JOB_READY = "JOB_READY"
    ACCEPTED = "ACCEPTED"
    NEVER_ARRIVED = "NEVER_ARRIVED"
    STARTED = "STARTED"
    REQUEUED = "REQUEUED"
    LOST = "LOST"
    ENDED = "ENDED"
    ARCHIVED = "ARCHIVED"
    BLOCKED = "BLOCKED"
    PAUSED = "PAUSED"
    RESUMED = "RESUMED"
    REFUSED = "REFUSED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    PREPARED = "PREPARED"
    """Of a copy: its place is ready, and it is submitted next."""
    WITHDRAWN = "WITHDRAWN"
    """Of an attempt: it is proven that nothing of the user's ran or will run under it."""


S, E = JobState, Event

TERMINAL = frozenset({S.FINISHED, S.FAILED, S.CANCELLED})
ACTIVE = frozenset(S) - TERMINAL
BEFORE_SUBMISSION = frozenset({S.PENDING, S.PROCESSING_INPUTS, S.STAGING_INPUTS, S.STAGING_JOB})
"""States in which no remote job of the current attempt can exist."""

MOVES: Mapping[tuple[JobState, Event], JobState] = MappingProxyType(
    {
        (S.PENDING, E.PLACED): S.PROCESSING_INPUTS,
        (S.PROCESSING_INPUTS, E.INPUTS_LISTED): S.STAGING_INPUTS,
        (S.STAGING_INPUTS, E.INPUTS_READY): S.STAGING_JOB,
        (S.STAGING_JOB, E.JOB_READY): S.SUBMITTING_JOB,  # intent and marker are committed by this move
        (S.SUBMITTING_JOB, E.ACCEPTED): S.QUEUED,
        (S.SUBMITTING_JOB, E.REFUSED): S.FAILED,
        (S.SUBMITTING_JOB, E.NEVER_ARRIVED): S.PENDING,  # proven absent, never merely unseen
        (S.QUEUED, E.STARTED): S.RUNNING,
        (S.QUEUED, E.LOST): S.PENDING,  # the site lost it before any user code ran
        (S.RUNNING, E.REQUEUED): S.QUEUED,  # preemption, node failure
        (S.RUNNING, E.ENDED): S.ARCHIVING,
        (S.ARCHIVING, E.ARCHIVED): S.FINISHED,
        **{(state, E.BLOCKED): S.BLOCKED for state in BEFORE_SUBMISSION},
        **{(state, E.PAUSED): S.PAUSED for state in BEFORE_SUBMISSION | {S.BLOCKED}},
        **{(state, E.FAILED): S.FAILED for state in ACTIVE},
        **{(state, E.CANCELLED): S.CANCELLED for state in ACTIVE},
    }
)


def move(state: JobState, event: Event, resume_state: JobState | None = None) -> JobState:
    """The state after ``event``; raises IllegalMove when no row allows it.

    resume_state: where a BLOCKED or PAUSED job returns to on RESUMED; kept in the job's row.
    """
    if event is E.RESUMED and state in (S.BLOCKED, S.PAUSED) and resume_state in BEFORE_SUBMISSION:
        return resume_state
    try:
        return MOVES[state, event]
    except KeyError:
        raise IllegalMove(f"a job that is {state} cannot be {event}") from None


class AttemptState(StrEnum):
    """Where one submission of a job to one system stands."""

    PLANNED = "PLANNED"
    """A copy that is decided on; nothing was submitted."""
    INTENDED = "INTENDED"
    QUEUED = "QUEUED"
    CLAIMED = "CLAIMED"
    WITHDRAWN = "WITHDRAWN"
    LOST = "LOST"
    ENDED = "ENDED"


A = AttemptState

LIVE_ATTEMPTS = frozenset({A.PLANNED, A.INTENDED, A.QUEUED, A.CLAIMED})

ATTEMPT_MOVES: Mapping[tuple[AttemptState, Event], AttemptState] = MappingProxyType(
    {
        (A.PLANNED, E.PREPARED): A.INTENDED,
        (A.INTENDED, E.ACCEPTED): A.QUEUED,
        (A.INTENDED, E.REFUSED): A.ENDED,
        (A.INTENDED, E.NEVER_ARRIVED): A.WITHDRAWN,
        (A.QUEUED, E.STARTED): A.CLAIMED,
        (A.CLAIMED, E.REQUEUED): A.QUEUED,
        (A.CLAIMED, E.ENDED): A.ENDED,
        (A.QUEUED, E.LOST): A.LOST,
        (A.CLAIMED, E.LOST): A.LOST,
        **{(state, E.FAILED): A.ENDED for state in LIVE_ATTEMPTS},
        **{(state, E.WITHDRAWN): A.WITHDRAWN for state in LIVE_ATTEMPTS},
        **{(state, E.CANCELLED): A.WITHDRAWN for state in (A.INTENDED, A.QUEUED)},
        (A.CLAIMED, E.CANCELLED): A.ENDED,
    }
)


def move_attempt(state: AttemptState, event: Event) -> AttemptState:
    """The state of an attempt after ``event``; raises IllegalMove when no row allows it."""
    try:
        return ATTEMPT_MOVES[state, event]
    except KeyError:
        raise IllegalMove(f"an attempt that is {state} cannot be {event}") from None


class Condition(StrEnum):
    """Why a job is in its final state, in Tapis's words."""

    NORMAL_COMPLETION = "NORMAL_COMPLETION"
    CANCELLED_BY_USER = "CANCELLED_BY_USER"
    JOB_ARCHIVING_FAILED = "JOB_ARCHIVING_FAILED"
    JOB_EXECUTION_MONITORING_ERROR = "JOB_EXECUTION_MONITORING_ERROR"
    JOB_INTERNAL_ERROR = "JOB_INTERNAL_ERROR"
    JOB_INVALID_DEFINITION = "JOB_INVALID_DEFINITION"
    JOB_LAUNCH_FAILURE = "JOB_LAUNCH_FAILURE"
    JOB_REMOTE_ACCESS_ERROR = "JOB_REMOTE_ACCESS_ERROR"
    JOB_REMOTE_OUTCOME_ERROR = "JOB_REMOTE_OUTCOME_ERROR"
    JOB_UNABLE_TO_STAGE_INPUTS = "JOB_UNABLE_TO_STAGE_INPUTS"
    JOB_UNABLE_TO_STAGE_JOB = "JOB_UNABLE_TO_STAGE_JOB"
    SCHEDULER_CANCELLED = "SCHEDULER_CANCELLED"
    SCHEDULER_DEADLINE = "SCHEDULER_DEADLINE"
    SCHEDULER_OUT_OF_MEMORY = "SCHEDULER_OUT_OF_MEMORY"
    SCHEDULER_STOPPED = "SCHEDULER_STOPPED"
    SCHEDULER_TERMINATED = "SCHEDULER_TERMINATED"
    SCHEDULER_TIMEOUT = "SCHEDULER_TIMEOUT"
