"""Scheduler profiles: anyone makes them, nobody changes them, and systems and jobs keep what they took."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.model.scheduler_profiles import SchedulerProfile
from scheduler.reconcile.runspec import run_spec
from scheduler.store.systems import SystemStore
from tests.api.world import JOB, World

PROFILES = "/v3/systems/schedulerProfile"
SITE = {
    "name": "cedar-apptainer",
    "description": "Apptainer is a module there",
    "moduleLoads": [{"moduleLoadCommand": "module load", "modulesToLoad": ["gcc", "tacc/apptainer/1.4"]}],
    "hiddenOptions": ["MEM"],
}


def with_option(arg: str) -> dict[str, Any]:
    return {"parameterSet": {"schedulerOptions": [{"name": "profile", "arg": arg}]}}


async def test_a_profile_is_kept_shown_to_all_and_forgotten(world: World) -> None:
    made = await world.post(PROFILES, SITE)
    assert made["url"].endswith(f"{PROFILES}/cedar-apptainer")
    kept = await world.get(f"{PROFILES}/cedar-apptainer", user="bob")
    assert {name: kept[name] for name in SITE} == SITE
    assert kept["owner"] == "ada"
    assert await world.get(PROFILES, user="bob") == [kept]
    assert await world.change("DELETE", f"{PROFILES}/cedar-apptainer") == {"changes": 1}
    assert await world.get(PROFILES) == []
    for method in ("GET", "DELETE"):
        assert (await world.call(method, f"{PROFILES}/cedar-apptainer")).status_code == 404


async def test_a_name_is_taken_once_and_only_its_owner_or_an_admin_gives_it_back(world: World) -> None:
    await world.post(PROFILES, SITE)
    assert (await world.call("POST", PROFILES, SITE, user="bob")).status_code == 409
    assert (await world.call("DELETE", f"{PROFILES}/cedar-apptainer", user="bob")).status_code == 403
    assert (await world.call("POST", PROFILES, SITE | {"name": "b", "owner": "ada"}, user="bob")).status_code == 403
    await world.change("DELETE", f"{PROFILES}/cedar-apptainer", user="admin")


async def test_the_same_request_sent_again_makes_one_profile(world: World) -> None:
    once = {"Idempotency-Key": "k1"}
    assert await world.post(PROFILES, SITE, headers=once) == await world.post(PROFILES, SITE, headers=once)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "a/b"}, "name"),
        ({"name": None}, "name"),
        ({"hiddenOptions": ["TIME"]}, "hiddenOptions"),
        ({"colour": "blue"}, "colour"),
        *(
            ({"moduleLoads": [{"moduleLoadCommand": command, "modulesToLoad": ["x"]}]}, "moduleLoadCommand")
            for command in (
                "",
                "/home/mallory/load",
                "module load; id",
                "module use",
                "module load -f",
                "$(id)",
                "sh -c",
            )
        ),
        *(
            ({"moduleLoads": [{"moduleLoadCommand": "ml", "modulesToLoad": [name]}]}, "modulesToLoad")
            for name in (
                "",
                "/home/mallory/evil.lua",
                "a b",
                "a;id",
                "$(id)",
                "-q",
                "../x",
                "a/../b",
                "a\nb",
                "x" * 256,
            )
        ),
    ],
    ids=str,
)
async def test_what_loads_no_module_of_the_site_is_refused_by_name(world: World, changes, named) -> None:
    response = await world.call("POST", PROFILES, SITE | changes)
    assert response.status_code == 400, response.text
    assert named in response.json()["message"]
    assert await world.get(PROFILES) == []


async def test_a_system_keeps_what_its_profile_said_until_it_is_changed(world: World) -> None:
    await world.post(PROFILES, SITE)
    await world.change("PATCH", "/v3/systems/alder", {"batchSchedulerProfile": "cedar-apptainer"})
    await world.change("DELETE", f"{PROFILES}/cedar-apptainer")
    await world.change("PATCH", "/v3/systems/alder", {"description": "as before"})
    assert (await world.get("/v3/systems/alder"))["batchSchedulerProfile"] == "cedar-apptainer"
    taken = await profile_of(world, await world.submit())
    assert taken is not None
    assert [load.calls for load in taken.module_loads] == [
        (("module", "load", "gcc"), ("module", "load", "tacc/apptainer/1.4"))
    ]

    await world.post(PROFILES, SITE | {"moduleLoads": []})
    await world.change("PATCH", "/v3/systems/alder", {"batchSchedulerProfile": "cedar-apptainer"})
    again = await profile_of(world, await world.submit())
    assert again is not None
    assert again.module_loads == ()

    await world.change("PATCH", "/v3/systems/alder", {"batchSchedulerProfile": None})
    assert (await world.get("/v3/systems/alder"))["batchSchedulerProfile"] is None
    assert await profile_of(world, await world.submit()) is None


async def test_a_system_cannot_name_a_profile_that_is_not_there(world: World) -> None:
    refused = await world.call("PATCH", "/v3/systems/alder", {"batchSchedulerProfile": "none"})
    assert (refused.status_code, "batchSchedulerProfile" in refused.text) == (400, True)
    definition = {
        "id": "new",
        "systemType": "LINUX",
        "host": "h.test",
        "canExec": False,
        "batchSchedulerProfile": "none",
    }
    assert (await world.call("POST", "/v3/systems", definition)).status_code == 400
    assert (await world.call("GET", "/v3/systems/new")).status_code == 404


async def test_no_system_takes_the_name_under_which_profiles_are_found(world: World) -> None:
    definition = {"id": "schedulerProfile", "systemType": "LINUX", "host": "h.test", "canExec": False}
    refused = await world.call("POST", "/v3/systems", definition)
    assert (refused.status_code, "choose another id" in refused.text) == (400, True)


async def test_a_job_names_a_profile_in_place_of_the_systems(world: World) -> None:
    await world.post(PROFILES, SITE)
    await world.post(PROFILES, {"name": "bare"})
    await world.change("PATCH", "/v3/systems/alder", {"batchSchedulerProfile": "cedar-apptainer"})
    job = await world.submit(**with_option("--tapis-profile bare"))
    await world.change("DELETE", f"{PROFILES}/bare")
    taken = await profile_of(world, job)
    assert taken is not None
    assert (taken.name, taken.hidden_options) == ("bare", ())
    shown = (await world.get(f"/v3/jobs/{job['uuid']}"))["parameterSet"]
    assert "--tapis-profile bare" in str(shown)


async def test_a_job_cannot_name_a_profile_that_is_not_there(world: World) -> None:
    refused = await world.call("POST", "/v3/jobs/submit", JOB | with_option("--tapis-profile=none"))
    assert (refused.status_code, "there is no scheduler profile 'none'" in refused.text) == (400, True)
    assert await world.count_jobs() == 0


async def profile_of(world: World, job: Any) -> SchedulerProfile | None:
    """The profile that a run of this job would be handed over with."""
    kept = await world.job(job["uuid"])
    async with world.ports.reading() as db:
        system = await SystemStore(db).get("dev", kept.place.system_id)
    return run_spec(kept, kept.place, system, "ada").scheduler_profile
