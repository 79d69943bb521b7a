"""PENDING: jobs that may start are given places together; what was decided, and why, is stored with each."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog

from placement.filters import NOT_NOW
from placement.problem import Ask, PlaceKey, Plan, Problem, SolveLimits
from scheduler.model.errors import NotFound, SpecInvalid, StaleJob
from scheduler.model.jobs import Fact, HistoryEvent, Job, Place
from scheduler.model.macros import MacroUnknown, PathRefused, place_of
from scheduler.model.plan import Decision
from scheduler.model.states import Condition, Event, S
from scheduler.ports import Ports
from scheduler.reconcile.after import waiting_for
from scheduler.reconcile.held import Held
from scheduler.reconcile.inputs import nothing_to_bring
from scheduler.reconcile.pin import Pins
from scheduler.reconcile.runspec import identity_of
from scheduler.reconcile.sides import Sides
from scheduler.reconcile.writer import Writer
from scheduler.store.behind import waiting_behind
from scheduler.store.jobs import JobStore

log = structlog.get_logger()

Planner = Callable[[Problem, SolveLimits], Plan]

AGAIN_S = 5.0
"""Until a job that fits, but not now, is looked at again."""

AFTER_AGAIN_S = 2.0
"""Until a job that waits for others is looked at again."""

FIRST_LOOK_S = 10.0
"""How long a job that has a choice waits at most for the first look at a system that was never seen."""


class Placing:
    """The loop of placement. Jobs that became ready together are placed together."""

    def __init__(
        self,
        ports: Ports,
        planner: Planner,
        limits: SolveLimits,
        *,
        lease_s: float,
        batch: int,
        refresh: Callable[[str], Awaitable[None]],
    ) -> None:
        """refresh: bring what is known of a tenant's systems up to date, before choosing between them."""
        self._ports, self._planner, self._limits, self._refresh = ports, planner, limits, refresh
        self._lease_s, self._batch = lease_s, batch
        self.writer, self._sides = Writer(ports), Sides(ports)
        self.pins = Pins(ports)

    async def tick(self) -> None:
        """Claim what waits for a place and decide; beside that, find out what images' names mean."""
        await self.pins.keep()
        at = self._ports.clock()
        async with self._ports.transaction() as db:
            jobs = await JobStore(db).claim({S.PENDING}, self._ports.process_id, self._lease_s, self._batch, at)
        waiting_for_nothing = [
            held
            for held in (Held(job, self._ports, self._lease_s, self.writer) for job in jobs)
            if await self._may_be_placed(held)
        ]
        ready: dict[str, list[Held]] = defaultdict(list)
        for held in await self.pins.take(waiting_for_nothing):
            ready[held.job.tenant].append(held)
        for tenant, waiting in ready.items():
            await self._place_all(tenant, waiting)

    async def _may_be_placed(self, held: Held) -> bool:
        """Whether nothing that was asked for keeps the job from being placed; else it is put back, or ended."""
        job = held.job
        if job.cancel_requested_at is not None:
            await self._settle(held, Fact(Event.CANCELLED, message="cancelled as asked"))
            return False
        reason = await waiting_for(job, self._ports) if job.spec.after else None
        if isinstance(reason, Fact):
            await self._settle(held, reason)
        elif reason is not None:
            await self._keep_waiting(held, reason, AFTER_AGAIN_S)
        return reason is None

    async def _place_all(self, tenant: str, waiting: Sequence[Held]) -> None:
        if any(held.job.spec.dynamic or held.job.spec.exec_system_id is None for held in waiting):
            await self._refresh(tenant)
        async with self._ports.reading() as db:
            behind = await waiting_behind(db, tenant) if len(waiting) > 1 else {}
        asks = [Ask.of(held.job, behind.get(held.job.uuid, 0.0)) for held in waiting]
        problem = replace(await self._ports.problem(tenant, asks), last_plan=_last_plan([h.job for h in waiting]))
        plan = await asyncio.to_thread(self._planner, problem, self._limits)
        await asyncio.gather(*(self._decide(held, problem, plan.decisions[held.job.uuid]) for held in waiting))

    async def _decide(self, held: Held, problem: Problem, decision: Decision) -> None:
        unseen = _never_seen(problem, decision)
        if unseen and problem.now - held.job.created_at < timedelta(seconds=FIRST_LOOK_S):
            await self._keep_waiting(held, f"looking at {', '.join(unseen)} before choosing")
        elif decision.winner is not None:
            facts = await self._placed(held.job, decision)
            await self._settle(held, *facts, event=placement_event(decision, self._ports))
        elif any(rejection.reason in NOT_NOW for rejection in decision.rejections):
            again_s = AGAIN_S - problem.now.timestamp() % AGAIN_S  # at the same instant: a gang is seen together
            await self._keep_waiting(held, decision.sentence, again_s, decision)
        else:
            outcome = {"condition": Condition.JOB_INVALID_DEFINITION, "decision": decision}
            await self._settle(held, Fact(Event.FAILED, outcome, message=decision.sentence))

    async def _placed(self, job: Job, decision: Decision) -> Sequence[Fact]:
        """PENDING -> PROCESSING_INPUTS, and on to STAGING_JOB when there is nothing to bring; or its failure."""
        try:
            place = await self._place_of(job, decision)
        except (MacroUnknown, PathRefused, NotFound, SpecInvalid) as error:
            outcome = {"condition": Condition.JOB_INVALID_DEFINITION, "decision": decision}
            return [Fact(Event.FAILED, outcome, message=f"its directories cannot be resolved: {error}")]
        placed = Fact(Event.PLACED, {"place": place, "decision": decision}, message=decision.sentence)
        return [placed, *nothing_to_bring(job)]

    async def _place_of(self, job: Job, decision: Decision) -> Place:
        winner = decision.winner
        if winner is None:
            raise ValueError("a decision without a winner has no place")
        side = await self._sides.of(job.tenant, winner.system_id, job.owner)
        queue = side.system.queue(winner.queue) if winner.queue else None
        return place_of(job.spec, side.system, queue, identity_of(job, side.login_user))

    async def _settle(self, held: Held, *facts: Fact, event: HistoryEvent | None = None) -> None:
        try:
            await held.record(*facts, event=event, last=True)
        except StaleJob as stale:
            log.info("someone else moved the job", job=held.job.uuid, why=str(stale))
            await held.let_go()

    async def _keep_waiting(self, held: Held, words: str, again_s: float = 0, decision: Decision | None = None) -> None:
        changes: dict[str, Any] = {"last_message": words} | ({"decision": decision} if decision else {})
        try:
            await held.note(changes if words != held.job.last_message else {}, after_s=again_s)
        except StaleJob as stale:
            log.info("someone else moved the job", job=held.job.uuid, why=str(stale))
        await held.let_go(again_s)


def _last_plan(waiting: Iterable[Job]) -> Mapping[str, PlaceKey]:
    """Where jobs that are placed again were to go before."""
    chosen = {job.uuid: job.decision.winner for job in waiting if job.decision is not None}
    return {uuid: PlaceKey(winner.system_id, winner.queue) for uuid, winner in chosen.items() if winner is not None}


def _never_seen(problem: Problem, decision: Decision) -> list[str]:
    """Systems of a choice that nobody has looked at yet, by id; none where there is no choice."""
    places = [place for place in (decision.winner, *decision.losers) if place is not None]
    blank = {view.system.id for view in problem.systems if view.snapshot is None}
    return sorted({place.system_id for place in places} & blank) if len(places) > 1 else []


def placement_event(decision: Decision, ports: Ports) -> HistoryEvent:
    """The line of history that tells how a place was chosen, with the ranked candidates."""
    ranked = [decision.winner, *decision.losers]
    described = {
        "sentence": decision.sentence,
        "candidates": [
            {
                "system": one.system_id,
                "queue": one.queue,
                "p50_s": round(one.total_p50_s),
                "p90_s": round(one.total_p90_s),
            }
            for one in ranked
            if one is not None
        ],
    }
    return HistoryEvent(event="JOB_USER_EVENT", detail="PLACEMENT", description=json.dumps(described), at=ports.clock())
