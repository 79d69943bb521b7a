"""Each claimed job runs through its steps: the network first, then one short transaction that says what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import structlog

from scheduler.model.errors import FileMissing, FileRefused, NotAuthorised, NotFound, NothingLearnt, StaleJob
from scheduler.model.jobs import Attempt, Fact, Job
from scheduler.model.macros import MacroUnknown, PathRefused
from scheduler.model.states import BEFORE_SUBMISSION, Condition, Event, JobState, S
from scheduler.ports import Ports
from scheduler.reconcile.archive import archive
from scheduler.reconcile.fetch import WebRules
from scheduler.reconcile.held import Held, keep_all
from scheduler.reconcile.inputs import bring_inputs, list_inputs
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.sides import Sides
from scheduler.reconcile.stage import stage
from scheduler.reconcile.steps import Hands, Step
from scheduler.reconcile.withdraw import withdraw
from scheduler.reconcile.writer import Writer
from scheduler.store.jobs import JobStore

log = structlog.get_logger()

STEPS: Mapping[JobState, Step] = MappingProxyType(
    {
        S.PROCESSING_INPUTS: list_inputs,
        S.STAGING_INPUTS: bring_inputs,
        S.STAGING_JOB: stage,
        S.QUEUED: withdraw,  # these two are due only when the user asked for their end
        S.RUNNING: withdraw,
        S.ARCHIVING: archive,
    }
)

FAILS_AS: Mapping[JobState, Condition] = MappingProxyType(
    {
        S.PROCESSING_INPUTS: Condition.JOB_UNABLE_TO_STAGE_INPUTS,
        S.STAGING_INPUTS: Condition.JOB_UNABLE_TO_STAGE_INPUTS,
        S.STAGING_JOB: Condition.JOB_UNABLE_TO_STAGE_JOB,
        S.ARCHIVING: Condition.JOB_ARCHIVING_FAILED,
    }
)
"""What a step's final refusal is called on the wire."""

REFUSALS = (FileMissing, FileRefused, NotFound, MacroUnknown, PathRefused)
"""What no retry mends."""

FULL = ("no space left", "quota exceeded", "disk quota")
"""Words of a refusal that time or people mend: before submission the job waits for it."""

LAST = frozenset({Event.ARCHIVED, Event.FAILED, Event.CANCELLED})
"""After these no step follows."""

CLAIMED = frozenset({*STEPS, S.BLOCKED})
BLOCKED_AFTER = 2
LOOK_AGAIN_S = 2.0
LONGEST_WAIT_S = 120.0


class Advance:
    """The loop of steps. What it keeps in memory is only how often in a row nothing was learnt, to wait longer."""

    def __init__(self, ports: Ports, web: WebRules, *, lease_s: float, in_hand: int) -> None:
        self._ports, self._web, self._lease_s = ports, web, lease_s
        self._misses: Counter[str] = Counter()
        self.writer = Writer(ports)
        self._sides = Sides(ports)
        self._more = False
        self._in_hand: set[Held] = set()
        self.crew = Crew(in_hand)

    async def tick(self) -> None:
        """Keep what is in hand; claim what is due and start its steps, as many as there are hands."""
        await keep_all(self._in_hand, self._ports)
        if self.crew.free <= 0:
            return
        async with self._ports.transaction() as db:
            jobs = await JobStore(db).claim(
                CLAIMED, self._ports.process_id, self._lease_s, self.crew.free, self._ports.clock()
            )
        self._more = len(jobs) == self.crew.free
        for job in jobs:
            held = Held(job, self._ports, self._lease_s, self.writer)
            self.crew.start(job.uuid, self.advance(held), job=job.uuid)

    async def advance(self, held: Held) -> None:
        """Run the steps of one job until it waits for something, then give it back."""
        wait_s: float | None = None
        self._in_hand.add(held)
        try:
            while state_of_step(held.job) in STEPS and wait_s is None:
                wait_s = await self._one_step(held)
        except StaleJob as stale:
            log.info("someone else moved the job", job=held.job.uuid, why=str(stale))
        finally:
            self._in_hand.discard(held)
        await held.let_go(wait_s)
        if self._more:  # a hand is free for what could not be claimed
            self._more = False
            self._ports.wake()

    async def _one_step(self, held: Held) -> float | None:
        """Seconds to wait before the next step; None when the job moved."""
        job = held.job
        if job.cancel_requested_at is not None and job.state not in (S.QUEUED, S.RUNNING):
            await held.record(Fact(Event.CANCELLED, message="cancelled as asked"), last=True)
            return None
        try:
            outcome = await STEPS[state_of_step(job)](job, Hands(self._ports, self._web, held.say, self._sides))
        except NothingLearnt as error:
            return await self._wait(held, error)
        except REFUSALS as error:
            if _mends_by_itself(job, error):
                return await self._wait(held, error)
            outcome = Fact(Event.FAILED, {"condition": FAILS_AS[state_of_step(job)]}, message=str(error))
        self._misses.pop(job.uuid, None)
        if outcome is None:
            return LOOK_AGAIN_S
        await self._record(held, outcome)
        return None

    async def _record(self, held: Held, outcome: Fact | Attempt) -> None:
        before = [Fact(Event.RESUMED, message="resumed")] if held.job.state is S.BLOCKED else []
        if isinstance(outcome, Attempt):
            await held.intend(outcome, *before)
        else:
            await held.record(*before, outcome, event=outcome.told, last=outcome.event in LAST)

    async def _wait(self, held: Held, error: Exception) -> float:
        """Say what is waited for; before submission a job is BLOCKED when it happens again."""
        job = held.job
        self._misses[job.uuid] += 1
        misses = self._misses[job.uuid]
        words = f"{in_words(error)}; being tried again"
        log.warning("nothing learnt", job=job.uuid, state=job.state, why=str(error), misses=misses)
        if misses >= BLOCKED_AFTER and job.state in BEFORE_SUBMISSION:
            await held.record(Fact(Event.BLOCKED, message=words))
        else:
            await held.say(words)
        return min(LONGEST_WAIT_S, LOOK_AGAIN_S * 2.0 ** min(misses - 1, 10))


def state_of_step(job: Job) -> JobState:
    """The state whose step is due: a blocked job tries the step at which it was blocked."""
    return job.resume_state if job.state is S.BLOCKED and job.resume_state else job.state


def in_words(error: Exception) -> str:
    """What keeps a job waiting, for people."""
    if isinstance(error, NotAuthorised):
        return f"the login fails: {error}"
    return str(error) or type(error).__name__


def _mends_by_itself(job: Job, error: Exception) -> bool:
    before = state_of_step(job) in BEFORE_SUBMISSION
    return before and isinstance(error, FileRefused) and any(word in str(error).lower() for word in FULL)
