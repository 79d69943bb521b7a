"""Looks into images take minutes: few at once, and no name waits for one; what is said of many jobs is said at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from images.needs import Needs
from scheduler.model.errors import SpecInvalid
from scheduler.model.runs import Resources
from scheduler.model.states import S
from scheduler.reconcile.looking import AT_ONCE, LEARN_S
from scheduler.store.images import ImageStore
from tests.reconcile.imaging import ImageWorld, image_world
from tests.reconcile.test_writer import Counted
from tests.reconcile.world import LEASE_S, Process, database_in

NAMES = [f"docker://reg.org/app:{number}" for number in range(AT_ONCE + 2)]


class SlowBringer:
    """Looks into images once it is let go."""

    def __init__(self) -> None:
        self.let_go, self.under_way = asyncio.Event(), 0

    async def learn(self, resolved, source):
        self.under_way += 1
        await self.let_go.wait()
        return Needs(manifest_digest=resolved.manifest_digest)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ImageWorld]:
    async with database_in(tmp_path) as database:
        made = await image_world(database, tmp_path)
        for number in range(len(NAMES)):
            made.tenant.registry.push_image("app", str(number), (bytes([number]),), Cmd=["app"])
        yield made


def placing(world: ImageWorld, bringer: SlowBringer, **changes):
    return Process(world.ports(images=replace(world.images, bringer=bringer), **changes)).place


async def under_way(bringer: SlowBringer, count: int) -> None:
    async with asyncio.timeout(20):
        while bringer.under_way < count:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)


async def names_settled(loop) -> None:
    """All hands for names are free again."""
    await loop.pins.crews[0].settle()


async def test_names_are_resolved_while_images_are_looked_into(world: ImageWorld):
    bringer = SlowBringer()
    loop = placing(world, bringer)
    particular = [(await world.submit(image=name, is_mpi=True))[0] for name in NAMES[:-1]]
    await loop.tick()
    await names_settled(loop)
    await under_way(bringer, AT_ONCE)
    [quick] = await world.submit(image=NAMES[-1])
    [alike] = await world.submit(image=NAMES[0])
    await loop.tick()
    await names_settled(loop)
    assert (await world.job(quick)).image is not None
    assert (await world.job(alike)).image is not None, "it asks for nothing that a look tells"
    assert bringer.under_way == AT_ONCE
    words = [(await world.job(job)).last_message for job in particular]
    assert sum("looking into its image" in said for said in words) == AT_ONCE
    assert sum("waits for its turn to be looked into" in said for said in words) == 1
    bringer.let_go.set()
    await loop.pins.settle()
    world.later(15)
    await loop.tick()
    await loop.pins.settle()
    assert all([(await world.job(job)).image is not None for job in particular])
    assert bringer.under_way == AT_ONCE + 1


async def test_a_job_waits_a_quarter_of_an_hour_for_its_turn_to_be_looked_into_and_is_placed_then(world: ImageWorld):
    bringer = SlowBringer()
    loop = placing(world, bringer)
    for name in NAMES[:AT_ONCE]:
        await world.submit(image=name, is_mpi=True)
    await loop.tick()
    await under_way(bringer, AT_ONCE)
    [late] = await world.submit(image=NAMES[-1], resources=Resources(gpus_per_node=1))
    waited_s = 0
    while (await world.job(late)).image is None:
        assert (await world.job(late)).state is S.PENDING
        await loop.tick()
        await names_settled(loop)
        world.later(15)
        waited_s += 15
        assert waited_s <= LEARN_S + 30
    assert waited_s >= LEARN_S
    assert bringer.under_way == AT_ONCE
    await loop.pins.crews[1].aclose()


async def test_jobs_that_came_while_their_image_is_looked_into_wait_for_that_look(world: ImageWorld):
    bringer = SlowBringer()
    loop = placing(world, bringer)
    [first] = await world.submit(image=NAMES[0], is_mpi=True)
    await loop.tick()
    await under_way(bringer, 1)
    [second] = await world.submit(image=NAMES[0], is_mpi=True)
    await loop.tick()
    assert "looked into for jobs that came before" in (await world.job(second)).last_message
    bringer.let_go.set()
    await loop.pins.settle()
    world.later(15)
    await loop.tick()
    await loop.pins.settle()
    digests = {(await world.job(job)).image.manifest_digest for job in (first, second)}
    assert bringer.under_way == 1
    async with world.database.reading() as db:
        assert (await ImageStore(db).needs_of(digests)).keys() == digests


async def test_a_hundred_jobs_cost_few_transactions_while_their_image_is_looked_into(world: ImageWorld):
    bringer, counted = SlowBringer(), Counted(world)
    loop = placing(world, bringer, transaction=counted.transaction)
    jobs = await world.submit(100, image=NAMES[0], is_mpi=True)
    await loop.tick()
    await under_way(bringer, 1)
    assert all(["looking into" in (await world.job(job)).last_message for job in jobs])
    assert counted.count <= 3, "one to claim them, and what they are told"
    world.later(LEASE_S / 2)
    counted.count = 0
    await loop.tick()
    assert counted.count == 2, "one keeps all their leases, one looks for more"
    world.later(LEASE_S * 0.75)
    fences = {(await world.job(job)).fence for job in jobs}
    await loop.tick()
    assert {(await world.job(job)).fence for job in jobs} == fences, "their leases last"
    counted.count = 0
    bringer.let_go.set()
    await loop.pins.settle()
    assert counted.count <= 3, "what was learnt, and what they run"


async def test_of_a_hundred_jobs_one_that_is_cancelled_meanwhile_spoils_no_other(world: ImageWorld):
    bringer = SlowBringer()
    loop = placing(world, bringer)
    jobs = await world.submit(100, image=NAMES[0], is_mpi=True)
    await loop.tick()
    await under_way(bringer, 1)
    await world.cancel(jobs[7])
    world.later(LEASE_S / 2)
    await loop.tick()
    bringer.let_go.set()
    await loop.pins.settle()
    pinned = [(await world.job(job)).image is not None for job in jobs]
    assert pinned == [number != 7 for number in range(100)]
    world.later(LEASE_S)
    await loop.tick()
    assert (await world.job(jobs[7])).state is S.CANCELLED


async def test_what_cannot_be_looked_into_is_placed_without(world: ImageWorld):
    class Refuses(SlowBringer):
        async def learn(self, resolved, source):
            raise SpecInvalid.of("image", "it is broken", "make another")

    loop = placing(world, Refuses())
    [job] = await world.submit(image=NAMES[0], is_mpi=True)
    await loop.tick()
    await loop.pins.settle()
    assert (await world.job(job)).image is not None
