"""Apps over HTTP."""

from tests.api.world import APP, JOB, World


async def test_the_newest_enabled_version_is_the_latest(world: World):
    response = await world.call("POST", "/v3/apps", {**APP, "version": "0.2"})
    assert response.status_code == 201
    assert response.json()["result"]["url"].endswith("/v3/apps/hello/0.2")
    assert (await world.get("/v3/apps/hello"))["version"] == "0.2"
    await world.post("/v3/apps/hello/0.2/disable")
    assert (await world.get("/v3/apps/hello"))["version"] == "0.1"
    assert await world.get("/v3/apps/hello/isEnabled?version=0.2") == {"aBool": False}
    assert await world.get("/v3/apps/hello/isEnabled") == {"aBool": True}


async def test_an_app_that_is_sent_back_as_it_came_is_accepted(world: World):
    shown = await world.get("/v3/apps/hello/0.1")
    await world.post("/v3/apps", {**shown, "version": "copy"})
    assert (await world.get("/v3/apps/hello/copy"))["jobAttributes"] == shown["jobAttributes"]


async def test_a_patch_reaches_into_the_job_attributes(world: World):
    await world.change("PATCH", "/v3/apps/hello/0.1", {"description": "d", "jobAttributes": {"nodeCount": 2}})
    app = await world.get("/v3/apps/hello/0.1")
    assert (app["description"], app["jobAttributes"]["nodeCount"]) == ("d", 2)
    assert app["jobAttributes"]["execSystemId"] == "alder"


async def test_a_locked_version_is_not_changed(world: World):
    await world.post("/v3/apps/hello/0.1/lock")
    refused = await world.call("PATCH", "/v3/apps/hello/0.1", {"description": "d"})
    assert refused.status_code == 409
    assert "unlock" in refused.json()["message"]
    await world.post("/v3/apps/hello/0.1/unlock")
    await world.change("PATCH", "/v3/apps/hello/0.1", {"description": "d"})


async def test_a_disabled_app_takes_no_jobs(world: World):
    await world.post("/v3/apps/hello/disable")
    refused = await world.call("POST", "/v3/jobs/submit", JOB)
    assert refused.status_code == 400
    assert "disabled" in refused.json()["message"]


async def test_others_do_not_know_of_an_app(world: World):
    assert (await world.call("GET", "/v3/apps/hello", user="bob")).status_code == 404
    taken = await world.call("POST", "/v3/apps", {**APP, "version": "9"}, user="bob")
    assert taken.status_code == 404
    refused = await world.call("POST", "/v3/jobs/submit", JOB, user="bob")
    assert "appId" in refused.json()["message"]


async def test_a_deleted_app_comes_back(world: World):
    assert await world.post("/v3/apps/hello/delete") == {"changes": 1}
    assert (await world.call("GET", "/v3/apps/hello/0.1")).status_code == 404
    assert await world.post("/v3/apps/hello/undelete") == {"changes": 1}
    assert (await world.get("/v3/apps/hello/0.1"))["id"] == "hello"


async def test_a_list_shows_id_version_and_owner(world: World):
    assert await world.get("/v3/apps?search=id.eq.hello") == [{"id": "hello", "version": "0.1", "owner": "ada"}]


async def test_an_option_that_no_job_may_set_is_refused_in_the_app(world: World):
    options = {"schedulerOptions": [{"name": "t", "arg": "--time=5"}]}
    refused = await world.call("POST", "/v3/apps", {**APP, "version": "2", "jobAttributes": {"parameterSet": options}})
    assert "use maxMinutes" in refused.json()["message"]
