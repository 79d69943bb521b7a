"""Several processes on PostgreSQL share the work: each job is in one hand at a time, and runs once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from scheduler.model.states import S
from scheduler.security.secrets import SecretBox
from scheduler.store.database import Database
from testbed.postgresql import database_in, postgresql
from tests.fakes.system import FakeSystem
from tests.reconcile.world import LEASE_S, Process, World, prepared


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """A PostgreSQL that lives as long as these tests."""
    with postgresql(durable=False) as directory:
        yield directory


@pytest.fixture
async def world(server: Path) -> AsyncIterator[World]:
    with database_in(server) as url:
        database = Database(url, sealer=SecretBox(bytes(32)), pool_size=20)
        await database.create_tables()
        await prepared(database)
        yield World(database, FakeSystem())
        await database.aclose()


async def test_three_processes_at_once_run_every_job_once(world: World):
    processes = [Process(world.ports(process_id=name)) for name in ("one", "two", "three")]
    jobs = await world.submit(count=30)
    world.system.run_at_once = True
    for _ in range(12):
        await asyncio.gather(*(process.tick() for process in processes))
        world.later(3)
    states = {(await world.job(job)).state for job in jobs}
    assert states == {S.FINISHED}
    assert len(world.system.jobs) == 30
    for job in jobs:
        assert (await world.history(job)).count("FINISHED") == 1


async def test_a_process_that_was_overtaken_cannot_write(world: World):
    [job] = await world.submit()
    slow, heir = (Process(world.ports(process_id=name)) for name in ("slow", "heir"))
    await slow.place.tick()
    held = asyncio.Event()
    reached = asyncio.Event()
    stage = world.system.meet

    async def stalled(method: str):
        if method == "stage" and not reached.is_set():
            reached.set()
            await held.wait()
        return await stage(method)

    world.system.meet = stalled
    await slow.advance.tick()
    await asyncio.wait_for(reached.wait(), 5)
    world.later(LEASE_S + 1)
    for _ in range(3):
        await heir.tick()
        world.later(3)
    assert (await world.job(job)).state is S.QUEUED
    held.set()
    await slow.advance.crew.settle()
    assert len(await world.attempts(job)) == 1
    assert len(world.system.jobs) == 1
