"""Runs that nobody waits for, as owners of systems see them."""

from __future__ import annotations

from datetime import timedelta

from scheduler.model.ids import LoginKey, RemoteId, marker_for, new_job_uuid
from scheduler.model.runs import JobType
from scheduler.store.strays import StrayStore
from tests.api.world import BEGIN, World

STRAYS = "/v3/systems/alder/strays"
APART = timedelta(minutes=1)


async def test_owners_see_what_two_looks_agreed_on_and_others_do_not(world: World):
    marker = marker_for(new_job_uuid(), 1)
    login = LoginKey("dev", "alder", "ada")
    for at in (BEGIN, BEGIN + APART):
        assert await world.get(STRAYS) == []
        async with world.ports.transaction() as db:
            await StrayStore(db).note(login, JobType.BATCH, {marker: RemoteId("7")}, at, APART)
    [stray] = await world.get(STRAYS)
    assert stray == {
        "marker": marker,
        "remoteJobId": "7",
        "owner": "ada",
        "standing": "UNKNOWN",
        "message": "nothing here knows it; it may be another Berth's, and is left alone",
        "firstSeenAt": "2026-03-01T12:00:00.000000Z",
        "lastSeenAt": "2026-03-01T12:01:00.000000Z",
    }
    assert (await world.call("GET", STRAYS, user="bob")).status_code in (403, 404)
    assert (await world.call("GET", "/v3/systems/nowhere/strays")).status_code == 404
