"""What it costs that systems break jobs, and when a place that breaks them at once is left alone.

Read off our own ended runs. A failure here is the system's: a node that died, a job that was lost or never launched.
What a run does to itself (an exit code, a walltime or memory used up) says nothing of where it ran.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from placement.problem import Breaker, PlaceKey, SystemView
from placement.words import about
from scheduler.model.jobs import FinishedRun
from scheduler.model.plan import Term

PRIOR_RUNS = 10.0
PRIOR_PROBABILITY = 0.01
"""What a system is taken for before it has shown itself, as firmly as if so many runs of it had been seen."""

ELSEWHERE = 0.5
"""How much a run in another queue of the system counts."""

HALF_LIFE_S = 7 * 86_400
"""Systems are repaired: a run counts half as much after this time."""

MOST_PROBABILITY = 0.95

WORTH_SAYING = 0.02
"""Failures that are rarer are not mentioned beside an estimate."""

AT_ONCE_S = 60
IN_A_ROW = 3
"""So many runs in a row, broken within that time of their start, open the breaker of their queue or system."""

FIRST_PAUSE_S = 60
LONGEST_PAUSE_S = 3600
"""Until the next trial; the pause doubles with every trial that breaks."""


class _Seen(NamedTuple):
    """Runs, those of them that were broken, and the time that these ran, in decayed weights."""

    runs: float = 0.0
    broken: float = 0.0
    broken_run_s: float = 0.0

    def leaning_on(self, usual: float) -> float:
        """The share of broken ones, as seen and as usual."""
        return (self.broken + usual * PRIOR_RUNS) / (self.runs + PRIOR_RUNS)


class Tally(NamedTuple):
    """What was seen of each system and place, as it counted when the last of the runs ended."""

    seen: Mapping[str | PlaceKey, _Seen]
    ended_at: datetime | None = None


def tally(runs: Collection[FinishedRun]) -> Tally:
    """Count runs; those that ended before the last one count less by what has faded since."""
    last_at = max((run.ended_at for run in runs), default=None)
    seen: dict[str | PlaceKey, _Seen] = defaultdict(_Seen)
    for run in sorted(runs, key=lambda run: (run.ended_at, run.system_id, run.queue or "", run.broken, run.run_s)):
        weight = _left_after(run.ended_at, last_at)
        broken, broken_run_s = (weight, weight * run.run_s) if run.broken else (0.0, 0.0)
        for where in (run.system_id, PlaceKey(run.system_id, run.queue)):
            runs_here, broken_here, broken_here_s = seen[where]
            seen[where] = _Seen(runs_here + weight, broken_here + broken, broken_here_s + broken_run_s)
    return Tally(seen, last_at)


def _left_after(then: datetime, now: datetime | None) -> float:
    """What is left of a weight; all of it where a clock jumped back."""
    return 1.0 if now is None else 0.5 ** (max(0.0, (now - then).total_seconds()) / HALF_LIFE_S)


class Failures:
    """How often each place breaks a run."""

    def __init__(self, tallied: Tally, now: datetime) -> None:
        self._tally, self._probabilities = tallied.seen, dict[PlaceKey, float]()
        self._broke_after_s: dict[str, float] = {}
        self._left = 1.0 if tallied.ended_at is None else _left_after(tallied.ended_at, now)

    def probability(self, place: PlaceKey) -> float:
        """Of a run there being broken: as seen there, leaning on the system's other queues, and they on the usual."""
        if place not in self._probabilities:
            here, there = self._seen(place), self._seen(place.system_id)
            elsewhere = _Seen(ELSEWHERE * (there.runs - here.runs), ELSEWHERE * (there.broken - here.broken))
            usual = max(0.0, elsewhere.leaning_on(PRIOR_PROBABILITY))
            self._probabilities[place] = min(here.leaning_on(usual), MOST_PROBABILITY)
        return self._probabilities[place]

    def loss_s(self, place: PlaceKey, wait: Term, run: Term) -> float:
        """Expected time lost there: every broken run waited and ran in vain, until one is not broken.

        It ran as long as broken ones did there, and by half where less is known.
        """
        if place.system_id not in self._broke_after_s:
            seen = self._seen(place.system_id)
            self._broke_after_s[place.system_id] = seen.broken_run_s / seen.broken if seen.broken else 0.0
        probability, ran_s = self.probability(place), max(run.p50_s / 2, self._broke_after_s[place.system_id])
        return probability / (1 - probability) * (wait.p50_s + ran_s)

    def _seen(self, where: str | PlaceKey) -> _Seen:
        runs, broken, broken_run_s = self._tally.get(where, _Seen())
        return _Seen(runs * self._left, broken * self._left, broken_run_s * self._left)

    def note(self, place: PlaceKey, loss_s: float) -> tuple[str, ...]:
        """What people should read of it beside an estimate; nothing where failures are rare."""
        probability = self.probability(place)
        if probability < WORTH_SAYING:
            return ()
        return (f"the system breaks about {probability:.0%} of runs there: {about(loss_s)} lost on average",)


# -- the breaker -------------------------------------------------------------------------------------------------


class Trials(NamedTuple):
    """Our jobs now in one place: how many have still to prove themselves, and when the newest that did started.

    A job that has been running for ``AT_ONCE_S`` has proven itself.
    """

    under_way: int = 0
    survived_at: datetime | None = None


class _Row(NamedTuple):
    """Runs broken at once since the last that was not: how many, and when the newest started and ended."""

    broken_count: int
    started_at: datetime
    ended_at: datetime


def suspects(runs: Collection[FinishedRun]) -> frozenset[str]:
    """Ids of systems of which it must be known what is under way there, to tell their breakers."""
    return frozenset(
        where if isinstance(where, str) else where.system_id
        for where, row in _rows(runs).items()
        if row is not None and row.broken_count >= IN_A_ROW
    )


def guarded(
    views: Sequence[SystemView], runs: Collection[FinishedRun], trials: Mapping[PlaceKey, Trials], now: datetime
) -> tuple[SystemView, ...]:
    """The systems with their open breakers, as derived from ended runs alone. ``trials``: at least of the suspects."""
    rows = _rows(runs)
    return tuple(_guarded(view, rows, trials, now) for view in views)


def _guarded(
    view: SystemView,
    rows: Mapping[str | PlaceKey, _Row | None],
    trials: Mapping[PlaceKey, Trials],
    now: datetime,
) -> SystemView:
    system_id = view.system.id
    here = {key: found for key, found in trials.items() if key.system_id == system_id}
    newest = max((each.survived_at for each in here.values() if each.survived_at is not None), default=None)
    whole = Trials(sum(each.under_way for each in here.values()), newest)
    found: dict[str | None, Breaker | None] = {None: _breaker(rows.get(system_id), whole, now)}
    for queue in view.system.queues:
        key = PlaceKey(system_id, queue.name)
        found[queue.name] = _breaker(rows.get(key), here.get(key, Trials()), now)
    breakers = {queue: breaker for queue, breaker in found.items() if breaker is not None}
    return replace(view, breakers=breakers) if breakers else view


def _rows(runs: Collection[FinishedRun]) -> Mapping[str | PlaceKey, _Row | None]:
    """By system id and by place; None where the last run was not broken at once."""
    rows: dict[str | PlaceKey, _Row | None] = {}
    for run in sorted(runs, key=lambda run: (run.ended_at, run.started_at, not run.broken)):
        for where in (run.system_id, PlaceKey(run.system_id, run.queue)):
            row = rows.get(where)
            count = row.broken_count + 1 if row else 1
            at_once = run.broken and run.run_s < AT_ONCE_S
            rows[where] = _Row(count, run.started_at, run.ended_at) if at_once else None
    return rows


def _breaker(row: _Row | None, trials: Trials, now: datetime) -> Breaker | None:
    """Open until a run survives; a clock that jumped back makes no pause longer."""
    if row is None or row.broken_count < IN_A_ROW:
        return None
    if trials.survived_at is not None and trials.survived_at > row.started_at:
        return None
    pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(row.broken_count - IN_A_ROW, 10))
    next_trial_at = min(row.ended_at, now) + timedelta(seconds=pause_s)
    left = 1 if trials.under_way == 0 and next_trial_at <= now else 0
    return Breaker(
        broken_count=row.broken_count,
        next_trial_at=next_trial_at,
        on_trial_count=trials.under_way,
        trials_left=left,
    )
