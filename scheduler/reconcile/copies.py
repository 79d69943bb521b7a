"""The loop of copies: each is prepared, submitted, handed the job when it is the first to start, or withdrawn.

The lead needs none of this: it starts while Berth is down. A copy starts in vain unless the job is handed over to it,
which takes proof that the lead has not begun and never will, one guarded write, and a file that opens the copy's gate.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from backends.base import Backend
from backends.paths import gate_path
from scheduler.model.errors import (
    FileMissing,
    FileRefused,
    NotFound,
    NothingLearnt,
    StaleJob,
    SubmitError,
    SubmitRejected,
)
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.jobs import Attempt, Fact, Job, Role
from scheduler.model.runs import SubmitIntent
from scheduler.model.states import LIVE_ATTEMPTS, A, Event, S
from scheduler.ports import Ports
from scheduler.reconcile.advance import REFUSALS
from scheduler.reconcile.copying import CopyStep, at_copy, cost_in_words, named, next_step, own_trees, takes_over
from scheduler.reconcile.differences import UNREACHABLE
from scheduler.reconcile.fetch import WebRules
from scheduler.reconcile.inputs import bring_inputs, list_inputs
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.runspec import stage_plan
from scheduler.reconcile.sides import Side, Sides, place_of_job
from scheduler.reconcile.steps import Hands
from scheduler.store.copies import CopyStore
from scheduler.store.jobs import JobStore

log = structlog.get_logger()

AGAIN_S = 3.0
LONGEST_WAIT_S = 60.0
CLEARED_FOR = timedelta(days=7)
"""How long it is tried to clear away what a copy left on a system that does not answer."""

SETTLED_S = 15.0
"""Until somebody else brings a hand-over to its end, when who began it does not."""


class Copies:
    """One piece of work per attempt and process; memory holds only what is in hand and how often it failed."""

    def __init__(self, ports: Ports, web: WebRules, *, lease_s: float, at_once: int = 32) -> None:
        self._ports, self._web, self._lease_s = ports, web, lease_s
        self._sides = Sides(ports)
        self._misses: Counter[str] = Counter()
        self._in_hand: dict[Marker, tuple[Attempt, datetime]] = {}
        self.crew = Crew(at_once)
        self._steps: Mapping[CopyStep, Callable[[Job, Attempt], Awaitable[None]]] = {
            CopyStep.PREPARE: self._prepare,
            CopyStep.FIND: self._find,
            CopyStep.WAIT: self._wait,
            CopyStep.TAKE_OVER: self._take_over,
            CopyStep.WITHDRAW: self._withdraw,
            CopyStep.DECIDE: self._decide,
            CopyStep.LET_GO: self._let_go,
            CopyStep.CLEAR_AWAY: self._clear_away,
            CopyStep.NOTHING: self._leave,
        }

    async def tick(self) -> None:
        """Keep what is in hand; claim what is due, as much as there are hands."""
        await self._keep_in_hand()
        if self.crew.free <= 0:
            return
        at = self._ports.clock()
        async with self._ports.reading() as db:
            if not await CopyStore(db).is_any_due(at):
                return
        async with self._ports.transaction() as db:
            due = await CopyStore(db).claim(self._ports.process_id, self._lease_s, self.crew.free, at)
            jobs = await JobStore(db).some([attempt.job_id for attempt in due])
        for attempt in due:
            if attempt.marker not in self.crew:
                self.crew.start(attempt.marker, self._look(jobs[attempt.job_id], attempt), marker=attempt.marker)

    async def _keep_in_hand(self) -> None:
        """A step may take longer than a lease: make each last its whole length again when a third has passed."""
        at = self._ports.clock()
        for marker, (attempt, kept_at) in list(self._in_hand.items()):
            if at - kept_at >= timedelta(seconds=self._lease_s / 3):
                self._in_hand[marker] = attempt, at
                with contextlib.suppress(StaleJob):  # its step learns of it at its next write
                    async with self._ports.transaction() as db:
                        await CopyStore(db).extend(attempt, self._lease_s, at)

    async def _look(self, job: Job, attempt: Attempt) -> None:
        """Do the next step; the write with which it ends gives the attempt back."""
        self._in_hand[attempt.marker] = attempt, self._ports.clock()
        try:
            await self._steps[next_step(job, attempt)](job, attempt)
            self._misses.pop(attempt.marker, None)
            return
        except NothingLearnt as error:
            after_s = self._wait_s(attempt)
            log.warning("nothing learnt", marker=attempt.marker, why=str(error), again_s=after_s)
        except StaleJob as stale:
            after_s = AGAIN_S
            log.info("someone else moved the job", marker=attempt.marker, why=str(stale))
        finally:
            del self._in_hand[attempt.marker]
        async with self._ports.transaction() as db:
            await CopyStore(db).release(attempt, self._later(after_s))

    def _wait_s(self, attempt: Attempt) -> float:
        self._misses[attempt.marker] += 1
        return min(LONGEST_WAIT_S, AGAIN_S * 2.0 ** min(self._misses[attempt.marker] - 1, 10))

    # -- into the queue -------------------------------------------------------------------------------------------

    async def _prepare(self, job: Job, copy: Attempt) -> None:
        """PLANNED -> INTENDED -> QUEUED, by the steps that every job takes, seen from the copy's place."""

        async def keep(_: str) -> None:
            async with self._ports.transaction() as db:
                await CopyStore(db).extend(copy, self._lease_s, self._ports.clock())

        there = replace(at_copy(job, copy.number), place=copy.place)
        hands = Hands(self._ports, self._web, keep, self._sides)
        try:
            await list_inputs(there, hands)
            await bring_inputs(there, hands)
        except REFUSALS as error:
            await self._move(copy, Event.FAILED, f"{named(copy)} cannot be prepared: {error}")
            return
        backend = await self._backend(copy)
        status = await backend.stage(stage_plan(copy.marker, copy.run))
        if not status.done:
            await self._note(copy, next_look_at=self._later(AGAIN_S))
            return
        copy = await self._move(copy, Event.PREPARED, keep=True, intended_at=self._ports.clock())
        intent = SubmitIntent(copy.marker, copy.run, copy.intended_at, copy.fence)
        await self._settle(backend, copy, (await backend.submit([intent]))[copy.marker])

    async def _find(self, _: Job, copy: Attempt) -> None:
        """INTENDED, by somebody who did not live to hear the answer."""
        await self._settle(await self._backend(copy), copy, None)

    async def _settle(self, backend: Backend, copy: Attempt, outcome: RemoteId | SubmitError | None) -> None:
        if isinstance(outcome, SubmitRejected):
            await self._move(copy, Event.REFUSED, f"{named(copy)} was refused: {outcome}")
            return
        if outcome is None or isinstance(outcome, SubmitError):
            outcome = await backend.find(copy.marker, copy.intended_at)
        if outcome is None:
            await self._move(copy, Event.NEVER_ARRIVED, f"{named(copy)} never reached the system")
            return
        look_at = self._later(0.0 if copy.role is Role.MOVE else LONGEST_WAIT_S)
        words = f"{named(copy)} waits there too"
        await self._move(copy, Event.ACCEPTED, words, remote_id=outcome, next_look_at=look_at)

    async def _wait(self, _: Job, copy: Attempt) -> None:
        await self._note(copy, next_look_at=self._later(LONGEST_WAIT_S))

    async def _leave(self, _: Job, attempt: Attempt) -> None:
        await self._note(attempt, next_look_at=None)

    # -- out of it ------------------------------------------------------------------------------------------------

    async def _withdraw(self, _: Job, copy: Attempt) -> None:
        """Again and again until it is proven gone. It runs nothing meanwhile: its gate stays shut."""
        at = self._ports.clock()
        if copy.unwanted_at is None:
            copy = await self._note(copy, keep=True, unwanted_at=at, next_look_at=at)
        remote_id = copy.remote_id
        if copy.state is A.INTENDED:
            remote_id = await (await self._backend(copy)).find(copy.marker, copy.intended_at)
        if remote_id is not None:
            await (await self._backend(copy)).cancel(remote_id, copy.marker)
        await self._move(copy, Event.WITHDRAWN, f"{named(copy)} is withdrawn{cost_in_words(copy, at)}")

    async def _clear_away(self, _: Job, copy: Attempt) -> None:
        """Delete what was made for it alone. Its marker stays: that is what keeps a stray from running."""
        try:
            storage = await (await self._side(copy)).storage(self._ports)
            for directory in own_trees(copy):
                with contextlib.suppress(FileMissing):
                    await storage.delete(directory)
        except (NothingLearnt, FileRefused, NotFound) as error:
            if copy.ended_at is not None and self._ports.clock() - copy.ended_at < CLEARED_FOR:
                raise NothingLearnt(f"what {named(copy)} left cannot be cleared away: {error}") from error
            log.warning("left behind", marker=copy.marker, why=str(error))
        await self._note(copy, next_look_at=None)

    # -- the hand-over --------------------------------------------------------------------------------------------

    async def _take_over(self, job: Job, _: Attempt) -> None:
        """Say that the lead is to be withdrawn, before it is: from now on only ``_decide`` judges it."""
        at = self._ports.clock()
        async with self._ports.transaction() as db:
            lead = await JobStore(db).newest_attempt(job)
            if lead is None or lead.state is not A.QUEUED or lead.remote_id is None:
                raise StaleJob(f"job {job.uuid} waits no longer")
            if lead.unwanted_at is None:
                store = CopyStore(db)
                lead = await store.note(lead, unwanted_at=at, next_look_at=at + timedelta(seconds=SETTLED_S))
        await self._decide(job, lead)

    async def _decide(self, job: Job, lead: Attempt) -> None:
        """The lead never begins: the job is handed over. It has, or may have, begun: those who wanted it go."""
        if lead.remote_id is None:
            raise StaleJob(f"attempt {lead.marker} has no remote job")
        side = await self._side(lead)
        try:
            backend = await side.backend(self._ports, place_of_job(job).job_type)
            never_begins = await backend.withdraw(lead.remote_id, lead.marker)
        except NothingLearnt as error:
            await self._tell(job, lead, error)
            raise
        at = self._ports.clock()
        async with self._ports.transaction() as db:
            jobs, copies = JobStore(db), CopyStore(db)
            job = await jobs.find(job.id)
            attempts = await jobs.attempts(job)
            now = next((one for one in attempts if one.number == lead.number), lead)
            stays = not never_begins and now.unwanted_at is None  # a proof holds whatever others learnt
            if stays or now.number != job.attempt or now.state not in LIVE_ATTEMPTS:
                raise StaleJob(f"attempt {lead.marker} was decided on meanwhile")
            if not never_begins:
                look_at = at if next_step(job, replace(now, unwanted_at=None)) is CopyStep.LET_GO else None
                await copies.note(now, unwanted_at=None, next_look_at=look_at)
                while (copy := takes_over(attempts, now)) is not None:
                    attempts = [one for one in attempts if one.number != copy.number]
                    await copies.note(copy, unwanted_at=at, next_look_at=at)
            else:
                await self._go_on(jobs, copies, job, now, takes_over(attempts, now), at)
        self._ports.wake()

    async def _tell(self, job: Job, lead: Attempt, error: NothingLearnt) -> None:
        """Say, once, what a hand-over waits for; the lead itself is not watched meanwhile."""
        since = lead.unwanted_at or self._ports.clock()
        words = f"{UNREACHABLE} {since:%Y-%m-%d %H:%M:%S} UTC: {error}; a copy waits to take over from {lead.system_id}"
        async with self._ports.transaction() as db:
            jobs = JobStore(db)
            now = await jobs.find(job.id)
            if not now.last_message.startswith(UNREACHABLE):
                await jobs.note(now, {"last_message": words}, self._ports.clock())

    async def _go_on(
        self, jobs: JobStore, copies: CopyStore, job: Job, lead: Attempt, copy: Attempt | None, at: datetime
    ) -> None:
        """What becomes of a job whose lead was withdrawn unbegun."""
        if job.cancel_requested_at is not None:
            await jobs.record(job, Fact(Event.CANCELLED, message="cancelled as asked, before it started"), at)
            return
        if job.state is S.RUNNING:
            put_back = Fact(Event.REQUEUED, {"remote_started_at": None}, message="the site called it running too soon")
            job = await jobs.record(job, put_back, at)
            lead = await jobs.newest_attempt(job) or lead
        if copy is None:
            words = "it was withdrawn for a copy that is gone; it is placed again"
            await jobs.record(job, Fact(Event.LOST, message=words), at)
            return
        how = "starts first" if copy.state is A.CLAIMED else "has its place in the queue"
        await copies.hand_over(job, lead, copy, f"{named(copy)} {how}, and takes over from {lead.system_id}", at)

    async def _let_go(self, _: Job, lead: Attempt) -> None:
        """Open the gate of a copy that leads now; again after a crash, until it is known to be open."""
        side = await self._side(lead)
        try:
            storage = await side.storage(self._ports)
            await storage.write(gate_path(side.system, side.login_user, lead.marker), _one(b"go\n"))
        except FileRefused as error:
            raise NothingLearnt(str(error)) from error
        await self._note(lead, go_at=self._ports.clock(), next_look_at=None)

    # -- below ----------------------------------------------------------------------------------------------------

    async def _side(self, attempt: Attempt) -> Side:
        return await self._sides.of(attempt.tenant, attempt.system_id, attempt.owner)

    async def _backend(self, copy: Attempt) -> Backend:
        if copy.place is None:
            raise ValueError(f"copy {copy.marker} has no place")
        return await (await self._side(copy)).backend(self._ports, copy.place.job_type)

    async def _move(
        self, copy: Attempt, event: Event, message: str = "", *, keep: bool = False, **changes: Any
    ) -> Attempt:
        async with self._ports.transaction() as db:
            moved = await CopyStore(db).move(copy, event, self._ports.clock(), message, keep=keep, **changes)
        self._ports.wake()
        return moved

    async def _note(self, attempt: Attempt, *, keep: bool = False, **changes: Any) -> Attempt:
        async with self._ports.transaction() as db:
            return await CopyStore(db).note(attempt, keep=keep, **changes)

    def _later(self, seconds: float) -> datetime:
        return self._ports.clock() + timedelta(seconds=seconds)


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data
