"""Submissions into the store beside a bare two-row commit, in one run, on both databases: ``python -m bench.store``."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from bench.report import Row, show
from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.jobs import Attempt, Fact, JobSpec, NewJob, Place
from scheduler.model.runs import JobType, RunSpec, Runtime
from scheduler.model.states import AttemptState, E, S
from scheduler.model.tenants import Site, Tenant
from scheduler.store.database import Database
from scheduler.store.group_commit import GroupCommit
from scheduler.store.jobs import JobStore
from scheduler.store.requests import IdempotencyStore
from scheduler.store.rows import ATTEMPT_COLUMNS
from scheduler.store.schema import attempts, jobs
from scheduler.store.tenants import TenantStore
from testbed.postgresql import database_in, postgresql

SUBMITTERS = 16
SECONDS = 4.0
BATCH = 1000
ACTIVE = 10_000

bare = sa.MetaData()
bare_jobs = sa.Table("bare_jobs", bare, sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.JSON))
bare_events = sa.Table("bare_events", bare, sa.Column("id", sa.Integer, primary_key=True), sa.Column("job", sa.Integer))


def a_job() -> NewJob:
    """A job of ordinary size."""
    uuid, request = new_job_uuid(), {"name": "bench", "appId": "hello", "appVersion": "1", "description": "x" * 200}
    spec = JobSpec(
        name="bench",
        app_id="hello",
        app_version="1",
        image="docker://registry.example.org/tools/hello:1.2.3",
        runtime=Runtime.SINGULARITY,
        env={f"VARIABLE_{n}": "value" for n in range(8)},
        raw_request=request,
    )
    directory = f"/scratch/ann/jobs/{uuid}"
    place = Place(
        system_id="cluster",
        queue="normal",
        partition="main",
        job_type=JobType.BATCH,
        working_dir="/scratch/ann",
        exec_dir=directory,
        input_dir=directory,
        output_dir=f"{directory}/output",
        archive_system_id="cluster",
        archive_dir=f"{directory}/output",
    )
    return NewJob(tenant="dev", owner="ann", created_by="ann", uuid=uuid, spec=spec, place=place, at=datetime.now(UTC))


async def rate(work: Callable[[], Awaitable[object]]) -> tuple[float, float, float]:
    """How often SUBMITTERS at once get ``work`` done per second; the 99th percentile and our CPU of one, in ms."""
    took: list[float] = []
    until = time.perf_counter() + SECONDS

    async def submitter() -> None:
        while (began := time.perf_counter()) < until:
            await work()
            took.append(time.perf_counter() - began)

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(submitter() for _ in range(SUBMITTERS)))
    cpu_ms = (time.process_time() - used) / len(took) * 1000
    return len(took) / (time.perf_counter() - began), sorted(took)[int(0.99 * len(took))] * 1000, cpu_ms


def _figures(per_second: float, p99_ms: float, cpu_ms: float) -> str:
    return f"{per_second:.0f} (p99 {p99_ms:.0f} ms, CPU {cpu_ms:.1f} ms)"


async def submissions(database: Database) -> list[Row]:
    """One request after another by many at once: bare, ours, and ours with an idempotency key."""

    async def plainly() -> None:
        async with database.transaction() as db:
            made = await db.execute(bare_jobs.insert().values(body={"name": "bench", "description": "x" * 600}))
            await db.execute(bare_events.insert().values(job=made.inserted_primary_key[0]))

    async def submit() -> None:
        async with database.transaction() as db:
            await JobStore(db).add([a_job()])

    async def submit_once() -> None:
        job = a_job()
        async with database.transaction() as db:
            keys = IdempotencyStore(db)
            assert await keys.get("dev", "ann", "submit", job.uuid) is None
            await JobStore(db).add([job])
            await keys.put("dev", "ann", "submit", job.uuid, "hash", {"uuid": job.uuid}, job.at)

    group = GroupCommit(database.transaction)

    async def submit_in_groups() -> None:
        await group.add([a_job()])

    async with database.transaction() as db:
        await (await db.connection()).run_sync(bare.create_all)
    await submit()
    peer = await rate(plainly)
    rows = []
    for name, work in (
        ("submissions/s, 16 at once", submit),
        ("the same with an idempotency key", submit_once),
        ("the same in groups", submit_in_groups),
    ):
        ours, p99, cpu_ms = await rate(work)
        rows.append(Row(name, _figures(ours, p99, cpu_ms), _figures(*peer), ">= half"))
    return rows


async def batches(database: Database) -> list[Row]:
    """A thousand jobs in one transaction."""
    new = [a_job() for _ in range(BATCH)]
    began = time.perf_counter()
    async with database.transaction() as db:
        await JobStore(db).add(new)
    return [Row(f"jobs/s, {BATCH} in one transaction", f"{BATCH / (time.perf_counter() - began):.0f}", "", ">= 2000")]


async def idle(database: Database) -> list[Row]:
    """What looking at many queued jobs costs when nothing changes."""
    async with database.transaction() as db:
        await db.execute(sa.text("DELETE FROM history"))
        await db.execute(sa.text("DELETE FROM jobs"))
    for _ in range(ACTIVE // BATCH):
        await _queue(database, BATCH)
    before_mib, began, used = _resident_mib(), time.perf_counter(), time.process_time()
    async with database.reading() as db:
        store = JobStore(db)
        seen = await store.in_flight(list(await store.versions_in_flight()))
    assert len(seen) == ACTIVE
    read_s, read_cpu_s = time.perf_counter() - began, time.process_time() - used
    began, used = time.perf_counter(), time.process_time()
    async with database.reading() as db:
        await JobStore(db).versions_in_flight()
    look_s, look_cpu_s = time.perf_counter() - began, time.process_time() - used
    began = time.perf_counter()
    async with database.transaction() as db:
        assert not await JobStore(db).claim({S.PENDING, S.STAGING_JOB}, "bench", 30, 100, datetime.now(UTC))
    claim_ms = (time.perf_counter() - began) * 1000
    return [
        Row(f"reading {ACTIVE} jobs in flight", f"{read_s:.2f} s, {read_cpu_s:.2f} s of our core", "", "once"),
        Row("seeing that none was written", f"{look_s:.3f} s, {look_cpu_s:.3f} s of our core", "", "seldom"),
        Row("held in memory for it", f"{_resident_mib() - before_mib:.0f} MiB", "", "< 400 in all"),
        Row("a claim that finds nothing", f"{claim_ms:.1f} ms", "", ""),
    ]


async def moves(database: Database) -> list[Row]:
    """Moves of single jobs, each with its attempt and its line of history."""
    async with database.reading() as db:
        flight = (await JobStore(db).in_flight(list(await JobStore(db).versions_in_flight())))[:300]
    began = time.perf_counter()
    for one in flight:
        async with database.transaction() as db:
            store = JobStore(db)
            job = await store.find(one.job_id)
            await store.record(job, Fact(E.STARTED), datetime.now(UTC))
    singly = len(flight) / (time.perf_counter() - began)
    return [Row("moves/s, one after another", f"{singly:.0f}")]


async def _queue(database: Database, count: int) -> None:
    """Jobs that are queued on the system, made quickly."""
    later = datetime.now(UTC) + timedelta(days=1)
    async with database.transaction() as db:
        store = JobStore(db)
        made = await store.add([a_job() for _ in range(count)])
        ids = [job.id for job in made]
        rows = [_attempt(job.id, job.uuid) for job in made]
        await db.execute(attempts.insert(), rows)
        queued = {"state": S.QUEUED, "attempt": 1, "remote_id": "1", "next_look_at": later}
        await db.execute(jobs.update().where(jobs.c.id.in_(ids)).values(queued))


def _attempt(job_id: int, uuid: str) -> dict[str, object]:
    run = RunSpec(job_uuid=uuid, name="bench", image="x", exec_dir="/e", input_dir="/i", output_dir="/o")
    attempt = Attempt(
        job_id=job_id,
        job_uuid=uuid,
        tenant="dev",
        owner="ann",
        number=1,
        marker=marker_for(uuid, 1),
        system_id="cluster",
        queue="normal",
        state=AttemptState.QUEUED,
        run=run,
        intended_at=datetime.now(UTC),
    )
    return {column.name: getattr(attempt, column.name) for column in ATTEMPT_COLUMNS}


def _resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def measure(url: str, title: str) -> None:
    """All figures on one empty database."""
    database = Database(url)
    await database.create_tables()
    async with database.transaction() as db:
        await TenantStore(db).add_site(Site(id="here"))
        await TenantStore(db).add_tenant(Tenant(id="dev", site_id="here"))
    rows = [*await submissions(database), *await batches(database), *await idle(database), *await moves(database)]
    show(title, rows)
    await database.aclose()


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(f"sqlite+aiosqlite:///{Path(directory)}/bench.sqlite", "Store on SQLite, fsync on"))
    with postgresql() as server, database_in(server) as url:
        asyncio.run(measure(url, "Store on PostgreSQL, fsync on"))


if __name__ == "__main__":
    main()
