"""What a fact writes: the columns that change in a job's row, in its attempt's row, and the line of history. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from scheduler.model.jobs import Attempt, Fact, HistoryEvent, Job, Place
from scheduler.model.states import (
    ATTEMPT_MOVES,
    LIVE_ATTEMPTS,
    TERMINAL,
    AttemptState,
    Condition,
    Event,
    JobState,
    move,
    move_attempt,
)

ATTEMPT_EVENTS = frozenset(event for _, event in ATTEMPT_MOVES)
"""What can happen to an attempt; any other event leaves the newest attempt alone."""

CONDITIONS: Mapping[Event, Condition] = {
    Event.ARCHIVED: Condition.NORMAL_COMPLETION,
    Event.REFUSED: Condition.JOB_LAUNCH_FAILURE,
    Event.FAILED: Condition.JOB_INTERNAL_ERROR,
    Event.CANCELLED: Condition.CANCELLED_BY_USER,
}
"""Why a job ended when the fact does not say."""

ATTEMPT_INSTANTS: Mapping[AttemptState, str] = {
    AttemptState.QUEUED: "submitted_at",
    AttemptState.CLAIMED: "started_at",
    AttemptState.WITHDRAWN: "ended_at",
    AttemptState.LOST: "ended_at",
    AttemptState.ENDED: "ended_at",
}
"""When an attempt came to a state, unless the fact or an earlier one says."""

REMOTE = (
    "remote_id",
    "remote_submitted_at",
    "remote_started_at",
    "remote_ended_at",
    "observation",
    "expected_start_at",
)
"""What a job forgets when it goes back to PENDING; its attempts remember."""


def job_values(job: Job, fact: Fact, at: datetime) -> dict[str, Any]:
    """The columns of the job's row after ``fact``; IllegalMove when the table of the job's life has no such row."""
    state = move(job.state, fact.event, job.resume_state)
    values: dict[str, Any] = {"state": state, "next_look_at": at, "resume_state": None}
    if state in (JobState.BLOCKED, JobState.PAUSED):
        values["resume_state"] = job.resume_state or job.state
    if state is JobState.BLOCKED:
        values["blocked_count"] = job.blocked_count + 1
    if state is JobState.PENDING and fact.event is not Event.RESUMED:
        values |= dict.fromkeys(REMOTE)
    if state in TERMINAL:
        values |= {"ended_at": at, "next_look_at": None, "condition": CONDITIONS.get(fact.event)}
    if fact.message:
        values["last_message"] = fact.message
    return written(job.version, values | note_values(fact.changes), at)


def note_values(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changed fields of a job as columns, with the columns that repeat them."""
    values = dict(changes)
    if "place" in values:
        values |= place_columns(values["place"])
    if "observation" in values and values["observation"] is not None:
        values.setdefault("expected_start_at", values["observation"].expected_start_at)
    return values


def written(version: int, values: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """``values`` with what every write of a job's row, of this version, changes."""
    return {**values, "version": version + 1, "updated_at": at}


def place_columns(place: Place | None) -> dict[str, Any]:
    """What is searched of a place."""
    if place is None:
        return {"system_id": None, "queue": None, "job_type": None, "archive_system_id": None}
    return {
        "system_id": place.system_id,
        "queue": place.queue,
        "job_type": place.job_type,
        "archive_system_id": place.archive_system_id,
    }


def moves_attempt(job: Job, fact: Fact) -> bool:
    """Whether a fact is also about the newest attempt."""
    return job.attempt > 0 and (bool(fact.attempt) or (fact.attempt_event or fact.event) in ATTEMPT_EVENTS)


def attempt_values(attempt: Attempt, fact: Fact, at: datetime) -> dict[str, Any]:
    """The columns of the attempt's row after ``fact``; IllegalMove as for jobs.

    A job may fail or be cancelled when its attempt is over already; the attempt then stays as it is.
    """
    event = fact.attempt_event or fact.event
    values: dict[str, Any] = {}
    over = attempt.state not in LIVE_ATTEMPTS and event in (Event.FAILED, Event.CANCELLED)
    if event in ATTEMPT_EVENTS and not over:
        state = move_attempt(attempt.state, event)
        values["state"] = state
        if getattr(attempt, ATTEMPT_INSTANTS[state]) is None:
            values[ATTEMPT_INSTANTS[state]] = at
        if fact.changes.get("remote_id") is not None:
            values["remote_id"] = fact.changes["remote_id"]
    values |= fact.attempt
    return {**values, "version": attempt.version + 1} if values else {}


def status_event(before: JobState | None, state: JobState, message: str, at: datetime) -> HistoryEvent:
    """The line of history that says a new status, in Tapis's words when there are no better ones."""
    said = f"The job has transitioned to a new status: {state}."
    said += f" The previous job status was {before}." if before else ""
    return HistoryEvent(event="JOB_NEW_STATUS", detail=state, description=message or said, at=at)
