"""Forecasts of queues as they are visible, kept from plan to plan while what they are made of stays the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from threading import Lock

from placement.experience import Experience, Place
from placement.futures import Copy, Futures
from placement.kept import Kept
from placement.looks import Look
from placement.played import DEPTH
from placement.predict import Predictor

DRAWS = 8
"""Draws of a queue's future."""

JOBS_DRAWN = 8_000
"""In long queues there are fewer draws, so that no more jobs than this are drawn for one queue."""

FEWEST_DRAWS = 3

LEAST_DEPTH, DEPTH_JOBS = 150, 160_000
"""In long queues fewer starts are played one by one: so many over the number of its jobs, but no fewer than that."""


class AllOfIt(Predictor):
    """Everyone uses all of the walltime: the worst that a visible queue can come to."""

    def run_s(self, user: str, asked_s: float, quantile: float, age_s: float = 0.0, cores: int = 1) -> float:
        return max(age_s + 1.0, asked_s)


def depth_for(visible_jobs: int) -> int:
    """How many starts are played one by one in each draw of a queue."""
    return max(LEAST_DEPTH, min(DEPTH, DEPTH_JOBS // max(1, visible_jobs)))


class Forecast:
    """The futures of one queue from a look at it on; several plans may ask at once."""

    def __init__(self, look: Look, known: Experience, name: str) -> None:
        """``name``: of the queue in what is known."""
        place = known.places.get(name, Place(look))
        self.look, self.visible_jobs = look, len(look.running) + len(look.waiting)
        self._draws = draws = max(FEWEST_DRAWS, min(DRAWS, JOBS_DRAWN // max(1, self.visible_jobs)))
        depth = depth_for(self.visible_jobs)
        self._likely = Futures(look, Predictor(known.run_times), place.order, place.newcomers, draws, depth=depth)
        self._worst = Futures(look, AllOfIt(known.run_times), place.order, (), 1, depth=depth)
        self._lock = Lock()

    def play(self) -> None:
        """Play all draws; whoever asks meanwhile waits for one of them at most."""
        for futures, draws in ((self._likely, self._draws), (self._worst, 1)):
            for n in range(draws):
                with self._lock:
                    futures.play(n)

    def starts_s(self, copy: Copy, until_s: float) -> tuple[float, ...]:
        """When a copy that is sent now would start, a draw each; ``until_s`` where later."""
        with self._lock:
            return self._likely.starts_s(copy, until_s)

    def latest_start_s(self, copy: Copy, until_s: float) -> float:
        """When it would start if everyone used all of the walltime and nobody else came."""
        with self._lock:
            return self._worst.starts_s(copy, until_s)[0]

    def held_starts_s(self, held: Collection[str], until_s: float) -> Mapping[str, tuple[float, ...]]:
        """When each of these, which are in line already, will start, a draw each; ``until_s`` where later."""
        with self._lock:
            return self._likely.held_starts_s(held, until_s)


Forecasts = Kept[Forecast | None]
"""By name of the queue; None where too little of it is visible."""
