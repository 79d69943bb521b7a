"""Our jobs among forecasts that are made from experience alone: where each goes, and where it goes on waiting.

Only what is foreseen is found here. What is made of it is decided by ``engine.choose`` and ``moves.reconsider``, which
a server calls as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from placement.assign import Assignment, Kind, Option
from placement.engine import choose
from placement.experience import Experience
from placement.futures import LONGEST_S, Copy, Futures
from placement.moves import Standing, reconsider
from placement.predict import Predictor
from placement.problem import PlaceKey
from placement.race import Change, Prospect, Rules, Spent, crowding_s, first_ends_s

LATEST = 4.0
"""Starts are not looked for beyond this multiple of the time that another place needs for everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A job that needs a place, as it would be sent to each of them. ``copies``: by place."""

    id: str
    copies: Mapping[str, Copy]

    def standing(self, names: Sequence[str], waited_s: float = 0.0, move_count: int = 0) -> Standing:
        """How it stands when it waits in these places, the first of which leads; it may go to all others."""
        in_line = {PlaceKey(name, None): self.id for name in names}
        everywhere = frozenset(self.copies)
        return Standing(
            in_line=in_line,
            lead=next(iter(in_line)),
            waited_s=waited_s,
            move_count=move_count,
            hedges_to=everywhere,
            moves_to=everywhere,
        )


class Steering:
    """The forecasts at one moment, and what they say about our jobs."""

    def __init__(self, known: Experience, now_s: float, rules: Rules, draws: int = 8, followers: float = 0.0) -> None:
        """followers: jobs of ours that come to a place in ``race.FOLLOWED_S``."""
        self._now_s, self._rules, self._followers = now_s, rules, followers
        predictor = Predictor(known.run_times)
        self._cores = {name: place.look.cores for name, place in known.places.items()}
        self._futures = {
            name: Futures(place.look, predictor, place.order, place.newcomers, draws)
            for name, place in known.places.items()
        }

    def place(self, errand: Errand, spent: Spent) -> tuple[str, ...]:
        """Places to send a new job to: the one that is chosen, and copies as far as they are worth it."""
        offered = self._prospects(errand, errand.copies)
        choices, _ = choose(self._posed(errand, offered))
        names, spent = [choices[errand.id].place.system_id], spent.more(jobs=1, submissions=1)
        while True:
            held = [offered[name] for name in names]
            change = self._reconsidered(errand.standing(names), held, offered.values(), spent)
            if not change.submit:
                return tuple(names)
            names.extend(change.submit)
            spent = spent.more(submissions=len(change.submit))

    def held(self, waiting: Mapping[str, Collection[str]]) -> Mapping[str, Mapping[str, tuple[float, ...]]]:
        """Starts of the copies that are in line, by place and job; ``waiting``: their ids by place."""
        until_s = self._now_s + LONGEST_S
        return {name: self._futures[name].held_starts_s(ids, until_s) for name, ids in sorted(waiting.items()) if ids}

    def reconsider(
        self, errand: Errand, standing: Standing, held: Mapping[str, tuple[float, ...]], spent: Spent
    ) -> Change:
        """What to change for a job that waits. held: starts of its copies by place.

        Places in which not even a start at once would be worth its price are not looked at.
        """
        prospects = [self._ends(errand.copies[name], starts_s) for name, starts_s in sorted(held.items())]
        left_s, price_s = fmean(first_ends_s(prospects)) - self._now_s, spent.price_s(self._rules)
        worth = [
            copy
            for name, copy in sorted(errand.copies.items())
            if name not in held and price_s is not None and self._soonest_s(copy) + price_s < left_s
        ]
        until_s = self._now_s + LATEST * left_s
        return self._reconsidered(standing, prospects, [self.prospect(copy, until_s) for copy in worth], spent)

    def prospect(self, copy: Copy, until_s: float) -> Prospect:
        """What a copy sent now may come to; starts after ``until_s`` are not looked for."""
        return self._ends(copy, self._futures[copy.place].starts_s(copy, until_s))

    def _reconsidered(
        self, standing: Standing, held: Sequence[Prospect], offered: Collection[Prospect], spent: Spent
    ) -> Change:
        places = {PlaceKey(each.place, None): each for each in offered}
        return reconsider(standing, held, places, self._rules, spent, self._now_s)

    def _posed(self, errand: Errand, offered: Mapping[str, Prospect]) -> Assignment:
        """One job's place as a question in whole numbers; of places that are as soon the first by name comes first."""
        costs_s = {name: self._cost_s(errand.copies[name], each) for name, each in sorted(offered.items())}
        options = [
            Option(PlaceKey(name, None), round(costs_s[name]), errand.copies[name].cores, round(offered[name].run_s))
            for name in sorted(costs_s, key=lambda name: costs_s[name])
        ]
        slots = {option.place: self._cores[option.place.system_id] for option in options}
        return Assignment((Kind((errand.id,), "", 1, tuple(options)),), slots)

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
        """What sending it there costs from now on: the mean time until its end, and what others of ours lose."""
        wait_s = max(0.0, fmean(prospect.starts_s) - copy.ready_s)
        taken_s = crowding_s(prospect.run_s, wait_s, copy.cores, self._cores[copy.place], self._followers)
        return prospect.mean_end_s - self._now_s + taken_s
