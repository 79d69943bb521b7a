"""Jobs, their attempts and their history. State and history are written together or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import NotFound
from scheduler.model.jobs import Attempt, Fact, HistoryEvent, Job, NewJob
from scheduler.model.pages import FIRST_PAGE, Page
from scheduler.model.states import ACTIVE, BEFORE_SUBMISSION, TERMINAL, AttemptState, Event, JobState
from scheduler.store import schema
from scheduler.store.changes import Change, after, write_attempt, write_changes, write_history, write_job
from scheduler.store.columns import Record
from scheduler.store.leases import LIVE_COPY, JobLeases
from scheduler.store.moves import (
    attempt_values,
    job_values,
    moves_attempt,
    note_values,
    numbers,
    place_columns,
    status_event,
    written,
)
from scheduler.store.paging import Fields, narrowed, windowed
from scheduler.store.rows import ATTEMPT_COLUMNS, JOB_COLUMNS, attempt_of, job_of
from scheduler.store.statements import changed

jobs, attempts, history = schema.jobs, schema.attempts, schema.history

NOT_SEARCHED = {"tenant", "resume_state", "next_look_at", "lease_owner", "lease_until", "fence", "version", "attempt"}
NOT_SEARCHED |= {"last_attempt", "review_at"}

JOB_FIELDS: Fields = {
    column.name: column for column in jobs.c if column.name not in NOT_SEARCHED and not isinstance(column.type, Record)
}
"""Everything that is a column of a job for its own sake, by its name."""

IN_A_QUEUE = ACTIVE - {JobState.PENDING, JobState.ARCHIVING, JobState.BLOCKED, JobState.PAUSED}
"""States in which a job counts against the limits of its system and queue."""


class JobStore(JobLeases):
    """The jobs of all tenants; leases and watching are in ``JobLeases``."""

    def __init__(self, db: AsyncSession) -> None:
        super().__init__(db)

    # -- asking -------------------------------------------------------------------------------------------------

    async def get(self, tenant: str, uuid: str) -> Job:
        """NotFound when this tenant has no such job."""
        return await self._one(select(*JOB_COLUMNS).where(jobs.c.tenant == tenant, jobs.c.uuid == uuid), uuid)

    async def find(self, job_id: int) -> Job:
        """The job with this row id, in any tenant; NotFound when there is none."""
        return await self._one(select(*JOB_COLUMNS).where(jobs.c.id == job_id), str(job_id))

    async def some(self, job_ids: Sequence[int]) -> Mapping[int, Job]:
        """Those of these jobs that exist, in any tenant, by row id."""
        rows = await self._db.execute(select(*JOB_COLUMNS).where(jobs.c.id.in_(job_ids)))
        return {job.id: job for job in map(job_of, rows.mappings())}

    async def list(self, tenant: str, owner: str | None, page: Page = FIRST_PAGE) -> Sequence[Job]:
        """Visible jobs, newest first or in the page's order. owner None: everyone's."""
        query = _listed(select(*JOB_COLUMNS), tenant, owner, page)
        rows = await self._db.execute(windowed(query, JOB_FIELDS, page, jobs.c.id.desc()))
        return [job_of(row) for row in rows.mappings()]

    async def count(self, tenant: str, owner: str | None, page: Page = FIRST_PAGE) -> int:
        """How many jobs ``list`` would answer without a window."""
        query = _listed(select(func.count()).select_from(jobs), tenant, owner, page)
        return int((await self._db.execute(query)).scalar_one())

    async def history(self, tenant: str, uuid: str, limit: int | None = None, skip: int = 0) -> Sequence[HistoryEvent]:
        """What happened to a job, oldest first; NotFound when this tenant has no such job."""
        job = jobs.c.tenant == tenant, jobs.c.uuid == uuid
        job_id = (await self._db.execute(select(jobs.c.id).where(*job))).scalar_one_or_none()
        if job_id is None:
            raise NotFound("job", uuid)
        lines = select(history.c.event, history.c.detail, history.c.description, history.c.at)
        lines = lines.where(history.c.job_id == job_id).order_by(history.c.id)
        rows = await self._db.execute(windowed(lines, {}, Page(limit=limit, skip=skip), history.c.id))
        return [HistoryEvent(**row) for row in rows.mappings()]

    async def attempts(self, job: Job) -> Sequence[Attempt]:
        """Every attempt, oldest first."""
        query = select(*ATTEMPT_COLUMNS).where(attempts.c.job_id == job.id).order_by(attempts.c.number)
        return [attempt_of(row) for row in (await self._db.execute(query)).mappings()]

    async def attempts_of(self, some: Sequence[Job]) -> Mapping[int, Sequence[Attempt]]:
        """Every attempt of many jobs, by the job's row id, oldest first."""
        query = select(*ATTEMPT_COLUMNS).where(attempts.c.job_id.in_([job.id for job in some]))
        found: dict[int, list[Attempt]] = {job.id: [] for job in some}
        for row in (await self._db.execute(query.order_by(attempts.c.number))).mappings():
            found[row["job_id"]].append(attempt_of(row))
        return found

    async def newest_attempt(self, job: Job) -> Attempt | None:
        """The attempt that the job's state speaks of; None before the first."""
        query = select(*ATTEMPT_COLUMNS).where(attempts.c.job_id == job.id, attempts.c.number == job.attempt)
        row = (await self._db.execute(query)).mappings().one_or_none()
        return None if row is None else attempt_of(row)

    async def newest_attempts(self, some: Sequence[Job]) -> Mapping[int, Attempt]:
        """The newest attempts of many jobs, by the job's row id; those before their first have none."""
        newest = and_(attempts.c.job_id == jobs.c.id, attempts.c.number == jobs.c.attempt)
        query = select(*ATTEMPT_COLUMNS).join(jobs, newest).where(jobs.c.id.in_([job.id for job in some]))
        found = (attempt_of(row) for row in (await self._db.execute(query)).mappings())
        return {attempt.job_id: attempt for attempt in found}

    async def lost_attempts(self, job_ids: Sequence[int]) -> Mapping[int, int]:
        """How many attempts of each job were lost, by the job's row id; jobs that lost none are left out."""
        if not job_ids:
            return {}
        query = select(attempts.c.job_id, func.count().label("lost")).where(attempts.c.job_id.in_(job_ids))
        rows = await self._db.execute(query.where(attempts.c.state == AttemptState.LOST).group_by(attempts.c.job_id))
        return {row.job_id: row.lost for row in rows}

    async def active_counts(self, tenant: str) -> Mapping[tuple[str, str | None, str], int]:
        """How many jobs each owner has on each system and queue, from placing until they have run.

        A job that waits in several places counts in each: the site sees as many.
        """
        placed = or_(
            jobs.c.state.in_(IN_A_QUEUE),
            and_(
                jobs.c.state.in_((JobState.BLOCKED, JobState.PAUSED)),
                jobs.c.resume_state.in_(BEFORE_SUBMISSION - {JobState.PENDING}),
            ),
        )
        lead = jobs.c.system_id, jobs.c.queue, jobs.c.owner
        leads = select(*lead, func.count()).where(jobs.c.tenant == tenant, placed, jobs.c.system_id.is_not(None))
        copy = attempts.c.system_id, attempts.c.queue, attempts.c.owner
        copies = select(*copy, func.count()).join(jobs, jobs.c.id == attempts.c.job_id)
        copies = copies.where(attempts.c.tenant == tenant, LIVE_COPY)
        found: Counter[tuple[str, str | None, str]] = Counter()
        for query in (leads.group_by(*lead), copies.group_by(*copy)):
            for system_id, queue, owner, count in await self._db.execute(query):
                found[system_id, queue, owner] += count
        return found

    # -- writing ------------------------------------------------------------------------------------------------

    async def add(self, new: Sequence[NewJob]) -> Sequence[Job]:
        """Store jobs with the first line of their history, many in few statements; in the order given."""
        if not new:
            return []
        ids = await self._insert_jobs(new)
        first = [status_event(None, JobState.PENDING, job.message, job.at) for job in new]
        await write_history(self._db, [(ids[job.uuid], line) for job, line in zip(new, first, strict=True)])
        return [_made(job, ids[job.uuid]) for job in new]

    async def record(self, job: Job, fact: Fact, at: datetime) -> Job:
        """Move ``job`` (and its newest attempt, when the fact is about it) and write its history.

        Returns the job as it is now. IllegalMove when the table has no such row; StaleJob when someone moved it first.
        """
        values = job_values(job, fact, at)
        await write_job(self._db, job, values)
        if moves_attempt(job, fact):
            attempt = await self.newest_attempt(job)
            if attempt is not None and (moved := attempt_values(attempt, fact, at)):
                await write_attempt(self._db, attempt, moved)
        await write_history(self._db, [(job.id, status_event(job.state, values["state"], fact.message, at))])
        return after(job, values)

    async def write(self, changes: Sequence[Change], at: datetime) -> Sequence[Job]:
        """Write changes of different jobs in few statements; the jobs as they are then, in the order given.

        All or nothing: StaleJob, or IllegalMove, when it is so of any of them. The transaction must then be undone.
        """
        wanted = [change.job for change in changes if change.wants_attempt]
        newest = await self.newest_attempts(wanted) if wanted else {}
        known = [replace(c, attempt=newest.get(c.job.id)) if c.wants_attempt else c for c in changes]
        return await write_changes(self._db, known, at)

    async def intend(self, job: Job, attempt: Attempt, at: datetime) -> Job:
        """STAGING_JOB -> SUBMITTING_JOB together with the new attempt: from here on a remote job may exist."""
        words = f"handing attempt {attempt.number} to {attempt.system_id}"
        values = job_values(job, Fact(Event.JOB_READY, message=words), at) | numbers(attempt)
        await write_job(self._db, job, values)
        await self._db.execute(insert(attempts).values({c.name: getattr(attempt, c.name) for c in ATTEMPT_COLUMNS}))
        await write_history(self._db, [(job.id, status_event(job.state, values["state"], words, at))])
        return after(job, values)

    async def note(self, job: Job, changes: Mapping[str, Any], at: datetime, event: HistoryEvent | None = None) -> Job:
        """Change fields of a job without a move; StaleJob when someone else wrote first."""
        values = written(job.version, note_values(changes), at)
        await write_job(self._db, job, values)
        if event is not None:
            await write_history(self._db, [(job.id, event)])
        return after(job, values)

    async def note_attempt(self, attempt: Attempt, changes: Mapping[str, Any]) -> Attempt:
        """Change fields of an attempt without a move; StaleJob when someone else wrote first."""
        values = {**changes, "version": attempt.version + 1}
        await write_attempt(self._db, attempt, values)
        return replace(attempt, **values)

    async def request_cancel(self, tenant: str, uuid: str, at: datetime) -> Job:
        """Write down that the job shall end; a job that has ended, or was asked already, stays as it is."""
        mine = and_(jobs.c.tenant == tenant, jobs.c.uuid == uuid)
        wanted = and_(mine, jobs.c.cancel_requested_at.is_(None), jobs.c.state.not_in(TERMINAL))
        values = {"cancel_requested_at": at, "next_look_at": at, "updated_at": at, "version": jobs.c.version + 1}
        asked = await self._db.execute(update(jobs).where(wanted).values(values))
        job = await self.get(tenant, uuid)
        if changed(asked):
            line = HistoryEvent(
                event="JOB_USER_EVENT", detail="CANCEL_REQUESTED", description="Cancellation was requested.", at=at
            )
            await write_history(self._db, [(job.id, line)])
        return job

    # -- below --------------------------------------------------------------------------------------------------

    async def _one(self, query: Select[Any], name: str) -> Job:
        row = (await self._db.execute(query)).mappings().one_or_none()
        if row is None:
            raise NotFound("job", name)
        return job_of(row)

    async def _insert_jobs(self, new: Sequence[NewJob]) -> Mapping[str, int]:
        """Row ids by uuid. Many are asked for afterwards: RETURNING them costs twice as much."""
        rows = [_new_row(job) for job in new]
        if len(rows) == 1:
            made = await self._db.execute(_INSERT_ONE, rows)
        else:
            await self._db.execute(_INSERT, rows)
            made = await self._db.execute(_IDS, {"uuids": [job.uuid for job in new]})
        return {row.uuid: row.id for row in made}


_INSERT = insert(jobs)
_INSERT_ONE = _INSERT.returning(jobs.c.uuid, jobs.c.id)
_IDS = select(jobs.c.uuid, jobs.c.id).where(jobs.c.uuid.in_(bindparam("uuids", expanding=True)))


def _listed(query: Select[Any], tenant: str, owner: str | None, page: Page) -> Select[Any]:
    query = query.where(jobs.c.tenant == tenant, jobs.c.visible)
    if owner is not None:
        query = query.where(jobs.c.owner == owner)
    return narrowed(query, JOB_FIELDS, page.filters)


def _new_row(new: NewJob) -> dict[str, Any]:
    """Every column of a job that starts its life."""
    return {
        "uuid": new.uuid,
        "tenant": new.tenant,
        "owner": new.owner,
        "created_by": new.created_by,
        "name": new.spec.name,
        "app_id": new.spec.app_id,
        "app_version": new.spec.app_version,
        **place_columns(new.place),
        "state": JobState.PENDING,
        "last_message": new.message,
        "blocked_count": 0,
        "attempt": 0,
        "last_attempt": 0,
        "created_at": new.at,
        "updated_at": new.at,
        "visible": True,
        "tracking_id": new.tracking_id,
        "version": 0,
        "next_look_at": new.at,
        "fence": 0,
        "spec": new.spec,
        "place": new.place,
        "decision": new.decision,
    }


def _made(new: NewJob, job_id: int) -> Job:
    """The job that ``_new_row`` stored."""
    return Job(
        id=job_id,
        uuid=new.uuid,
        tenant=new.tenant,
        owner=new.owner,
        created_by=new.created_by,
        spec=new.spec,
        place=new.place,
        decision=new.decision,
        state=JobState.PENDING,
        last_message=new.message,
        tracking_id=new.tracking_id,
        version=0,
        created_at=new.at,
        updated_at=new.at,
    )
