"""What a look at a system tells of everyone's jobs beside the look before it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from scheduler.model.snapshots import Sighting, SystemSnapshot, VisibleJob

Key = tuple[str, datetime]


def news(before: SystemSnapshot | None, now: SystemSnapshot) -> Sequence[Sighting]:
    """Jobs that are new, changed or gone. before: the last look by the same login, for others may see other jobs.

    Who ran and is gone has ended, between the looks; who waited and is gone was withdrawn or ran in between. A look
    that was cut short says nothing of who is missing. A job without an instant of submission is passed over.
    """
    was = _by_key(before) if before is not None and before.taken_at < now.taken_at else {}
    here = _by_key(now)
    found = [_seen(job, key, now.taken_at) for key, job in here.items() if not _same(was.get(key), job)]
    if before is not None and now.is_whole:
        found += [_gone(job, key, before, now) for key, job in was.items() if key not in here]
    return found


def _by_key(look: SystemSnapshot) -> dict[Key, VisibleJob]:
    return {(job.remote_id, job.submitted_at): job for job in look.jobs if job.submitted_at is not None}


def _same(was: VisibleJob | None, job: VisibleJob) -> bool:
    """Whether nothing that a row holds has changed."""
    if was is None:
        return False
    parts = ("running", "partition", "cores", "walltime_s", "started_at", "user")
    return all(getattr(was, part) == getattr(job, part) for part in parts)


def _seen(job: VisibleJob, key: Key, at: datetime) -> Sighting:
    remote_id, submitted_at = key
    return Sighting(
        remote_id=remote_id,
        partition=job.partition,
        cores=job.cores,
        walltime_s=job.walltime_s,
        user=job.user,
        submitted_at=submitted_at,
        seen_at=at,
        started_at=max(submitted_at, job.started_at or at) if job.running else None,
    )


def _gone(job: VisibleJob, key: Key, before: SystemSnapshot, now: SystemSnapshot) -> Sighting:
    was = _seen(job, key, before.taken_at)
    if was.started_at is None:
        return replace(was, seen_at=now.taken_at, ended_at=now.taken_at)
    middle = before.taken_at + (now.taken_at - before.taken_at) / 2
    latest = was.started_at + timedelta(seconds=max(0, min(was.walltime_s, 10**9)))
    return replace(was, seen_at=now.taken_at, ended_at=max(was.started_at, min(middle, latest)))
