"""What systems say of copies. A copy that is not handed the job runs nothing, so its end is an end and no outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from scheduler.model.errors import NotFound, StaleJob
from scheduler.model.ids import Marker
from scheduler.model.jobs import Attempt, InFlight
from scheduler.model.runs import Observation
from scheduler.model.states import Event
from scheduler.ports import Ports
from scheduler.reconcile.copying import cost_in_words, events_of, named
from scheduler.store.copies import CopyStore

log = structlog.get_logger()


class WatchCopies:
    """The part of watching that speaks of copies. ``lost_after``: how long one may be missing before it is let go."""

    def __init__(self, ports: Ports, lost_after: timedelta) -> None:
        self._ports, self._lost_after = ports, lost_after

    async def learn(self, flights: Sequence[InFlight], answers: Mapping[Marker, Observation]) -> None:
        """Write down what is new of each."""
        for flight in flights:
            seen = answers.get(flight.marker)
            news = self._missing(flight) if seen is None else self._found(flight)
            events = events_of(flight.attempt_state, seen) if seen is not None else ()
            if not news and not events:
                continue
            try:
                await self._write(flight, seen, events, news)
            except (StaleJob, NotFound) as stale:
                log.info("someone else moved the copy", marker=flight.marker, why=str(stale))

    def _missing(self, flight: InFlight) -> Mapping[str, Any]:
        """One that is long unknown to its system is withdrawn, which makes sure that it never begins."""
        now = self._ports.clock()
        if flight.missing_since is None:
            return {"missing_since": now}
        return {"unwanted_at": now, "next_look_at": now} if now - flight.missing_since >= self._lost_after else {}

    def _found(self, flight: InFlight) -> Mapping[str, Any]:
        return {} if flight.missing_since is None else {"missing_since": None}

    async def _write(
        self, flight: InFlight, seen: Observation | None, events: Sequence[Event], news: Mapping[str, Any]
    ) -> None:
        at = self._ports.clock()
        async with self._ports.transaction() as db:
            store = CopyStore(db)
            copy = await store.get(flight.marker)
            if copy.version != flight.attempt_version:
                raise StaleJob(f"attempt {flight.marker} was changed since it was looked at")
            if news:
                copy = await store.note(copy, **news)
            for event in events:
                if seen is not None:
                    await store.move(copy, event, at, **_changes(copy, event, seen, at))
        if events:
            self._ports.wake()


def _changes(copy: Attempt, event: Event, seen: Observation, at: datetime) -> Mapping[str, Any]:
    """What an event changes, and what people read of it."""
    match event:
        case Event.STARTED:
            return {"started_at": seen.started_at or at, "next_look_at": at}
        case Event.REQUEUED:
            return {"started_at": None}
    over_at = seen.ended_at or at
    ended = replace(copy, started_at=copy.started_at or seen.started_at)
    return {
        "message": f"{named(copy)} ended there as {seen.raw_state or seen.ending}{cost_in_words(ended, over_at)}",
        "started_at": ended.started_at,
        "ended_at": over_at,
    }
