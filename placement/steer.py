"""Where a job goes, and where it goes on waiting: prospects from forecasts, decisions by ``placement.race``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import fmean

from placement.experience import Experience
from placement.futures import LONGEST_S, Copy, Futures
from placement.predict import Predictor
from placement.race import Change, Prospect, Rules, Spent, first_ends_s, reconsidered

CROWDING = 1.0
"""Own jobs that a start delays: how often the core-seconds of a job, spread over all cores, count beside its end."""


LATEST = 4.0
"""Starts are not looked for beyond this multiple of the time that another place needs for everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A job that needs a place, as it would be sent to each of them. ``copies``: by place."""

    id: str
    copies: Mapping[str, Copy]


class Steering:
    """The forecasts at one moment, and what they say about our jobs."""

    def __init__(self, known: Experience, now_s: float, rules: Rules, draws: int = 8) -> None:
        self._now_s, self._rules = now_s, rules
        predictor = Predictor(known.run_times)
        self._looks = {name: place.look for name, place in known.places.items()}
        self._futures = {
            name: Futures(place.look, predictor, place.order, place.newcomers, draws)
            for name, place in known.places.items()
        }

    def place(self, errand: Errand, spent: Spent) -> tuple[str, ...]:
        """Places to send a new job to: the one with the soonest end, and copies as far as they are worth it."""
        offered = self._prospects(errand, errand.copies)
        first = min(offered, key=lambda name: (self._cost_s(errand.copies[name], offered[name]), name))
        held = [offered.pop(first)]
        spent = spent.more(jobs=1, submissions=1)
        while len(held) < self._rules.copies and offered:
            change = reconsidered(held, list(offered.values()), self._rules, spent.price_s(self._rules), self._now_s)
            if not change.submit:
                break
            held.append(offered.pop(change.submit[0]))
            spent = spent.more(submissions=1)
        return tuple(each.place for each in held)

    def held(self, waiting: Mapping[str, Collection[str]]) -> Mapping[str, Mapping[str, tuple[float, ...]]]:
        """Starts of the copies that are in line, by place and job; ``waiting``: their ids by place."""
        until_s = self._now_s + LONGEST_S
        return {name: self._futures[name].held_starts_s(ids, until_s) for name, ids in sorted(waiting.items()) if ids}

    def reconsider(
        self, errand: Errand, held: Mapping[str, tuple[float, ...]], elsewhere: Collection[str], price_s: float | None
    ) -> Change:
        """What to change for a job that waits. held: starts of its copies by place; elsewhere: places it may go to."""
        prospects = [self._ends(errand.copies[name], starts_s) for name, starts_s in sorted(held.items())]
        left_s = fmean(first_ends_s(prospects)) - self._now_s
        worth = [
            name
            for name in elsewhere
            if price_s is not None and self._soonest_s(errand.copies[name]) + price_s < left_s
        ]
        until_s = self._now_s + LATEST * left_s
        offered = [self.prospect(errand.copies[name], until_s) for name in sorted(worth)]
        return reconsidered(prospects, offered, self._rules, price_s, self._now_s)

    def prospect(self, copy: Copy, until_s: float) -> Prospect:
        """What a copy sent now may come to; starts after ``until_s`` are not looked for."""
        return self._ends(copy, self._futures[copy.place].starts_s(copy, until_s))

    def _prospects(self, errand: Errand, names: Collection[str]) -> dict[str, Prospect]:
        """The likely soonest first, so that the others need not be looked at much beyond its end."""
        found: dict[str, Prospect] = {}
        until_s = self._now_s + LONGEST_S
        for name in sorted(
            names, key=lambda name: (self._backlog_s(name) + self._soonest_s(errand.copies[name]), name)
        ):
            found[name] = self.prospect(errand.copies[name], until_s)
            until_s = min(until_s, self._now_s + LATEST * (found[name].mean_end_s - self._now_s) + 3600.0)
        return found

    def _soonest_s(self, copy: Copy) -> float:
        """Until its end if it starts as soon as it is there."""
        return copy.ready_s - self._now_s + self._futures[copy.place].mean_run_s(copy)

    def _backlog_s(self, name: str) -> float:
        """A first guess of the wait."""
        return self._futures[name].backlog_s

    def _ends(self, copy: Copy, starts_s: tuple[float, ...]) -> Prospect:
        return Prospect(copy.place, starts_s, self._futures[copy.place].ends_s(copy, starts_s))

    def _cost_s(self, copy: Copy, prospect: Prospect) -> float:
        return prospect.mean_end_s + crowding_s(prospect.run_s, copy.cores, self._looks[copy.place].cores)


def crowding_s(run_s: float, cores: int, all_cores: int) -> float:
    """What others of ours lose by a job that takes so many of a place's cores for so long, in seconds."""
    return CROWDING * run_s * cores / all_cores
