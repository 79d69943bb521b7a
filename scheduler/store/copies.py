"""Attempts of jobs that wait in several places: who works on them, and the one write that hands a job over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from placement.race import Spent
from scheduler.model.errors import NotFound, StaleJob
from scheduler.model.ids import Marker
from scheduler.model.jobs import Attempt, HistoryEvent, Job, Role
from scheduler.model.states import LIVE_ATTEMPTS, AttemptState, Event, JobState, move_attempt
from scheduler.store import schema
from scheduler.store.changes import after, attempt_after, write_attempt, write_history, write_job
from scheduler.store.leases import LIVE_COPY
from scheduler.store.moves import ATTEMPT_INSTANTS, note_values, written
from scheduler.store.rows import ATTEMPT_COLUMNS, JOB_COLUMNS, attempt_of, job_of
from scheduler.store.statements import changed

jobs, attempts = schema.jobs, schema.attempts

NOTE = "JOB_USER_EVENT"

MOST_COUNTED = 2000
"""Attempts of which is known what was spent, the newest."""

FREE: Mapping[str, Any] = {"lease_owner": None, "lease_until": None}
"""A write gives the lease back, unless it says that more follows."""


class CopyStore:
    """Copies of leads, and leads that a hand-over is about. Every write is guarded by the version that was seen."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    # -- claiming -----------------------------------------------------------------------------------------------

    async def is_any_due(self, at: datetime) -> bool:
        """Whether ``claim`` would find something, which costs a reader next to nothing."""
        return (await self._db.execute(_due(at).limit(1))).first() is not None

    async def claim(self, process_id: str, lease_s: float, limit: int, at: datetime) -> Sequence[Attempt]:
        """Lease attempts that are due, or whose job does not wait any more, as far as they are free."""
        due = _due(at).order_by(attempts.c.next_look_at, attempts.c.id)
        picked = due.limit(limit).with_for_update(of=attempts, skip_locked=True).cte("due")
        lease = {
            "lease_owner": process_id,
            "lease_until": at + timedelta(seconds=lease_s),
            "fence": attempts.c.fence + 1,
        }
        taken = update(attempts).where(attempts.c.id.in_(select(picked.c.id))).values(lease)
        rows = (await self._db.execute(taken.returning(*ATTEMPT_COLUMNS))).mappings()
        return sorted(map(attempt_of, rows), key=lambda attempt: attempt.marker)

    async def extend(self, attempt: Attempt, lease_s: float, at: datetime) -> None:
        """Hold the lease under which it was claimed for ``lease_s`` more; StaleJob when it is no longer held."""
        longer = update(attempts).where(_held(attempt)).values(lease_until=at + timedelta(seconds=lease_s))
        if changed(await self._db.execute(longer)) != 1:
            raise StaleJob(f"the lease of attempt {attempt.marker} is no longer held")

    async def release(self, attempt: Attempt, next_look_at: datetime) -> None:
        """Give up the lease under which it was claimed, without another write."""
        await self._db.execute(update(attempts).where(_held(attempt)).values(**FREE, next_look_at=next_look_at))

    async def is_any_for_review(self, at: datetime) -> bool:
        """Whether ``for_review`` would find something."""
        return (await self._db.execute(_due_for_review(at).limit(1))).first() is not None

    async def for_review(self, limit: int, at: datetime, again_at: datetime) -> Sequence[Job]:
        """Queued jobs whose place is due to be thought over, longest due first; they are due again at ``again_at``."""
        due = _due_for_review(at).order_by(jobs.c.review_at, jobs.c.id).limit(limit).with_for_update(skip_locked=True)
        picked = due.cte("due")
        taken = update(jobs).where(jobs.c.id.in_(select(picked.c.id))).values(review_at=again_at)
        rows = (await self._db.execute(taken.returning(*JOB_COLUMNS))).mappings()
        return sorted(map(job_of, rows), key=lambda job: job.id)

    async def spent(self, tenant: str, since: datetime) -> Spent:
        """Jobs of a tenant that were submitted since then, and how often they were."""
        newest = select(attempts.c.job_id, attempts.c.submitted_at).where(attempts.c.tenant == tenant)
        last = newest.order_by(attempts.c.id.desc()).limit(MOST_COUNTED).subquery()
        counted = select(func.count(last.c.job_id.distinct()), func.count()).where(last.c.submitted_at >= since)
        jobs_count, submission_count = (await self._db.execute(counted)).one()
        return Spent(jobs_count, submission_count)

    async def get(self, marker: Marker) -> Attempt:
        """NotFound when there is none."""
        row = (await self._db.execute(select(*ATTEMPT_COLUMNS).where(attempts.c.marker == marker))).mappings().first()
        if row is None:
            raise NotFound("attempt", marker)
        return attempt_of(row)

    # -- writing ------------------------------------------------------------------------------------------------

    async def plan(self, job: Job, copy: Attempt, message: str, at: datetime) -> Job:
        """Decide on a copy: from here on it is prepared, or withdrawn. StaleJob when the job was moved meanwhile."""
        values = written(job.version, {"last_attempt": copy.number}, at)
        await write_job(self._db, job, values)
        row = {column.name: getattr(copy, column.name) for column in ATTEMPT_COLUMNS}
        await self._db.execute(insert(attempts).values(row))
        await write_history(self._db, [(job.id, _note("COPY_PLANNED", message, at))])
        return after(job, values)

    async def move(
        self, attempt: Attempt, event: Event, at: datetime, message: str = "", *, keep: bool = False, **changes: Any
    ) -> Attempt:
        """Move a copy by its own table, with a line of history if there is a message.

        Over, it is looked at once more, to clear away what it left.

        keep: the lease stays, since more follows.
        """
        state = move_attempt(attempt.state, event)
        values: dict[str, Any] = {"state": state}
        instant = ATTEMPT_INSTANTS.get(state)
        if instant is not None and getattr(attempt, instant) is None:
            values[instant] = at
        if state not in LIVE_ATTEMPTS:
            values["next_look_at"] = at
        moved = await self._write(attempt, values | changes, keep=keep)
        if message:
            await write_history(self._db, [(attempt.job_id, _note(f"COPY_{event}", message, at))])
        return moved

    async def note(self, attempt: Attempt, *, keep: bool = False, **changes: Any) -> Attempt:
        """Change fields without a move; ``keep`` as above."""
        return await self._write(attempt, changes, keep=keep)

    async def take_back(self, copy: Attempt, message: str, at: datetime) -> Attempt:
        """Ask for the end of a copy, whatever becomes of its job."""
        await write_history(self._db, [(copy.job_id, _note("COPY_UNWANTED", message, at))])
        return await self._write(copy, {"unwanted_at": at, "next_look_at": at})

    async def hand_over(self, job: Job, lead: Attempt, copy: Attempt, message: str, at: datetime) -> Job:
        """The copy leads from now on, and its gate is to be opened; the lead is proven to run nothing, ever."""
        changes = {
            "attempt": copy.number,
            "place": copy.place,
            "remote_id": copy.remote_id,
            "remote_submitted_at": copy.submitted_at,
            "observation": None,
            "expected_start_at": None,
            "last_message": message,
        }
        values = written(job.version, note_values(changes), at)
        await write_job(self._db, job, values)
        withdrawn = move_attempt(lead.state, Event.WITHDRAWN)
        left = at if lead.role is not Role.LEAD else None  # a copy's directories are its own, a first lead's the job's
        await self._write(lead, {"state": withdrawn, "ended_at": at, "next_look_at": left})
        # It waits, as its job does, until it is seen to run: then both are started by one fact.
        queued = move_attempt(copy.state, Event.REQUEUED) if copy.state is AttemptState.CLAIMED else copy.state
        await self._write(copy, {"state": queued, "started_at": None, "next_look_at": at})
        await write_history(self._db, [(job.id, _note("HANDED_OVER", message, at))])
        return after(job, values)

    async def _write(self, attempt: Attempt, changes: Mapping[str, Any], *, keep: bool = False) -> Attempt:
        values = {**changes, "version": attempt.version + 1}
        await write_attempt(self._db, attempt, values if keep else {**values, **FREE})
        return attempt_after(attempt, values)


def _due(at: datetime) -> Select[tuple[int]]:
    free = or_(attempts.c.lease_until.is_(None), attempts.c.lease_until <= at)
    wanted = and_(LIVE_COPY, attempts.c.unwanted_at.is_(None))
    in_vain = and_(wanted, or_(jobs.c.state != JobState.QUEUED, jobs.c.cancel_requested_at.is_not(None)))
    due = select(attempts.c.id).join(jobs, jobs.c.id == attempts.c.job_id)
    return due.where(attempts.c.next_look_at.is_not(None), free, or_(attempts.c.next_look_at <= at, in_vain))


def _due_for_review(at: datetime) -> Select[tuple[int]]:
    return select(jobs.c.id).where(jobs.c.review_at.is_not(None), jobs.c.review_at <= at)


def _held(attempt: Attempt) -> Any:
    return and_(
        attempts.c.marker == attempt.marker, attempts.c.fence == attempt.fence, attempts.c.lease_owner.is_not(None)
    )


def _note(detail: str, message: str, at: datetime) -> HistoryEvent:
    return HistoryEvent(event=NOTE, detail=detail, description=message, at=at)
