"""Queued jobs are thought over now and then.

They are moved when another place is better by far, copied where that was asked, and copies that became a loss are taken
back.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from placement.moves import Further, SecondThought, Standing
from placement.problem import Ask, PlaceKey, Problem
from placement.race import Rules, Spent
from scheduler.model.errors import NotFound, SpecInvalid, StaleJob
from scheduler.model.jobs import Attempt, Job, Role
from scheduler.model.macros import MacroUnknown, PathRefused
from scheduler.model.plan import Estimate
from scheduler.model.states import LIVE_ATTEMPTS, A, S
from scheduler.model.systems import System
from scheduler.ports import Ports
from scheduler.reconcile.copying import copy_of, named
from scheduler.reconcile.sides import Sides
from scheduler.store.copies import CopyStore
from scheduler.store.jobs import JobStore

log = structlog.get_logger()

Thinker = Callable[[Problem, Mapping[str, Standing], Rules, Spent], Mapping[str, SecondThought]]

REVIEW_S = 300.0
BATCH = 200
MOST_COPIES = 8
"""Copies made of one job, those that failed included; then it stays where it is."""

SPENT_FOR = timedelta(days=7)
"""How far back submissions count against the mean that is allowed."""

UNMOVED_JOBS = 10
"""Jobs that count as placed and never moved before those that are known: the first may be moved, too."""


class Wish(NamedTuple):
    """A copy that a job should have, and why."""

    role: Role
    estimate: Estimate
    why: str


class KeepRight:
    """The loop of second thoughts. A job is due again ``review_s`` later, whatever became of the thought."""

    def __init__(
        self, ports: Ports, thinker: Thinker, rules: Rules, *, review_s: float = REVIEW_S, batch: int = BATCH
    ) -> None:
        self._ports, self._thinker, self._rules, self._sides = ports, thinker, rules, Sides(ports)
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
        asks = [Ask.of(job) for job in jobs]
        problem = await self._ports.problem(tenant, asks)
        async with self._ports.reading() as db:
            attempts = await JobStore(db).attempts_of(jobs)
            spent = await CopyStore(db).spent(tenant, problem.now - SPENT_FOR)
        systems = [view.system for view in problem.systems]
        found = {job.uuid: standing(job, attempts[job.id], systems, problem.now) for job in jobs}
        standings = {uuid: each for uuid, each in found.items() if each is not None}
        if not standings:
            return
        asked = replace(problem, asks=tuple(ask for ask in asks if ask.job_uuid in standings))
        spent = spent.more(jobs=UNMOVED_JOBS, submissions=UNMOVED_JOBS)
        thoughts = await asyncio.to_thread(self._thinker, asked, standings, self._rules, spent)
        for job in (each for each in jobs if each.uuid in thoughts):
            thought = thoughts[job.uuid]
            for key in thought.no_longer:
                await self._take_back(job, key)
            if thought.further is not None:
                await self._plan(job, wish(job, thought.further))

    async def _take_back(self, seen: Job, key: PlaceKey) -> None:
        """Ask for the end of a copy that still waits, while the lead still does."""
        at = self._ports.clock()
        try:
            async with self._ports.transaction() as db:
                job = await JobStore(db).find(seen.id)
                attempts = {one.number: one for one in await JobStore(db).attempts(job)}
                copies = [one for one in attempts.values() if _key(one) == key and one.number != job.attempt]
                copy = next((one for one in copies if one.state is A.QUEUED and one.unwanted_at is None), None)
                if copy is None or job.attempt != seen.attempt or not _waits(job, attempts.get(job.attempt)):
                    raise StaleJob(f"job {seen.uuid} was moved meanwhile")
                await CopyStore(db).take_back(copy, f"{named(copy)} would end it later than where else it waits", at)
        except StaleJob as stale:
            log.info("no copy taken back", job=seen.uuid, system=key.system_id, why=str(stale))
            return
        self._ports.wake()

    async def _plan(self, seen: Job, wanted: Wish) -> None:
        """Decide, unless an attempt was added or another leads by now; mere news of the job change nothing."""
        estimate, at = wanted.estimate, self._ports.clock()
        try:
            side = await self._sides.of(seen.tenant, estimate.system_id, seen.owner)
            async with self._ports.transaction() as db:
                job = await JobStore(db).find(seen.id)
                if (job.state, job.attempt, job.last_attempt) != (seen.state, seen.attempt, seen.last_attempt):
                    raise StaleJob(f"job {seen.uuid} was moved meanwhile")
                copy = copy_of(job, wanted.role, side, estimate, at)
                await CopyStore(db).plan(job, copy, wanted.why, at)
        except (StaleJob, NotFound, SpecInvalid, MacroUnknown, PathRefused) as error:
            log.info("no copy", job=seen.uuid, system=estimate.system_id, why=str(error))
            return
        self._ports.wake()


def standing(job: Job, attempts: Sequence[Attempt], systems: Sequence[System], now: datetime) -> Standing | None:
    """How a queued job stands; None where it stays as it is. What had begun once stays: no copy could take over."""
    lead = next((one for one in attempts if one.number == job.attempt), None)
    copies = [one for one in attempts if one.role is not Role.LEAD]
    if lead is None or not _waits(job, lead) or len(copies) >= MOST_COPIES:
        return None
    if job.observation is not None and job.observation.restarts:
        return None
    waiting = [one for one in copies if one.state in LIVE_ATTEMPTS and one.number != lead.number]
    if any(one.role is Role.MOVE or one.state is A.CLAIMED for one in waiting):
        return None
    expected_at = job.observation.expected_start_at if job.observation else None
    return Standing(
        in_line={_key(one): one.remote_id for one in (*waiting, lead)},
        lead=_key(lead),
        waited_s=(now - (lead.submitted_at or now)).total_seconds(),
        start_at_s=None if expected_at is None else max(now, expected_at).timestamp(),
        move_count=sum(one.role is Role.MOVE for one in copies),
        hedge_count=job.spec.hedge_count,
        hedges_to=frozenset(system.id for system in systems if system.takes_hedges),
        moves_to=frozenset(system.id for system in systems if system.takes_moves),
    )


def wish(job: Job, best: Further) -> Wish:
    """The copy that a queued job should have now."""
    name = f"{best.place.system_id}/{best.place.queue}" if best.place.queue else best.place.system_id
    if best.is_move:
        why = f"it moves to {name}, where its result is expected {best.sooner_s / 60:.0f} min sooner"
        return Wish(Role.MOVE, best.place, why)
    return Wish(Role.HEDGE, best.place, f"it is to wait in {job.spec.hedge_count} places; the next is {name}")


def _waits(job: Job, lead: Attempt | None) -> bool:
    """Whether the job waits where it leads, and nothing is about to end that."""
    return job.state is S.QUEUED and lead is not None and lead.state is A.QUEUED and lead.unwanted_at is None


def _key(attempt: Attempt) -> PlaceKey:
    return PlaceKey(attempt.system_id, attempt.queue)
