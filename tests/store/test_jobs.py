from scheduler.model.states import JobState
from tests.store.things import *


async def test_smoke(database):
    job = await submitting(database)
    job = await recorded(database, job, E.ACCEPTED, remote_id="7")
    async with database.reading() as db:
        store = JobStore(db)
        assert await store.get("dev", job.uuid) == job
        a = await store.newest_attempt(job)
        assert a.state == "QUEUED" and a.remote_id == "7"
        print(await store.history("dev", job.uuid))
        print(await store.in_flight(10))
        print(await store.active_counts("dev"))
        print(await store.list("dev", "ann"), await store.count("dev", "ann"))
    await added(database)
    async with database.transaction() as db:
        got = await JobStore(db).claim([JobState.PENDING], "p", 30, 10, NOW)
        assert len(got) == 1
