"""Verdicts reach placement, and what a verdict asks for reaches the run: from stored needs and facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from images.host import HostFacts
from images.matcher import match
from placement.problem import Ask
from scheduler.judge import Judge, classes_of, nodes_of, policy_there
from scheduler.model.actions import LaunchWith, LibraryPathFirst
from scheduler.model.images import PinnedImage
from scheduler.model.jobs import Job
from scheduler.model.runs import Resources, Runtime
from scheduler.model.states import JobState
from scheduler.model.verdicts import Fit, ImageAsk
from scheduler.reconcile.runspec import run_spec
from scheduler.store.facts import PlacementFacts
from scheduler.store.images import ImageStore
from scheduler.store.jobs import JobStore
from scheduler.store.node_facts import NodeFactsStore
from scheduler.store.systems import SystemStore
from tests.images.fleet import ARM, DEBIAN, MPI_HOSTS, MPI_IMAGES, NODE
from tests.reconcile.world import CLUSTER, START, World

DIGEST = "sha256:" + "a" * 64
ANY_IMAGE = replace(DEBIAN, manifest_digest=DIGEST)
MPI_IMAGE = replace(MPI_IMAGES["mpich-debian"], manifest_digest=DIGEST)
PINNED = PinnedImage(
    name="docker://busybox",
    reference=f"docker://busybox@{DIGEST}",
    manifest_digest=DIGEST,
    index_digest=None,
    download_bytes=1,
    resolved_at=START,
)


async def facts_are(world: World, facts: HostFacts, minutes: int = 0, node_class: str = "fake") -> None:
    async with world.database.transaction() as db:
        found = replace(facts, node_class=node_class)
        await NodeFactsStore(db).put("dev", "cluster", found, START + timedelta(minutes=minutes))


async def owner_says(world: World, **images: Any) -> None:
    async with world.database.transaction() as db:
        system = await SystemStore(db).get("dev", "cluster")
        notes = {"berth": {"images": {"store": "/shared/images", **images}}}
        await SystemStore(db).replace(replace(system, notes=notes))


@pytest.fixture
async def judge(world: World) -> Judge:
    await owner_says(world)
    async with world.database.transaction() as db:
        await ImageStore(db).put_needs(DIGEST, ANY_IMAGE, START)
    return Judge()


def ask_for(job: Job, digest: str | None = DIGEST) -> Ask:
    return replace(Ask.of(job), image=None if digest is None else replace(PINNED, manifest_digest=digest))


async def verdict(world: World, judge: Judge, digest: str | None = DIGEST, **changes: Any) -> Any:
    [job] = await world.submit(**changes)
    async with world.database.reading() as db:
        problem = await PlacementFacts(db).problem("dev", [ask_for(job, digest)], world.now)
        judged = await judge.judged(db, "dev", problem)
    [view] = [view for view in judged.systems if view.system.id == "cluster"]
    return view.image_verdicts.get((ImageAsk.of(job.spec), "normal"))


async def test_an_image_for_another_processor_is_a_no(world, judge):
    await facts_are(world, ARM)
    assert (await verdict(world, judge)).fit is Fit.NO


async def test_newer_facts_change_the_verdict(world, judge):
    await facts_are(world, ARM)
    assert (await verdict(world, judge)).fit is Fit.NO
    await facts_are(world, NODE, minutes=5)
    assert (await verdict(world, judge)).fit is Fit.YES


async def test_what_the_owner_says_stands_above_the_probe(world, judge):
    await facts_are(world, NODE)
    assert (await verdict(world, judge)).fit is Fit.YES
    await owner_says(world, facts={"fake": {"architecture": "arm64"}})
    assert (await verdict(world, judge)).fit is Fit.NO


async def test_the_owner_alone_may_say_it(world, judge):
    await owner_says(world, facts={"fake": {"architecture": "arm64"}})
    assert (await verdict(world, judge)).fit is Fit.NO


async def test_with_strict_what_nobody_knows_is_a_no(world, judge):
    await facts_are(world, HostFacts(node_class="fake"))
    asked = {"is_mpi": True, "resources": Resources(nodes=2)}
    assert (await verdict(world, judge, **asked)).fit is Fit.UNKNOWN
    await owner_says(world, strict=True)
    assert (await verdict(world, judge, **asked)).fit is Fit.NO


async def test_where_something_is_not_known_there_is_no_verdict(world, judge):
    assert await verdict(world, judge) is None, "nobody looked at the nodes"
    await facts_are(world, ARM)
    assert await verdict(world, judge, digest=None) is None, "what the image's name means"
    assert await verdict(world, judge, digest="sha256:" + "b" * 64) is None, "what it needs"
    assert await verdict(world, judge, runtime=Runtime.NONE) is None, "no image"


async def test_without_the_owners_word_there_is_no_verdict(world):
    await facts_are(world, ARM)
    async with world.database.transaction() as db:
        await ImageStore(db).put_needs(DIGEST, ANY_IMAGE, START)
    assert await verdict(world, Judge()) is None


async def test_the_same_question_is_judged_once(world, judge, monkeypatch):
    await facts_are(world, NODE)
    asked = []
    monkeypatch.setattr("scheduler.judge.match", lambda *args: asked.append(args) or match(*args))
    for _ in range(3):
        assert (await verdict(world, judge)).fit is Fit.YES
    assert len(asked) == 1
    await verdict(world, judge, resources=Resources(nodes=2))
    assert len(asked) == 2


async def test_what_the_winner_asks_for_is_frozen_into_the_run(world, judge):
    async with world.database.transaction() as db:
        digest = "sha256:" + "c" * 64
        await ImageStore(db).put_needs(digest, replace(MPI_IMAGE, manifest_digest=digest), START)
    await facts_are(world, MPI_HOSTS["cray"])
    [job] = await world.submit(is_mpi=True, resources=Resources(nodes=2))
    async with world.database.transaction() as db:
        pinned = replace(PINNED, manifest_digest=digest)
        await JobStore(db).note(job, {"image": pinned}, START)
    world.restart()
    placed = await world.run_until(job, JobState.QUEUED)
    [attempt] = await world.attempts(job)
    assert placed.decision is not None
    assert placed.decision.winner is not None
    assert LaunchWith("cray_shasta") in attempt.run.image_actions
    assert LibraryPathFirst("/.berth/mpi") in attempt.run.image_actions
    there, elsewhere = placed.place, replace(placed.place, queue="other")
    assert run_spec(placed, there, CLUSTER, "alice").image_actions == attempt.run.image_actions
    assert run_spec(placed, elsewhere, CLUSTER, "alice").image_actions == (), "they speak of one place"


async def test_an_image_that_cannot_run_there_is_rejected_with_the_reason(world, judge):
    await facts_are(world, ARM)
    [job] = await world.submit()
    async with world.database.transaction() as db:
        await JobStore(db).note(job, {"image": PINNED}, START)
    ended = await world.run_until(job, JobState.FAILED, ticks=10)
    assert "arm64" in ended.last_message


def test_facts_of_the_owner_carry_the_owner_s_name():
    notes = {"berth": {"images": {"store": "/s", "facts": {"fake": {"architecture": "arm64"}}}}}
    system = replace(CLUSTER, notes=notes)
    nodes = nodes_of(system, policy_there(system), {})
    assert "ann" in nodes["fake"].facts.evidence["architecture"].detail


def test_what_is_not_understood_is_as_if_it_were_not_said():
    assert policy_there(replace(CLUSTER, notes={"berth": {"images": {"store": "relative"}}})) is None


def test_a_cluster_that_nobody_has_seen_has_no_classes():
    assert classes_of(CLUSTER, None) == ()
