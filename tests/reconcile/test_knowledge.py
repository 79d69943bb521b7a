"""What looks taught outlives the process that looked, and every process has it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from unittest.mock import Mock

import pytest

from placement.problem import PlaceKey
from scheduler.knowledge import Knowledge
from scheduler.model.snapshots import NodeKind, PartitionState, Sighting, SystemSnapshot, VisibleJob
from scheduler.reconcile.sightings import news
from scheduler.store.learning import SightingStore, SnapshotStore
from tests.reconcile.world import START, World

HERE = "dev", "cluster"
NODES = NodeKind(partition="fake", cores=8, memory_mib=4000, total=4, free=0)
PLACE = PlaceKey("cluster", "normal")


@pytest.fixture
async def knowledge(world: World) -> AsyncIterator[Knowledge]:
    known = Knowledge(world.database.reading)
    yield known
    await known.aclose()


def past(number: int, user: str = "eve") -> Sighting:
    """A job that came every quarter of an hour, waited for ten minutes and used a quarter of its hour."""
    came_at = START - timedelta(minutes=15 * number)
    started_at = came_at + timedelta(minutes=10)
    ended_at = started_at + timedelta(minutes=15)
    return Sighting(
        remote_id=str(number),
        partition="fake",
        cores=4,
        walltime_s=3600,
        user=user,
        submitted_at=came_at,
        started_at=started_at,
        ended_at=ended_at,
        seen_at=ended_at,
    )


def look(minute: float, *jobs: VisibleJob, seen_by: str = "ann") -> SystemSnapshot:
    return SystemSnapshot(
        taken_at=START + timedelta(minutes=minute),
        partitions=(PartitionState(name="fake", up=True),),
        nodes=(NODES,),
        jobs=jobs,
        seen_by=seen_by,
    )


def running(number: int, came: float, started: float) -> VisibleJob:
    return VisibleJob(
        remote_id=str(number),
        partition="fake",
        running=True,
        nodes=1,
        cores=4,
        walltime_s=3600,
        submitted_at=START + timedelta(minutes=came),
        started_at=START + timedelta(minutes=started),
        user="eve",
    )


async def test_what_was_seen_before_the_start_is_brought_back(world: World, knowledge: Knowledge):
    async with world.database.transaction() as db:
        await SightingStore(db).put(*HERE, [past(number) for number in range(120, 0, -1)])
        await SnapshotStore(db).put(*HERE, "ann", look(0))
    before = await knowledge.problem("dev", (), world.now)
    assert dict(before.watched) == {}
    assert before.experience.places == {}, "nobody waits for the past"
    await knowledge.settle()
    asked = await knowledge.problem("dev", (), world.now)
    term = asked.watched[PLACE].term(4, 3600, START.timestamp())
    assert term is not None
    assert 300 < term.p50_s < 900
    assert asked.experience.run_times.by_user["cluster/eve"][-1] == (3600.0, 4, 0.25)
    assert len(asked.experience.places["cluster/fake"].newcomers) == 120


async def test_every_look_teaches_once(world: World, knowledge: Knowledge):
    for minute, jobs in ((0, ()), (10, (running(1, 2, 8),)), (20, ())):
        for _ in range(2):
            knowledge.look(*HERE, look(minute, *jobs))
        await knowledge.settle()
    known = (await knowledge.problem("dev", (), world.now)).experience
    assert len(known.run_times.by_user["cluster/eve"]) == 1
    assert [job.id for job in known.places["cluster/fake"].newcomers] == ["1"]


async def test_what_another_login_is_shown_ends_no_job(world: World, knowledge: Knowledge):
    knowledge.look(*HERE, look(10, running(1, 2, 8)))
    knowledge.look(*HERE, look(20, seen_by="bob"))
    await knowledge.settle()
    known = (await knowledge.problem("dev", (), world.now)).experience
    assert dict(known.run_times.by_user) == {}


async def test_a_look_that_another_process_stored_is_learnt_from(world: World, knowledge: Knowledge):
    await knowledge.problem("dev", (), world.now)
    shown = look(10, running(1, 2, 8))
    async with world.database.transaction() as db:
        await SightingStore(db).put(*HERE, news(None, shown))
        await SnapshotStore(db).put(*HERE, "ann", shown)
    await knowledge.problem("dev", (), world.now)
    await knowledge.settle()
    known = (await knowledge.problem("dev", (), world.now)).experience
    assert [job.id for job in known.places["cluster/fake"].newcomers] == ["1"]


async def test_a_look_that_cannot_be_learnt_from_costs_nothing_else(world: World, knowledge: Knowledge):
    knowledge.look(*HERE, look(10, replace(running(1, 2, 8), cores=None)))  # type: ignore[arg-type]
    knowledge.look(*HERE, look(20, running(2, 12, 18)))
    await knowledge.settle()
    known = (await knowledge.problem("dev", (), world.now)).experience
    assert [job.id for job in known.places["cluster/fake"].newcomers] == ["2"]


async def test_records_that_are_imported_are_brought_back_with_the_next_look(world: World, knowledge: Knowledge):
    knowledge.look(*HERE, look(0))
    await knowledge.settle()
    async with world.database.transaction() as db:
        await SightingStore(db).put(*HERE, [past(number) for number in range(9, 0, -1)])
    knowledge.forget(*HERE)
    knowledge.look(*HERE, look(10))
    await knowledge.settle()
    known = (await knowledge.problem("dev", (), world.now)).experience
    assert len(known.places["cluster/fake"].newcomers) == 9


async def test_queues_are_foreseen_before_anybody_asks(world: World, knowledge: Knowledge):
    await knowledge.problem("dev", (), world.now)
    shown = look(10, *(running(number, 2, 8) for number in range(8)))
    async with world.database.transaction() as db:
        await SnapshotStore(db).put(*HERE, "ann", shown)
    knowledge.look(*HERE, shown)
    await knowledge.settle()
    asked = await knowledge.problem("dev", (), world.now)
    [place] = [each for view in asked.systems for each in view.queue_places if each.key == PLACE]
    assert place.view.snapshot is shown, "the look at hand is not read again"
    assert asked.forecasts.of("cluster/fake", (shown, place.unseen), Mock(side_effect=AssertionError)) is not None
