"""Where an image runs: what users are told of it, with what showed it, before they submit anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.schemas.verdicts import IN_WORDS
from images.bring import needs_of
from images.host import FactEvidence, FactSource, HostFacts
from images.needs import Libc, LibcFamily
from images.reference import parse_reference
from scheduler.model import actions
from scheduler.store.images import ImageStore
from scheduler.store.node_facts import NodeFactsStore
from tests.api.world import BEGIN, World
from tests.fakes.tenant import AMD64

WHY = "/v3/images/why"
HELLO = {"reference": "registry.test/hello:0.1"}
STORE = {"store": "/scratch/images"}


async def judged(world: World, user: str = "ada", **params: Any) -> dict[tuple[str, str | None], Any]:
    """By system and class of nodes."""
    shown = await world.get(WHY, params=HELLO | params, user=user)
    return {(each["systemId"], each["nodeClass"]): each for each in shown["nodes"]}


async def told(world: World, system_id: str, **images: Any) -> None:
    notes = {"berth": {"images": STORE | images}}
    await world.change("PATCH", f"/v3/systems/{system_id}", {"notes": notes})


async def probed(world: World, system_id: str, facts: HostFacts) -> None:
    async with world.ports.transaction() as db:
        await NodeFactsStore(db).put("dev", system_id, facts, world.clock())


def a_node(name: str, **facts: Any) -> HostFacts:
    seen = FactEvidence(source=FactSource.PROBE, detail="uname -m", seen_at=BEGIN)
    return HostFacts(node_class=name, architecture="amd64", evidence={"architecture": seen}, **facts)


async def test_where_nothing_is_known_of_the_nodes_it_says_so_and_how_to_learn(world: World):
    found = await judged(world)
    assert found.keys() == {("alder", None), ("birch", None)}
    assert {each["fit"] for each in found.values()} == {"unknown"}
    assert "let a probe look" in found["alder", None]["fix"]


async def test_a_probe_and_above_it_the_owner_decide_with_evidence(world: World):
    await probed(world, "alder", a_node("debug", kernel=(5, 14)))
    await probed(world, "alder", a_node("normal"))
    await told(world, "alder", facts={"normal": {"architecture": "arm64"}})
    found = await judged(world, systemId="alder")
    assert found.keys() == {("alder", "debug"), ("alder", "normal")}
    assert found["alder", "debug"]["fit"] != "no"
    refused = found["alder", "normal"]
    assert (refused["fit"], "arm64" in refused["reason"]) == ("no", True)
    (finding,) = [each for each in refused["findings"] if each["fit"] == "no"]
    assert "nodes: owner on 2026-03-01: set by ada" in finding["evidence"]
    assert refused["seenAt"]


async def test_an_image_that_is_not_built_for_a_system_does_not_run_there(world: World):
    world.registry.push_index("x86", "1", "linux/amd64")
    await told(world, "alder", facts={"normal": {"architecture": "arm64"}})
    shown = await judged(world, reference="registry.test/x86:1")
    assert (shown["alder", None]["fit"], shown["birch", None]["fit"]) == ("no", "unknown")
    assert "has no manifest for linux/arm64" in shown["alder", None]["reason"]
    alone = await world.call("GET", WHY, params={"reference": "registry.test/x86:1", "systemId": "alder"})
    assert (alone.status_code, "linux/arm64" in alone.json()["message"]) == (400, True)


async def test_what_was_learnt_from_its_files_counts_more_than_its_manifest(world: World):
    await probed(world, "alder", a_node("debug", kernel=(3, 10)))
    assert (await judged(world))["alder", "debug"]["fit"] != "no"
    images = world.ports.images
    assert images is not None
    shown = await world.get(WHY, params=HELLO)
    resolved = await images.source.resolve(parse_reference(HELLO["reference"]), AMD64)
    libc = Libc(family=LibcFamily.GLIBC, version=(2, 39), min_kernel=(6, 0))
    async with world.ports.transaction() as db:
        needs = replace(needs_of(resolved), libc=libc)
        await ImageStore(db).put_needs(shown["digests"][0], needs, world.clock())
    assert (await judged(world))["alder", "debug"]["fit"] == "no"
    assert (await world.get(WHY, params=HELLO))["filesSeen"] is True


async def test_only_systems_where_the_caller_may_run_jobs_are_judged(world: World):
    assert await judged(world, "bob") == {}
    hidden = await world.call("GET", WHY, params=HELLO | {"systemId": "alder"}, user="bob")
    assert hidden.status_code == 404
    await world.post("/v3/systems/perms/alder/user/bob", {"permissions": ["READ"]})
    shown = await world.call("GET", WHY, params=HELLO | {"systemId": "alder"}, user="bob")
    assert (shown.status_code, await judged(world, "bob")) == (403, {})
    await world.post("/v3/systems/perms/alder/user/bob", {"permissions": ["EXECUTE"]})
    assert (await judged(world, "bob")).keys() == {("alder", None)}


@pytest.mark.parametrize(
    ("params", "status", "said"),
    [
        ({}, 400, "reference: is missing"),
        ({"reference": "/scratch/a.sif"}, 400, "lies on a system"),
        ({"reference": "registry.test/none:1"}, 404, "was not found"),
        (HELLO | {"systemId": "nowhere"}, 404, "system 'nowhere' was not found"),
        (HELLO | {"nodes": 0}, 400, "nodes: must be at least 1"),
    ],
)
async def test_what_cannot_be_judged_says_why(world: World, params: dict[str, Any], status: int, said: str):
    response = await world.call("GET", WHY, params=params)
    assert (response.status_code, said in response.json()["message"]) == (status, True), response.text


def test_every_action_has_words():
    assert IN_WORDS.keys() == set(actions.Action.__args__)
