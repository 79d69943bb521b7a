"""One question per login for all its remote jobs; each difference becomes facts. Absence is not an outcome."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from backends.base import Backend
from scheduler.model.errors import NotFound, NothingLearnt, StaleJob
from scheduler.model.ids import Marker
from scheduler.model.jobs import Attempt, InFlight, Job
from scheduler.model.runs import Ending, Observation, RemoteState
from scheduler.model.states import A
from scheduler.ports import Ports
from scheduler.reconcile.differences import (
    UNKNOWN,
    UNREACHABLE,
    facts_of,
    has_moved,
    lost,
    news_of,
    unknown_in_words,
)
from scheduler.reconcile.flights import Flights
from scheduler.reconcile.learn import broken_run, finished_run
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.runspec import awaited_image
from scheduler.reconcile.sides import Target
from scheduler.reconcile.watch_copies import WatchCopies
from scheduler.reconcile.writer import MOST_TOGETHER, Writer
from scheduler.store.changes import Change
from scheduler.store.jobs import JobStore
from scheduler.store.learning import RunStore

log = structlog.get_logger()

LOGINS_AT_ONCE = 64
LOST_AFTER_ANSWERS = 3
"""Answers that must miss a job, besides the time that must pass: one late answer proves nothing."""

FRESH = timedelta(seconds=20)
NEAR = timedelta(seconds=60)
QUIET_FACTOR = 2.0
BUSY_SHARE = 0.05
"""Most of the time that a login may spend on answering us."""

SOON_SHARE = 0.1
"""Most of it while something of interest happens there, such as submissions."""

MOST_NEWS = 1000
"""Reasons for waiting that are written after one look: thousands that change together must not delay the next."""

MOST_READ = 200
"""Jobs that moved and are read together."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Bounds of the time between two questions to one login."""

    least_s: float = 2.0
    most_s: float = 10.0


@dataclass
class Outlook:
    """What is kept in memory of one login; losing it costs nothing but time."""

    due_at: datetime
    answered_at: datetime
    took: timedelta = timedelta()
    """How long the last answer was in coming."""
    missed: Counter[Marker] = field(default_factory=Counter)
    unreachable_since: datetime | None = None


class Watch:
    """The loop that asks systems. A login is asked by one coroutine at a time, at its own pace."""

    def __init__(self, ports: Ports, *, lost_after_s: float, pace: Pace) -> None:
        self._ports, self._pace = ports, pace
        self._lost_after = timedelta(seconds=lost_after_s)
        self._flights = Flights(ports)
        self._copies = WatchCopies(ports, self._lost_after)
        self._outlooks: dict[Target, Outlook] = {}
        self._scan_at: datetime | None = None
        self.writer = Writer(ports)
        self.crew = Crew(LOGINS_AT_ONCE)

    def soon(self, target: Target) -> None:
        """Something of interest happens there: ask at the next tick; where answers are dear, once they may show it."""
        now = self._ports.clock()
        outlook = self._outlooks.setdefault(target, Outlook(now, now))
        earliest = outlook.answered_at + outlook.took / SOON_SHARE
        outlook.due_at = min(outlook.due_at, max(now + outlook.took, earliest))
        self._scan_at = min(self._scan_at or now, outlook.due_at)

    async def tick(self) -> None:
        """Ask every login that is due."""
        now = self._ports.clock()
        if self._scan_at is not None and now < self._scan_at:
            return
        flights = await self._flights.read()
        for target in [known for known in self._outlooks if known not in flights and known not in self.crew]:
            del self._outlooks[target]
        for target, group in flights.items():
            outlook = self._outlooks.setdefault(target, Outlook(now, now))
            if outlook.due_at <= now and target not in self.crew and self.crew.free > 0:
                self.crew.start(target, self._look(target, group, outlook), login="/".join(target.login))
        latest = now + timedelta(seconds=self._pace.most_s)
        self._scan_at = min((o.due_at for t, o in self._outlooks.items() if t not in self.crew), default=latest)

    async def _look(self, target: Target, flights: Sequence[InFlight], outlook: Outlook) -> None:
        began_at = self._ports.clock()
        try:
            backend = await self._ports.connections.backend(target.login, target.job_type)
            answers = await _ask(backend, flights)
        except NothingLearnt as error:
            await self._unreachable(flights, outlook, error)
            answers = None
        now = self._ports.clock()
        outlook.answered_at, outlook.took = now, now - began_at
        outlook.due_at = now + timedelta(seconds=interval_s(flights, began_at, now, self._pace))
        self._scan_at = min(self._scan_at or now, outlook.due_at)
        if answers is not None:
            await self._learn_all(backend, flights, answers, outlook)

    async def _learn_all(
        self, backend: Backend, flights: Sequence[InFlight], answers: Mapping[Marker, Observation], outlook: Outlook
    ) -> None:
        """Moves come first, before mere reasons for waiting."""
        outlook.unreachable_since = None
        await self._copies.learn([flight for flight in flights if flight.is_copy], answers)
        flights = [flight for flight in flights if not flight.is_copy]
        moved: list[tuple[InFlight, Observation]] = []
        missing: list[InFlight] = []
        news: list[tuple[InFlight, Mapping[str, Any]]] = []
        for flight in flights:
            seen = answers.get(flight.marker)
            if seen is None:
                missing.append(flight)
            elif has_moved(flight, seen):
                moved.append((flight, seen))
            elif changes := news_of(flight, seen):
                news.append((flight, changes))
        gone = {flight.marker for flight in missing}
        outlook.missed = Counter({marker: count for marker, count in outlook.missed.items() if marker in gone})
        for start in range(0, len(moved), MOST_READ):
            await self._learn_some(moved[start : start + MOST_READ])
        for flight in missing:
            with _unless_stale(flight):
                await self._missing(backend, flight, outlook)
        await self._note(news[:MOST_NEWS])

    async def _learn_some(self, moved: Sequence[tuple[InFlight, Observation]]) -> None:
        """Record what observations say that the store does not know, of many jobs at once."""
        async with self._ports.reading() as db:
            jobs = await JobStore(db).some([flight.job_id for flight, _ in moved])
            attempts = await JobStore(db).newest_attempts(list(jobs.values()))
            failed = [one.job_id for one, seen in moved if seen.ending is Ending.LAUNCH_FAILURE]
            lost = await JobStore(db).lost_attempts(failed)
        learnt = await asyncio.gather(
            *(
                self._learn(one, seen, jobs.get(one.job_id), attempts.get(one.job_id), lost.get(one.job_id, 0))
                for one, seen in moved
            ),
            return_exceptions=True,
        )
        for (flight, _), failure in zip(moved, learnt, strict=True):
            if failure is not None:  # one job that cannot be understood hides none of the others
                log.error("a move could not be recorded", job=flight.uuid, exc_info=failure)

    async def _learn(
        self, flight: InFlight, seen: Observation, job: Job | None, attempt: Attempt | None, lost: int
    ) -> None:
        with _unless_stale(flight):
            if job is None or attempt is None or (job.version, attempt.version) != flight.versions:
                raise StaleJob(f"job {flight.uuid} was changed since it was looked at")
            facts = facts_of(job, seen, self._ports.clock(), lost, awaited_image(job, attempt.run))
            news = {} if facts else news_of(flight, seen)
            finished = finished_run(job, attempt, seen) if facts and seen.state is RemoteState.ENDED else None
            found = {"missing_since": None} if attempt.missing_since is not None else {}
            if facts or news or found:
                change = Change(
                    job=job, facts=facts, fields=news, attempt=attempt, attempt_fields=found, finished=finished
                )
                await self.writer.write(change)

    async def _note(self, notes: Sequence[tuple[InFlight, Mapping[str, Any]]]) -> None:
        """Let people read what is new of jobs that stay where they are. Who was moved meanwhile is looked at again."""
        for start in range(0, len(notes), MOST_TOGETHER):
            async with self._ports.transaction() as db:
                await JobStore(db).note_in_flight(notes[start : start + MOST_TOGETHER], self._ports.clock())

    async def _missing(self, backend: Backend, flight: InFlight, outlook: Outlook) -> None:
        """An answer left the job out. Only long enough, and often enough, is it proven gone.

        It may have begun while nobody looked; only one that provably did not, and cannot any more, is placed again.
        """
        at = self._ports.clock()
        outlook.missed[flight.marker] += 1
        since, begun = flight.missing_since, True
        proven = since is not None and at - since >= self._lost_after
        if proven and outlook.missed[flight.marker] >= LOST_AFTER_ANSWERS and flight.remote_id is not None:
            try:
                begun = await backend.cancel(flight.remote_id, flight.marker)
            except NothingLearnt:
                return
        elif since is not None:
            if outlook.missed[flight.marker] >= LOST_AFTER_ANSWERS and not flight.last_message.startswith(UNKNOWN):
                await self._note([(flight, {"last_message": unknown_in_words(since)})])
            return
        async with self._ports.transaction() as db:
            store = JobStore(db)
            job = await store.get(flight.tenant, flight.uuid)
            if job.version != flight.version:
                raise StaleJob(f"job {job.uuid} was changed since it was looked at")
            attempt = await store.newest_attempt(job)
            if attempt is None:
                return
            if since is None:
                await store.note_attempt(attempt, {"missing_since": at})
                return
            log.warning("remote job lost", job=job.uuid, remote_id=flight.remote_id, since=since)
            await store.record(job, lost(job, since, begun=begun), at)
            await RunStore(db).add([broken_run(job, attempt, attempt.started_at, since)])
        self._ports.wake()

    async def _unreachable(self, flights: Sequence[InFlight], outlook: Outlook, error: NothingLearnt) -> None:
        """Say so once per outage, after the second time; states stay as they are."""
        log.warning("nothing learnt", jobs=len(flights), why=str(error), raw=getattr(error, "raw", ""))
        now = self._ports.clock()
        if outlook.unreachable_since is None:
            outlook.unreachable_since = now
            return
        words = f"{UNREACHABLE} {outlook.unreachable_since:%Y-%m-%d %H:%M:%S} UTC: {error}"
        await self._note(
            [
                (one, {"last_message": words})
                for one in flights
                if not one.is_copy and not one.last_message.startswith(UNREACHABLE)
            ]
        )


@contextlib.contextmanager
def _unless_stale(flight: InFlight) -> Iterator[None]:
    """Leave a job that someone else moved as it is."""
    try:
        yield
    except (StaleJob, NotFound) as stale:
        log.info("someone else moved the job", job=flight.uuid, why=str(stale))


async def _ask(backend: Backend, flights: Sequence[InFlight]) -> Mapping[Marker, Observation]:
    """One question for all; another one only for ids that the system has issued twice, having lost its state."""
    answers: dict[Marker, Observation] = {}
    rest = {flight.marker: flight.remote_id for flight in flights if flight.remote_id is not None}
    while rest:
        asked = {remote_id: marker for marker, remote_id in rest.items()}
        seen = await backend.observe(asked)
        answers |= {marker: seen[remote_id] for remote_id, marker in asked.items() if remote_id in seen}
        rest = {marker: remote_id for marker, remote_id in rest.items() if asked[remote_id] != marker}
    return answers


def interval_s(flights: Sequence[InFlight], began_at: datetime, now: datetime, pace: Pace) -> float:
    """Seconds until a login is asked again: sooner when something may start or end, later when asking is dear."""
    took_s = (now - began_at).total_seconds()
    if any(flight.submitted_at is not None and now - flight.submitted_at < FRESH for flight in flights):
        return min(pace.most_s, max(pace.least_s / 2, took_s / SOON_SHARE))
    wanted_s = pace.least_s if any(_is_near(flight, now) for flight in flights) else pace.least_s * QUIET_FACTOR
    return min(pace.most_s, max(wanted_s, took_s / BUSY_SHARE))


def _is_near(flight: InFlight, now: datetime) -> bool:
    if flight.attempt_state is A.CLAIMED or flight.cancel_requested_at is not None:
        return True
    return flight.expected_start_at is not None and flight.expected_start_at - now < NEAR
