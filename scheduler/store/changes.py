"""What one transaction writes of a held job, and many of them in few statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Table, bindparam, insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import StaleJob
from scheduler.model.jobs import Attempt, Fact, FinishedRun, HistoryEvent, Job
from scheduler.model.states import Event
from scheduler.store import schema
from scheduler.store.learning import RunStore
from scheduler.store.moves import attempt_values, job_values, moves_attempt, note_values, numbers, status_event, written
from scheduler.store.rows import ATTEMPT_COLUMNS
from scheduler.store.statements import changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Moves of one job in their order, or fields changed without a move, and whether the lease ends with it.

    ``attempt`` is the newest one as last seen, wanted when a fact is about it; ``attempt_fields`` change of it without
    a move. ``intent`` is stored with JOB_READY.
    ``event`` is a line of history that comes before those of the moves. ``finished`` is what the end of a run teaches.
    ``due_at``: when to look again, if not as the last move said. ``leased_until``: the lease is held until then.
    """

    job: Job
    facts: Sequence[Fact] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    attempt: Attempt | None = None
    attempt_fields: Mapping[str, Any] = field(default_factory=dict)
    intent: Attempt | None = None
    event: HistoryEvent | None = None
    finished: FinishedRun | None = None
    lets_go: bool = False
    due_at: datetime | None = None
    leased_until: datetime | None = None

    @property
    def wants_attempt(self) -> bool:
        """Whether the newest attempt must be known, and is not."""
        return self.attempt is None and any(moves_attempt(self.job, fact) for fact in self.facts)


@dataclass(frozen=True, slots=True)
class Rows:
    """What a change comes to: the job afterwards, the columns of its row and of its attempt's, lines of history."""

    job: Job
    values: Mapping[str, Any]
    attempt_values: Mapping[str, Any]
    lines: Sequence[HistoryEvent]


def rows_of(change: Change, at: datetime) -> Rows:
    """Follow a change through the table of moves. Raises IllegalMove."""
    job, attempt = change.job, change.attempt
    values: dict[str, Any] = {}
    of_attempt: dict[str, Any] = {}
    lines = [change.event] if change.event else []
    if change.fields or (change.event and not change.facts):
        values |= written(job.version, note_values(change.fields), at)
        job = after(job, values)
    if attempt is not None and change.attempt_fields:
        of_attempt = {**change.attempt_fields, "version": attempt.version + 1}
        attempt = replace(attempt, **of_attempt)
    for fact in change.facts:
        step = job_values(job, fact, at)
        if fact.event is Event.JOB_READY and change.intent is not None:
            step |= numbers(change.intent)
        if attempt is not None and moves_attempt(job, fact) and (moved := attempt_values(attempt, fact, at)):
            of_attempt |= moved
            attempt = replace(attempt, **moved)
        lines.append(status_event(job.state, step["state"], fact.message, at))
        values |= step
        job = after(job, step)
    if change.lets_go:
        values |= {"lease_owner": None, "lease_until": None}
    if change.leased_until is not None:
        values["lease_until"] = change.leased_until
    if change.due_at is not None:
        values["next_look_at"] = change.due_at
    return Rows(job, values, of_attempt, lines)


async def write_changes(db: AsyncSession, changes: Sequence[Change], at: datetime) -> Sequence[Job]:
    """Write changes of different jobs together; the jobs as they are then, in the same order.

    StaleJob when any of them was written, or leased anew, since it was seen: the transaction must then be undone.
    """
    made = [rows_of(change, at) for change in changes]
    pairs = sorted(zip(changes, made, strict=True), key=lambda pair: pair[0].job.id)  # no two writers in a circle
    seen = [(_seen(change.job), rows.values) for change, rows in pairs if rows.values]
    await _update(db, schema.jobs, seen)
    touched = [(c.attempt, rows.attempt_values) for c, rows in pairs if c.attempt is not None and rows.attempt_values]
    await _update(db, schema.attempts, [({"marker": a.marker, "version": a.version}, values) for a, values in touched])
    intents = [change.intent for change in changes if change.intent is not None]
    if intents:
        rows = [{column.name: getattr(intent, column.name) for column in ATTEMPT_COLUMNS} for intent in intents]
        await db.execute(insert(schema.attempts), rows)
    await RunStore(db).add([change.finished for change in changes if change.finished is not None])
    await write_history(db, [(change.job.id, line) for change, rows in pairs for line in rows.lines])
    return [rows.job for rows in made]


async def write_history(db: AsyncSession, lines: Sequence[tuple[int, HistoryEvent]]) -> None:
    """Add lines to the histories of jobs, by their row ids."""
    names = [name.name for name in fields(HistoryEvent)]
    rows = [{"job_id": job_id, **{name: getattr(line, name) for name in names}} for job_id, line in lines]
    if rows:
        await db.execute(insert(schema.history), rows)


async def write_job(db: AsyncSession, job: Job, values: Mapping[str, Any]) -> None:
    """Write columns of a job's row as the caller saw it. StaleJob when it was written, or leased anew, since."""
    guards = [schema.jobs.c[name] == value for name, value in _seen(job).items()]
    if changed(await db.execute(update(schema.jobs).where(*guards).values(**values))) != 1:
        raise StaleJob(f"job {job.uuid} was changed meanwhile")


async def write_attempt(db: AsyncSession, attempt: Attempt, values: Mapping[str, Any]) -> None:
    """Write columns of an attempt's row as the caller saw it. StaleJob when it was written since."""
    rows = schema.attempts.c
    seen = update(schema.attempts).where(rows.marker == attempt.marker, rows.version == attempt.version)
    if changed(await db.execute(seen.values(**values))) != 1:
        raise StaleJob(f"attempt {attempt.marker} was changed meanwhile")


def after(job: Job, values: Mapping[str, Any]) -> Job:
    """The job as its row is after a write, without reading it again."""
    return replace(job, **{name: value for name, value in values.items() if name in _JOB_NAMES})


def attempt_after(attempt: Attempt, values: Mapping[str, Any]) -> Attempt:
    """The attempt as its row is after a write."""
    return replace(attempt, **values)


async def _update(db: AsyncSession, table: Table, rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
    """Write values of rows that are still as they were seen: (columns seen, columns to write). Else StaleJob."""
    alike: dict[frozenset[str], list[dict[str, Any]]] = defaultdict(list)
    for seen, values in rows:
        alike[frozenset(values)].append({f"seen_{name}": value for name, value in seen.items()} | dict(values))
    for group in alike.values():
        guards = [table.c[name] == bindparam(f"seen_{name}") for name in rows[0][0]]
        if changed(await db.execute(update(table).where(*guards), group)) != len(group):
            raise StaleJob(f"one of {len(group)} rows of {table.name} was changed meanwhile")


def _seen(job: Job) -> Mapping[str, Any]:
    return {"id": job.id, "version": job.version, "fence": job.fence}


_JOB_NAMES = frozenset(one.name for one in fields(Job))
