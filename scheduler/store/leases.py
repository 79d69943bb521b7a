"""Which process works on which job, and what watching needs to know of jobs that run elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, bindparam, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.jobs import InFlight, Job, Role
from scheduler.model.states import LIVE_ATTEMPTS, AttemptState, JobState
from scheduler.store import schema
from scheduler.store.moves import note_values, written
from scheduler.store.rows import JOB_COLUMNS, job_of

jobs, attempts = schema.jobs, schema.attempts

WATCHED = frozenset({JobState.SUBMITTING_JOB, JobState.QUEUED, JobState.RUNNING})
"""States in which a remote job of the leading attempt may exist."""


class JobLeases:
    """Claiming work. A lease ends by itself, and each has a higher fence: a holder that was overtaken cannot write."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def claim(
        self,
        states: Collection[JobState],
        process_id: str,
        lease_s: float,
        limit: int,
        at: datetime,
        *,
        busy: Collection[tuple[str, str]] = (),
    ) -> Sequence[Job]:
        """Lease jobs in ``states`` that are due (``next_look_at`` reached) and free, those waiting longest first.

        Jobs that another process is claiming at this moment are skipped, not waited for; so are those on ``busy``
        systems, by tenant and id.
        """
        free = or_(jobs.c.lease_until.is_(None), jobs.c.lease_until <= at)
        due = select(jobs.c.id).where(jobs.c.state.in_(states), jobs.c.next_look_at <= at, free)
        if busy:
            due = due.where(tuple_(jobs.c.tenant, jobs.c.system_id).not_in(busy))
        due = due.order_by(jobs.c.next_look_at, jobs.c.id).limit(limit).with_for_update(skip_locked=True)
        picked = due.cte("due")  # its own step: inside IN, PostgreSQL may run it again and lock more than it takes
        lease = {
            "lease_owner": process_id,
            "lease_until": at + timedelta(seconds=lease_s),
            "fence": jobs.c.fence + 1,
        }
        taken = update(jobs).where(jobs.c.id.in_(select(picked.c.id))).values(lease).returning(*JOB_COLUMNS)
        rows = (await self._db.execute(taken)).mappings()
        return sorted(map(job_of, rows), key=lambda job: job.id)

    async def release(self, job: Job, next_look_at: datetime | None = None) -> None:
        """Give up the lease under which ``job`` was claimed; one that was taken over since is left alone.

        next_look_at: not to be claimed before; None keeps what is there.
        """
        held = and_(jobs.c.id == job.id, jobs.c.fence == job.fence)
        free = {"lease_owner": None, "lease_until": None}
        await self._db.execute(update(jobs).where(held).values(free | _look(next_look_at)))

    async def extend_all(self, leases: Sequence[tuple[Job, datetime]]) -> None:
        """Hold the leases of many jobs until these instants; those that are no longer held stay as they are."""
        held = jobs.c.id == bindparam("its_id"), jobs.c.fence == bindparam("its_fence"), jobs.c.lease_owner.is_not(None)
        longer = update(jobs).where(*held).values(lease_until=bindparam("until"))
        rows = [{"its_id": job.id, "its_fence": job.fence, "until": until} for job, until in leases]
        await self._db.execute(longer, rows)

    async def release_all(self, process_id: str) -> None:
        """Free every lease of a process that is known to be dead."""
        free = {"lease_owner": None, "lease_until": None}
        leased = (schema.helper_jobs, schema.image_copies, schema.pods, schema.pod_volumes, schema.pod_snapshots)
        for table in (jobs, attempts, *leased):
            await self._db.execute(update(table).where(table.c.lease_owner == process_id).values(free))

    async def versions_in_flight(self) -> Mapping[int, tuple[int, int]]:
        """Attempts that may exist on a system, by row id, with the versions of the job and of the attempt."""
        query = select(attempts.c.id, jobs.c.version, attempts.c.version).join(jobs, _of_job).where(_watched)
        return {attempt_id: (version, of_attempt) for attempt_id, version, of_attempt in await self._db.execute(query)}

    async def in_flight(self, attempt_ids: Sequence[int]) -> Sequence[InFlight]:
        """Those of these attempts that may exist on a system, by row id."""
        query = select(*IN_FLIGHT).join(jobs, _of_job).where(_watched, attempts.c.id.in_(attempt_ids))
        rows = await self._db.execute(query.order_by(attempts.c.id))
        return [InFlight(**row) for row in rows.mappings()]

    async def note_in_flight(self, notes: Sequence[tuple[InFlight, Mapping[str, Any]]], at: datetime) -> None:
        """Change fields of many jobs without a move. A job that was written since it was seen is left as it is."""
        alike: dict[frozenset[str], list[dict[str, Any]]] = defaultdict(list)
        for flight, changes in notes:
            values = written(flight.version, note_values(changes), at)
            alike[frozenset(values)].append({"seen_id": flight.job_id, "seen_version": flight.version, **values})
        as_seen = jobs.c.id == bindparam("seen_id"), jobs.c.version == bindparam("seen_version")
        for rows in alike.values():
            await self._db.execute(update(jobs).where(*as_seen), rows)


_of_job = attempts.c.job_id == jobs.c.id

_waits = and_(attempts.c.role != Role.LEAD, attempts.c.state.in_((AttemptState.QUEUED, AttemptState.CLAIMED)))

_watched = and_(
    jobs.c.state.in_(WATCHED),
    attempts.c.unwanted_at.is_(None),  # what is being withdrawn is judged by who withdraws it
    or_(attempts.c.number == jobs.c.attempt, _waits),
)
"""The leads of such jobs, and the copies that wait beside them."""

LIVE_COPY = and_(
    attempts.c.next_look_at.is_not(None),  # of all that live this is so, and few attempts have it: it is indexed
    attempts.c.state.in_(LIVE_ATTEMPTS),
    attempts.c.number != jobs.c.attempt,
)
"""What waits beside a lead, or is about to."""

IN_FLIGHT = [
    attempts.c.id.label("attempt_id"),
    attempts.c.number,
    attempts.c.place.label("copy_place"),
    jobs.c.id.label("job_id"),
    jobs.c.uuid,
    jobs.c.tenant,
    jobs.c.owner,
    jobs.c.state,
    jobs.c.version,
    attempts.c.system_id,
    jobs.c.job_type,
    attempts.c.marker,
    jobs.c.attempt,
    attempts.c.state.label("attempt_state"),
    attempts.c.version.label("attempt_version"),
    attempts.c.remote_id,
    attempts.c.submitted_at,
    jobs.c.expected_start_at,
    jobs.c.cancel_requested_at,
    attempts.c.missing_since,
    jobs.c.queue,
    jobs.c.observation,
    jobs.c.last_message,
]


def _look(next_look_at: datetime | None) -> dict[str, datetime]:
    return {} if next_look_at is None else {"next_look_at": next_look_at}
