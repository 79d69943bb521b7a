"""The image of a job: resolved once, brought to the store behind the wait, and handed to the job before it needs it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from scheduler.model.errors import BackendUnavailable, FileRefused
from scheduler.model.images import UNDER_WAY, CopyState
from scheduler.model.runs import ArraySpec, JobType, Resources, Runtime
from scheduler.model.states import A, S
from scheduler.reconcile import room
from scheduler.reconcile.handing import Handing
from scheduler.store.database import Database
from scheduler.store.images import ImageStore
from scheduler.store.jobs import JobStore
from scheduler.store.systems import SystemStore
from tests.fakes.system import Fault
from tests.fakes.tenant import World as Tenant
from tests.fakes.tenant import busy
from tests.images.tarballs import entry, tar
from tests.reconcile.hedging import HEDGED
from tests.reconcile.imaging import IMAGE, LAYERS, ImageWorld, image_world
from tests.reconcile.world import CLUSTER, Process, database_in, prepared


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with database_in(tmp_path) as opened:
        yield opened


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> ImageWorld:
    return await image_world(database, tmp_path)


async def queued(world: ImageWorld, **changes):
    """A job that waits in the queue, and its attempt."""
    [job] = await world.submit(**{"image": IMAGE, **changes})
    job = await world.run_until(job, S.QUEUED)
    [attempt] = await world.attempts(job)
    return job, attempt


async def delivered(world: ImageWorld, job, ticks: int = 10):
    """The newest attempt of a job once it awaits nothing."""
    for _ in range(ticks):
        attempt = (await world.attempts(job))[-1]
        if attempt.awaits_image is None:
            return attempt
        await world.run()
    raise AssertionError([(copy.state, copy.message) for copy in await world.copies()])


def no_layers(world: ImageWorld):
    """A fault: the registry tells what images are, and has trouble with what is in them."""
    layers = {digest for (_, digest), blob in world.tenant.registry.blobs.items() if blob[:2] == b"\x1f\x8b"}
    return lambda request: busy(503)(request) if request.url.path.rpartition("/")[2] in layers else None


# -- what a name means -----------------------------------------------------------------------------------------------


async def test_a_name_is_resolved_once_before_the_job_is_placed(world: ImageWorld):
    job, attempt = await queued(world)
    digest = world.tenant.registry.tags["app", "1"]
    assert job.image is not None
    assert (job.image.name, job.image.manifest_digest, job.image.is_private) == (IMAGE, digest, False)
    assert attempt.run.image == f"docker://reg.org/app@{digest}"
    assert (attempt.run.image_wait_s, attempt.run.image_is_private) == (1800, False)
    world.tenant.registry.push_image("app", "1", (*LAYERS, b"newer"))
    assert (await world.job(job)).image == job.image
    history = await world.history(job)
    assert history.index("IMAGE_RESOLVED") < history.index("PLACEMENT")


async def needs_known(world: ImageWorld) -> bool:
    digest = world.tenant.registry.tags["app", "1"]
    async with world.database.reading() as db:
        return digest in await ImageStore(db).needs_of([digest])


@pytest.mark.parametrize(
    ("asked", "is_known"),
    [({"is_mpi": True}, True), ({"resources": Resources(gpus_per_node=1)}, True), ({}, False)],
    ids=["MPI", "GPUs", "neither"],
)
async def test_where_an_image_runs_matters_its_files_are_seen_before_the_job_is_placed(world, asked, is_known):
    [job] = await world.submit(image=IMAGE, **asked)
    while (await world.job(job)).image is None:
        await world.run()
    assert (await world.job(job)).state is S.PENDING
    assert await needs_known(world) is is_known


async def test_a_job_whose_image_cannot_be_looked_into_is_placed_all_the_same(world: ImageWorld):
    world.tenant.registry.faults.append(no_layers(world))
    [job] = await world.submit(image=IMAGE, is_mpi=True)
    job = await world.run_until(job, S.QUEUED)
    assert job.image is not None
    assert not await needs_known(world)


async def test_jobs_that_come_together_are_resolved_together(world: ImageWorld):
    jobs = await world.submit(20, image=IMAGE)
    await world.run(3)
    assert {(await world.job(job)).image.manifest_digest for job in jobs} == {world.tenant.registry.tags["app", "1"]}
    assert len(world.tenant.web.paths("HEAD", "/manifests/")) <= 2


class SlowSource:
    """A source that answers once it is let go."""

    def __init__(self, source) -> None:
        self._source, self.let_go = source, asyncio.Event()

    async def resolve(self, reference, target):
        await self.let_go.wait()
        return await self._source.resolve(reference, target)


async def test_jobs_that_come_while_their_image_is_looked_up_say_so_and_look_again_ever_less_often(world: ImageWorld):
    source = SlowSource(world.images.source)
    placing = Process(world.ports(images=replace(world.images, source=source))).place
    [first] = await world.submit(image=IMAGE)
    await placing.tick()
    [second] = await world.submit(image=IMAGE)
    looked_at, fence = [], second.fence
    for second_s in range(60):
        await placing.tick()
        waiting = await world.job(second)
        assert "jobs that came before" in waiting.last_message
        if waiting.fence != fence:
            looked_at.append(second_s)
        fence = waiting.fence
        world.later(1)
    assert looked_at == [0, 1, 2, 4, 8, 16, 31, 46]
    source.let_go.set()
    await placing.pins.settle()
    world.later(15)
    await placing.tick()
    await placing.pins.settle()
    assert (await world.job(second)).image.manifest_digest == (await world.job(first)).image.manifest_digest


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"image": "/images/app.sif"}, "a file there"),
        ({"image": "app.sif"}, "a file to Apptainer"),
        ({"image": "oci-archive:/images/app.tar"}, "a file there"),
        ({"image": "shub://org/app"}, "known to the runtime alone"),
        ({"image": "https://reg.org/app.sif"}, "not pinned"),
        ({"image": "", "runtime": Runtime.NONE, "args": ("true",)}, "no image"),
    ],
    ids=["path", "bare name", "archive", "other transport", "url", "none"],
)
async def test_what_only_the_system_reads_stays_as_it_was_written(world: ImageWorld, changes, why):
    job, attempt = await queued(world, **changes)
    assert job.image is None, why
    assert (attempt.run.image, attempt.run.image_wait_s, attempt.awaits_image) == (changes["image"], 0, None)
    assert world.tenant.web.asked == []


async def test_where_nobody_keeps_images_nothing_is_asked(database: Database, tmp_path: Path):
    await prepared(database, CLUSTER)
    world = ImageWorld(database, tmp_path, Tenant())
    job, attempt = await queued(world)
    assert (job.image, attempt.run.image, attempt.run.image_wait_s) == (None, IMAGE, 0)
    assert world.tenant.web.asked == []


async def test_an_image_that_there_is_not_fails_the_job_at_once_with_the_registrys_words(world: ImageWorld):
    [job] = await world.submit(image="docker://reg.org/nothing:1")
    job = await world.run_until(job, S.FAILED, ticks=2)
    assert "its image cannot be used: " in job.last_message
    assert "reg.org/nothing" in job.last_message
    assert "check" in job.last_message
    assert await world.attempts(job) == []


async def test_a_registry_that_does_not_answer_is_waited_for_and_said(world: ImageWorld):
    fault = busy(503)
    world.tenant.registry.faults.append(fault)
    [job] = await world.submit(image=IMAGE)
    await world.run()
    waiting = await world.job(job)
    assert waiting.state is S.PENDING
    assert "its image cannot be looked up" in waiting.last_message
    asked = len(world.tenant.web.asked)
    await world.run(1, step_s=0.5)
    assert len(world.tenant.web.asked) == asked, "it is asked again after a while, and not all the time"
    world.tenant.registry.faults.remove(fault)
    assert (await world.run_until(job, S.QUEUED)).image is not None


@pytest.mark.parametrize(
    "error",
    [FileRefused("reg.org: 10.0.0.1 is not a public address"), BackendUnavailable("reg.org: no such host")],
    ids=["private address", "unknown host"],
)
async def test_an_image_of_a_registry_that_only_the_site_reaches_is_left_to_its_runtime(world: ImageWorld, error):
    def out_of_reach(request):
        raise error

    world.tenant.registry.faults.append(out_of_reach)
    [job] = await world.submit(image=IMAGE)
    await world.run()
    assert str(error) in (await world.job(job)).last_message
    job = await world.run_until(job, S.QUEUED)
    [attempt] = await world.attempts(job)
    assert (job.image, attempt.run.image, attempt.run.image_wait_s) == (None, IMAGE, 0)
    asked = len(world.tenant.web.asked)
    [other] = await world.submit(image=IMAGE)
    await world.run_until(other, S.QUEUED)
    assert len(world.tenant.web.asked) == asked, "what was out of reach just now is not asked for each job"


async def test_a_job_that_is_cancelled_while_its_registry_does_not_answer_ends(world: ImageWorld):
    world.tenant.registry.faults.append(busy(503))
    [job] = await world.submit(image=IMAGE)
    await world.run()
    await world.cancel(job)
    assert (await world.run_until(job, S.CANCELLED)).image is None


# -- to the store ----------------------------------------------------------------------------------------------------


async def test_a_job_is_told_where_its_image_lies(world: ImageWorld):
    job, attempt = await queued(world)
    assert attempt.awaits_image == job.image.manifest_digest
    attempt = await delivered(world, job)
    [copy] = await world.copies()
    assert (copy.state, copy.owner, copy.message) == (CopyState.PRESENT, "alice", "")
    told = world.told(attempt)
    assert told["image"].startswith(str(world.store))
    data = world.image_of(attempt)
    assert (data[:4], len(data)) == (b"hsqs", copy.size_bytes)
    assert copy.file_digest == "sha256:" + hashlib.sha256(data).hexdigest()
    [event] = await world.told_in_history(job)
    assert event["sent_bytes"] == copy.sent_bytes > 0
    assert event["fetched_bytes"] > 0
    assert "made into one file" in event["sentence"]
    async with world.database.reading() as db:
        needs = await ImageStore(db).needs_of([copy.manifest_digest])
    assert needs[copy.manifest_digest].tree_seen


async def test_a_job_is_submitted_at_once_and_its_image_comes_behind_the_wait(world: ImageWorld):
    world.tenant.registry.faults.append(no_layers(world))
    job, attempt = await queued(world)
    assert attempt.awaits_image is not None
    assert world.told(attempt) == {}
    world.tenant.registry.faults.clear()
    world.later(60)
    assert world.image_of(await delivered(world, job))


async def test_64_jobs_at_once_are_one_fetch_one_conversion_and_one_transfer(world: ImageWorld):
    jobs = await world.submit(64, image=IMAGE)
    for job in jobs:
        await world.run_until(job, S.QUEUED)
        await delivered(world, job)
    assert world.blobs_asked_for() == len(LAYERS)
    [copy] = await world.copies()
    assert len(list((world.home / "workshop" / "made").iterdir())) == 1
    paths = {world.told((await world.attempts(job))[0])["image"] for job in jobs}
    assert len(paths) == 1
    assert copy.sent_bytes == copy.size_bytes
    assert len(world.leases(copy)) == 64


async def test_a_second_job_brings_nothing_and_says_so(world: ImageWorld):
    job, _ = await queued(world)
    await delivered(world, job)
    asked = world.blobs_asked_for()
    second, _ = await queued(world)
    await delivered(world, second)
    assert world.blobs_asked_for() == asked
    [event] = await world.told_in_history(second)
    assert event["sent_bytes"] == 0
    assert "it was there already, 0 bytes sent" in event["sentence"]


async def test_an_image_that_was_purged_from_the_store_is_brought_again_without_a_fetch(world: ImageWorld):
    job, _ = await queued(world)
    world.purge(await delivered(world, job))
    second, _ = await queued(world)
    attempt = await delivered(world, second)
    assert world.image_of(attempt)
    assert world.blobs_asked_for() == len(LAYERS)


async def test_a_system_that_does_not_answer_is_tried_again(world: ImageWorld, monkeypatch):
    real = world.connections.storage
    down = True

    async def storage(login):
        if down:
            raise BackendUnavailable("no route to host")
        return await real(login)

    monkeypatch.setattr(world.connections, "storage", storage)
    job, _ = await queued(world)
    await world.run(2)
    [copy] = await world.copies()
    assert copy.state is CopyState.SENDING
    assert "no route to host; being tried again" in copy.message
    down = False
    await delivered(world, job)
    assert [copy.state for copy in await world.copies()] == [CopyState.PRESENT]
    assert world.blobs_asked_for() == len(LAYERS)


async def test_a_job_that_cannot_be_told_keeps_none_that_comes_later_waiting(world: ImageWorld, monkeypatch):
    first, _ = await queued(world)
    real = Handing.give

    async def give(handing, marker, *rest):
        if first.uuid in marker:
            raise BackendUnavailable("its directory does not answer")
        return await real(handing, marker, *rest)

    monkeypatch.setattr(Handing, "give", give)
    for _ in range(8):
        await world.run(step_s=60)
    [copy] = await world.copies()
    assert copy.state is CopyState.PRESENT
    assert (copy.next_look_at - world.now).total_seconds() > 30
    second, attempt = await queued(world)
    await world.run(2, step_s=1)
    assert world.told(attempt)["image"]
    assert [each.awaits_image is None for each in await world.attempts(second)] == [True]
    assert [each.awaits_image is None for each in await world.attempts(first)] == [False]
    monkeypatch.undo()
    world.later(120)
    await delivered(world, first)


async def test_what_cannot_be_brought_is_told_and_the_runtime_fetches_the_image(database, tmp_path):
    world = await image_world(database, tmp_path)
    world.tenant.registry.push_image("bad", "1", (b"no archive",))
    job, _ = await queued(world, image="docker://reg.org/bad:1")
    attempt = await delivered(world, job)
    [copy] = await world.copies()
    assert copy.state is CopyState.FAILED
    assert world.told(attempt) == {"image": "", "why": copy.message}
    assert copy.message
    [event] = await world.told_in_history(job)
    assert copy.message in event["sentence"]
    asked = world.blobs_asked_for()
    second, _ = await queued(world, image="docker://reg.org/bad:1")
    await delivered(world, second)
    assert world.blobs_asked_for() == asked, "what failed just now is not tried for every job"


async def test_an_image_for_which_the_store_has_no_room_is_fetched_by_the_runtime(database, tmp_path):
    world = await image_world(database, tmp_path, quotaBytes=2**20)
    noise = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(2**16))
    world.tenant.registry.push_image("large", "1", (tar(entry("noise", noise)),))
    job, _ = await queued(world, image="docker://reg.org/large:1")
    told = world.told(await delivered(world, job))
    assert told["image"] == ""
    assert "quota" in told["why"]


@pytest.mark.parametrize("begins", [False, True], ids=["room comes", "the job begins"])
async def test_an_image_waits_for_room_in_the_store_until_its_job_begins(database, tmp_path, begins):
    world = await image_world(database, tmp_path, quotaBytes=2**20)
    other = world.fill()
    pin = world.store / "leases" / other.name / "pin-other"
    pin.parent.mkdir(parents=True)
    pin.touch()
    job, attempt = await queued(world)
    await world.run(8, step_s=10)
    [copy] = await world.copies()
    assert copy.state in UNDER_WAY
    assert "quota" in copy.message
    assert (await world.attempts(job))[-1].awaits_image
    if begins:
        world.system.start(attempt.marker)
        world.later(30)
        attempt = await delivered(world, job)
        assert "quota" in world.told(attempt)["why"]
    else:
        pin.unlink()
        other.unlink()
        world.later(30)
        attempt = await delivered(world, job)
        assert world.image_of(attempt)


@pytest.mark.parametrize(
    ("compressors", "number"), [(["gzip", "zstd"], 6), (["gzip"], 1), (None, 6)], ids=["zstd", "gzip", "not known"]
)
async def test_a_file_is_packed_as_the_nodes_are_known_to_mount_it(database, tmp_path, compressors, number):
    runtimes = [{"name": "apptainer", "compressors": compressors}]
    world = await image_world(database, tmp_path, facts={"fake": {"runtimes": runtimes}})
    job, _ = await queued(world)
    data = world.image_of(await delivered(world, job))
    assert int.from_bytes(data[20:22], "little") == number, "of the compressor, in a squashfs's superblock"


# -- who gets it -----------------------------------------------------------------------------------------------------


async def test_an_array_is_one_submission_with_one_image(world: ImageWorld):
    job, _ = await queued(world, array=ArraySpec((1, 2, 3)))
    assert world.told(await delivered(world, job))["image"]


async def test_a_job_that_runs_at_once_is_told_while_it_waits(world: ImageWorld):
    job, attempt = await queued(world, job_type=JobType.FORK, queue=None)
    world.system.start(attempt.marker)
    await world.run()
    assert world.told(await delivered(world, job))["image"]


async def test_a_copy_of_a_job_gets_the_image_where_it_waits(database, tmp_path):
    world = await image_world(database, tmp_path, twice=True)
    [job] = await world.submit(image=IMAGE, **HEDGED)
    for _ in range(20):
        await world.run()
        attempts = await world.attempts(job)
        if len(attempts) == 2 and not any(one.awaits_image for one in attempts):
            break
    assert {one.system_id for one in attempts} == {"cluster", "second"}
    systems = {"cluster": world.system, **world.others}
    for one in attempts:
        assert world.told(one, systems[one.system_id])["image"].startswith(str(world.home / one.system_id))
    assert world.blobs_asked_for() == len(LAYERS)
    assert len(await world.copies()) == 2


async def test_a_job_that_ended_awaits_nothing(world: ImageWorld):
    world.tenant.registry.faults.append(no_layers(world))
    job, attempt = await queued(world)
    assert attempt.awaits_image is not None
    await world.cancel(job)
    await world.run_until(job, S.CANCELLED)
    await world.run()
    assert [one.awaits_image for one in await world.attempts(job)] == [None]
    assert world.told(attempt) == {}


async def test_a_private_image_is_brought_by_its_login_and_never_fetched_by_the_runtime(database, tmp_path):
    tenant = Tenant(login="bob:secret")
    tenant.registry.realm, tenant.registry.private_to = "https://reg.org/token", "bob:secret"
    world = await image_world(database, tmp_path, tenant)
    tenant.registry.push_image("private/app", "1", LAYERS)
    job, attempt = await queued(world, image="docker://reg.org/private/app:1")
    assert job.image.is_private
    assert attempt.run.image_is_private
    attempt = await delivered(world, job)
    assert world.image_of(attempt)
    assert world.store.stat().st_mode & 0o077 == 0
    scripts = [node for node in world.system.files.nodes.values() if isinstance(node, bytes)]
    assert not any(b"secret" in node for node in scripts)


async def test_a_public_image_is_public_though_there_is_a_login(database, tmp_path):
    tenant = Tenant(login="bob:secret")
    tenant.registry.realm, tenant.registry.private_to = "https://reg.org/token", "bob:secret"
    world = await image_world(database, tmp_path, tenant)
    job, _ = await queued(world)
    assert not job.image.is_private


async def test_what_a_system_keeps_no_more_is_told_to_those_who_await_it(world: ImageWorld):
    world.tenant.registry.faults.append(no_layers(world))
    job, _ = await queued(world)
    async with world.database.transaction() as db:
        system = await SystemStore(db).get("dev", "cluster")
        await SystemStore(db).replace(replace(system, notes={}))
    world.later(60)
    assert "keeps no images any more" in world.told(await delivered(world, job))["why"]


async def test_a_lead_that_is_lost_leaves_its_image_to_the_next(world: ImageWorld):
    world.system.fail("submit", Fault.BEFORE_ACCEPT)
    [job] = await world.submit(image=IMAGE)
    for _ in range(12):
        await world.run()
    attempts = await world.attempts(job)
    assert len(attempts) == 2
    assert [one.awaits_image for one in attempts] == [None, None]
    assert world.told(attempts[1])["image"]
    async with world.database.reading() as db:
        assert (await JobStore(db).get("dev", job.uuid)).image is not None


async def test_placement_knows_where_an_image_lies(world: ImageWorld):
    job, _ = await queued(world)
    await delivered(world, job)
    second, _ = await queued(world)
    assert second.decision.winner.staging.source == "the image lies in the store there"
    assert job.decision.winner.staging.source != second.decision.winner.staging.source


async def test_leases_of_jobs_that_are_over_go_and_others_stay(world: ImageWorld):
    over, first = await queued(world)
    await delivered(world, over)
    _, waiting = await queued(world)
    world.system.end(first.marker)
    await world.run_until(over, S.FINISHED)
    [copy] = await world.copies()
    world.age(copy, 2 * 3600)
    world.later(16 * 60)
    await world.run()
    assert world.leases(copy) == [f"job-{waiting.marker}"]


async def two_images(database: Database, tmp_path: Path, **images: object) -> ImageWorld:
    """A store with room for one of them."""
    world = await image_world(database, tmp_path, quotaBytes=2_300_000, **images)
    for name, blocks in (("large", 2**16), ("small", 2**13)):
        noise = b"".join(hashlib.sha256(f"{name} {number}".encode()).digest() for number in range(blocks))
        world.tenant.registry.push_image(name, "1", (tar(entry("noise", noise)),))
    return world


async def test_in_a_full_store_the_image_of_a_waiting_job_gives_way_to_one_more_pressing_and_comes_again(
    database, tmp_path
):
    world = await two_images(database, tmp_path)
    job, first = await queued(world, image="docker://reg.org/large:1")
    await delivered(world, job)
    other, second = await queued(world, image="docker://reg.org/small:1")
    assert world.image_of(await delivered(world, other))
    [large, small] = await world.copies()
    assert (large.state in UNDER_WAY, small.state) == (True, CopyState.PRESENT)
    [waiting] = await world.attempts(job)
    assert (waiting.awaits_image, world.told(waiting)) == (large.manifest_digest, {})
    assert "left the store" in (await world.told_in_history(job))[-1]["sentence"]

    world.system.end(second.marker)
    await world.run_until(other, S.FINISHED)
    world.age(small, 2 * 3600)
    await world.run(12, step_s=15)
    for since in (world.store / "trash").glob("*.since"):
        since.write_text("0.0")
    world.later(30)
    assert world.image_of(await delivered(world, job))
    assert world.leases(large) == [f"job-{first.marker}"]


async def test_a_job_that_its_system_has_not_taken_yet_waits_for_room_like_one_in_the_queue(database, tmp_path):
    world = await two_images(database, tmp_path)
    job, first = await queued(world, image="docker://reg.org/large:1")
    await delivered(world, job)
    world.system.start(first.marker)
    await world.run_until(job, S.RUNNING)
    world.system.fail("submit", Fault.BEFORE_ACCEPT)
    world.system.fail("find", Fault.UNAVAILABLE, times=20)
    [other] = await world.submit(image="docker://reg.org/small:1")
    for _ in range(4):
        await world.run()
    [attempt] = await world.attempts(other)
    [_, small] = await world.copies()
    assert (attempt.state, small.state in UNDER_WAY, "quota" in small.message) == (A.INTENDED, True, True)


async def test_a_job_that_begins_while_its_image_is_to_give_way_keeps_it_and_is_told_again(
    database, tmp_path, monkeypatch
):
    world = await two_images(database, tmp_path)
    job, first = await queued(world, image="docker://reg.org/large:1")
    await delivered(world, job)
    take_back = room.take_back

    async def begins(ports, side, marker):
        await take_back(ports, side, marker)
        assert world.told(first) == {}
        if world.system.jobs[marker].started_at is None:
            world.system.start(marker)

    monkeypatch.setattr(room, "take_back", begins)
    other, _ = await queued(world, image="docker://reg.org/small:1")
    await world.run(4)
    assert world.system.jobs[first.marker].started_at is not None
    assert world.image_of(await delivered(world, job))
    [large, _] = await world.copies()
    assert (large.state, world.leases(large)) == (CopyState.PRESENT, [f"job-{first.marker}"])
    assert (await world.attempts(other))[-1].awaits_image, "it waits for room"


async def test_an_image_that_nobody_needs_makes_room_and_is_known_to_be_gone(database, tmp_path):
    world = await image_world(database, tmp_path, quotaBytes=2**20)
    job, first = await queued(world)
    await delivered(world, job)
    world.system.end(first.marker)
    await world.run_until(job, S.FINISHED)
    [copy] = await world.copies()
    world.fill()
    world.age(copy, 2 * 3600)
    world.later(16 * 60)
    await world.run()
    assert await world.copies() == []
    again, _ = await queued(world)
    assert world.image_of(await delivered(world, again))


async def test_where_nodes_shall_have_copies_the_job_carries_the_relay_and_falls_back_to_the_store(database, tmp_path):
    world = await image_world(database, tmp_path, delivery="local", localDir="/local")
    job, _ = await queued(world, resources=Resources(nodes=2))
    attempt = await delivered(world, job)
    [copy] = await world.copies()
    folder = f"/work/.berth/markers/{attempt.marker}"
    carried = {name: world.system.files.nodes[f"{folder}/image/{name}"] for name in ("relay.json", "index", "token")}
    told = json.loads(carried["relay.json"])
    hexadecimal = copy.file_digest.removeprefix("sha256:")
    assert told["destination"] == f"/local/berth-images-alice/{hexadecimal}"
    assert told["source"] == world.told(attempt)["image"], "no scheduler here: the broadcast fails"
    assert sum(int(line.split()[0]) for line in carried["index"].splitlines()) == copy.size_bytes
    assert b"srun" in world.system.files.nodes[f"{folder}/image.sh"]

    async with world.database.transaction() as db:
        await JobStore(db).note_attempt(attempt, {"awaits_image": copy.manifest_digest})
    await delivered(world, job)
    assert world.system.files.nodes[f"{folder}/image/token"] == carried["token"], "it may be in use"


async def test_tasks_of_an_array_read_the_stores_file_wherever_copies_are_wanted(database, tmp_path):
    world = await image_world(database, tmp_path, delivery="local")
    job, _ = await queued(world, array=ArraySpec((1, 2)))
    attempt = await delivered(world, job)
    assert b"srun" not in world.system.files.nodes[f"/work/.berth/markers/{attempt.marker}/image.sh"]
    assert world.image_of(attempt)


def report(world: ImageWorld, marker: str, **last_word: object) -> None:
    """What the job says of its nodes' copies."""
    world.system.files.put(f"/work/.berth/markers/{marker}/image/report", json.dumps(last_word).encode())


async def running_with_copies(database: Database, tmp_path: Path):
    """A job that runs with an image which fills the store, and one that waits for room in it."""
    world = await two_images(database, tmp_path, delivery="local")
    job, first = await queued(world, image="docker://reg.org/large:1")
    await delivered(world, job)
    world.system.start(first.marker)
    await world.run_until(job, S.RUNNING)
    other, _ = await queued(world, image="docker://reg.org/small:1")
    await world.run(6)
    assert (await world.attempts(other))[-1].awaits_image, "the lease holds while nobody says a word"
    return world, job, first, other


async def test_a_job_whose_nodes_have_copies_gives_its_lease_back_while_it_runs(database, tmp_path):
    world, job, first, other = await running_with_copies(database, tmp_path)
    report(world, first.marker, read_from="copies", restarts=0)
    world.later(60)
    assert await delivered(world, other)
    [small] = [copy for copy in await world.copies() if copy.state is CopyState.PRESENT]
    assert "/small" in small.reference
    assert (await world.job(job)).state is S.RUNNING
    assert world.told(first) == {}, "a run that begins again waits until it is told again"


async def test_a_job_that_begins_again_gets_back_the_image_that_it_gave(database, tmp_path):
    world, job, first, other = await running_with_copies(database, tmp_path)
    token = f"/work/.berth/markers/{first.marker}/image/token"
    carried = world.system.files.nodes[token]
    report(world, first.marker, read_from="copies", restarts=0)
    world.later(60)
    second = await delivered(world, other)
    world.system.end(second.marker)
    await world.run_until(other, S.FINISHED)
    [small] = [copy for copy in await world.copies() if copy.state is CopyState.PRESENT]
    world.age(small, 2 * 3600)
    world.system.requeue(first.marker)
    await world.run_until(job, S.QUEUED)
    assert (await world.attempts(job))[-1].awaits_image
    await world.run(12, step_s=15)
    for since in (world.store / "trash").glob("*.since"):
        since.write_text("0.0")
    world.later(60)
    await delivered(world, job)
    [large] = [copy for copy in await world.copies() if "/large" in copy.reference]
    assert world.leases(large) == [f"job-{first.marker}"]
    assert world.told(first)["image"]
    assert world.system.files.nodes[token] == carried, "it may be in use"


@pytest.mark.parametrize(
    "last_word",
    [
        {"read_from": "store", "restarts": 0},
        {"read_from": "copies", "restarts": 1},
        {"read_from": "copies"},
        {"node": "n1", "outcome": "ok"},
    ],
    ids=["the store's file is read", "of another run", "nobody knows of which run", "no last word yet"],
)
async def test_without_proof_that_this_run_reads_copies_its_lease_stays(database, tmp_path, last_word):
    world, _, first, other = await running_with_copies(database, tmp_path)
    report(world, first.marker, **last_word)
    world.later(60)
    await world.run(6)
    [large] = [copy for copy in await world.copies() if copy.state is CopyState.PRESENT]
    assert world.leases(large) == [f"job-{first.marker}"]
    assert (await world.attempts(other))[-1].awaits_image
