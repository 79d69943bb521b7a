"""What 1,000 pods cost a process that keeps them: ``python -m bench.pods [--pods 1000]``.

The system is a fake that answers at once, so what is counted is what Berth itself costs. Processor time is counted
beside the clock: it says the same on a machine that does much else.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from bench.report import Row, show
from scheduler.model.ids import RemoteId, marker_for, new_job_uuid
from scheduler.model.pages import WHOLE_LIST
from scheduler.model.pods import InstanceState, Pod, PodCredentials, PodInstance, PodStatus
from scheduler.model.runs import SubmitIntent
from scheduler.model.users import Principal
from scheduler.reconcile.pod_runs import LONG_S, pod_run
from scheduler.reconcile.pod_watch import PROBE_EVERY
from scheduler.services import pods as services
from scheduler.store.pods import PodStore
from tests.fakes.system import FakeSystem
from tests.reconcile.pods_world import KEEPER, WEB, PodWorld
from tests.reconcile.world import database_in, prepared

ROOT = Principal(tenant="dev", username="root", is_admin=True)
STEP_S = PROBE_EVERY.total_seconds() + 0.1


class Cost(NamedTuple):
    """What something took: by the clock, and of a processor."""

    wall_s: float
    processor_s: float

    def __str__(self) -> str:
        return f"{self.wall_s * 1000:.0f} ms, {self.processor_s * 1000:.0f} ms of a core"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pods", description=__doc__)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as folder:
        rows = asyncio.run(measure(Path(folder), chosen.pods, chosen.rounds))
    show(f"{chosen.pods} pods on SQLite", rows)


async def measure(home: Path, count: int, rounds: int) -> list[Row]:
    async with database_in(home) as database:
        await prepared(database, KEEPER)
        world = PodWorld(database, FakeSystem())
        await fill(world, count)
        first = await cost(lambda: looked(world))
        up = await cost(lambda: decided(world))
        idle = await least(rounds, world.process.pods.tick)
        asked = [await looked_later(world) for _ in range(rounds)]
        assert {pod.status for pod in await services.list_pods(world.ports(), ROOT, WHOLE_LIST)} == {
            PodStatus.AVAILABLE
        }
        nets = await least(rounds, world.nets)
        for marker in world.system.jobs:
            world.system.pods.closed[marker] = {5000}
        lost = await looked_later(world)
        began = await cost(lambda: decided(world))
        assert await statuses(world) == {PodStatus.CREATING}
    best = min(asked, key=lambda one: one.processor_s)
    share = best.processor_s / PROBE_EVERY.total_seconds()
    return [
        Row("a round: ask and try every port", str(best), f"{share:.0%} of a core, every {PROBE_EVERY.seconds} s", ""),
        Row("all come up at once: noticed", str(first), "", ""),
        Row("all come up at once: decided", str(up), "", ""),
        Row("a tick with nothing due", str(idle), "", ""),
        Row("what the gateway reads", str(nets), "", ""),
        Row("every port closes: noticed", str(lost), "AVAILABLE falls within 10 s", ""),
        Row("every port closes: decided", str(began), "", ""),
    ]


async def statuses(world: PodWorld) -> set[PodStatus]:
    return {pod.status for pod in await services.list_pods(world.ports(), ROOT, WHOLE_LIST)}


async def looked(world: PodWorld) -> None:
    await world.process.watch.tick()
    await world.process.watch.crew.settle()


async def looked_later(world: PodWorld) -> Cost:
    world.later(STEP_S)
    return await cost(lambda: looked(world))


async def decided(world: PodWorld) -> None:
    """Until nothing is due."""
    while await world.process_has_work():
        await world.process.pods.tick()
        await world.process.pods.crew.settle()


async def cost(work: Callable[[], Awaitable[object]]) -> Cost:
    wall_s, processor_s = time.perf_counter(), time.process_time()
    await work()
    return Cost(time.perf_counter() - wall_s, time.process_time() - processor_s)


async def least(rounds: int, work: Callable[[], Awaitable[object]]) -> Cost:
    return min([await cost(work) for _ in range(rounds)], key=lambda one: one.processor_s)


async def fill(world: PodWorld, count: int) -> None:
    """Pods whose instances run since now."""
    made: list[tuple[Pod, PodInstance]] = []
    for n in range(count):
        uuid = new_job_uuid()
        pod = Pod(
            tenant="dev",
            id=f"pod{n}",
            uuid=uuid,
            owner="ann",
            asked={},
            definition=WEB,
            status=PodStatus.CREATING,
            instance_number=1,
            created_at=world.now,
            updated_at=world.now,
            started_at=world.now,
        )
        run = pod_run(pod, 1, KEEPER, KEEPER.queue(None), "alice", walltime_s=LONG_S)
        marker = marker_for(uuid, 1)
        remote_id = world.system.accept(SubmitIntent(marker, run, world.now))
        assert isinstance(remote_id, str)
        instance = PodInstance(
            pod_uuid=uuid,
            number=1,
            marker=marker,
            tenant="dev",
            system_id=KEEPER.id,
            owner="alice",
            queue="normal",
            run=run,
            state=InstanceState.RUNNING,
            remote_id=RemoteId(remote_id),
            intended_at=world.now,
            started_at=world.now,
        )
        made.append((pod, instance))
        world.system.start(marker)
    async with world.database.transaction() as db:
        for pod, instance in made:
            await PodStore(db).add(pod, PodCredentials(user_password="u", service_password="s"))
            await PodStore(db).intend(instance)


if __name__ == "__main__":
    main()
