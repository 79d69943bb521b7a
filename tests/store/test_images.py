"""Copies of images: wanted once, worked on by one process at a time; and who awaits one, until it is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from images.needs import Needs
from placement.problem import Stores
from scheduler.model.errors import NotFound, Stale
from scheduler.model.images import CopyState, PinnedImage
from scheduler.model.jobs import HistoryEvent
from scheduler.model.states import A, E
from scheduler.model.systems import System
from scheduler.store.facts import PlacementFacts
from scheduler.store.images import ImageStore
from scheduler.store.jobs import JobStore
from scheduler.store.systems import SystemStore
from tests.store.things import NOW, added, an_attempt, recorded, submitting

DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
LATER = NOW + timedelta(minutes=5)


async def wanted(database, digest=DIGEST, **changes):
    asked = {"reference": f"docker://reg.org/app@{digest}", "asked_by": "ann", "at": NOW}
    async with database.transaction() as db:
        return await ImageStore(db).want("dev", "cluster", "alice", digest, **{**asked, **changes})


async def claimed(database, copy, at=NOW, process_id="one"):
    async with database.transaction() as db:
        return await ImageStore(db).claim(copy, process_id, 30.0, at)


async def noted(database, copy, **changes):
    async with database.transaction() as db:
        return await ImageStore(db).note(copy, NOW, **changes)


async def awaiting(database):
    async with database.reading() as db:
        return await ImageStore(db).awaiting()


async def with_image(database):
    """A job whose first attempt awaits an image."""
    job = await recorded(database, await added(database), E.PLACED, E.INPUTS_LISTED, E.INPUTS_READY)
    async with database.transaction() as db:
        return await JobStore(db).intend(job, an_attempt(job, awaits_image=DIGEST), NOW)


async def test_a_copy_is_wanted_once_whoever_asks(database):
    first = await wanted(database)
    again = await wanted(database, asked_by="bob", at=LATER)
    assert again == first
    assert (first.state, first.next_look_at) == (CopyState.WANTED, NOW)
    with pytest.raises(NotFound):
        async with database.reading() as db:
            await ImageStore(db).get(first.id + 1)


async def test_a_copy_is_in_the_hand_of_one_process_until_its_lease_ends(database):
    copy = await wanted(database)
    mine = await claimed(database, copy)
    assert mine is not None
    assert await claimed(database, mine, process_id="two") is None
    assert await claimed(database, copy, LATER, process_id="two") is None, "an old view of it takes nothing"
    theirs = await claimed(database, mine, LATER, process_id="two")
    assert theirs is not None
    with pytest.raises(Stale):
        await noted(database, mine, state=CopyState.PRESENT)
    with pytest.raises(Stale):
        async with database.transaction() as db:
            await ImageStore(db).extend(mine, 30.0, LATER)
    present = await noted(database, theirs, state=CopyState.PRESENT, next_look_at=None, figures={"send_s": 1.5})
    assert (present.state, present.figures) == (CopyState.PRESENT, {"send_s": 1.5})


async def test_a_dead_process_holds_nothing(database):
    copy = await claimed(database, await wanted(database))
    async with database.transaction() as db:
        await JobStore(db).release_all("one")
    assert await claimed(database, copy, process_id="two") is not None


async def test_what_is_due_or_awaited_is_looked_at(database):
    due, other = await wanted(database), await wanted(database, OTHER)
    idle = await noted(database, due, state=CopyState.PRESENT, next_look_at=None)
    await noted(database, other, next_look_at=LATER)
    async with database.reading() as db:
        assert await ImageStore(db).of_interest(NOW) == []
        assert [copy.id for copy, _ in await ImageStore(db).of_interest(LATER)] == [other.id]
    await with_image(database)
    async with database.reading() as db:
        assert await ImageStore(db).of_interest(NOW) == [(idle, True)]
    held = await claimed(database, idle)
    async with database.reading() as db:
        assert await ImageStore(db).of_interest(NOW) == [(held, False)]


async def test_attempts_that_await_the_same_count_as_one(database):
    first, _ = await with_image(database), await with_image(database)
    async with database.reading() as db:
        [awaited] = await ImageStore(db).awaited()
    assert (awaited.job_id, awaited.owner, awaited.state, awaited.awaits_image) == (first.id, "ann", A.INTENDED, DIGEST)


async def test_an_attempt_that_is_over_awaits_nothing_and_others_do(database):
    over, live = await with_image(database), await with_image(database)
    await recorded(database, over, E.REFUSED)
    async with database.transaction() as db:
        assert await ImageStore(db).settle_ended() == 1
        assert await ImageStore(db).settle_ended() == 0
    assert [waiting.job_id for waiting in await awaiting(database)] == [live.id]


async def test_an_attempt_awaits_its_image_until_it_is_told_once(database):
    job = await with_image(database)
    [waiting] = await awaiting(database)
    assert (waiting.job_id, waiting.awaits_image, waiting.owner) == (job.id, DIGEST, "ann")
    event = HistoryEvent(event="JOB_USER_EVENT", detail="IMAGE", description="there", at=NOW)
    for expected in (True, False):
        async with database.transaction() as db:
            assert await ImageStore(db).settle(waiting, event) is expected
    assert await awaiting(database) == []
    async with database.reading() as db:
        lines = await JobStore(db).history("dev", job.uuid)
        assert [line.detail for line in lines].count("IMAGE") == 1


async def test_what_is_told_of_an_image_disturbs_no_other_writer(database):
    job = await with_image(database)
    [waiting] = await awaiting(database)
    async with database.reading() as db:
        attempt = await JobStore(db).newest_attempt(job)
    async with database.transaction() as db:
        await ImageStore(db).settle(waiting, None)
    await recorded(database, job, E.ACCEPTED, remote_id="1")
    async with database.reading() as db:
        now = await JobStore(db).newest_attempt(job)
    assert attempt is not None
    assert now is not None
    assert (attempt.awaits_image, now.awaits_image, now.remote_id) == (DIGEST, None, "1")


async def test_attempts_that_have_not_ended_may_still_read_an_image(database):
    job = await submitting(database)
    async with database.reading() as db:
        assert await ImageStore(db).live_markers("dev", "cluster") == [("ann", f"berth-{job.uuid}-1")]
        assert await ImageStore(db).live_markers("dev", "elsewhere") == []
    await recorded(database, job, E.REFUSED)
    async with database.reading() as db:
        assert await ImageStore(db).live_markers("dev", "cluster") == []


async def test_what_an_image_needs_is_kept_once(database):
    needs = Needs(manifest_digest=DIGEST)
    async with database.transaction() as db:
        await ImageStore(db).put_needs(DIGEST, needs, NOW)
        await ImageStore(db).put_needs(DIGEST, Needs(manifest_digest=OTHER), LATER)
    async with database.reading() as db:
        assert await ImageStore(db).needs_of([DIGEST, OTHER]) == {DIGEST: needs}


async def test_what_a_name_meant_is_kept_with_the_job(database):
    pinned = PinnedImage(
        name="docker://reg.org/app:1",
        reference=f"docker://reg.org/app@{DIGEST}",
        manifest_digest=DIGEST,
        index_digest=OTHER,
        download_bytes=7,
        resolved_at=NOW,
    )
    job = await added(database)
    async with database.transaction() as db:
        job = await JobStore(db).note(job, {"image": pinned}, NOW)
    async with database.reading() as db:
        assert (await JobStore(db).get("dev", job.uuid)).image == pinned == job.image


async def test_a_plan_is_told_of_its_own_images_and_how_fast_the_last_came(database):
    system = System(tenant="dev", id="cluster", uuid="cluster", owner="ann", host="h.example.org", can_exec=True)
    async with database.transaction() as db:
        await SystemStore(db).add(replace(system, notes={"berth": {"images": {"store": "/scratch/images"}}}))
    for number in range(25):
        copy = await wanted(database, f"sha256:{number:064x}")
        figures = {"fetched_bytes": 100.0 * number, "took_s": 10.0}  # the first was fetched for another system
        at = NOW + timedelta(minutes=number)
        await noted(database, copy, state=CopyState.PRESENT, figures=figures, present_at=at)
    await wanted(database, DIGEST)
    async with database.reading() as db:
        facts, asked = PlacementFacts(db), [f"sha256:{3:064x}", DIGEST]
        [view] = await facts.systems("dev", {"ann"}, digests=asked)
        [without] = await facts.systems("dev", {"ann"})
    assert view.stores.present == {("alice", f"sha256:{3:064x}")}
    assert view.stores.paces_bytes_per_s == tuple(10.0 * number for number in range(5, 25))
    assert without.stores == Stores()
