"""Requests that come again, at the same instant too."""

import asyncio
from dataclasses import replace

from scheduler.model.requests import JobRequest
from scheduler.model.users import Principal
from scheduler.services import jobs
from scheduler.services.idempotency import Repeatable
from scheduler.store.definitions import Definitions
from tests.api.world import JOB, open_world

ADA = Principal(tenant="dev", username="ada")


async def test_requests_that_race_under_one_key_make_one_job(tmp_path):
    async with open_world(f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite") as world:
        request = JobRequest(name="n", app_id="hello", app_version="0.1")
        repeatable = Repeatable("POST /v3/jobs/submit", "k", "digest")
        taken = await asyncio.gather(
            *(jobs.submit(world.ports, ADA, [request], repeatable=repeatable) for _ in range(8))
        )
        assert len({job.uuid for (job,) in taken}) == 1
        assert await world.count_jobs() == 1


async def test_a_cancel_that_meets_a_move_begins_again(tmp_path):
    async with open_world(f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite") as world:
        uuid = (await world.submit())["uuid"]
        await asyncio.gather(world.start(uuid), jobs.cancel(world.ports, ADA, uuid), return_exceptions=True)
        job = await world.job(uuid)
        assert job.state == "CANCELLED" or job.cancel_requested_at is not None


async def test_nothing_is_woken_or_stored_by_a_request_that_was_answered_before(tmp_path):
    async with open_world(f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite") as world:
        request = JobRequest(name="n", app_id="hello", app_version="0.1")
        repeatable = Repeatable("POST /v3/jobs/submit", "k", "digest")
        first = await jobs.submit(world.ports, ADA, [request], repeatable=repeatable)
        await jobs.cancel(world.ports, ADA, first[0].uuid)
        again = await jobs.submit(world.ports, ADA, [request], repeatable=repeatable)
        assert (again[0].uuid, again[0].state) == (first[0].uuid, "CANCELLED")


async def test_a_change_of_app_or_system_counts_from_the_next_job_on(tmp_path):
    async with open_world(f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite") as world:
        for _ in range(2):
            assert (await world.submit())["memoryMB"] == 100
        other_process = replace(world.ports, definitions=Definitions(world.ports.reading))
        world.app.state.edge = replace(world.app.state.edge, ports=other_process)
        await world.change("PATCH", "/v3/apps/hello/0.1", {"jobAttributes": {"memoryMB": 200}})
        await world.change("PATCH", "/v3/systems/alder", {"jobWorkingDir": "elsewhere"})
        world.app.state.edge = replace(world.app.state.edge, ports=world.ports)
        job = await world.submit()
        assert job["memoryMB"] == 200
        assert job["execSystemExecDir"].startswith("/elsewhere/")
        await world.change("DELETE", "/v3/systems/credential/alder/user/ada")
        refused = await world.call("POST", "/v3/jobs/submit", JOB)
        assert "no credential" in refused.json()["message"]


async def test_what_is_remembered_of_one_user_opens_nothing_to_another(tmp_path):
    async with open_world(f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite") as world:
        for _ in range(2):
            await world.submit()
        refused = await world.call("POST", "/v3/jobs/submit", JOB, user="bob")
        assert refused.status_code == 400
        assert "was not found" in refused.json()["message"]
