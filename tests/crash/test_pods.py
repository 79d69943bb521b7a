"""The process dies at every moment of a pod's life: at most one instance runs, none is left behind, no status lies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from scheduler.model.errors import NotFound
from scheduler.model.pods import ANSWER_HOLDS, Desired, InstanceState, PodDefinition, PodStatus
from scheduler.model.runs import Ending, RemoteState
from scheduler.reconcile.pod_rules import DRAIN, MARGIN
from scheduler.services import pods as services
from scheduler.store.database import Database
from tests.crash.fuse import Crash, Fuse, Fused, FusedConnections, fused_transactions
from tests.fakes.system import FakeJob, FakeSystem, Fault
from tests.reconcile.pods_world import ANN, KEEPER, STATELESS, WEB, PodProcess, PodWorld
from tests.reconcile.world import LEASE_S, database_in, prepared

P = PodStatus
MOST_MOMENTS = 400
STEP_S, TICKS = 2.0, 6
"""Ticks that are enough for a pod to come where it is wanted."""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with database_in(tmp_path) as opened:
        await prepared(opened, KEEPER)
        yield opened


class FusedPods(FusedConnections):
    """Connections whose pod hosts may die too."""

    async def pod_host(self, login):
        return Fused(await self._inner.pod_host(login), self._fuse)


class Life:
    """A pod of its own in a world of its own, and what must hold at every moment of it."""

    def __init__(self, database: Database, n: int, definition: PodDefinition, fuse: Fuse) -> None:
        self.world, self.name, self.fuse = PodWorld(database, FakeSystem()), f"pod{n}", fuse
        self.definition = definition
        ports = self.world.ports(
            connections=FusedPods(self.world.connections, fuse),
            transaction=fused_transactions(database.transaction, fuse),
        )  # to die around what only reads is to die before the next of these
        self.world.process = PodProcess(ports)

    async def lives(self, *wants: Callable[[], object]) -> None:
        """It is made and becomes available; then people want things, one after the other, until the process dies."""
        await self.world.create(self.name, self.definition)
        try:
            for want in (None, *wants):
                if want is not None:
                    await want()
                for _ in range(TICKS):
                    await self.tick()
        except Crash:
            return

    async def tick(self) -> None:
        try:
            await self.world.process.tick()
        finally:
            await self.nothing_is_wrong()
        if self.fuse.blown:
            raise Crash
        self.world.later(STEP_S)
        self.world.site_starts()

    async def finishes(self, status: PodStatus | None) -> None:
        """A new process takes over, when the leases of the dead one have run out. None: the pod is gone."""
        world = self.world
        world.restart()
        world.later(LEASE_S + 1)
        for _ in range(60):
            await world.process.tick()
            await self.nothing_is_wrong()
            world.later(STEP_S)
            world.site_starts()
            try:
                pod = await world.pod(self.name)
            except NotFound:
                if status is None:
                    return
                raise
            if pod.status is status and (status is not P.AVAILABLE or pod.desired is Desired.ON):
                return
        raise AssertionError(f"pod is {pod.status}: {pod.message}")

    async def is_alone(self) -> None:
        """Whatever was replaced is gone, once connections to it had their time."""
        await self.world.tick(4, DRAIN.total_seconds() / 2)
        assert len(self.world.running) == 1

    async def nothing_is_wrong(self) -> None:
        world = self.world
        runs = [job.marker for job in world.running]
        try:
            pod, instances = await world.pod(self.name), await world.instances(self.name)
        except NotFound:
            assert not runs, "it is gone, and runs"
            return
        if self.definition.is_stateful:
            assert len(runs) <= 1, "two of a pod that may not overlap"
        owned = {one.marker: one for one in instances}
        assert set(world.system.jobs) <= owned.keys(), "no row owns it"
        ended = {marker for marker, one in owned.items() if one.state is InstanceState.ENDED}
        assert not ended & set(runs), "a row says that it ended, and it runs"
        if pod.status in (P.STOPPED, P.COMPLETE, P.ERROR):
            assert not runs, f"it is {pod.status}, and runs"
        if pod.status is P.AVAILABLE:
            assert any(lately_ran(job, world.now) for job in world.jobs), "it is AVAILABLE, and does not run"


def lately_ran(job: FakeJob, at: datetime) -> bool:
    """Whether it runs, or did when its port was last tried at the earliest."""
    return job.started_at is not None and (job.ended_at is None or at - job.ended_at <= ANSWER_HOLDS)


async def survives(database: Database, definition: PodDefinition, status: PodStatus | None, *wants, fault=None) -> None:
    """Die at each moment in turn."""
    for at in range(1, MOST_MOMENTS):
        fuse = Fuse(at)
        life = Life(database, at, definition, fuse)
        if fault is not None:
            life.world.system.fail("submit", fault)
        asked = [lambda want=want, life=life: want(life) for want in wants]
        await life.lives(*asked)
        for want in asked:  # whoever asks again is no worse for it
            await again(want)
        try:
            await life.finishes(status)
        except AssertionError as wrong:
            raise AssertionError(f"{wrong} after dying {fuse.moments[-1]} ({at})") from wrong
        if status is P.AVAILABLE:
            await life.is_alone()
        await gone(life)
        if not fuse.blown:
            return
    raise AssertionError("the life of a pod has more moments than this test tries")


async def again(want) -> None:
    try:
        await want()
    except NotFound:
        return


async def gone(life: Life) -> None:
    """The next life starts with an empty store."""
    life.world.restart()
    try:
        await services.remove(life.world.ports(), ANN, life.name)
        await life.world.tick(6)
        with pytest.raises(NotFound):
            await life.world.pod(life.name)
    except NotFound:
        pass
    assert life.world.running == []


def stop(life: Life):
    return life.world.want(Desired.OFF, life.name)


def restart(life: Life):
    return life.world.want(Desired.RESTART, life.name)


def remove(life: Life):
    return services.remove(life.world.ports(), ANN, life.name)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, Fault.BEFORE_ACCEPT, Fault.AFTER_ACCEPT])
async def test_a_process_that_dies_while_a_pod_comes_up_leaves_one_instance(database, fault):
    await survives(database, WEB, P.AVAILABLE, fault=fault)


@pytest.mark.slow
async def test_a_process_that_dies_while_a_pod_is_stopped_leaves_none(database):
    await survives(database, WEB, P.STOPPED, stop)


@pytest.mark.slow
async def test_a_process_that_dies_while_a_pod_is_restarted_never_has_two(database):
    await survives(database, WEB, P.AVAILABLE, restart)


@pytest.mark.slow
async def test_a_process_that_dies_while_a_pod_is_removed_leaves_nothing(database):
    await survives(database, WEB, None, remove)


@pytest.mark.slow
@pytest.mark.parametrize("definition", [WEB, STATELESS], ids=["with files", "without"])
async def test_a_process_that_dies_while_a_pod_is_handed_over_leaves_one_in_the_end(database, definition):
    async def near_its_end(life: Life) -> None:
        for newest in (await life.world.instances(life.name))[-1:]:
            if newest.go_on_until is not None and newest.number == 1:
                life.world.now = max(life.world.now, newest.go_on_until - MARGIN)

    await survives(database, replace(definition, time_to_stop_s=-1), P.AVAILABLE, near_its_end)


@pytest.mark.slow
async def test_a_process_that_dies_while_its_place_fails_it_leaves_one_in_the_end(database):
    async def node_fails(life: Life) -> None:
        for job in life.world.jobs:
            if job.state is RemoteState.RUNNING:
                life.world.system.end(job.marker, 1, Ending.NODE_FAILURE)

    await survives(database, WEB, P.AVAILABLE, node_fails)
