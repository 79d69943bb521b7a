"""From what a system says of a job to what happened to it. Pure, and one table of remote state by our state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from scheduler.model.jobs import Fact, InFlight, Job
from scheduler.model.runs import CONDITIONS, Ending, Observation, RemoteState, TaskCounts
from scheduler.model.states import Condition, Event, S
from scheduler.reconcile.archive import ending_in_words

ENDS_UNSTARTED = frozenset(
    {Ending.CANCELLED, Ending.DEADLINE, Ending.LAUNCH_FAILURE, Ending.NODE_FAILURE, Ending.PREEMPTED}
)
"""Endings that a job can have without ever having run."""

MOST_LAUNCHES = 3
"""Attempts of a job that may be lost to systems which do not launch what they started."""

TRACES_SETTLE = timedelta(seconds=60)
"""How late a job's own traces may show on the login node, over a shared file system that caches."""

PUT_BACK = "the site put the job back in its queue"
NOT_RUNNING = "the site called the job running, and it was not"
UNREACHABLE = "not reachable since"
UNKNOWN = "the system has not known the job since"

SAME_START_S = 60
SAME_START_SHARE = 0.1
"""Expected starts that differ by less, in seconds or as a share of the wait, are the same news."""


def facts_of(job: Job, seen: Observation, now: datetime, lost: int = 0, image: str | None = None) -> Sequence[Fact]:
    """Everything that happened since ``job`` was last written, in order; nothing when nothing did.

    lost: attempts of the job that were lost before. image: what Berth brings to the attempt. A run that begins again
    awaits it again, for it may have given it back when its nodes had copies.
    """
    again = {"started_at": None} | ({"awaits_image": image} if image is not None else {})
    match job.state, seen.state:
        case (S.QUEUED, RemoteState.ENDED) if _not_launched(job, seen, lost):
            return [_placed_again(seen)] if _settled(seen, now) else []
        case (S.RUNNING, RemoteState.ENDED) if _not_launched(job, seen, lost):
            return [_requeued(job, seen, NOT_RUNNING, again), _placed_again(seen)] if _settled(seen, now) else []
        case (S.QUEUED, RemoteState.RUNNING):
            return [_started(job, seen)]
        case (S.RUNNING, RemoteState.QUEUED):
            return [_requeued(job, seen, PUT_BACK, again)]
        case (S.RUNNING, RemoteState.RUNNING) if _restarted(job, seen):
            return [_requeued(job, seen, PUT_BACK, again), _started(job, seen)]
        case (S.QUEUED, RemoteState.ENDED) if never_started(seen):
            return [_ended_unstarted(job, seen)]
        case (S.QUEUED, RemoteState.ENDED):
            return [_started(job, seen), _ended(job, seen)]
        case (S.RUNNING, RemoteState.ENDED):
            return [_ended(job, seen)]
    return []


def has_moved(flight: InFlight, seen: Observation) -> bool:
    """Whether the job itself must be read: it is elsewhere than we know, started anew, or was missing."""
    if flight.missing_since is not None or seen.state is RemoteState.ENDED:
        return True
    if (flight.state is S.RUNNING) != (seen.state is RemoteState.RUNNING):
        return True
    return flight.observation is not None and seen.restarts > flight.observation.restarts


def news_of(flight: InFlight, seen: Observation) -> Mapping[str, Any]:
    """What people should read now while the job stays where it is; empty when it is what they read already."""
    known = flight.observation is not None and same_news(flight.observation, seen)
    if known and not flight.last_message.startswith((UNREACHABLE, UNKNOWN)):
        return {}
    return {"observation": seen, "last_message": waiting_in_words(flight.queue, seen)}


def same_news(before: Observation, seen: Observation) -> bool:
    """Whether two looks tell people the same. Expected starts may differ by a minute, or a tenth of the wait."""
    if (before.state, before.reason, before.nodes, before.tasks) != (seen.state, seen.reason, seen.nodes, seen.tasks):
        return False
    if before.expected_start_at is None or seen.expected_start_at is None:
        return before.expected_start_at is seen.expected_start_at
    drift_s = abs((before.expected_start_at - seen.expected_start_at).total_seconds())
    wait_s = (seen.expected_start_at - seen.submitted_at).total_seconds() if seen.submitted_at else 0.0
    return drift_s < max(SAME_START_S, SAME_START_SHARE * wait_s)


def waiting_in_words(queue: str | None, seen: Observation) -> str:
    """Where a job waits or runs, why, and until when the site expects it to."""
    if seen.state is RemoteState.RUNNING:
        return running_in_words(seen)
    words = (f"waiting in queue {queue}" if queue else "waiting") + _why(seen)
    if seen.expected_start_at is not None:
        words += f"; the site expects it to start at {seen.expected_start_at:%Y-%m-%d %H:%M} UTC"
    return words


def _why(seen: Observation) -> str:
    if not seen.reason_words:
        return f": {seen.reason}" if seen.reason else ""
    return f": {seen.reason_words} ({seen.reason})"


def running_in_words(seen: Observation) -> str:
    """Where a job runs, and how far its tasks are when it is an array."""
    words = f"running on {seen.nodes}" if seen.nodes else "running"
    return f"{words}; {tasks_in_words(seen.tasks)}" if seen.tasks else words


def tasks_in_words(tasks: TaskCounts) -> str:
    """How many tasks of an array are in which state."""
    states = ("queued", "running", "completed", "failed")
    counts = [f"{getattr(tasks, state)} {state}" for state in states if getattr(tasks, state)]
    return f"tasks: {', '.join(counts) or 'none seen'}"


def never_started(seen: Observation) -> bool:
    """Whether a run ended before any of its code ran."""
    return seen.started_at is None and seen.ending in ENDS_UNSTARTED


def not_due(job: Job) -> dict[str, Any]:
    """While a job is on a system it is due for a step only when the user asked for its end."""
    return {"next_look_at": None} if job.cancel_requested_at is None else {}


def unknown_in_words(since: datetime) -> str:
    """What people read of a job that the system leaves out of its answers."""
    return f"{UNKNOWN} {since:%Y-%m-%d %H:%M:%S} UTC"


def lost(job: Job, since: datetime, *, begun: bool) -> Fact:
    """A remote job that is proven gone: placed again when it never began, failed when it may have."""
    words = unknown_in_words(since)
    if job.cancel_requested_at is not None:
        return Fact(Event.CANCELLED, attempt_event=Event.LOST, message=f"cancelled as asked; {words}")
    if job.state is S.QUEUED and not begun:
        return Fact(Event.LOST, message=f"{words}, and it had not started; it is placed again")
    outcome = {"condition": Condition.JOB_EXECUTION_MONITORING_ERROR, "remote_outcome": "FAILED"}
    return Fact(Event.FAILED, outcome, attempt_event=Event.LOST, message=f"{words}, and it had started")


def _not_launched(job: Job, seen: Observation, lost: int) -> bool:
    """Whether the system started the job and could not launch it, or nobody let it go: nothing of the user's ran."""
    if seen.ending is Ending.GATE_CLOSED:
        return job.cancel_requested_at is None
    failed = seen.ending is Ending.LAUNCH_FAILURE and seen.started_at is not None and seen.exit_code is None
    return failed and job.cancel_requested_at is None and lost < MOST_LAUNCHES - 1


def _settled(seen: Observation, now: datetime) -> bool:
    return seen.ended_at is not None and now - seen.ended_at >= TRACES_SETTLE


def _placed_again(seen: Observation) -> Fact:
    if seen.ending is Ending.GATE_CLOSED:
        return Fact(Event.LOST, message="nobody let it go in time, and nothing of it ran; it is placed again")
    return Fact(Event.LOST, message=f"{ending_in_words(seen)}: the system could not launch it; it is placed again")


def _started(job: Job, seen: Observation) -> Fact:
    changes = {"remote_started_at": seen.started_at, "remote_submitted_at": seen.submitted_at, "observation": seen}
    return Fact(
        Event.STARTED,
        changes | not_due(job),
        {"started_at": seen.started_at} if seen.started_at else {},
        message=running_in_words(seen) if seen.state is RemoteState.RUNNING else "the run started",
    )


def _requeued(job: Job, seen: Observation, words: str, again: Mapping[str, Any]) -> Fact:
    changes = {"remote_started_at": None, "observation": seen} | not_due(job)
    why = f": {seen.reason}" if seen.reason else ""
    return Fact(Event.REQUEUED, changes, again, message=f"{words}{why}")


def _ended(job: Job, seen: Observation) -> Fact:
    changes = _outcome(seen)
    instants = {"ended_at": seen.ended_at} if seen.ended_at else {}
    if job.cancel_requested_at is not None:
        return Fact(Event.CANCELLED, changes, instants, message="cancelled as asked")
    return Fact(Event.ENDED, changes, instants, message=ending_in_words(seen))


def _ended_unstarted(job: Job, seen: Observation) -> Fact:
    changes = _outcome(seen)
    if job.cancel_requested_at is not None:
        return Fact(Event.CANCELLED, changes, message="cancelled as asked, before it started")
    changes |= {"condition": CONDITIONS[seen.ending or Ending.FAILED], "remote_outcome": "FAILED"}
    return Fact(Event.FAILED, changes, message=f"{ending_in_words(seen)}, before it started")


def _outcome(seen: Observation) -> dict[str, Any]:
    result = None if seen.exit_code is None else str(seen.exit_code)
    return {"remote_ended_at": seen.ended_at, "remote_result": result, "observation": seen}


def _restarted(job: Job, seen: Observation) -> bool:
    return job.observation is not None and seen.restarts > job.observation.restarts
