"""Jobs over HTTP."""

import json
from typing import Any

import pytest

from scheduler.model.images import PinnedImage
from scheduler.model.jobs import Gang, Role
from scheduler.model.states import A
from scheduler.store.copies import CopyStore
from scheduler.store.jobs import JobStore
from tests.api.world import IMAGE_JOB, JOB, World
from tests.store.things import NOW, an_attempt

BERTH = IMAGE_JOB["notes"]["berth"]


async def test_a_submitted_job_comes_back_with_everything_resolved(world: World):
    job = await world.submit()
    uuid = job["uuid"]
    assert job["status"] == "PENDING"
    assert (job["execSystemId"], job["execSystemLogicalQueue"], job["jobType"]) == ("alder", "short", "BATCH")
    assert job["execSystemExecDir"] == f"/scratch/ada/jobs/{uuid}"
    assert job["execSystemOutputDir"] == f"/scratch/ada/jobs/{uuid}/output" == job["archiveSystemDir"]
    assert (job["nodeCount"], job["coresPerNode"], job["memoryMB"], job["maxMinutes"]) == (1, 1, 100, 10)
    assert json.loads(job["parameterSet"])["appArgs"][0]["arg"] == "hello"
    assert json.loads(job["fileInputs"]) == json.loads(job["execSystemConstraints"]) == []


async def test_a_job_without_a_system_gets_a_provisional_place(world: World):
    job = await world.post("/v3/jobs/submit", IMAGE_JOB)
    assert job["dynamicExecSystem"] is True
    assert job["execSystemId"] in ("alder", "birch")
    assert (job["appId"], job["appVersion"]) == ("berth.image", "1")


async def test_what_fits_nowhere_is_refused_with_the_reasons_and_not_stored(world: World):
    response = await world.call("POST", "/v3/jobs/submit", {**JOB, "maxMinutes": 99_999})
    assert response.status_code == 400
    body = response.json()
    assert body["status"] == "error"
    assert body["message"].startswith("JOBS_NO_MATCHING_SYSTEM")
    assert body["metadata"]["problem"]["rejections"][0]["reason"] == "WALLTIME"
    assert await world.count_jobs() == 0


@pytest.mark.parametrize("path", ["/v3/jobs/submit", "/v3/placement/plan"])
async def test_a_name_that_no_system_knows_is_refused_with_what_may_be_meant(world: World, path: str):
    response = await world.call("POST", path, {**IMAGE_JOB, "execSystemConstraints": ["canRunBach = true"]})
    assert response.status_code == 400
    assert "did you mean canRunBatch" in response.json()["message"]
    assert await world.count_jobs() == 0


async def test_what_only_berth_knows_of_a_job_reaches_its_screening(world: World):
    berth = {**IMAGE_JOB["notes"]["berth"], "maxPrice": 0.5, "outboundNetwork": True, "storageMB": 10}
    decision = await world.post("/v3/placement/plan", {**IMAGE_JOB, "notes": {"berth": berth}})
    assert decision["winner"], decision
    refused = await world.call("POST", "/v3/jobs/submit", {**IMAGE_JOB, "notes": {"berth": {**berth, "maxPrice": -1}}})
    assert refused.status_code == 400
    assert "maxPrice" in refused.json()["message"]


async def test_a_plan_says_how_likely_a_deadline_is_kept_and_one_in_the_past_is_refused(world: World):
    def due(deadline: str) -> dict[str, Any]:
        return {**IMAGE_JOB, "notes": {"berth": {**BERTH, "deadline": deadline}}}

    decision = await world.post("/v3/placement/plan", due("2126-03-01T18:00:00+01:00"))
    assert decision["winner"]["deadlineKept"] > 0.9
    assert "The deadline is kept" in decision["sentence"]
    for wrong, words in (
        ("2020-03-01T18:00:00Z", "notes.berth.deadline: lies in the past"),
        ("2126-03-01T18:00:00", "no instant with its zone"),
        ("tomorrow", "no instant with its zone"),
    ):
        refused = await world.call("POST", "/v3/jobs/submit", due(wrong))
        assert refused.status_code == 400
        assert words in refused.json()["message"]
    assert await world.count_jobs() == 0


async def test_what_a_job_is_worth_and_its_gang_are_kept(world: World):
    berth = {"valuePerHour": 2, "pricePerKwh": 0.3, "gang": {"name": "ring", "size": 3}}
    asked = {**IMAGE_JOB, "notes": {"berth": {**BERTH, **berth}}}
    submitted = await world.post("/v3/jobs/submit", asked)
    spec = (await world.job(submitted["uuid"])).spec
    assert (spec.usd_per_hour, spec.usd_per_kwh, spec.gang) == (2.0, 0.3, Gang("ring", 3))
    berth["gang"] = {"name": "ring", "size": 1}
    assert (await world.call("POST", "/v3/jobs/submit", {**asked, "notes": {"berth": berth}})).status_code == 400


async def test_an_unknown_app_is_named_in_the_refusal(world: World):
    response = await world.call("POST", "/v3/jobs/submit", {**JOB, "appId": "none"})
    assert response.status_code == 400
    assert "appId: app 'none'" in response.json()["message"]


async def test_a_key_that_comes_again_makes_no_second_job(world: World):
    headers = {"Idempotency-Key": "k-1"}
    first = await world.post("/v3/jobs/submit", JOB, headers=headers)
    again = await world.post("/v3/jobs/submit", JOB, headers=headers)
    other = await world.call("POST", "/v3/jobs/submit", {**JOB, "name": "two"}, headers=headers)
    assert first["uuid"] == again["uuid"]
    assert other.status_code == 409
    assert "k-1" in other.json()["message"]
    assert await world.count_jobs() == 1


async def test_a_batch_is_taken_whole_or_not_at_all(world: World):
    jobs = [{**JOB, "name": f"n{position}"} for position in range(50)]
    taken = (await world.post("/v3/jobs/submit/batch", {"jobs": jobs}))["jobs"]
    assert [job["status"] for job in taken] == ["PENDING"] * 50
    assert [job["name"] for job in await world.get("/v3/jobs/list?orderBy=id(asc)")] == [job["name"] for job in jobs]
    refused = await world.call("POST", "/v3/jobs/submit/batch", {"jobs": [JOB, {**JOB, "appId": "none"}]})
    assert refused.status_code == 400
    assert "jobs[1].appId" in refused.json()["message"]
    assert await world.count_jobs() == 50


async def test_in_a_batch_for_several_owners_each_needs_rights_of_their_own(world: World):
    jobs = [{**JOB, "owner": "ada"}, {**JOB, "owner": "bob"}]
    refused = await world.call("POST", "/v3/jobs/submit/batch", {"jobs": jobs}, user="admin")
    assert refused.status_code == 400
    assert "jobs[1].appId: app 'hello'" in refused.json()["message"]
    assert await world.count_jobs() == 0


async def test_a_job_is_for_its_owner_and_admins_only(world: World):
    uuid = (await world.submit())["uuid"]
    assert (await world.call("GET", f"/v3/jobs/{uuid}", user="bob")).status_code == 404
    assert (await world.call("POST", f"/v3/jobs/{uuid}/cancel", user="bob")).status_code == 404
    assert (await world.get(f"/v3/jobs/{uuid}", user="admin"))["owner"] == "ada"
    assert await world.get("/v3/jobs/list", user="bob") == []
    assert len(await world.get("/v3/jobs/list?listType=ALL_JOBS", user="admin")) == 1


async def test_a_cancel_before_submission_ends_the_job_at_once(world: World):
    uuid = (await world.submit())["uuid"]
    await world.post(f"/v3/jobs/{uuid}/cancel")
    assert await world.get(f"/v3/jobs/{uuid}/status") == {"status": "CANCELLED", "condition": "CANCELLED_BY_USER"}
    again = await world.post(f"/v3/jobs/{uuid}/cancel")
    assert "already ended" in again["message"]


async def test_a_cancel_of_a_running_job_waits_for_the_system(world: World):
    uuid = (await world.submit())["uuid"]
    await world.start(uuid)
    await world.post(f"/v3/jobs/{uuid}/cancel")
    assert (await world.get(f"/v3/jobs/{uuid}/status"))["status"] == "RUNNING"
    assert (await world.job(uuid)).cancel_requested_at is not None


async def test_history_tells_every_status_in_order(world: World):
    uuid = (await world.submit())["uuid"]
    await world.finish(uuid)
    history = await world.get(f"/v3/jobs/{uuid}/history")
    assert [line["eventDetail"] for line in history] == [
        "PENDING",
        "PROCESSING_INPUTS",
        "STAGING_INPUTS",
        "STAGING_JOB",
        "SUBMITTING_JOB",
        "QUEUED",
        "RUNNING",
        "ARCHIVING",
        "FINISHED",
    ]
    assert {line["event"] for line in history} == {"JOB_NEW_STATUS"}


async def test_resubmitting_repeats_the_request(world: World):
    first = await world.submit(name="again", tags=["t"], notes={"x": 1})
    request = await world.get(f"/v3/jobs/{first['uuid']}/resubmit_request")
    assert request == {**JOB, "name": "again", "tags": ["t"], "notes": {"x": 1}}
    second = await world.post(f"/v3/jobs/{first['uuid']}/resubmit")
    assert second["uuid"] != first["uuid"]
    assert (second["name"], second["tags"], second["notes"]) == ("again", ["t"], '{"x":1}')


async def test_a_hidden_job_is_left_out_of_lists(world: World):
    uuid = (await world.submit())["uuid"]
    await world.post(f"/v3/jobs/{uuid}/hide")
    assert await world.get("/v3/jobs/list") == []
    await world.post(f"/v3/jobs/{uuid}/unhide")
    assert len(await world.get("/v3/jobs/list")) == 1


async def test_search_takes_conditions_from_the_query(world: World):
    await world.submit(name="alpha")
    await world.submit(name="beta")
    found = await world.get("/v3/jobs/search?name.eq=alpha&status.in=PENDING,RUNNING")
    assert [job["name"] for job in found] == ["alpha"]
    assert "execSystemExecDir" in found[0]
    names = await world.get("/v3/jobs/search?name.like=*a&select=name,uuid&orderBy=name(desc)")
    assert [set(job) for job in names] == [{"name", "uuid"}] * 2
    assert [job["name"] for job in names] == ["beta", "alpha"]
    unknown = await world.call("GET", "/v3/jobs/search?colour.eq=red")
    assert unknown.status_code == 400
    assert "colour" in unknown.json()["message"]


async def test_a_cut_list_says_where_the_rest_begins(world: World):
    for name in ("a", "b", "c"):
        await world.submit(name=name)
    body = (await world.call("GET", "/v3/jobs/list?limit=2&computeTotal=True")).json()
    assert len(body["result"]) == 2
    assert body["metadata"]["totalCount"] == 3
    assert body["metadata"]["berth"]["next"] == {"skip": 2, "limit": 2}
    rest = (await world.call("GET", "/v3/jobs/list?limit=2&skip=2")).json()
    assert len(rest["result"]) == 1
    assert rest["metadata"]["totalCount"] == -1
    assert "berth" not in rest["metadata"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"arg": "-A lab"}, ["--account", "lab"]),
        ({"arg": "--account=lab"}, ["--account", "lab"]),
        ({"arg": "--exclusive"}, ["--exclusive", None]),
    ],
)
async def test_allowed_scheduler_options_reach_the_job(world: World, asked, said):
    job = await world.submit(parameterSet={"schedulerOptions": [{"name": "o", **asked}]})
    (option,) = (await world.job(job["uuid"])).spec.scheduler_options
    assert [option.name, option.value] == said


async def test_an_admin_may_submit_for_someone_else(world: World):
    refused = await world.call("POST", "/v3/jobs/submit", {**JOB, "owner": "ada"}, user="bob")
    assert refused.status_code == 403
    job = await world.post("/v3/jobs/submit", {**JOB, "owner": "ada"}, user="admin")
    assert (job["owner"], job["createdby"]) == ("ada", "admin")


async def test_a_dependency_must_be_a_job_of_the_same_owner(world: World):
    first = (await world.submit())["uuid"]
    second = await world.submit(notes={"berth": {"after": [{"uuid": first, "condition": "ok"}]}})
    assert (await world.job(second["uuid"])).spec.after[0].uuid == first
    nobodys = {"berth": {"after": [{"uuid": "00000000-0000-0000-0000-000000000000-007"}]}}
    response = await world.call("POST", "/v3/jobs/submit", {**JOB, "notes": nobodys})
    assert response.status_code == 400
    assert "notes.berth.after[0].uuid" in response.json()["message"]


async def test_the_tracking_id_is_kept_and_sent_back(world: World):
    response = await world.call("POST", "/v3/jobs/submit", JOB, headers={"X-Tapis-Tracking-ID": "ns.42"})
    assert response.json()["result"]["trackingId"] == "ns.42"
    assert response.headers["x-tapis-tracking-id"] == "ns.42"


async def test_a_plan_stores_nothing(world: World):
    why = await world.post("/v3/placement/plan", IMAGE_JOB)
    assert why["winner"]["systemId"] in ("alder", "birch")
    assert why["sentence"]
    assert await world.count_jobs() == 0


async def test_why_answers_before_the_job_was_placed(world: World):
    uuid = (await world.submit())["uuid"]
    why = await world.get(f"/v3/jobs/{uuid}/why")
    assert why["winner"] is None
    assert why["state"] == "PENDING"


async def test_why_shows_what_the_name_of_the_image_meant(world: World):
    uuid = (await world.submit())["uuid"]
    assert (await world.get(f"/v3/jobs/{uuid}/why"))["image"] is None
    pinned = PinnedImage(
        name="docker://reg.org/app:1",
        reference="docker://reg.org/app@sha256:" + "1" * 64,
        manifest_digest="sha256:" + "1" * 64,
        index_digest=None,
        download_bytes=7,
        resolved_at=NOW,
    )
    async with world.ports.transaction() as db:
        await JobStore(db).note(await world.job(uuid), {"image": pinned}, NOW)
    shown = (await world.get(f"/v3/jobs/{uuid}/why"))["image"]
    assert (shown["name"], shown["manifestDigest"]) == (pinned.name, pinned.manifest_digest)
    assert (shown["downloadBytes"], shown["isPrivate"], shown["indexDigest"]) == (7, False, None)


@pytest.mark.parametrize("hedge", [0, 4, True, "2"])
async def test_hedging_is_asked_for_by_a_small_number(world: World, hedge):
    response = await world.call("POST", "/v3/jobs/submit", {**JOB, "notes": {"berth": {"hedge": hedge}}})
    assert response.status_code == 400
    assert "hedge" in response.json()["message"]


async def test_why_tells_where_else_a_hedged_job_waits(world: World):
    uuid = (await world.post("/v3/jobs/submit", {**IMAGE_JOB, "notes": {"berth": {**BERTH, "hedge": 2}}}))["uuid"]
    job = await world.job(uuid)
    assert job.spec.hedge_count == 2
    assert (await world.get(f"/v3/jobs/{uuid}/why"))["copies"] == []
    copy = an_attempt(job, 2, system_id="birch", role=Role.HEDGE, place=job.place, state=A.QUEUED, remote_id="9")
    async with world.ports.transaction() as db:
        await JobStore(db).note(job, {"attempt": 1}, NOW)
        await CopyStore(db).plan(await JobStore(db).find(job.id), copy, "further", NOW)
    [shown] = (await world.get(f"/v3/jobs/{uuid}/why"))["copies"]
    assert (shown["systemId"], shown["kind"], shown["state"], shown["remoteJobId"]) == ("birch", "HEDGE", "QUEUED", "9")
