"""How pressing an image is that is on its way to a store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf
from pathlib import Path

import pytest

from images.claims import LEAD_S
from scheduler.model.states import S
from scheduler.reconcile.claimants import pressing
from scheduler.reconcile.sides import Sides
from scheduler.store.database import Database
from tests.reconcile.imaging import IMAGE, ImageWorld, image_world
from tests.reconcile.world import database_in

BYTES = 1000


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with database_in(tmp_path) as opened:
        yield opened


async def submitted(world: ImageWorld):
    [job] = await world.submit(image=IMAGE)
    return await world.run_until(job, S.QUEUED)


async def turn(world: ImageWorld) -> float:
    """Of the one copy, as it is now."""
    [copy] = await world.copies()
    ports = world.loops.ports
    side = await Sides(ports).of("dev", "cluster", copy.owner)
    return await pressing(ports, copy, side.system)(BYTES)


async def test_an_image_is_the_more_pressing_the_sooner_a_job_begins_that_awaits_it(database, tmp_path):
    world = await image_world(database, tmp_path)
    job = await submitted(world)
    alone = await turn(world)
    await submitted(world)
    both = await turn(world)
    [attempt] = await world.attempts(job)
    world.system.start(attempt.marker)
    await world.run_until(job, S.RUNNING)
    assert LEAD_S * BYTES == await turn(world) < both < alone < inf
