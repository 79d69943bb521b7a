"""Images on systems: who sees them, who may have them brought, and what keeping and letting go do there."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from api.schemas.copies import CopyView
from images.keeper import Keeper
from images.store import StorePolicy
from scheduler.model.ids import LoginKey
from scheduler.model.images import CopyState, ImageCopy, PinnedImage
from scheduler.store.images import ImageStore
from scheduler.store.schema import attempts, jobs
from tests.api.test_images import may_unpack
from tests.api.world import IMAGE_JOB, World
from tests.fakes.registry import always
from tests.fakes.tenant import busy

STAGE, GC = "/v3/images/stage", "/v3/images/gc"
HELLO = "registry.test/hello:0.1"
FILE = bytes(2**20)
DIGEST = f"sha256:{hashlib.sha256(FILE).hexdigest()}"


@pytest.fixture
async def stored(world: World, tmp_path: Path) -> World:
    """``alder`` takes images into ``tmp_path/store``, ``birch`` takes none; bob may run jobs on alder."""
    may_unpack(world, tmp_path / "images")
    notes = {"berth": {"images": {"store": str(tmp_path / "store")}}}
    await world.change("PATCH", "/v3/systems/alder", {"notes": notes})
    await world.post("/v3/systems/perms/alder/user/bob", {"permissions": ["READ", "EXECUTE"]})
    return world


async def staged(world: World, user: str = "ada", reference: str = HELLO) -> Any:
    return (await world.post(STAGE, {"reference": reference, "systemId": "alder"}, user=user))[0]


async def brought(world: World, copy: Any) -> None:
    """As the loop leaves a copy that is there."""
    async with world.ports.transaction() as db:
        store, now = ImageStore(db), world.clock()
        there = {"state": CopyState.PRESENT, "file_digest": DIGEST, "size_bytes": len(FILE), "present_at": now}
        await store.note(await store.get(copy["id"]), now, **there, next_look_at=None)


async def sent(world: World, tmp_path: Path, owner: str = "ada", **limits: Any) -> Keeper:
    """The store of a login, with the file in it."""
    storage = await world.connections.storage(LoginKey("dev", "alder", owner))
    keeper = Keeper(StorePolicy(str(tmp_path / "store"), **limits).of(owner), storage.run_beside)
    (tmp_path / "file").write_bytes(FILE)
    await keeper.send(tmp_path / "file", DIGEST)
    return keeper


# -- to have them brought ----------------------------------------------------------------------------------------


async def test_staging_again_has_no_second_effect(stored: World):
    first, again = await staged(stored), await staged(stored)
    assert first == again
    assert (first["state"], first["systemId"], first["owner"], first["askedBy"]) == ("WANTED", "alder", "ada", "ada")
    assert first["digest"] in first["reference"]
    assert [copy["id"] for copy in await stored.get("/v3/images")] == [first["id"]]


async def test_each_login_has_a_copy_of_its_own(stored: World):
    assert (await staged(stored))["id"] != (await staged(stored, "bob"))["id"]


async def test_what_failed_is_tried_again(stored: World):
    copy = await staged(stored)
    async with stored.ports.transaction() as db:
        store = ImageStore(db)
        failed = {"state": CopyState.FAILED, "message": "no room", "next_look_at": None}
        await store.note(await store.get(copy["id"]), stored.clock(), **failed)
    again = await staged(stored)
    assert (again["id"], again["state"], again["message"]) == (copy["id"], "WANTED", "")
    async with stored.ports.reading() as db:
        assert [due.id for due, _ in await ImageStore(db).of_interest(stored.clock())] == [copy["id"]]


@pytest.mark.parametrize(
    ("body", "user", "status", "said"),
    [
        ({"systemId": "alder"}, "ada", 400, "reference: is missing"),
        ({"reference": HELLO}, "ada", 400, "name systemId for one system, or systemIds for several"),
        ({"reference": HELLO, "systemId": "alder", "systemIds": ["alder"]}, "ada", 400, "one of the two"),
        ({"reference": HELLO, "systemIds": []}, "ada", 400, "systemIds: is too short"),
        ({"reference": "no image:", "systemId": "alder"}, "ada", 400, "reference: 'no image:'"),
        ({"reference": "/scratch/a.sif", "systemId": "alder"}, "ada", 400, "lies on a system already"),
        ({"reference": "registry.test/none:1", "systemId": "alder"}, "ada", 404, "was not found"),
        ({"reference": HELLO, "systemId": "nowhere"}, "ada", 404, "system 'nowhere' was not found"),
        ({"reference": HELLO, "systemId": "birch"}, "ada", 400, "systemId: 'birch' has no store for images; let its"),
        ({"reference": HELLO, "systemIds": ["alder", "birch"]}, "bob", 404, "system 'birch' was not found"),
        ({"reference": HELLO, "systemId": "alder"}, "admin", 400, "systemId: 'alder' has no credential of admin"),
    ],
)
async def test_what_cannot_be_staged_says_why_and_leaves_nothing(
    stored: World, body: dict[str, Any], user: str, status: int, said: str
):
    response = await stored.call("POST", STAGE, body, user=user)
    assert (response.status_code, said in response.json()["message"]) == (status, True), response.text
    assert await stored.get("/v3/images", user="admin") == []


async def test_who_may_only_look_at_a_system_cannot_stage_there(stored: World):
    await stored.call("DELETE", "/v3/systems/perms/alder/user/bob/EXECUTE")
    response = await stored.call("POST", STAGE, {"reference": HELLO, "systemId": "alder"}, user="bob")
    assert (response.status_code, response.json()["message"]) == (
        403,
        "bob may not run jobs on system 'alder'; ask ada",
    )


async def test_a_server_that_unpacks_no_images_says_what_the_operator_can_do(world: World):
    response = await world.call("POST", STAGE, {"reference": HELLO, "systemId": "alder"})
    assert (response.status_code, "BERTH_IMAGE_UNPACK_LIMIT_MIB" in response.json()["message"]) == (400, True)


async def test_a_registry_that_is_down_stages_nothing(stored: World):
    stored.registry.faults.append(always(busy(503)))
    response = await stored.call("POST", STAGE, {"reference": HELLO, "systemId": "alder"})
    assert response.status_code == 503
    assert await stored.get("/v3/images") == []


# -- to look at them ---------------------------------------------------------------------------------------------


async def test_users_see_what_their_own_jobs_would_use_and_owners_of_systems_see_all(stored: World):
    ada, bob = await staged(stored), await staged(stored, "bob")
    shown = {user: [each["id"] for each in await stored.get("/v3/images", user=user)] for user in stored.users}
    assert shown == {"ada": [ada["id"], bob["id"]], "bob": [bob["id"]], "admin": [ada["id"], bob["id"]]}
    for method, path in (("GET", ""), ("POST", "/pin"), ("POST", "/unpin")):
        hidden = await stored.call(method, f"/v3/images/{ada['id']}{path}", user="bob")
        assert (hidden.status_code, hidden.json()["message"]) == (404, f"copy of an image '{ada['id']}' was not found")
    assert (await stored.call("GET", "/v3/images/999")).status_code == 404


async def test_the_list_is_searched_sorted_and_paged_like_others(stored: World):
    stored.registry.push_image("other", "1")
    first, second = await staged(stored), await staged(stored, reference="registry.test/other:1")
    await brought(stored, second)
    present = await stored.get("/v3/images", params={"search": "(state.eq.PRESENT)", "select": "id,size"})
    assert present == [{"id": second["id"], "size": len(FILE)}]
    by_name = await stored.get("/v3/images", params={"search": "reference.like.*hello*", "select": "id"})
    assert by_name == [{"id": first["id"]}]
    page = (await stored.call("GET", "/v3/images", params={"limit": 1, "computeTotal": "true"})).json()
    assert page["metadata"]["totalCount"] == 2
    assert page["metadata"]["berth"]["next"] == {"skip": 1, "limit": 1}
    wrong = await stored.call("GET", "/v3/images", params={"search": "state.eq.THERE"})
    assert (wrong.status_code, "use one of WANTED" in wrong.json()["message"]) == (400, True)


async def test_a_copy_says_which_jobs_wait_for_it_and_names_only_the_caller_s(stored: World):
    copy = await staged(stored)
    mine, others = await awaiting(stored, copy, "ada"), await awaiting(stored, copy, "bob")
    shown = await stored.get(f"/v3/images/{copy['id']}")
    assert (shown["waitingJobs"], shown["jobsCount"], shown["jobs"]) == (1, 1, [mine])
    bobs = await staged(stored, "bob")
    shown = await stored.get(f"/v3/images/{bobs['id']}")
    assert (shown["waitingJobs"], shown["jobsCount"], shown["jobs"]) == (1, 1, [])
    assert (await stored.get(f"/v3/images/{bobs['id']}", user="bob"))["jobs"] == [others]
    assert [each["waitingJobs"] for each in await stored.get("/v3/images")] == [1, 1]


async def awaiting(world: World, copy: Any, user: str) -> str:
    """A job of a user that awaits the image on alder; its uuid."""
    job = await world.post("/v3/jobs/submit", {**IMAGE_JOB, "execSystemId": "alder"}, user=user)
    await world.start(job["uuid"])
    pinned = PinnedImage(
        name=HELLO,
        reference=copy["reference"],
        manifest_digest=copy["digest"],
        index_digest=None,
        download_bytes=1,
        resolved_at=world.clock(),
    )
    async with world.ports.transaction() as db:
        await db.execute(update(jobs).where(jobs.c.uuid == job["uuid"]).values(image=pinned))
        await db.execute(update(attempts).where(attempts.c.job_uuid == job["uuid"]).values(awaits_image=copy["digest"]))
    return str(job["uuid"])


# -- to keep them, and to let them go ----------------------------------------------------------------------------


async def test_what_is_pinned_and_gone_is_brought_again(stored: World, tmp_path: Path):
    copy = await staged(stored)
    await brought(stored, copy)
    pinned = await stored.post(f"/v3/images/{copy['id']}/pin")
    assert (pinned["state"], pinned["pinned"]) == ("WANTED", True)


async def test_a_pinned_image_outlives_a_full_store_and_an_unpinned_one_does_not(stored: World, tmp_path: Path):
    keeper = await sent(stored, tmp_path)
    copy = await staged(stored)
    await brought(stored, copy)
    assert (await stored.post(f"/v3/images/{copy['id']}/pin"))["pinned"] is True
    notes = {"berth": {"images": {"store": str(tmp_path / "store"), "quotaBytes": 2**20}}}
    await stored.change("PATCH", "/v3/systems/alder", {"notes": notes})
    assert (await stored.post(GC, {"systemId": "alder"}))["released"] == []
    assert await keeper.have(DIGEST)
    assert (await stored.post(f"/v3/images/{copy['id']}/unpin"))["pinned"] is False
    assert (await stored.post(GC, {"systemId": "alder"}))["released"] == [DIGEST]
    assert await keeper.have(DIGEST) is None
    assert await stored.get("/v3/images") == []


async def test_what_a_job_awaits_comes_anew_when_it_was_let_go(stored: World, tmp_path: Path):
    await sent(stored, tmp_path)
    copy = await staged(stored)
    await awaiting(stored, copy, "ada")
    await brought(stored, copy)
    notes = {"berth": {"images": {"store": str(tmp_path / "store"), "quotaBytes": 2**20}}}
    await stored.change("PATCH", "/v3/systems/alder", {"notes": notes})
    assert (await stored.post(GC, {"systemId": "alder"}))["released"] == [DIGEST]
    assert (await stored.get(f"/v3/images/{copy['id']}"))["state"] == "WANTED"


async def test_room_is_made_in_the_caller_s_own_store_only(stored: World, tmp_path: Path):
    keeper = await sent(stored, tmp_path, "ada")
    notes = {"berth": {"images": {"store": str(tmp_path / "store"), "quotaBytes": 2**20}}}
    await stored.change("PATCH", "/v3/systems/alder", {"notes": notes})
    assert (await stored.post(GC, {"systemId": "alder"}, user="bob"))["released"] == []
    assert await keeper.have(DIGEST)
    refused = await stored.call("POST", GC, {"systemId": "birch"})
    assert (refused.status_code, "has no store for images" in refused.json()["message"]) == (400, True)


def test_the_query_of_a_url_which_may_be_a_signature_is_shown_to_nobody():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    digest = "sha256:" + "a" * 64
    copy = ImageCopy(
        id=1,
        tenant="dev",
        system_id="alder",
        owner="lab",
        manifest_digest=digest,
        reference=f"https://data.org/app.sif?sig=secret#{digest}",
        asked_by="ada",
        state=CopyState.WANTED,
        created_at=at,
        updated_at=at,
    )
    assert CopyView.of(copy).reference == "https://data.org/app.sif"


# -- to remove one ---------------------------------------------------------------------------------------------------


async def test_one_image_is_removed_from_a_store_and_the_others_stay(stored: World, tmp_path: Path):
    keeper = await sent(stored, tmp_path)
    (tmp_path / "other").write_bytes(b"other")
    other = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    await keeper.send(tmp_path / "other", other)
    copy = await staged(stored)
    await brought(stored, copy)
    assert (await stored.change("DELETE", f"/v3/images/{copy['id']}"))["changes"] == 1
    assert await keeper.have(DIGEST) is None
    assert await keeper.have(other)
    assert await stored.get("/v3/images") == []
    assert (await stored.call("DELETE", f"/v3/images/{copy['id']}")).status_code == 404


async def test_an_image_that_did_not_come_is_forgotten_unless_somebody_brings_it(stored: World):
    copy = await staged(stored)
    async with stored.ports.transaction() as db:
        store = ImageStore(db)
        await store.claim(await store.get(copy["id"]), "one", 60.0, stored.clock())
    busy_now = await stored.call("DELETE", f"/v3/images/{copy['id']}")
    assert (busy_now.status_code, "being brought" in busy_now.json()["message"]) == (409, True)
    async with stored.ports.transaction() as db:
        store = ImageStore(db)
        await store.note(await store.get(copy["id"]), stored.clock(), state=CopyState.FAILED)
    await stored.change("DELETE", f"/v3/images/{copy['id']}")
    assert await stored.get("/v3/images") == []


async def test_what_is_pinned_or_a_job_may_read_is_not_removed(stored: World, tmp_path: Path):
    keeper = await sent(stored, tmp_path)
    copy = await staged(stored)
    await brought(stored, copy)
    address = f"/v3/images/{copy['id']}"
    await stored.post(f"{address}/pin")
    pinned = await stored.call("DELETE", address)
    assert (pinned.status_code, "unpin" in pinned.json()["message"]) == (409, True)
    assert pinned.json()["metadata"]["problem"]["type"].endswith("in-use")
    await stored.post(f"{address}/unpin")
    job = await awaiting(stored, copy, "ada")
    read = await stored.call("DELETE", address)
    assert (read.status_code, "1 jobs may still read" in read.json()["message"]) == (409, True)
    assert await keeper.have(DIGEST)
    assert job in (await stored.get(address))["jobs"]


async def test_a_lease_of_a_job_that_came_meanwhile_keeps_an_image(stored: World, tmp_path: Path):
    keeper = await sent(stored, tmp_path)
    copy = await staged(stored)
    await brought(stored, copy)
    await keeper.lease(DIGEST, "job-of-a-moment-ago")
    held = await stored.call("DELETE", f"/v3/images/{copy['id']}")
    assert (held.status_code, "job-of-a-moment-ago" in held.json()["message"]) == (409, True)
    assert await keeper.have(DIGEST)
    assert (await stored.get(f"/v3/images/{copy['id']}"))["state"] == "PRESENT"


async def test_only_the_user_of_a_store_and_the_owner_of_its_system_remove_from_it(stored: World, tmp_path: Path):
    mine, theirs = await staged(stored), await staged(stored, "bob")
    assert (await stored.call("DELETE", f"/v3/images/{mine['id']}", user="bob")).status_code == 404
    await stored.change("DELETE", f"/v3/images/{theirs['id']}")  # ada owns the system
    again = await staged(stored, "bob")
    await stored.change("DELETE", f"/v3/images/{again['id']}", user="bob")
    assert [copy["id"] for copy in await stored.get("/v3/images")] == [mine["id"]]


async def test_where_all_share_one_account_only_the_owner_removes_what_all_use(stored: World):
    await stored.change("PATCH", "/v3/systems/alder", {"effectiveUserId": "shared"})
    async with stored.ports.transaction() as db:
        asked = {"reference": "docker://reg.org/app", "asked_by": "bob", "at": stored.clock()}
        copy = await ImageStore(db).want("dev", "alder", "shared", DIGEST, **asked)
    refused = await stored.call("DELETE", f"/v3/images/{copy.id}", user="bob")
    assert (refused.status_code, "lies in the store of" in refused.json()["message"]) == (403, True)
    await stored.change("DELETE", f"/v3/images/{copy.id}")
