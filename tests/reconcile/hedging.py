"""A world with two clusters, in which jobs wait in both."""

from __future__ import annotations

from dataclasses import replace

from scheduler.model.jobs import Attempt, Job
from scheduler.model.states import TERMINAL, A, S
from scheduler.model.systems import Credential, System
from scheduler.store.database import Database
from scheduler.store.systems import CredentialStore, SystemStore
from tests.fakes.system import FakeSystem
from tests.reconcile.world import CLUSTER, World, prepared

SECOND = replace(CLUSTER, id="second", uuid="second")
HEDGED = {"dynamic": True, "exec_system_id": None, "hedge_count": 2}


async def prepared_twice(database: Database, **notes: object) -> None:
    """The systems ``cluster`` and ``second``; both allow copies unless notes say otherwise."""
    said = {"berth": {"allowCopies": True, **notes}}
    await prepared(database, replace(CLUSTER, notes=said))
    await add_system(database, replace(SECOND, notes=said))


async def add_system(database: Database, system: System) -> None:
    async with database.transaction() as db:
        await SystemStore(db).add(system)
        await CredentialStore(db).put(Credential(tenant="dev", system_id=system.id, user="alice", login_user="alice"))


def two_clusters(database: Database) -> World:
    return World(database, FakeSystem(), others={"second": FakeSystem(next_id=5000)})


async def hedged(world: World) -> tuple[Job, Attempt, Attempt]:
    """A job that waits in both places: the job, its lead and its copy."""
    [job] = await world.submit(**HEDGED)
    for _ in range(20):
        await world.run()
        attempts = await world.attempts(job)
        if [one.state for one in attempts] == [A.QUEUED, A.QUEUED]:
            return await world.job(job), *attempts
    raise AssertionError([(one.system_id, one.state) for one in attempts])


def system_of(world: World, attempt: Attempt) -> FakeSystem:
    return world.others.get(attempt.system_id, world.system)


def both(world: World) -> tuple[FakeSystem, ...]:
    return world.system, *world.others.values()


def runs(world: World) -> list[str]:
    """A line for each payload that began, in any place."""
    return [marker for system in both(world) for marker in system.runs]


def site_ends(world: World) -> None:
    """What has begun comes to its end."""
    for system in both(world):
        system.pass_gates()
        for fake in system.jobs.values():
            if fake.begun and fake.ended_at is None:
                system.end(fake.marker, output=b"once\n")


def site_starts(world: World) -> None:
    """What waits gets its nodes."""
    for system in both(world):
        for fake in list(system.jobs.values()):
            if fake.started_at is None and fake.ended_at is None:
                system.start(fake.marker)


async def finished(world: World, job: Job) -> Job:
    """The job's end, when nothing else starts."""
    return await world.run_until(job, S.FINISHED, each=lambda: site_ends(world))


async def finished_anyhow(world: World, job: Job) -> Job:
    """The job's end, when everything starts that waits."""

    def site_works() -> None:
        site_starts(world)
        site_ends(world)

    return await world.run_until(job, S.FINISHED, ticks=200, each=site_works)


async def is_over(world: World, job: Job) -> bool:
    """Whether the job has ended and every attempt of it is over."""
    over = {A.WITHDRAWN, A.LOST, A.ENDED}
    return (await world.job(job)).state in TERMINAL and {one.state for one in await world.attempts(job)} <= over
