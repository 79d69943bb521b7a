"""One question per login for all its remote jobs; each difference becomes facts. Absence is not an outcome."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from backends.base import Backend
from scheduler.model.errors import NotFound, NothingLearnt, StaleJob
from scheduler.model.ids import Marker
from scheduler.model.jobs import InFlight, Job
from scheduler.model.runs import Observation, RemoteState
from scheduler.model.states import S
from scheduler.ports import Ports
from scheduler.reconcile.differences import UNKNOWN, facts_of, lost, news_of, same_news, unknown_in_words
from scheduler.reconcile.learn import finished_run
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.sides import Target, Targets
from scheduler.reconcile.writer import Writer
from scheduler.store.changes import Change
from scheduler.store.jobs import JobStore
from scheduler.store.learning import RunStore

log = structlog.get_logger()

PAGE = 1000
LOGINS_AT_ONCE = 64
LOST_AFTER_ANSWERS = 3
"""Answers that must miss a job, besides the time that must pass: one late answer proves nothing."""

FRESH = timedelta(seconds=20)
NEAR = timedelta(seconds=60)
QUIET_FACTOR = 2.0
BUSY_SHARE = 0.05
"""Most of the time that a login may spend on answering us."""

MOST_NEWS = 200
"""Reasons for waiting that are written after one look: thousands that change together must not delay the next."""

UNREACHABLE = "not reachable since"


@dataclass(frozen=True, slots=True)
class Pace:
    """Bounds of the time between two questions to one login."""

    least_s: float = 2.0
    most_s: float = 15.0


@dataclass
class Outlook:
    """What is kept in memory of one login; losing it costs one more look at each job, and nothing else."""

    due_at: datetime
    seen: dict[Marker, Observation] = field(default_factory=dict)
    missed: Counter[Marker] = field(default_factory=Counter)
    unreachable_since: datetime | None = None


class Watch:
    """The loop that asks systems. A login is asked by one coroutine at a time, at its own pace."""

    def __init__(self, ports: Ports, *, lost_after_s: float, pace: Pace) -> None:
        self._ports, self._pace = ports, pace
        self._lost_after = timedelta(seconds=lost_after_s)
        self._outlooks: dict[Target, Outlook] = {}
        self._scan_at: datetime | None = None
        self.writer = Writer(ports)
        self.crew = Crew(LOGINS_AT_ONCE)

    def soon(self, target: Target) -> None:
        """Something of interest happens there: ask at the next tick."""
        now = self._ports.clock()
        self._outlooks.setdefault(target, Outlook(now)).due_at = now
        self._scan_at = now

    async def tick(self) -> None:
        """Ask every login that is due."""
        now = self._ports.clock()
        if self._scan_at is not None and now < self._scan_at:
            return
        flights = await self._in_flight()
        for target in [known for known in self._outlooks if known not in flights and known not in self.crew]:
            del self._outlooks[target]
        for target, group in flights.items():
            outlook = self._outlooks.setdefault(target, Outlook(now))
            if outlook.due_at <= now and target not in self.crew and self.crew.free > 0:
                self.crew.start(target, self._look(target, group, outlook), login="/".join(target.login))
        latest = now + timedelta(seconds=self._pace.most_s)
        self._scan_at = min((o.due_at for t, o in self._outlooks.items() if t not in self.crew), default=latest)

    async def _in_flight(self) -> Mapping[Target, Sequence[InFlight]]:
        targets = Targets(self._ports)
        flights: dict[Target, list[InFlight]] = defaultdict(list)
        after_id = 0
        while True:
            async with self._ports.reading() as db:
                page = await JobStore(db).in_flight(PAGE, after_id)
            for flight in page:
                if flight.remote_id is not None and flight.state is not S.SUBMITTING_JOB:
                    key = await targets.of(flight.tenant, flight.system_id, flight.owner, flight.job_type)
                    flights[key].append(flight)
            if len(page) < PAGE:
                return flights
            after_id = page[-1].job_id

    async def _look(self, target: Target, flights: Sequence[InFlight], outlook: Outlook) -> None:
        began_at = self._ports.clock()
        try:
            backend = await self._ports.connections.backend(target.login, target.job_type)
            answers = await _ask(backend, flights)
        except NothingLearnt as error:
            await self._unreachable(flights, outlook, error)
            answers = None
        now = self._ports.clock()
        outlook.due_at = now + timedelta(seconds=interval_s(flights, began_at, now, self._pace))
        self._scan_at = min(self._scan_at or now, outlook.due_at)
        if answers is not None:
            await self._learn_all(backend, flights, answers, outlook)

    async def _learn_all(
        self, backend: Backend, flights: Sequence[InFlight], answers: Mapping[Marker, Observation], outlook: Outlook
    ) -> None:
        if outlook.unreachable_since is not None:
            outlook.unreachable_since = None
            outlook.seen.clear()  # so that every job says again why it waits
        looks = [(flight, answers.get(flight.marker)) for flight in flights]
        news: list[tuple[InFlight, Observation]] = []
        for flight, seen in sorted(looks, key=lambda look: not _moved(*look)):
            try:
                if seen is None:
                    await self._missing(backend, flight, outlook)
                elif _may_be_news(flight, seen, outlook):
                    if not _moved(flight, seen) and flight.missing_since is None:
                        news.append((flight, seen))
                        continue
                    await self._learn(flight, seen)
            except (StaleJob, NotFound) as stale:
                log.info("someone else moved the job", job=flight.uuid, why=str(stale))
                continue
            if seen is not None:
                outlook.missed.pop(flight.marker, None)
                outlook.seen[flight.marker] = seen
        await self._tell(news[:MOST_NEWS], outlook)
        for ended in outlook.seen.keys() - {flight.marker for flight in flights}:
            del outlook.seen[ended]

    async def _tell(self, news: Sequence[tuple[InFlight, Observation]], outlook: Outlook) -> None:
        """Let people read why their jobs wait, of many jobs at once; what proves to be a move is recorded as such."""
        if not news:
            return
        async with self._ports.reading() as db:
            jobs = await JobStore(db).some([flight.job_id for flight, _ in news])
        told = await asyncio.gather(
            *(self._tell_one(flight, seen, jobs.get(flight.job_id)) for flight, seen in news), return_exceptions=True
        )
        for (flight, seen), failure in zip(news, told, strict=True):
            if failure is None:
                outlook.missed.pop(flight.marker, None)
                outlook.seen[flight.marker] = seen
            elif isinstance(failure, StaleJob | NotFound):
                log.info("someone else moved the job", job=flight.uuid, why=str(failure))
            else:
                raise failure

    async def _tell_one(self, flight: InFlight, seen: Observation, job: Job | None) -> None:
        if job is None or job.version != flight.version:
            raise StaleJob(f"job {flight.uuid} was changed since it was looked at")
        if facts_of(job, seen, self._ports.clock()):
            await self._learn(flight, seen)
        elif changes := news_of(job, seen):
            await self.writer.write(Change(job=job, fields=changes))

    async def _learn(self, flight: InFlight, seen: Observation) -> None:
        """Record what an observation says that the store does not know."""
        at = self._ports.clock()
        async with self._ports.transaction() as db:
            store = JobStore(db)
            job = await store.get(flight.tenant, flight.uuid)
            if job.version != flight.version:
                raise StaleJob(f"job {job.uuid} was changed since it was looked at")
            attempt = await store.newest_attempt(job)
            if attempt is not None and attempt.missing_since is not None:
                attempt = await store.note_attempt(attempt, {"missing_since": None})
            facts = facts_of(job, seen, at)
            for fact in facts:
                job = await store.record(job, fact, at)
            if not facts and (news := news_of(job, seen)):
                await store.note(job, news, at)
            if facts and seen.state is RemoteState.ENDED and attempt is not None:
                finished = finished_run(job, attempt, seen)
                if finished is not None:
                    await RunStore(db).add(finished)
        if facts:
            self._ports.wake()

    async def _missing(self, backend: Backend, flight: InFlight, outlook: Outlook) -> None:
        """An answer left the job out. Only long enough, and often enough, is it proven gone.

        It may have begun while nobody looked; only one that provably did not, and cannot any more, is placed again.
        """
        at = self._ports.clock()
        outlook.missed[flight.marker] += 1
        outlook.seen.pop(flight.marker, None)
        since, begun = flight.missing_since, True
        proven = since is not None and at - since >= self._lost_after
        if proven and outlook.missed[flight.marker] >= LOST_AFTER_ANSWERS and flight.remote_id is not None:
            try:
                begun = await backend.cancel(flight.remote_id, flight.marker)
            except NothingLearnt:
                return
        elif since is not None:
            if outlook.missed[flight.marker] >= LOST_AFTER_ANSWERS:
                await self._say(flight, unknown_in_words(since), UNKNOWN)
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
        self._ports.wake()

    async def _unreachable(self, flights: Sequence[InFlight], outlook: Outlook, error: NothingLearnt) -> None:
        """Say so once per outage, after the second time; states stay as they are."""
        log.warning("nothing learnt", jobs=len(flights), why=str(error), raw=getattr(error, "raw", ""))
        now = self._ports.clock()
        if outlook.unreachable_since is None:
            outlook.unreachable_since = now
            return
        words = f"{UNREACHABLE} {outlook.unreachable_since:%Y-%m-%d %H:%M:%S} UTC: {error}"
        for flight in flights:
            try:
                await self._say(flight, words, UNREACHABLE)
            except (StaleJob, NotFound):
                continue

    async def _say(self, flight: InFlight, words: str, opening: str) -> None:
        """Write ``words`` unless people read words that open like them already."""
        async with self._ports.transaction() as db:
            store = JobStore(db)
            job = await store.get(flight.tenant, flight.uuid)
            if job.version == flight.version and not job.last_message.startswith(opening):
                await store.note(job, {"last_message": words}, self._ports.clock())


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
    wanted_s = pace.least_s if any(_is_near(flight, now) for flight in flights) else pace.least_s * QUIET_FACTOR
    if any(flight.submitted_at is not None and now - flight.submitted_at < FRESH for flight in flights):
        wanted_s = pace.least_s / 2
    return min(pace.most_s, max(wanted_s, took_s / BUSY_SHARE))


def _is_near(flight: InFlight, now: datetime) -> bool:
    if flight.state is S.RUNNING or flight.cancel_requested_at is not None:
        return True
    return flight.expected_start_at is not None and flight.expected_start_at - now < NEAR


def _moved(flight: InFlight, seen: Observation | None) -> bool:
    """Whether the job is elsewhere than we know; these come first, before mere reasons for waiting."""
    if seen is None:
        return False
    return seen.state is RemoteState.ENDED or (flight.state is S.RUNNING) != (seen.state is RemoteState.RUNNING)


def _may_be_news(flight: InFlight, seen: Observation, outlook: Outlook) -> bool:
    """Whether the job itself must be read: something differs from the last look, or there was none."""
    before = outlook.seen.get(flight.marker)
    if before is None or flight.missing_since is not None or _moved(flight, seen):
        return True
    return seen.restarts != before.restarts or not same_news(before, seen)
