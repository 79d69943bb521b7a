"""What the nodes of a system can do, as users see it, and asking for another look."""

from __future__ import annotations

from typing import Any

import pytest

from images.host import FactEvidence, FactSource, HostFacts
from scheduler.model.helper_jobs import HelperJob, HelperPurpose, HelperState
from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.runs import RunSpec
from scheduler.store.helper_jobs import HelperJobStore
from scheduler.store.node_facts import NodeFactsStore
from tests.api.world import BEGIN, World

FACTS = "/v3/systems/alder/nodeFacts"


async def told(world: World, **images: Any) -> None:
    notes = {"berth": {"images": {"store": "/scratch/images", **images}}}
    await world.change("PATCH", "/v3/systems/alder", {"notes": notes})


async def probed(world: World) -> None:
    """A look at one class that told something, and one at another that failed."""
    seen = FactEvidence(source=FactSource.PROBE, detail="uname -r", seen_at=BEGIN)
    facts = HostFacts(node_class="normal", kernel=(5, 14), mpi_plugins=("pmi2",), evidence={"kernel": seen})
    uuid = new_job_uuid()
    failed = HelperJob(
        marker=marker_for(uuid, 1),
        tenant="dev",
        system_id="alder",
        owner="ada",
        purpose=HelperPurpose.NODE_FACTS,
        subject="normal",
        run=RunSpec(job_uuid=uuid, name="look", image="", exec_dir="/e", input_dir="/e", output_dir="/e"),
        intended_at=BEGIN,
        state=HelperState.FAILED,
        ended_at=BEGIN,
        message="no python3 there",
    )
    async with world.ports.transaction() as db:
        await NodeFactsStore(db).put("dev", "alder", facts, BEGIN)
        await HelperJobStore(db).intend(failed, "one", 60)


async def test_facts_come_with_what_showed_them_and_how_the_last_look_went(world: World):
    await told(world, facts={"normal": {"architecture": "arm64"}})
    await probed(world)
    shown = {each["nodeClass"]: each for each in await world.get(FACTS)}
    normal = shown["normal"]
    assert (normal["facts"]["kernel"], normal["facts"]["mpi_plugins"]) == ("5.14", ["pmi2"])
    assert normal["facts"]["architecture"] == "arm64"
    assert (normal["evidence"]["kernel"]["source"], normal["evidence"]["architecture"]["source"]) == ("probe", "owner")
    assert (normal["look"]["state"], normal["look"]["message"]) == ("FAILED", "no python3 there")
    assert normal["seenAt"]


async def test_classes_of_which_nothing_is_known_are_named_where_the_owner_speaks_of_images(world: World):
    assert await world.get(FACTS) == []
    await told(world)
    found = await world.get(FACTS)
    assert found
    assert all((each["facts"], each["seenAt"], each["look"]) == ({}, None, None) for each in found)


async def test_another_look_is_asked_for(world: World):
    await told(world)
    await probed(world)
    await world.change("POST", FACTS)
    shown = {each["nodeClass"]: each for each in await world.get(FACTS)}["normal"]
    assert (shown["seenAt"], shown["look"], shown["facts"]["kernel"]) == (None, None, "5.14")


@pytest.mark.parametrize("images", [None, {"probe": False}], ids=["silent", "forbidden"])
async def test_a_look_that_nobody_allows_names_the_note_that_would(world: World, images: Any):
    if images is not None:
        await told(world, **images)
    refused = await world.call("POST", FACTS)
    assert refused.status_code == 400
    assert "notes.berth.images" in refused.json()["message"]


async def test_who_may_not_change_a_system_asks_for_no_look(world: World):
    await told(world)
    refused = await world.call("POST", FACTS, user="bob")
    assert refused.status_code in (403, 404)
