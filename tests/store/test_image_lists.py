"""Lists of images: copies as users may see them, who uses one, and the files that users pushed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.model.errors import NotFound
from scheduler.model.images import CopyState, PinnedImage, PushedImage, PushedKind
from scheduler.model.pages import Filter, Op, Order, Page
from scheduler.store.images import ImageStore, Place
from scheduler.store.jobs import JobStore
from scheduler.store.pushed import PushedStore
from tests.store.test_images import DIGEST, LATER, OTHER, awaiting, noted, wanted, with_image
from tests.store.things import NOW

FILE = PushedImage(
    tenant="dev", user="ann", digest=DIGEST, kind=PushedKind.SIF, size_bytes=2**40, name="a", created_at=NOW
)


async def listed(database, *places, **page):
    async with database.reading() as db:
        store, asked = ImageStore(db), Page(**page)
        found = await store.list("dev", places, asked)
        assert await store.count("dev", places, replace(asked, limit=None, skip=0)) >= len(found)
        return [copy.id for copy in found]


async def test_copies_are_listed_by_place_filter_order_and_window(database):
    first, second = await wanted(database), await wanted(database, OTHER)
    await noted(database, second, state=CopyState.PRESENT, next_look_at=None)
    whole, mine, others = Place("cluster"), Place("cluster", "alice"), Place("cluster", "bob")
    assert await listed(database, whole) == await listed(database, mine) == [first.id, second.id]
    assert await listed(database, others, Place("elsewhere")) == await listed(database) == []
    present = Filter("state", Op.EQ, ("PRESENT",))
    assert await listed(database, whole, filters=(present,)) == [second.id]
    newest = Order("id", descending=True)
    assert await listed(database, whole, mine, order_by=(newest,), limit=1) == [second.id]
    assert await listed(database, whole, order_by=(newest,), skip=1) == [first.id]


async def test_who_awaits_and_who_may_read_an_image_is_told(database):
    job = await with_image(database)
    pinned = PinnedImage(
        name="app", reference="x", manifest_digest=DIGEST, index_digest=None, download_bytes=1, resolved_at=NOW
    )
    async with database.transaction() as db:
        await JobStore(db).note(job, {"image": pinned}, NOW)
        store = ImageStore(db)
        assert await store.waiting("dev", {DIGEST, OTHER}) == [("cluster", "ann", DIGEST, 1)]
        assert await store.waiting("other", {DIGEST}) == []
        assert await store.users("dev", "cluster", DIGEST) == [("ann", job.uuid)]
        assert await store.users("dev", "cluster", OTHER) == await store.users("dev", "elsewhere", DIGEST) == []


async def test_what_went_from_a_store_is_forgotten_unless_somebody_awaits_it(database):
    awaited, idle = await wanted(database), await wanted(database, OTHER)
    await with_image(database)
    for copy, digest in ((awaited, "f1"), (idle, "f2")):
        await noted(database, copy, state=CopyState.PRESENT, file_digest=digest, next_look_at=None)
    async with database.transaction() as db:
        await ImageStore(db).gone("dev", "cluster", "bob", ["f1", "f2"], LATER)
        assert len(await ImageStore(db).of_tenant("dev")) == 2
        await ImageStore(db).gone("dev", "cluster", "alice", ["f1", "f2"], LATER)
        (left,) = await ImageStore(db).of_tenant("dev")
    assert (left.id, left.state, left.next_look_at) == (awaited.id, CopyState.WANTED, LATER)
    assert await awaiting(database)


async def test_a_pin_disturbs_nobody_who_works_on_the_copy(database):
    copy = await wanted(database)
    async with database.transaction() as db:
        assert (await ImageStore(db).pin(copy.id, True, LATER)).pinned
    assert (await noted(database, copy, message="news")).pinned


async def test_pushed_files_belong_to_one_user_of_one_tenant(database):
    others = [replace(FILE, user="bob"), replace(FILE, tenant="other"), replace(FILE, digest=OTHER, name="b")]
    async with database.transaction() as db:
        store = PushedStore(db)
        for image in (FILE, *others, replace(FILE, name="again")):
            await store.put(image)
        assert await store.of("dev", "ann") == [replace(FILE, name="again"), others[2]]
        assert await store.find("dev", "bob", DIGEST) == others[0]
        assert await store.find("dev", "bob", OTHER) is None
        await store.remove("dev", "ann", DIGEST)
        with pytest.raises(NotFound, match="pushed image"):
            await store.remove("dev", "ann", DIGEST)
        assert (await store.is_used(DIGEST), await store.is_used("sha256:3")) == (True, False)
        await store.remove_all("dev", "ann")
        assert await store.of("dev", "ann") == []
        assert await store.of("other", "ann") == [others[1]]
