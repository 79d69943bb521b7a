"""A job that waits in two places runs once, whenever the process that looks after it dies."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from scheduler.model.jobs import Job
from scheduler.model.runs import RemoteState
from scheduler.model.states import TERMINAL, S
from tests.crash.fuse import Crash, Fuse, FusedConnections, fused_transactions
from tests.crash.hedged_campaign import FAULTS, HedgedCampaign, withdraws_without_claiming
from tests.reconcile.hedging import (
    HEDGED,
    both,
    is_over,
    prepared_twice,
    runs,
    site_ends,
    site_starts,
    two_clusters,
)
from tests.reconcile.world import LEASE_S, Process, World, database_in

MOST_MOMENTS = 600

FIRST = {"the lead": (0,), "the copy": (1,), "both": (0, 1)}


def site_works(world: World, first: tuple[int, ...], job: Job) -> None:
    """One step of the sites: where both hold the job, only some of them start it at first."""
    held = [
        (system, [fake for fake in system.jobs.values() if job.uuid in fake.marker and fake.ended_at is None])
        for system in both(world)
    ]
    if all(fakes for _, fakes in held):
        by_number = sorted((fake.marker, system) for system, fakes in held for fake in fakes)
        for which in first:
            marker, system = by_number[which]
            if system.jobs[marker].state is RemoteState.QUEUED:
                system.start(marker)
    site_ends(world)


async def live(world: World, job: Job, fuse: Fuse, first: tuple[int, ...]) -> None:
    """The job's life in a process with a fuse, until it is over or the process dies."""
    world.loops = Process(
        world.ports(
            connections=FusedConnections(world.connections, fuse),
            transaction=fused_transactions(world.database.transaction, fuse),
            reads=fused_transactions(world.database.reading, fuse),
        )
    )
    try:
        for _ in range(60):
            await world.run()
            site_works(world, first, job)
            if fuse.blown or await is_over(world, job):
                return
    except Crash:
        return


async def come_to_an_end(world: World, job: Job) -> Job:
    """A new process takes over, when the leases of the dead one have run out; and now everything starts."""
    world.restart()
    world.later(LEASE_S + 1)
    for _ in range(80):
        if await is_over(world, job):
            return await world.job(job)
        await world.run()
        site_starts(world)
        site_ends(world)
    raise AssertionError(f"{await world.job(job)} {[one.state for one in await world.attempts(job)]}")


@pytest.mark.parametrize(
    "first",
    ["the copy", pytest.param("the lead", marks=pytest.mark.slow), pytest.param("both", marks=pytest.mark.slow)],
)
async def test_a_process_that_dies_at_any_moment_leaves_one_run(tmp_path: Path, first: str):
    async with database_in(tmp_path) as database:
        await prepared_twice(database)
        for at in range(1, MOST_MOMENTS):
            world, fuse = two_clusters(database), Fuse(at)
            [job] = await world.submit(**HEDGED)
            await live(world, job, fuse, FIRST[first])
            ended = await come_to_an_end(world, job)
            where = f"after dying {fuse.moments[-1]} ({at})"
            assert ended.state is S.FINISHED, f"{ended.last_message} {where}"
            assert len(runs(world)) == 1, f"{runs(world)} {where}"
            history = Counter(await world.history(job))
            assert sum(history[state] for state in TERMINAL) == 1, where
            if not fuse.blown:
                assert len(await world.attempts(job)) == 2, "the job waited in one place only"
                return
    raise AssertionError("the life of a hedged job has more moments than this test tries")


@pytest.mark.parametrize(
    ("jobs", "least_struck", "least_handed_over"),
    [(100, 1, 10), pytest.param(1000, 5, 100, marks=pytest.mark.slow)],
)
async def test_hedged_jobs_run_once_each_whatever_breaks(
    tmp_path: Path, jobs: int, least_struck: int, least_handed_over: int
):
    async with database_in(tmp_path) as database:
        await prepared_twice(database)
        campaign = HedgedCampaign(two_clusters(database), jobs=jobs, seed=20261122)
        await campaign.run()
        print(dict(campaign.chaos.struck), campaign.handed_over(), "handed over")
        assert await campaign.faults() == []
        assert [fault for fault in FAULTS if campaign.chaos.struck[fault] < least_struck] == []
        assert campaign.handed_over() >= least_handed_over


def lies_about_leads(world: World, _: pytest.MonkeyPatch) -> None:
    for system in both(world):
        withdraws_without_claiming(system)


def leaves_the_gates_open(_: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.reconcile.copying.GATE_S", 0)


@pytest.mark.parametrize("mistake", [lies_about_leads, leaves_the_gates_open])
async def test_the_campaign_finds_out_what_would_run_a_job_twice(tmp_path: Path, monkeypatch, mistake):
    async with database_in(tmp_path) as database:
        await prepared_twice(database)
        world = two_clusters(database)
        mistake(world, monkeypatch)
        campaign = HedgedCampaign(world, jobs=80, seed=7)
        await campaign.run()
        assert [fault for fault in await campaign.faults() if re.search(r"ran [2-9] times", fault)]
