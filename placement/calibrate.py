"""Bounds that keep their promise: a predicted quantile, moved by how far the last ones were off (conformal prediction).

Long waits are known late, so the outcomes that are known already speak of short ones. Jobs that wait still therefore
count with what they have waited so far (Kaplan & Meier, JASA 1958). The level that is aimed at moves by every hit and
miss, so that coverage holds in the long run whatever the queue does (Gibbs & Candes, NeurIPS 2021); a job that waits
longer than its bound is a miss at that moment, not when it starts at last.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

WINDOW_JOBS = 1000
"""Jobs whose outcome moves the bound."""

FEWEST_JOBS = 30
"""Below this many a bound is only widened."""

GAIN = 0.002
"""How far one miss moves the level that is aimed at."""

LEVELS = (0.05, 0.995)
"""The lowest and highest level that is aimed at."""

FIRST_FACTOR = 2.0
"""What a bound is widened by before there are outcomes enough."""

ROOT = 0.5
"""Errors are compared as square roots of waits: between a ratio, which is blind to hours, and a difference."""


@dataclass(slots=True)
class _Told:
    """A job that waits: its place among the last ones, when it joined, and what it was told."""

    number: int
    at_s: float
    told_s: float
    judged: bool = False


class Calibrator:
    """Keeps one quantile of one queue honest. Owned by one model, and moved in the order of time."""

    def __init__(self, quantile: float, window_jobs: int = WINDOW_JOBS, gain: float = GAIN) -> None:
        self.quantile, self._gain = quantile, gain
        self._level = quantile
        self._asked_jobs = 0
        self._predicted = np.zeros(window_jobs)
        self._asked_at_s = np.zeros(window_jobs)
        self._waited_s = np.full(window_jobs, np.nan)
        """nan: it waits still."""
        self._started = np.zeros(window_jobs, bool)
        self._open: dict[Hashable, _Told] = {}
        self._due: list[tuple[float, int, Hashable]] = []
        self._held: deque[bool] = deque(maxlen=4 * window_jobs)

    @property
    def coverage_share(self) -> float | None:
        """Share of the last bounds that held; None while there are too few to say."""
        return sum(self._held) / len(self._held) if len(self._held) >= FEWEST_JOBS else None

    def bound_s(self, predicted_s: float, at_s: float) -> float:
        """The quantile to tell now, for the one that a model predicts."""
        error = self._likely_error(at_s)
        if error is None:
            return predicted_s * FIRST_FACTOR if self.quantile > 0.5 else predicted_s
        return float(max(0.0, predicted_s**ROOT + error) ** (1 / ROOT))

    def asked(self, job_id: Hashable, predicted_s: float, told_s: float, at_s: float) -> None:
        """A job joins the queue and is told so."""
        self.look_for_overdue(at_s)
        index = self._asked_jobs % len(self._predicted)
        self._predicted[index], self._asked_at_s[index] = predicted_s**ROOT, at_s
        self._waited_s[index], self._started[index] = np.nan, False
        self._open[job_id] = _Told(self._asked_jobs, at_s, told_s)
        heapq.heappush(self._due, (at_s + told_s, self._asked_jobs, job_id))
        self._asked_jobs += 1

    def started(self, job_id: Hashable, at_s: float) -> None:
        """Its wait is known: what it was told held, unless it was overdue before. Unknown jobs are passed over."""
        self.look_for_overdue(at_s)
        told = self._open.pop(job_id, None)
        if told is not None:
            self._leave(told, at_s, started=True)
            self._judge(told, held=at_s - told.at_s <= told.told_s)

    def withdrawn(self, job_id: Hashable, at_s: float) -> None:
        """It would have waited longer than it did; more is not known."""
        told = self._open.pop(job_id, None)
        if told is not None:
            self._leave(told, at_s, started=False)

    def look_for_overdue(self, at_s: float) -> None:
        """Who waits longer than it was told is a miss from that moment on."""
        while self._due and self._due[0][0] < at_s:
            _, number, job_id = heapq.heappop(self._due)
            told = self._open.get(job_id)
            if told is not None and told.number == number:
                self._judge(told, held=False)

    def _likely_error(self, at_s: float) -> float | None:
        """The error that is exceeded as seldom as the level says; None while too few outcomes are known."""
        count = min(self._asked_jobs, len(self._predicted))
        if np.count_nonzero(self._started[:count]) < FEWEST_JOBS:
            return None
        waited_s = self._waited_s[:count]
        so_far_s = np.where(np.isnan(waited_s), np.maximum(0.0, at_s - self._asked_at_s[:count]), waited_s)
        errors = so_far_s**ROOT - self._predicted[:count]
        order = np.argsort(errors, kind="stable")
        at_risk = np.arange(count, 0, -1)
        beyond = np.cumprod(1 - self._started[:count][order] / (at_risk + 1))
        return float(errors[order[min(count - 1, int(np.searchsorted(-beyond, self._level - 1)))]])

    def _leave(self, told: _Told, at_s: float, started: bool) -> None:
        if told.number >= self._asked_jobs - len(self._predicted):
            index = told.number % len(self._predicted)
            self._waited_s[index], self._started[index] = max(0.0, at_s - told.at_s), started

    def _judge(self, told: _Told, held: bool) -> None:
        if told.judged:
            return
        told.judged = True
        self._held.append(held)
        lowest, highest = LEVELS
        self._level = min(highest, max(lowest, self._level + self._gain * (self.quantile - held)))
