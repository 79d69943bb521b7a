"""What is asked all the time is answered from an index, however many rows lie beside it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import event, insert, text

from scheduler.model.images import CopyState
from scheduler.store import schema
from scheduler.store.copies import CopyStore
from scheduler.store.facts import PlacementFacts
from scheduler.store.images import ImageStore
from scheduler.store.jobs import ATTEMPT_COLUMNS
from tests.store.test_copies import add_system
from tests.store.things import NOW, added, an_attempt

DIGEST = "sha256:" + "1" * 64

ASKED = {
    "who may still read an image": (
        lambda db: ImageStore(db).live_markers("dev", "cluster"),
        {"ix_attempts_tenant_system_id"},
    ),
    "what was spent": (
        lambda db: CopyStore(db).spent("dev", NOW - timedelta(days=1)),
        {"ix_attempts_tenant_id"},
    ),
    "where images lie, and how fast they came": (
        lambda db: PlacementFacts(db)._stores("dev", ["cluster"], [DIGEST]),
        {"ix_image_copies_manifest_digest_tenant", "ix_image_copies_tenant_system_id_present_at"},
    ),
}


async def plans_of(database, asks) -> str:
    """How the database goes about each statement of a question, in its own words."""
    seen = []
    async with database.reading() as db:
        engine = db.bind.sync_engine
        is_sqlite = engine.dialect.name == "sqlite"
        event.listen(engine, "before_cursor_execute", lambda *call: seen.append(call[2:4]))
        await asks(db)
        told: list[str] = []
        async with database._writer.connect() as connection:
            if not is_sqlite:
                await connection.execute(text("SET LOCAL enable_seqscan = off"))
                await connection.execute(text("SET LOCAL enable_sort = off"))
            for statement, parameters in list(seen):
                way = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
                rows = await connection.exec_driver_sql(way + statement, parameters)
                told += [" ".join(map(str, row)) for row in rows]
    return "\n".join(told)


async def many_copies(database) -> None:
    """Of other images, so that a database that reckons finds it worth looking them up."""
    images = [f"sha256:{number:064x}" for number in range(1000)]
    names = {"tenant": "dev", "system_id": "cluster", "owner": "ann", "reference": "app", "asked_by": "ann"}
    rest = {"figures": {}, "message": "", "done_bytes": 0, "pinned": False, "version": 0}
    rest |= {"state": CopyState.PRESENT, "created_at": NOW, "updated_at": NOW, "present_at": NOW}
    async with database.transaction() as db:
        await db.execute(insert(schema.image_copies), [{"manifest_digest": image} | names | rest for image in images])
        await db.execute(text("ANALYZE image_copies"))


async def many_attempts(database) -> None:
    """Of another tenant, likewise."""
    job = await added(database)
    ended = [an_attempt(job, 2 + number, tenant="other", ended_at=NOW) for number in range(1000)]
    rows = [{column.name: getattr(attempt, column.name) for column in ATTEMPT_COLUMNS} for attempt in ended]
    async with database.transaction() as db:
        await db.execute(insert(schema.attempts), rows)
        await db.execute(text("ANALYZE attempts"))


@pytest.mark.parametrize(("asks", "indexes"), ASKED.values(), ids=ASKED)
async def test_a_question_is_answered_from_its_index(database, asks, indexes):
    await add_system(database, "cluster")
    await many_copies(database)
    await many_attempts(database)
    plans = await plans_of(database, asks)
    assert {index for index in indexes if index in plans} == indexes, plans
    assert "SCAN attempts" not in plans
    assert "SCAN image_copies" not in plans
