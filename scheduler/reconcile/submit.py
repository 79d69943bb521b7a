"""SUBMITTING_JOB: intents of one login go together. The marker, not our memory, says what happened."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import structlog

from backends.base import Backend
from scheduler.model.errors import NothingLearnt, StaleJob, SubmitError, SubmitRejected
from scheduler.model.ids import RemoteId
from scheduler.model.jobs import Attempt, Fact
from scheduler.model.runs import SubmitIntent
from scheduler.model.states import Event, S
from scheduler.ports import Ports
from scheduler.reconcile.differences import not_due
from scheduler.reconcile.held import Held
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.sides import Target, Targets, place_of_job
from scheduler.reconcile.writer import Writer
from scheduler.store.jobs import JobStore

log = structlog.get_logger()

ASK_AGAIN_S = 3.0
NEVER_ARRIVED_WAIT_S = 10.0


class Intent(NamedTuple):
    """A held job with the attempt that was committed for it."""

    held: Held
    attempt: Attempt

    @property
    def is_first_try(self) -> bool:
        """Whether nobody can have submitted yet: no lease came between the intent and ours, and an end is not asked."""
        job = self.held.job
        return job.fence <= self.attempt.fence + 1 and job.cancel_requested_at is None


LANES = (0, 1)
"""Of each login: while one writes down what became of its intents, the system works on those of the other."""


class Submit:
    """The loop of submissions: a login's intents go together, with everything that became ready meanwhile."""

    def __init__(
        self, ports: Ports, *, lease_s: float, batch: int, accepted: Callable[[Target], None] = lambda target: None
    ) -> None:
        self._ports, self._lease_s, self._batch, self._accepted = ports, lease_s, batch, accepted
        self._waiting: dict[Target, dict[str, Intent]] = defaultdict(dict)
        self.writer = Writer(ports)
        self.crew = Crew(64)

    async def tick(self) -> None:
        """Claim jobs whose intent is committed and hand them to their login's work."""
        for target, intents in (await self._claim()).items():
            self._waiting[target] |= {intent.attempt.marker: intent for intent in intents}
            lane = next(((target, lane) for lane in LANES if (target, lane) not in self.crew), None)
            if lane is not None:
                self.crew.start(lane, self._drain(target), login="/".join(target.login))

    async def _claim(self) -> Mapping[Target, Sequence[Intent]]:
        at = self._ports.clock()
        async with self._ports.transaction() as db:
            store = JobStore(db)
            jobs = await store.claim(
                {S.SUBMITTING_JOB}, self._ports.process_id, self._lease_s, self._batch, at, busy=self._busy()
            )
            attempts = await store.newest_attempts(jobs)
        targets = Targets(self._ports)
        claimed: dict[Target, list[Intent]] = defaultdict(list)
        for job in jobs:
            if (attempt := attempts.get(job.id)) is not None:
                place = place_of_job(job)
                target = await targets.of(job.tenant, place.system_id, job.owner, place.job_type)
                claimed[target].append(Intent(Held(job, self._ports, self._lease_s, self.writer), attempt))
        return claimed

    def _busy(self) -> set[tuple[str, str]]:
        """Systems, by tenant and id, that have enough to do: what is claimed too early outlives its lease."""
        full = (target.login for target, waiting in self._waiting.items() if len(waiting) >= self._batch)
        return {(login.tenant, login.system_id) for login in full}

    async def _drain(self, target: Target) -> None:
        while waiting := self._waiting.pop(target, None):
            intents = list(waiting.values())
            for start in range(0, len(intents), self._batch):
                await self._submit_all(target, intents[start : start + self._batch])

    async def _submit_all(self, target: Target, intents: Sequence[Intent]) -> None:
        try:
            backend = await self._ports.connections.backend(target.login, target.job_type)
            first_time = [_as_asked(intent) for intent in intents if intent.is_first_try]
            outcomes = await backend.submit(first_time) if first_time else {}
        except NothingLearnt as error:
            for intent in intents:
                await _keep_waiting(intent.held, error)
            return
        settled = await asyncio.gather(
            *(self._settle(backend, intent, outcomes.get(intent.attempt.marker)) for intent in intents),
            return_exceptions=True,
        )
        for intent, failure in zip(intents, settled, strict=True):
            if failure is not None:
                log.error("submission not settled", job=intent.held.job.uuid, exc_info=failure)
        self._accepted(target)

    async def _settle(self, backend: Backend, intent: Intent, outcome: RemoteId | SubmitError | None) -> None:
        try:
            fact = await fact_of(backend, intent, outcome, self._ports.clock())
            after_s = NEVER_ARRIVED_WAIT_S if fact.event is Event.NEVER_ARRIVED else None
            await intent.held.record(fact, attempt=intent.attempt, last=True, after_s=after_s)
        except NothingLearnt as error:
            await _keep_waiting(intent.held, error)
        except StaleJob:
            await intent.held.let_go()


async def fact_of(backend: Backend, intent: Intent, outcome: RemoteId | SubmitError | None, at: datetime) -> Fact:
    """INTENDED -> QUEUED, ENDED or proven absent. What is not known is asked for; NothingLearnt: still not known."""
    job, attempt = intent.held.job, intent.attempt
    if isinstance(outcome, SubmitRejected):
        return Fact(Event.REFUSED, message=f"the system refused the job: {outcome}")
    if outcome is None or isinstance(outcome, SubmitError):
        outcome = await backend.find(attempt.marker, attempt.intended_at)
    if outcome is not None:
        known = {"remote_id": outcome, "remote_submitted_at": at}
        return Fact(Event.ACCEPTED, known | not_due(job), message="the system has the job")
    if job.cancel_requested_at is not None:
        return Fact(Event.CANCELLED, message="cancelled as asked, before it reached the system")
    return Fact(Event.NEVER_ARRIVED, message="the job never reached the system; it is placed again")


def _as_asked(intent: Intent) -> SubmitIntent:
    attempt = intent.attempt
    return SubmitIntent(attempt.marker, attempt.run, attempt.intended_at, intent.held.job.fence)


async def _keep_waiting(held: Held, error: NothingLearnt) -> None:
    """The remote job may live: the state stays, and people are told what is not reachable."""
    log.warning("submission not known", job=held.job.uuid, why=str(error))
    try:
        await held.say(f"it is not known yet whether the system has the job: {error}")
    except StaleJob:
        log.info("someone else moved the job", job=held.job.uuid)
    await held.let_go(ASK_AGAIN_S)
