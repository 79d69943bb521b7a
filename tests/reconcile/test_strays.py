"""What no row waits for is found by two looks, reported, and ended only where it is ours beyond doubt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import pytest
from sqlalchemy import insert

from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.pods import Desired, PodStatus
from scheduler.model.runs import Ending, JobType, RemoteState, SubmitIntent
from scheduler.model.strays import PodPlace, Standing
from scheduler.reconcile import strays as loop
from scheduler.reconcile.strays import APART, LOOK_EVERY, Strays
from scheduler.services import pods as services
from scheduler.store import schema
from scheduler.store.strays import StrayStore
from tests.contract.subjects import INTENDED_AT, run_spec
from tests.fakes.system import FakeJob, FakeSystem, Fault
from tests.reconcile.pods_world import ANN, KEEPER, PodWorld
from tests.reconcile.world import database_in, prepared

S = Standing


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[PodWorld]:
    async with database_in(tmp_path) as database:
        await prepared(database, KEEPER)
        yield PodWorld(database, FakeSystem())


class Looking:
    """The loop in a world; the newest process of several."""

    def __init__(self, world: PodWorld) -> None:
        self.world, self.strays = world, Strays(world.ports())

    async def look(self, after=APART) -> None:
        """Time passes, and then the loop looks."""
        self.world.later(after.total_seconds() + 1)
        await self.strays.tick()
        await self.strays.crew.settle()

    async def told(self) -> list[tuple[str, Standing]]:
        async with self.world.database.reading() as db:
            return [(one.marker, one.standing) for one in await StrayStore(db).of_system("dev", "cluster")]


@pytest.fixture
async def looking(world: PodWorld, monkeypatch: pytest.MonkeyPatch) -> Looking:
    """A pod runs, so that the login was used."""
    monkeypatch.setattr(loop, "_job_types", lambda system: {JobType.BATCH})  # the fake has one list for both
    await world.create("there")
    await world.until(PodStatus.AVAILABLE, "there")
    looking = Looking(world)
    await looking.look()
    return looking


def lives_on(job: FakeJob) -> None:
    """The system lost that it should end."""
    job.state, job.ended_at, job.ending = RemoteState.RUNNING, None, None


async def removed(world: PodWorld) -> FakeJob:
    """The instance of a pod that was removed."""
    await world.create("gone")
    await world.until(PodStatus.AVAILABLE, "gone")
    job = world.jobs[-1]
    await services.remove(world.ports(), ANN, "gone")
    await world.tick(4)
    assert job.state is RemoteState.ENDED
    return job


async def test_what_rows_wait_for_is_no_stray(looking):
    for _ in range(3):
        await looking.look(LOOK_EVERY)
    assert await looking.told() == []
    assert len(looking.world.running) == 1


async def test_an_instance_of_a_pod_that_is_gone_is_told_to_end_after_two_looks(looking):
    job = await removed(looking.world)
    lives_on(job)
    await looking.look(LOOK_EVERY)
    assert await looking.told() == []
    assert job.state is RemoteState.RUNNING
    await looking.look()
    assert await looking.told() == [(job.marker, S.FORGOTTEN)]
    assert (job.state, job.ending) == (RemoteState.ENDED, Ending.CANCELLED)
    await looking.look()
    assert await looking.told() == []


async def test_an_attempt_whose_cancel_was_lost_is_told_again(looking):
    world = looking.world
    [job] = await world.submit()
    await world.run(6)
    await world.cancel(job)
    await world.run(6)
    there = world.jobs[-1]
    assert there.state is RemoteState.ENDED, there
    lives_on(there)
    await looking.look(LOOK_EVERY)
    await looking.look()
    assert await looking.told() == [(there.marker, S.ENDED)]
    assert there.state is RemoteState.ENDED


async def test_what_another_berth_started_is_reported_and_left_alone(looking):
    marker = marker_for(new_job_uuid(), 1)
    await looking.world.system.backend().submit([SubmitIntent(marker, run_spec("/w", marker), INTENDED_AT)])
    looking.world.system.start(marker)
    for _ in range(4):
        await looking.look(LOOK_EVERY)
    assert await looking.told() == [(marker, S.UNKNOWN)]
    assert looking.world.system.jobs[marker].state is RemoteState.RUNNING


async def test_two_looks_close_together_prove_nothing(looking):
    lives_on(await removed(looking.world))
    await looking.look(LOOK_EVERY)
    looking.strays = Strays(looking.world.ports())  # another process looks at once
    await looking.look(APART / 4)
    assert await looking.told() == []


async def test_a_place_that_does_not_answer_changes_nothing(looking):
    job = await removed(looking.world)
    lives_on(job)
    await looking.look(LOOK_EVERY)
    await looking.look()
    told = await looking.told()
    lives_on(job)
    looking.world.system.fail("unended", Fault.UNAVAILABLE)
    await looking.look()
    assert await looking.told() == told != []
    assert job.state is RemoteState.RUNNING


async def test_a_run_whose_end_cannot_be_asked_for_is_told_at_the_next_look(looking):
    job = await removed(looking.world)
    lives_on(job)
    await looking.look(LOOK_EVERY)
    looking.world.system.fail("cancel", Fault.UNAVAILABLE)
    await looking.look()
    assert job.state is RemoteState.RUNNING
    await looking.look()
    assert job.state is RemoteState.ENDED


async def test_the_directory_of_a_pod_goes_with_it_and_no_other(looking):
    world = looking.world
    kept = world.jobs[0].intent.run.exec_dir
    job = await removed(world)
    directory = job.intent.run.exec_dir.rpartition("/")[0]
    assert directory in world.system.files.nodes
    world.system.fail("delete", Fault.UNAVAILABLE)
    for _ in range(2):
        await looking.look()
    assert directory not in world.system.files.nodes
    assert kept in world.system.files.nodes
    assert not [path for path in world.system.files.nodes if path.startswith(f"{directory}/")]


async def test_the_directory_of_a_pod_that_rested_for_long_goes_with_it_too(looking):
    world = looking.world
    await world.create("idle")
    await world.until(PodStatus.AVAILABLE, "idle")
    directory = world.jobs[-1].intent.run.exec_dir.rpartition("/")[0]
    await world.want(Desired.OFF, "idle")
    await world.until(PodStatus.STOPPED, "idle")
    world.later(2 * loop.CLEARED_FOR.total_seconds())
    await services.remove(world.ports(), ANN, "idle")
    await looking.look()
    assert directory not in world.system.files.nodes


async def test_a_login_that_fails_keeps_no_directory_of_another_from_being_deleted(looking):
    world, gone_at = looking.world, looking.world.clock()
    world.connections.refused = {"bob"}
    async with world.database.transaction() as db:
        for number in range(60):
            place = PodPlace(
                pod_uuid=str(number),
                tenant="dev",
                system_id="cluster",
                owner="bob",
                directory=f"/work/pods/{number}",
                since_at=gone_at,
                gone_at=gone_at,
            )
            await db.execute(insert(schema.pod_places).values(asdict(place)))
    directory = (await removed(world)).intent.run.exec_dir.rpartition("/")[0]
    await looking.look()
    assert directory not in world.system.files.nodes


async def test_what_cannot_be_deleted_is_tried_for_a_week(looking):
    job = await removed(looking.world)
    directory = job.intent.run.exec_dir.rpartition("/")[0]
    looking.world.connections.refused = {"alice"}
    await looking.look()
    looking.world.connections.refused = set()
    await looking.look(loop.CLEARED_FOR)
    assert directory in looking.world.system.files.nodes
