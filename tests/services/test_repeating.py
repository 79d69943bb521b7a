"""Requests that come again, at the same instant too."""

import asyncio

from scheduler.model.requests import JobRequest
from scheduler.model.users import Principal
from scheduler.services import jobs
from scheduler.services.idempotency import Repeatable
from tests.api.world import open_world

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
