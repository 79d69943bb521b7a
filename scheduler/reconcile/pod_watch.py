"""How instances of pods are: one question per login for all of them, and a try at every port of those that run.

What is seen is written to the instances; who decides about pods is told, and nothing is decided here. That an instance
answers is known only from its ports: a place's word alone makes no pod AVAILABLE.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from backends.base import PodHost
from backends.tails import newest
from scheduler.model.errors import NothingLearnt, PortClosed, Stale
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.pods import InstanceState, PodInstance, PodSeen
from scheduler.model.runs import Ending, Observation, RemoteState
from scheduler.ports import Ports
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.pod_rules import PUT_OFF
from scheduler.reconcile.pod_words import closed_words, queued_words, seen_of, unreachable_words
from scheduler.reconcile.sides import Target
from scheduler.store.pods import LOG_KEPT_BYTES, PodStore

log = structlog.get_logger()

I = InstanceState  # noqa: E741 - the house's short name of the table

PROBE_EVERY = timedelta(seconds=5)
"""The health interval."""

PROBE_LIMIT_S = 3.0
"""How long a try at all ports of an instance may take: with the interval it is less than an answer holds."""

PROBES_OF_LOGIN, PROBES_IN_ALL = 32, 256
"""Tries that are made at once: a place that hangs takes only its own share."""

ASK_LIMIT_S = 30.0
BUSY_SHARE = 0.05
"""Most of the time that a login may spend on answering us."""

SETTLED_EVERY_S, UNSETTLED_EVERY_S, MOST_EVERY_S = 5.0, 2.0, 30.0
COMING_UP = timedelta(seconds=60)
"""How long an instance that was handed over, or has its turn, is looked at as often as people wait for it."""

COMING_EVERY_S, COMING_SHARE = 1.0, 0.25
"""The interval then, and the most of the time that a login may spend on it."""

LOST_AFTER_ANSWERS = 3
"""Answers that must miss an instance, besides the time that must pass: one late answer proves nothing."""

TAIL_LIMIT = timedelta(minutes=2)
"""How long the end of an ended instance's log is waited for."""

LOGINS_AT_ONCE = 64

MOST_TOGETHER = 200
"""Most instances written in one transaction: it shall stay short."""

News = tuple[PodInstance, Mapping[str, Any]]
"""An instance as it was known, and what is so of it now."""


@dataclass
class Outlook:
    """What is kept in memory of one login; losing it costs nothing but time. soon_at: ask_at while one comes up."""

    ask_at: datetime
    soon_at: datetime
    probe_at: datetime
    missed: Counter[Marker] = field(default_factory=Counter)
    unreachable_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a try at the ports of an instance came to; ``words``: why it did not answer.

    is_closed: its place answered, and said that nobody listens; else nothing was learnt.
    """

    answers: bool
    words: str = ""
    is_closed: bool = False


class PodWatch:
    """The loop that looks at instances of pods."""

    def __init__(self, ports: Ports, *, lost_after_s: float) -> None:
        self._ports, self._lost_after = ports, timedelta(seconds=lost_after_s)
        self._known: dict[Marker, PodInstance] = {}
        self._outlooks: dict[Target, Outlook] = {}
        self._answering: dict[Marker, bool] = {}
        """Whether an instance is believed to answer: only what differs is told."""
        self._in_all = asyncio.Semaphore(PROBES_IN_ALL)
        self.crew = Crew(3 * LOGINS_AT_ONCE)

    async def tick(self) -> None:
        """Ask every login that is due, and try the ports of what runs there."""
        now = self._ports.clock()
        groups = await self._groups()
        for target in [known for known in self._outlooks if known not in groups]:
            del self._outlooks[target]
        for target, group in groups.items():
            outlook = self._outlooks.setdefault(target, Outlook(now, now, now))
            asking = target, "ask"
            ask_at = outlook.soon_at if any(_may_start_soon(one, now) for one in group) else outlook.ask_at
            if ask_at <= now and asking not in self.crew and self.crew.free > 0:
                self.crew.start(asking, self._ask(target, group, outlook), login="/".join(target.login))
            if outlook.probe_at <= now:
                outlook.probe_at = now + PROBE_EVERY
                self._start_probes(target, [one for one in group if one.state is I.RUNNING])
            else:
                self._start_probes(target, [one for one in group if self._may_answer_soon(one, now)])
        await self._silence(now)

    def _may_answer_soon(self, one: PodInstance, now: datetime) -> bool:
        young = one.started_at is not None and now - one.started_at < COMING_UP
        return young and one.state is I.RUNNING and not self._answering.get(one.marker)

    def _start_probes(self, target: Target, running: Sequence[PodInstance]) -> None:
        """Those that answer are tried apart from those that do not: many that hang keep none of them waiting."""
        answering = [one for one in running if self._answering.get(one.marker)]
        silent = [one for one in running if not self._answering.get(one.marker)]
        for name, some in (("answering", answering), ("silent", silent)):
            if some and (target, name) not in self.crew and self.crew.free > 0:
                self.crew.start((target, name), self._probe(target, some), login="/".join(target.login))

    async def _groups(self) -> Mapping[Target, Sequence[PodInstance]]:
        """Instances that a place took, by login; only those that changed are read again."""
        async with self._ports.reading() as db:
            versions = await PodStore(db).live_versions()
            stale = [
                marker
                for marker, version in versions.items()
                if marker not in self._known or self._known[marker].version != version
            ]
            fresh = await PodStore(db).live(stale) if stale else []
        self._known = {marker: one for marker, one in self._known.items() if marker in versions}
        self._known |= {one.marker: one for one in fresh}
        believed = {marker: one.answered_at is not None for marker, one in self._known.items()}
        self._answering = {marker: self._answering.get(marker, said) for marker, said in believed.items()}
        groups: dict[Target, list[PodInstance]] = defaultdict(list)
        for one in self._known.values():
            if one.remote_id is not None:
                groups[Target(one.login, one.job_type)].append(one)
        return groups

    # -- what places say -----------------------------------------------------------------------------------------------

    async def _ask(self, target: Target, group: Sequence[PodInstance], outlook: Outlook) -> None:
        began_at = self._ports.clock()
        ids = {one.remote_id: one.marker for one in group if one.remote_id is not None}
        try:
            answers, looks = await self._said(target, ids)
        except (NothingLearnt, TimeoutError) as error:
            await self._unreachable(group, outlook, str(error) or f"no answer within {ASK_LIMIT_S:.0f} s")
            outlook.ask_at = outlook.soon_at = self._ports.clock() + timedelta(seconds=SETTLED_EVERY_S)
            return
        now = self._ports.clock()
        outlook.unreachable_since = None
        took_s = (now - began_at).total_seconds()
        outlook.ask_at = now + timedelta(seconds=_interval_s(group, took_s))
        outlook.soon_at = now + timedelta(seconds=max(COMING_EVERY_S, took_s / COMING_SHARE))
        news: list[News] = []
        for one in group:
            if one.remote_id is None:
                continue
            seen = answers.get(one.remote_id)
            if seen is not None and seen.state is not RemoteState.ENDED:
                outlook.missed.pop(one.marker, None)
                news.append((one, _seen_now(one, seen, looks.get(one.remote_id), now)))
                continue
            with _unless_stale(one):
                if seen is None:
                    await self._missing(target, one, outlook)
                else:
                    await self._ended(target, one, seen, looks.get(one.remote_id))
        await self._write_all(news)

    async def _said(
        self, target: Target, ids: Mapping[RemoteId, Marker]
    ) -> tuple[Mapping[RemoteId, Observation], Mapping[RemoteId, PodSeen]]:
        """How they are, and what more can be said of them: nothing, where only that cannot be learnt."""
        answers: Mapping[RemoteId, Observation] | None = None
        try:
            async with asyncio.timeout(ASK_LIMIT_S):
                backend = await self._ports.connections.backend(target.login, target.job_type)
                answers = await backend.observe(ids)
                return answers, await (await self._ports.connections.pod_host(target.login)).look(ids)
        except (NothingLearnt, TimeoutError) as error:
            if answers is None:
                raise
            log.info("no look at pods", login="/".join(target.login), why=str(error) or "no answer in time")
            return answers, {}

    async def _ended(self, target: Target, one: PodInstance, seen: Observation, look: PodSeen | None) -> None:
        """It is over; the end of what it wrote is kept first, as long as there is hope for it."""
        at, ended_at = self._ports.clock(), seen.ended_at or self._ports.clock()
        try:
            text = await self._tail(target, one)
        except NothingLearnt as error:
            log.warning("no end of a pod's log", marker=one.marker, why=str(error))
            if at - ended_at < TAIL_LIMIT:
                return
            text = ""
        reason = look.reason if look is not None else ""
        words = reason or seen.reason_words or _last_line(text)
        changes: dict[str, Any] = {
            "state": I.ENDED,
            "started_at": one.started_at or seen.started_at,
            "ended_at": ended_at,
            "ending": seen.ending,
            "exit_code": seen.exit_code,
            "message": words[:500],
            "missing_since": None,
        }
        if look is not None:
            changes["seen"] = seen_of(look)
        await self._write(one, changes, text)

    async def _tail(self, target: Target, one: PodInstance) -> str:
        assert one.remote_id is not None
        backend = await self._ports.connections.backend(target.login, target.job_type)
        run, texts = one.run, []
        for name in (run.stdout, run.stderr):
            data = await newest(backend, one.remote_id, f"{run.output_dir}/{name}", LOG_KEPT_BYTES // 2)
            texts.append(data.decode("utf-8", "replace"))
        return "".join(texts)

    async def _missing(self, target: Target, one: PodInstance, outlook: Outlook) -> None:
        """An answer left it out. Only long enough, and often enough, is it proven gone, and told to be first."""
        at = self._ports.clock()
        outlook.missed[one.marker] += 1
        if one.missing_since is None:
            await self._write(one, {"missing_since": at})
            return
        if at - one.missing_since < self._lost_after or outlook.missed[one.marker] < LOST_AFTER_ANSWERS:
            return
        assert one.remote_id is not None
        backend = await self._ports.connections.backend(target.login, target.job_type)
        try:
            await backend.cancel(one.remote_id, one.marker)
        except NothingLearnt:
            return
        words = f"{one.system_id} answers and has not named it since {one.missing_since:%Y-%m-%d %H:%M:%S} UTC"
        log.warning("instance of a pod lost", marker=one.marker, since=one.missing_since)
        await self._write(one, {"state": I.ENDED, "ended_at": at, "ending": Ending.NODE_FAILURE, "message": words})

    async def _unreachable(self, group: Sequence[PodInstance], outlook: Outlook, why: str) -> None:
        """Say so once in an outage; that nothing answers is found by the ports."""
        if outlook.unreachable_since is not None:
            return
        outlook.unreachable_since = self._ports.clock()
        log.warning("nothing learnt of pods", instances=len(group), why=why)
        words = {one.marker: unreachable_words(one, outlook.unreachable_since, why) for one in group}
        await self._write_all([(one, {"message": words[one.marker]}) for one in group])

    # -- whether ports answer ----------------------------------------------------------------------------------------

    async def _probe(self, target: Target, running: Sequence[PodInstance]) -> None:
        """Try every port of these instances, some side by side, and note each when it was tried."""
        for start in range(0, len(running), PROBES_OF_LOGIN):
            await self._probe_some(target, running[start : start + PROBES_OF_LOGIN])

    async def _probe_some(self, target: Target, some: Sequence[PodInstance]) -> None:
        """Try them side by side; answers are noted together, what changed is told."""
        began_at = self._ports.clock()
        try:
            host = await self._ports.connections.pod_host(target.login)
            verdicts = await asyncio.gather(*(self._try(host, one) for one in some))
        except NothingLearnt as error:
            verdicts = [Verdict(False, f"its ports cannot be tried: {error}")] * len(some)
        pairs = list(zip(some, verdicts, strict=True))
        await self._note_answers([one for one, verdict in pairs if verdict.answers], began_at)
        news = {one.pod_uuid for one, verdict in pairs if verdict.answers and not self._answering.get(one.marker)}
        for one, verdict in pairs:
            self._answering[one.marker] = verdict.answers or self._answering.get(one.marker, False)
        await self._write_all([(one, _news_of(verdict)) for one, verdict in pairs])
        await self._tell(news)

    async def _note_answers(self, answering: Sequence[PodInstance], at: datetime) -> None:
        if not answering:
            return
        async with self._ports.transaction() as db:
            await PodStore(db).answered([one.marker for one in answering], at)
        for one in answering:
            if (known := self._known.get(one.marker)) is not None:
                self._known[one.marker] = replace(known, answered_at=at)

    async def _try(self, host: PodHost, one: PodInstance) -> Verdict:
        assert one.remote_id is not None
        port = 0
        async with self._in_all:
            try:
                async with asyncio.timeout(PROBE_LIMIT_S):
                    for port in one.run.tried_ports:
                        channel = await host.connect(one.remote_id, one.marker, port)
                        await channel.aclose()
            except PortClosed:
                return Verdict(False, closed_words(one, port, self._ports.clock()), is_closed=True)
            except (NothingLearnt, TimeoutError, ConnectionError) as error:
                why = str(error) or f"no answer within {PROBE_LIMIT_S:g} s"
                return Verdict(False, f"port {port} cannot be tried: {why}")
        return Verdict(True)

    async def _silence(self, now: datetime) -> None:
        """What answered, and has not for too long, answers no more: its place hangs, or is out of reach."""
        believed = (one for one in self._known.values() if self._answering.get(one.marker))
        silent = [one for one in believed if not one.answers_at(now)]
        for one in silent:
            self._answering[one.marker] = False
        await self._tell({one.pod_uuid for one in silent})

    # -- writing -------------------------------------------------------------------------------------------------------

    async def _write(self, one: PodInstance, changes: Mapping[str, Any], text: str = "") -> None:
        """Write what differs, and tell who decides about the pod."""
        news = _differing(one, changes)
        if not news:
            return
        at = self._ports.clock()
        async with self._ports.transaction() as db:
            store = PodStore(db)
            newer = await store.write(one, **news)
            if text:
                await store.keep_log(one, text)
            await store.look_at([one.pod_uuid], at)
        self._known[one.marker] = newer
        self._ports.wake()

    async def _write_all(self, told: Sequence[News]) -> None:
        """The same of many instances, in few transactions; one that someone else changed is left as it is."""
        differing = [(one, news) for one, changes in told if (news := _differing(one, changes))]
        for start in range(0, len(differing), MOST_TOGETHER):
            written: list[PodInstance] = []
            async with self._ports.transaction() as db:
                store = PodStore(db)
                for one, news in differing[start : start + MOST_TOGETHER]:
                    with _unless_stale(one):
                        written.append(await store.write(one, **news))
                await store.look_at({one.pod_uuid for one in written}, self._ports.clock())
            self._known |= {one.marker: one for one in written}
        if differing:
            self._ports.wake()

    async def _tell(self, pod_uuids: set[str]) -> None:
        if not pod_uuids:
            return
        async with self._ports.transaction() as db:
            await PodStore(db).look_at(pod_uuids, self._ports.clock())
        self._ports.wake()


@contextlib.contextmanager
def _unless_stale(one: PodInstance) -> Iterator[None]:
    """Leave an instance that someone else changed as it is: it is read again."""
    try:
        yield
    except Stale as stale:
        log.info("someone else changed the instance", marker=one.marker, why=str(stale))


def _differing(one: PodInstance, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in changes.items() if getattr(one, name) != value}


def _seen_now(one: PodInstance, seen: Observation, look: PodSeen | None, at: datetime) -> Mapping[str, Any]:
    """What an instance that has not ended is now, as its place says."""
    changes: dict[str, Any] = {"missing_since": None}
    state = I.RUNNING if seen.state is RemoteState.RUNNING else I.QUEUED
    if state is not one.state:
        changes |= {"state": state, "answered_at": None}
    if state is I.RUNNING and (state is not one.state or one.started_at is None):
        started_at = seen.started_at or at
        walltime = timedelta(seconds=one.run.resources.walltime_s)
        changes |= {"started_at": started_at, "go_on_until": started_at + walltime, "message": ""}
    if state is I.QUEUED:
        changes |= {"message": queued_words(one, seen, look), "started_at": None, "go_on_until": None}
    if look is not None:
        changes["seen"] = {**seen_of(look), **({PUT_OFF: True} if seen.is_put_off else {})}
    return changes


def _news_of(verdict: Verdict) -> Mapping[str, Any]:
    """What a try tells of an instance: one whose port is closed has not answered, however lately it did."""
    if verdict.answers:
        return {"message": ""}
    return {"message": verdict.words, **({"answered_at": None} if verdict.is_closed else {})}


def _may_start_soon(one: PodInstance, now: datetime) -> bool:
    return one.state is not I.RUNNING and now - one.intended_at < COMING_UP


def _interval_s(group: Sequence[PodInstance], took_s: float) -> float:
    """Seconds until a login is asked again: sooner while something may start or end, later when asking is dear."""
    settled = all(one.state is I.RUNNING and one.unwanted_at is None for one in group)
    return min(MOST_EVERY_S, max(SETTLED_EVERY_S if settled else UNSETTLED_EVERY_S, took_s / BUSY_SHARE))


def _last_line(text: str) -> str:
    """The last thing that a program said."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
