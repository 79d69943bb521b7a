"""A job whose image is a file that its owner pushed: Berth brings it, and no runtime ever fetches it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from images.bring import Bringer
from images.bringers import Bringers
from images.pushed import Pushes
from images.workshop import Workshop
from scheduler.model.images import CopyState, PushedImage
from scheduler.model.states import S
from scheduler.ports import nothing_to_close
from scheduler.store.database import Database
from scheduler.store.images import ImageStore
from scheduler.store.pushed import PushedStore
from scheduler.wiring import personal_images
from tests.reconcile.imaging import ImageWorld, image_world
from tests.reconcile.world import World, database_in

SQUASHFS = b"hsqs" + bytes(range(256)) * 3000
DIGEST = f"sha256:{hashlib.sha256(SQUASHFS).hexdigest()}"
PUSHED = f"berth://{DIGEST}"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with database_in(tmp_path) as opened:
        yield opened


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> ImageWorld:
    world = await image_world(database, tmp_path)
    pushes = Pushes(tmp_path / "pushed", 2**30)
    exchange = world.tenant.access.exchange
    images = personal_images(exchange, None, (), database.reading, nothing_to_close, pushes)
    bringers = Bringers(tmp_path / "workshop", lambda home: Bringer(Workshop(home)), images.reads_alone)
    world.images = replace(images, bringer=bringers.shared, bringers=bringers)
    World.restart(world)
    return world


async def pushed(world: ImageWorld, user: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield SQUASHFS

    kind, size_bytes = await world.images.pushes.take(DIGEST, pieces(), 2**30)
    image = PushedImage(
        tenant="dev", user=user, digest=DIGEST, kind=kind, size_bytes=size_bytes, name="", created_at=world.clock()
    )
    async with world.database.transaction() as db:
        await PushedStore(db).put(image)


async def test_it_comes_to_the_store_and_the_job_as_it_was_pushed(world: ImageWorld):
    [job] = await world.submit(image=PUSHED)
    await pushed(world, job.owner)
    job = await world.run_until(job, S.QUEUED)
    for _ in range(10):
        [attempt] = await world.attempts(job)
        if attempt.awaits_image is None:
            break
        await world.run()
    assert world.image_of(attempt) == SQUASHFS
    assert not world.images.bringer.workshop.blob(DIGEST).exists(), "where others' images are made"
    assert (job.image.reference, job.image.is_private, attempt.run.image_is_private) == (PUSHED, True, True)
    assert not world.tenant.web.asked


async def staged(world: ImageWorld, user: str) -> None:
    """The user has it brought to the account that all users of the cluster share."""
    async with world.database.transaction() as db:
        wanted = {"reference": PUSHED, "asked_by": user, "at": world.clock()}
        await ImageStore(db).want("dev", "cluster", "alice", DIGEST, **wanted)


@pytest.mark.parametrize("is_known_to_fail", [False, True], ids=["on its way", "failed before"])
async def test_what_one_user_cannot_read_any_more_is_read_as_the_next_who_awaits_it(world, is_known_to_fail):
    await staged(world, "somebody")
    if is_known_to_fail:
        await world.run(2)
        assert [copy.state for copy in await world.copies()] == [CopyState.FAILED]
    [job] = await world.submit(image=PUSHED)
    await pushed(world, job.owner)
    await world.run_until(job, S.QUEUED)
    await world.run(3)
    [attempt] = await world.attempts(job)
    assert world.image_of(attempt) == SQUASHFS
    [copy] = await world.copies()
    assert (copy.state, copy.asked_by) == (CopyState.PRESENT, job.owner)


async def test_where_nobody_who_awaits_it_can_read_it_any_more_each_is_told_once(world: ImageWorld):
    await staged(world, "somebody")
    [job] = await world.submit(image=PUSHED)
    await pushed(world, job.owner)
    while (await world.job(job)).image is None:
        await world.loops.place.tick()
        await world.loops.place.pins.settle()
        world.later(3)
    async with world.database.transaction() as db:
        await PushedStore(db).remove("dev", job.owner, DIGEST)
    await world.run_until(job, S.QUEUED)
    await world.run(3)
    [attempt] = await world.attempts(job)
    assert attempt.awaits_image is None
    assert "you pushed no such file" in world.told(attempt)["why"]
    [copy] = await world.copies()
    assert (copy.state, copy.asked_by) == (CopyState.FAILED, job.owner)


async def test_a_job_of_another_user_fails_and_is_told_what_to_do(world: ImageWorld):
    [job] = await world.submit(image=PUSHED)
    await pushed(world, "somebody")
    job = await world.run_until(job, S.FAILED)
    assert "you pushed no such file; berth images push FILE" in job.last_message
    assert await world.copies() == []
