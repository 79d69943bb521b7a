"""What a transaction is: durable when it was answered, whole or not at all, and reads that do not wait for writes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError

from scheduler.model.jobs import Fact
from scheduler.model.states import E
from scheduler.store.database import Database
from scheduler.store.jobs import JobStore
from scheduler.store.sealing import sealer_of
from tests.store.things import NOW, a_new_job, added


async def test_sqlite_is_opened_to_survive_a_power_cut(on_sqlite):
    async with on_sqlite.transaction() as db:
        pragmas = {
            name: (await db.execute(text(f"PRAGMA {name}"))).scalar() for name in ("journal_mode", "synchronous")
        }
        assert (await db.execute(text("PRAGMA foreign_keys"))).scalar() == 1
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


async def test_reading_never_waits_for_a_writer(database):
    job = await added(database)
    async with database.transaction() as writer:
        await JobStore(writer).record(job, Fact(E.PLACED), NOW)
        async with asyncio.timeout(5), database.reading() as db:
            assert await JobStore(db).get("dev", job.uuid) == job
    async with database.reading() as db:
        assert (await JobStore(db).get("dev", job.uuid)).state == "PROCESSING_INPUTS"


async def test_many_writers_at_once_all_get_their_turn(database):
    jobs = await asyncio.gather(*(added(database) for _ in range(40)))
    async with database.reading() as db:
        assert await JobStore(db).count("dev", None) == len({job.id for job in jobs}) == 40


async def test_reading_cannot_write_on_sqlite(on_sqlite):
    async with on_sqlite.reading() as db:
        with pytest.raises(OperationalError, match="readonly"):
            await JobStore(db).add([a_new_job()])


async def test_a_row_cannot_belong_to_a_tenant_that_is_not_there(database):
    with pytest.raises(IntegrityError):
        await added(database, tenant="nobody")


async def test_a_cancelled_transaction_leaves_nothing_behind_and_the_next_one_works(database):
    new, inside = a_new_job(), asyncio.Event()

    async def submit():
        async with database.transaction() as db:
            await JobStore(db).add([new])
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(submit())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        await added(database)
    async with database.reading() as db:
        assert await JobStore(db).count("dev", None) == 1


async def test_what_was_committed_is_there_when_the_database_is_opened_again(url):
    database = Database(url)
    job = await added(database)
    await database.aclose()
    again = Database(url)
    async with again.reading() as db:
        assert await JobStore(db).get("dev", job.uuid) == job
    await again.aclose()


@pytest.mark.parametrize(
    "instant",
    [
        datetime(2026, 3, 1, 12, 0, 0, 123456, UTC),
        datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
    ],
)
async def test_instants_are_aware_utc_to_the_microsecond(database, instant):
    job = await added(database, at=instant)
    async with database.reading() as db:
        created_at = (await JobStore(db).get("dev", job.uuid)).created_at
    assert created_at == instant
    assert created_at.utcoffset() == timedelta(0)


async def test_an_instant_without_a_zone_is_refused(database):
    with pytest.raises(StatementError, match="without a time zone"):
        await added(database, at=datetime(2026, 3, 1))  # noqa: DTZ001 - the point


async def test_secrets_need_a_box(url):
    database = Database(url)
    async with database.reading() as db:
        with pytest.raises(RuntimeError, match="without a box"):
            sealer_of(db)
    await database.aclose()
