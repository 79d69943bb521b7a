"""What is known of nodes, and the helper jobs that look at them: on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from images.host import FactEvidence, FactSource, HostFacts
from scheduler.model.errors import StaleJob
from scheduler.model.helper_jobs import HelperJob, HelperPurpose, HelperState
from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.runs import RunSpec, Runtime
from scheduler.store.helper_jobs import HelperJobStore
from scheduler.store.leases import JobLeases
from scheduler.store.node_facts import KnownNodes, NodeFactsStore
from tests.store.things import NOW

SEEN = {"kernel": FactEvidence(source=FactSource.PROBE, detail="uname -r", seen_at=NOW)}
CPU = HostFacts(node_class="cpu", kernel=(5, 14, 0), architecture="amd64", mpi_plugins=("pmi2",), evidence=SEEN)


def helper(**changes: Any) -> HelperJob:
    uuid = new_job_uuid()
    run = RunSpec(
        job_uuid=uuid,
        name="look",
        image="",
        runtime=Runtime.NONE,
        args=("true",),
        exec_dir="/e",
        input_dir="/i",
        output_dir="/o",
    )
    asked = {"tenant": "dev", "system_id": "cluster", "owner": "ann", "subject": "cpu", "run": run}
    rest = {"purpose": HelperPurpose.NODE_FACTS, "intended_at": NOW, "next_look_at": NOW}
    return HelperJob(**{"marker": marker_for(uuid, 1), **asked, **rest, **changes})


async def test_facts_come_back_as_they_were_kept_and_the_newest_stay(database):
    newer = replace(CPU, kernel=(6, 1, 0))
    async with database.transaction() as db:
        store = NodeFactsStore(db)
        await store.put("dev", "cluster", CPU, NOW)
        await store.put("dev", "cluster", newer, NOW + timedelta(days=8))
        await store.put("dev", "cluster", replace(CPU, node_class="gpu"), NOW)
        await store.put("other", "cluster", CPU, NOW)
    async with database.transaction() as db:
        found = await NodeFactsStore(db).of_tenant("dev")
        assert await NodeFactsStore(db).of_system("dev", "elsewhere") == {}
    assert found.keys() == {"cluster"}
    assert found["cluster"].keys() == {"cpu", "gpu"}
    assert found["cluster"]["cpu"] == KnownNodes(newer, NOW + timedelta(days=8))


async def test_asked_to_look_again_what_is_known_stays(database):
    async with database.transaction() as db:
        store = NodeFactsStore(db)
        await store.put("dev", "cluster", CPU, NOW)
        await store.put("dev", "elsewhere", CPU, NOW)
        await store.look_again("dev", "cluster")
        assert await store.of_system("dev", "cluster") == {"cpu": KnownNodes(CPU, None)}
        assert await store.seen_at("dev") == {("cluster", "cpu"): None, ("elsewhere", "cpu"): NOW}


async def test_of_each_login_one_helper_job_is_live(database):
    first, second = helper(), helper(subject="gpu")
    async with database.transaction() as db:
        assert await HelperJobStore(db).intend(first, "one", 60)
    async with database.transaction() as db:
        store = HelperJobStore(db)
        assert not await store.intend(second, "one", 60)
        assert await store.intend(helper(owner="bob"), "one", 60)
        await store.write(first, state=HelperState.FAILED, ended_at=NOW, message="no python3")
        assert await store.intend(second, "one", 60)


async def test_a_leased_helper_job_is_nobody_else_s_until_the_lease_ends(database):
    async with database.transaction() as db:
        await HelperJobStore(db).intend(helper(), "one", 60)
    async with database.transaction() as db:
        assert await HelperJobStore(db).claim("two", 60, 10, NOW + timedelta(seconds=59)) == []
    async with database.transaction() as db:
        [taken] = await HelperJobStore(db).claim("two", 60, 10, NOW + timedelta(seconds=60))
        assert taken.state is HelperState.INTENDED


async def test_leases_of_a_dead_process_are_freed(database):
    async with database.transaction() as db:
        await HelperJobStore(db).intend(helper(), "dead", 3600)
        await JobLeases(db).release_all("dead")
        assert len(await HelperJobStore(db).claim("new", 60, 10, NOW)) == 1


async def test_who_was_overtaken_cannot_write(database):
    job = helper()
    async with database.transaction() as db:
        store = HelperJobStore(db)
        await store.intend(job, "one", 60)
        [taken] = await store.claim("two", 60, 10, NOW + timedelta(hours=1))
        with pytest.raises(StaleJob):
            await store.write(job, state=HelperState.SUBMITTED)
        kept = await store.write(taken, state=HelperState.SUBMITTED, remote_id="7", next_look_at=NOW)
        [again] = await store.claim("one", 60, 10, NOW)
        assert (again.remote_id, again.state, again.version) == ("7", HelperState.SUBMITTED, kept.version + 1)


async def test_the_newest_of_each_class_is_known_until_failures_are_forgotten(database):
    old, new = helper(intended_at=NOW - timedelta(days=1)), helper()
    async with database.transaction() as db:
        store = HelperJobStore(db)
        for job in (old, new):
            await store.intend(job, "one", 60)
            await store.write(job, state=HelperState.FAILED, ended_at=job.intended_at, message="refused")
        found = await store.newest("dev", HelperPurpose.NODE_FACTS)
        assert {key: job.marker for key, job in found.items()} == {("cluster", "cpu"): new.marker}
        await store.forget_failures("dev", "cluster")
        assert await store.newest("dev", HelperPurpose.NODE_FACTS) == {}


async def test_what_ended_long_ago_is_swept_and_what_lives_is_not(database):
    ended, alive = helper(owner="bob"), helper()
    async with database.transaction() as db:
        store = HelperJobStore(db)
        for job in (ended, alive):
            await store.intend(job, "one", 60)
        await store.write(ended, state=HelperState.DONE, ended_at=NOW)
        assert await store.sweep(NOW) == 0
        assert await store.sweep(NOW + timedelta(days=1)) == 1
        assert list(await store.newest("dev", HelperPurpose.NODE_FACTS)) == [("cluster", "cpu")]
