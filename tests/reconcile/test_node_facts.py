"""Looks at nodes: one small job for each class, at most once, and what becomes of what it tells."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from images.host import HostFacts
from scheduler.model.errors import FileRefused
from scheduler.model.helper_jobs import HelperJob, HelperPurpose, HelperState
from scheduler.model.runs import Runtime
from scheduler.model.snapshots import NodeKind, SystemSnapshot
from scheduler.model.systems import LogicalQueue
from scheduler.reconcile.node_facts import BACK_OFF, FACTS_HOLD, GIVEN_UP_AFTER, NodeFacts
from scheduler.store.helper_jobs import HelperJobStore
from scheduler.store.learning import SnapshotStore
from scheduler.store.node_facts import NodeFactsStore
from scheduler.store.systems import SystemStore
from tests.fakes.system import Fault
from tests.reconcile.world import LEASE_S, START, World

KEEPS = {"store": "/shared/images"}
KERNEL = {"kernel": ["5.14.0", "uname -r"], "mpi_plugins": [["pmi2"], "srun --mpi=list"]}
HARDWARE = {"memory_bytes": [2**34, "/proc/meminfo"], "gpus": [[], "no /dev/nvidia*"]}


def printed(facts: Mapping[str, Any]) -> bytes:
    document = {"format": 1, "at": int(START.timestamp()), "facts": facts}
    return b"welcome to the cluster\n" + json.dumps(document).encode() + b"\n"


async def keeps_images(world: World, *nodes: NodeKind, **changes: Any) -> None:
    """The cluster's owner speaks of images, and somebody has looked at it."""
    images = {**KEEPS, **changes.pop("images", {})}
    async with world.database.transaction() as db:
        store = SystemStore(db)
        system = await store.get("dev", "cluster")
        await store.replace(replace(system, notes={"berth": {"images": images}}, **changes))
        seen = SystemSnapshot(taken_at=START, partitions=world.system.partitions, nodes=nodes or world.system.nodes)
        await SnapshotStore(db).put("dev", "cluster", "ann", seen)


@pytest.fixture
async def looks(world: World) -> NodeFacts:
    await keeps_images(world)
    return NodeFacts(world.ports(), lease_s=LEASE_S)


async def tick(looks: NodeFacts, world: World, times: int = 1, step_s: float = 20.0) -> None:
    for _ in range(times):
        await looks.tick()
        await looks.crew.settle()
        world.later(step_s)


async def known(world: World) -> Mapping[str, HostFacts]:
    async with world.database.reading() as db:
        found = await NodeFactsStore(db).of_system("dev", "cluster")
    return {name: nodes.facts for name, nodes in found.items()}


async def newest(world: World) -> HelperJob:
    async with world.database.reading() as db:
        found = await HelperJobStore(db).newest("dev", HelperPurpose.NODE_FACTS)
    return max(found.values(), key=lambda job: job.intended_at)


async def told(world: World, looks: NodeFacts, facts: Mapping[str, Any] = KERNEL) -> None:
    """A look is begun, and the node tells these facts."""
    await tick(looks, world)
    [marker] = [marker for marker, job in world.system.jobs.items() if job.ended_at is None]
    world.system.end(marker, output=printed(facts))
    await tick(looks, world)


async def test_a_small_job_looks_and_what_it_tells_is_kept(world, looks):
    await tick(looks, world)
    [job] = world.system.jobs.values()
    run = job.intent.run
    assert (run.runtime, run.partition, run.resources.nodes, run.resources.cores_per_node) == (
        Runtime.NONE,
        "fake",
        1,
        1,
    )
    assert json.loads(run.args[2])["scratch"] == "/shared/images"
    assert b"def probe(" in world.system.files.nodes[run.args[1]]
    world.system.end(job.marker, output=printed(KERNEL))
    await tick(looks, world)
    facts = (await known(world))["fake"]
    assert (facts.kernel, facts.mpi_plugins) == ((5, 14, 0), ("pmi2",))
    assert facts.evidence["kernel"].detail == "uname -r"
    assert (await newest(world)).state is HelperState.DONE
    assert not [path for path in world.system.files.nodes if path.startswith(posixpath.join(run.exec_dir, ""))]


async def test_nobody_looks_again_while_facts_hold(world, looks):
    await told(world, looks)
    await tick(looks, world, times=3)
    assert len(world.system.jobs) == 1
    world.later(FACTS_HOLD.total_seconds())
    await told(world, looks, {"kernel": ["6.1.0", "uname -r"]})
    facts = (await known(world))["fake"]
    assert (facts.kernel, facts.mpi_plugins) == ((6, 1, 0), ("pmi2",)), "what it did not find is kept from before"


@pytest.mark.parametrize("images", [None, {"probe": False}], ids=["silent", "forbidden"])
async def test_where_the_owner_says_nothing_or_no_nobody_looks(world, images):
    if images is not None:
        await keeps_images(world, images=images)
    looks = NodeFacts(world.ports(), lease_s=LEASE_S)
    await tick(looks, world, times=2)
    assert not world.system.jobs


async def test_partitions_are_looked_at_one_after_the_other(world):
    kinds = [replace(world.system.nodes[0], partition=name) for name in ("cpu", "gpu")]
    queues = tuple(LogicalQueue(name=name, partition=name) for name in ("cpu", "gpu"))
    await keeps_images(world, *kinds, queues=queues)
    looks = NodeFacts(world.ports(), lease_s=LEASE_S)
    for count in (1, 2):
        await tick(looks, world, times=2)
        assert len(world.system.jobs) == count
        newest_job = list(world.system.jobs.values())[-1]
        world.system.end(newest_job.marker, output=printed(KERNEL))
        await tick(looks, world)
    assert set(await known(world)) == {"cpu", "gpu"}


async def test_a_partition_that_nobody_has_seen_is_not_looked_at(world):
    await keeps_images(world, replace(world.system.nodes[0], partition="elsewhere"))
    looks = NodeFacts(world.ports(), lease_s=LEASE_S)
    await tick(looks, world)
    assert not world.system.jobs


async def test_of_nodes_of_several_kinds_only_what_is_installed_is_kept(world):
    kind = world.system.nodes[0]
    await keeps_images(world, kind, replace(kind, cores=64, features=("milan",)))
    looks = NodeFacts(world.ports(), lease_s=LEASE_S)
    await told(world, looks, {**KERNEL, **HARDWARE})
    facts = (await known(world))["fake"]
    assert (facts.kernel, facts.memory_bytes, facts.gpus) == ((5, 14, 0), None, None)
    assert set(facts.evidence) == set(KERNEL)


async def test_a_gpu_is_asked_for_where_nodes_have_some(world):
    await keeps_images(world, replace(world.system.nodes[0], gpus=4))
    looks = NodeFacts(world.ports(), lease_s=LEASE_S)
    await tick(looks, world)
    assert [job.intent.run.resources.gpus_per_node for job in world.system.jobs.values()] == [1]


async def test_a_host_without_batch_is_one_class(world):
    await keeps_images(world, can_run_batch=False, queues=(), default_queue=None)
    looks = NodeFacts(world.ports(), lease_s=LEASE_S)
    await told(world, looks)
    assert set(await known(world)) == {"host"}


# -- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.BEFORE_ACCEPT, Fault.AFTER_ACCEPT])
async def test_a_cut_connection_leaves_at_most_one_job_and_the_look_is_made(world, looks, fault):
    world.system.fail("submit", fault)
    await tick(looks, world, times=2)
    accepted = len(world.system.jobs)
    assert accepted == (1 if fault is Fault.AFTER_ACCEPT else 0)
    await tick(looks, world, times=5)
    assert len(world.system.jobs) == 1, "the one that arrived is found; the other was proven absent and is made anew"
    [job] = world.system.jobs.values()
    world.system.end(job.marker, output=printed(KERNEL))
    await tick(looks, world, times=4)
    assert set(await known(world)) == {"fake"}


async def test_a_process_that_dies_after_the_intent_submits_nothing_twice(world, looks):
    world.system.fail("submit", Fault.SLOW)
    await looks.tick()
    while "submit" not in world.system.calls:
        await looks.crew.settle(0.01)
    await looks.crew.aclose()
    again = NodeFacts(world.ports(process_id="second"), lease_s=LEASE_S)
    await tick(again, world, times=2)
    assert not world.system.jobs, "nobody else's lease is taken"
    await tick(again, world, times=8)
    assert len(world.system.jobs) == 1


async def test_what_tells_nothing_is_said_and_tried_again_after_a_while(world, looks):
    await tick(looks, world)
    [job] = world.system.jobs.values()
    run = job.intent.run
    world.system.files.put(f"{run.output_dir}/{run.stderr}", b"env: 'python3': No such file or directory\n")
    world.system.end(job.marker, exit_code=127)
    await tick(looks, world)
    failed = await newest(world)
    assert failed.state is HelperState.FAILED
    assert "python3" in failed.message
    await tick(looks, world, times=3)
    assert len(world.system.jobs) == 1
    world.later(BACK_OFF.total_seconds())
    await tick(looks, world)
    assert len(world.system.jobs) == 2


async def test_a_refusal_is_said_in_the_systems_words(world, looks):
    world.system.refuse = lambda intent: "Invalid account"
    await tick(looks, world, times=3)
    failed = await newest(world)
    assert (failed.state, "Invalid account" in failed.message) == (HelperState.FAILED, True)
    assert world.system.calls.count("submit") == 1


@pytest.mark.parametrize("method", ["stage", "submit", "observe", "read_log"])
async def test_a_system_that_does_not_answer_is_asked_again(world, looks, method):
    world.system.fail(method, Fault.UNAVAILABLE, times=2)
    world.system.run_at_once = False
    for _ in range(12):
        await tick(looks, world)
        for job in world.system.jobs.values():
            if job.ended_at is None:
                world.system.end(job.marker, output=printed(KERNEL))
    assert set(await known(world)) == {"fake"}


class FullDisk:
    """A backend that has no room for files."""

    async def stage(self, plan):
        raise FileRefused("/home/alice: Disk quota exceeded")


async def test_where_its_files_cannot_be_put_a_look_fails_with_the_reason_and_waits(world, looks, monkeypatch):
    async def backend(login, job_type):
        return FullDisk()

    monkeypatch.setattr(world.connections, "backend", backend)
    await tick(looks, world, times=3)
    failed = await newest(world)
    assert (failed.state, failed.message) == (HelperState.FAILED, "/home/alice: Disk quota exceeded")
    assert failed.next_look_at == failed.ended_at + BACK_OFF
    assert not world.system.jobs


async def test_a_system_that_does_not_answer_for_a_day_is_not_asked_on(world, looks):
    await tick(looks, world)
    world.system.fail("observe", Fault.UNAVAILABLE, times=2)
    await tick(looks, world)
    assert (await newest(world)).state is HelperState.SUBMITTED
    world.later(GIVEN_UP_AFTER.total_seconds())
    await tick(looks, world)
    failed = await newest(world)
    assert (failed.state, failed.message) == (HelperState.FAILED, "fake: no route to host")


async def test_a_look_that_waits_for_long_is_given_up(world, looks):
    await tick(looks, world)
    world.later(GIVEN_UP_AFTER.total_seconds())
    await tick(looks, world)
    [job] = world.system.jobs.values()
    assert job.ended_at is not None
    assert (await newest(world)).state is HelperState.FAILED


async def test_asked_to_look_again_it_is_done_soon_whatever_failed_before(world, looks):
    await told(world, looks)
    async with world.database.transaction() as db:
        await NodeFactsStore(db).look_again("dev", "cluster")
        await HelperJobStore(db).forget_failures("dev", "cluster")
    await tick(looks, world)
    assert len(world.system.jobs) == 2
    assert set(await known(world)) == {"fake"}, "what is known holds until then"


async def test_two_processes_look_once(world, looks):
    other = NodeFacts(world.ports(process_id="second"), lease_s=LEASE_S)
    await looks.tick()
    await other.tick()
    await looks.crew.settle()
    await other.crew.settle()
    world.later(timedelta(seconds=5).total_seconds())
    assert len(world.system.jobs) == 1
