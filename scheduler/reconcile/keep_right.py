"""Queued jobs are thought over now and then: moved when another place is better by far, copied where that was asked."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from placement.moves import Standing, better_place, further_place, remaining_s
from placement.problem import Ask, PlaceKey, Problem
from scheduler.model.errors import NotFound, SpecInvalid, StaleJob
from scheduler.model.jobs import Attempt, Job, Role
from scheduler.model.macros import MacroUnknown, PathRefused
from scheduler.model.plan import Estimate
from scheduler.model.states import LIVE_ATTEMPTS, A, S
from scheduler.model.systems import System
from scheduler.ports import Ports
from scheduler.reconcile.copying import copy_of
from scheduler.reconcile.sides import Sides
from scheduler.store.copies import CopyStore
from scheduler.store.jobs import JobStore

log = structlog.get_logger()

Prospector = Callable[[Problem], Mapping[str, Sequence[Estimate]]]

REVIEW_S = 300.0
BATCH = 200
MOST_COPIES = 8
"""Copies made of one job, those that failed included; then it stays where it is."""


class Wish(NamedTuple):
    """A copy that a job should have, and why."""

    role: Role
    estimate: Estimate
    why: str


class KeepRight:
    """The loop of second thoughts. A job is due again ``review_s`` later, whatever became of the thought."""

    def __init__(self, ports: Ports, prospector: Prospector, *, review_s: float = REVIEW_S, batch: int = BATCH) -> None:
        self._ports, self._prospector, self._sides = ports, prospector, Sides(ports)
        self._review, self._batch = timedelta(seconds=review_s), batch

    async def tick(self) -> None:
        """Think over what is due."""
        at = self._ports.clock()
        async with self._ports.reading() as db:
            if not await CopyStore(db).is_any_for_review(at):
                return
        async with self._ports.transaction() as db:
            due = await CopyStore(db).for_review(self._batch, at, at + self._review)
        waiting: dict[str, list[Job]] = defaultdict(list)
        for job in due:
            if job.state is S.QUEUED and job.spec.may_be_copied and job.cancel_requested_at is None:
                waiting[job.tenant].append(job)
        for tenant, jobs in waiting.items():
            await self._think_over(tenant, jobs)

    async def _think_over(self, tenant: str, jobs: Sequence[Job]) -> None:
        now = self._ports.clock()
        asks = [Ask(job_uuid=j.uuid, owner=j.owner, spec=j.spec, waiting_since=j.created_at) for j in jobs]
        problem = await self._ports.problem(tenant, asks)
        async with self._ports.reading() as db:
            attempts = await JobStore(db).attempts_of(jobs)
        found = await asyncio.to_thread(self._prospector, problem)
        systems = {view.system.id: view.system for view in problem.systems}
        for job in jobs:
            wanted = wish(job, attempts[job.id], found.get(job.uuid, ()), systems, now)
            if wanted is not None:
                await self._plan(job, wanted)

    async def _plan(self, seen: Job, wanted: Wish) -> None:
        """Decide, unless an attempt was added or another leads by now; mere news of the job change nothing."""
        estimate, at = wanted.estimate, self._ports.clock()
        try:
            side = await self._sides.of(seen.tenant, estimate.system_id, seen.owner)
            async with self._ports.transaction() as db:
                job = await JobStore(db).find(seen.id)
                if (job.state, job.attempt, job.last_attempt) != (seen.state, seen.attempt, seen.last_attempt):
                    raise StaleJob(f"job {seen.uuid} was moved meanwhile")
                copy = copy_of(job, wanted.role, side, estimate.queue, at)
                await CopyStore(db).plan(job, copy, wanted.why, at)
        except (StaleJob, NotFound, SpecInvalid, MacroUnknown, PathRefused) as error:
            log.info("no copy", job=seen.uuid, system=estimate.system_id, why=str(error))
            return
        self._ports.wake()


def wish(
    job: Job, attempts: Sequence[Attempt], found: Sequence[Estimate], systems: Mapping[str, System], now: datetime
) -> Wish | None:
    """The copy that a queued job should have now, if any. What had begun once stays: no copy could take over."""
    lead = next((one for one in attempts if one.number == job.attempt), None)
    copies = [one for one in attempts if one.role is not Role.LEAD]
    if lead is None or lead.state is not A.QUEUED or lead.unwanted_at is not None or len(copies) >= MOST_COPIES:
        return None
    if job.observation is not None and job.observation.restarts:
        return None
    waiting = [one for one in copies if one.state in LIVE_ATTEMPTS and one.number != lead.number]
    if any(one.role is Role.MOVE for one in waiting):
        return None
    places = {_key(one) for one in (lead, *waiting)}
    if len(places) < job.spec.hedge_count:
        best = further_place(places, [each for each in found if systems[each.system_id].takes_hedges])
        if best is not None:
            return Wish(Role.HEDGE, best, f"it is to wait in {job.spec.hedge_count} places; the next is {_named(best)}")
    here = next((each for each in found if PlaceKey(each.system_id, each.queue) == _key(lead)), None)
    if here is None or waiting:
        return None
    standing = Standing(
        places=places,
        remaining_s=remaining_s(here, _promised_s(job, now)),
        waited_s=(now - (lead.submitted_at or now)).total_seconds(),
        move_count=sum(one.role is Role.MOVE for one in copies),
    )
    best = better_place(standing, [each for each in found if systems[each.system_id].takes_moves])
    if best is None:
        return None
    sooner_min = (standing.remaining_s - best.total_p50_s) / 60
    return Wish(
        Role.MOVE, best, f"it moves to {_named(best)}, where its result is expected {sooner_min:.0f} min sooner"
    )


def _key(attempt: Attempt) -> PlaceKey:
    return PlaceKey(attempt.system_id, attempt.queue)


def _named(place: Estimate) -> str:
    return f"{place.system_id}/{place.queue}" if place.queue else place.system_id


def _promised_s(job: Job, now: datetime) -> float | None:
    """Seconds until the start that the site expects; None: it says nothing."""
    expected_at = job.observation.expected_start_at if job.observation else None
    return None if expected_at is None else (expected_at - now).total_seconds()
