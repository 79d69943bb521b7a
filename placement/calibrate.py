"""Bounds that keep their promise: a predicted quantile, moved by how far the last ones were off (conformal prediction).

How often a bound held is known late: a job that waits longer than its bound is a miss at that moment, one that starts
before it is a hit only when it starts. The level that is aimed at moves by every hit and miss, so that coverage holds
in the long run whatever the queue does (Gibbs & Candes, NeurIPS 2021).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable

WINDOW_JOBS = 600
"""Jobs whose outcome moves the bound."""

FEWEST_JOBS = 30
"""Below this many outcomes a bound is only widened."""

GAIN = 0.005
"""How far one miss moves the level that is aimed at."""

FIRST_FACTOR = 2.0
"""What a bound is widened by before there are outcomes enough."""

ROOT = 0.5
"""Errors are compared as square roots of waits: between a ratio, which is blind to hours, and a difference."""


class Calibrator:
    """Keeps one quantile of one queue honest. Owned by one model."""

    def __init__(self, quantile: float, window_jobs: int = WINDOW_JOBS, gain: float = GAIN) -> None:
        self.quantile, self._window_jobs, self._gain = quantile, window_jobs, gain
        self._level = quantile
        self._errors: dict[Hashable, float] = {}
        self._sorted: list[float] = []
        self._held: deque[bool] = deque(maxlen=4 * window_jobs)

    @property
    def coverage_share(self) -> float | None:
        """Share of the last bounds that held; None while there are too few to say."""
        return sum(self._held) / len(self._held) if len(self._held) >= FEWEST_JOBS else None

    def bound_s(self, predicted_s: float) -> float:
        """The quantile to tell, for the one that a model predicts."""
        if len(self._sorted) < FEWEST_JOBS:
            return predicted_s * FIRST_FACTOR if self.quantile > 0.5 else predicted_s
        index = min(len(self._sorted) - 1, int(self._level * (len(self._sorted) + 1)))
        return float(max(0.0, predicted_s**ROOT + self._sorted[index]) ** (1 / ROOT))

    def started(self, job_id: Hashable, predicted_s: float, told_s: float, wait_s: float) -> None:
        """A job's wait is known. What was told held, unless it was counted as overdue before."""
        self._learn(job_id, wait_s**ROOT - predicted_s**ROOT, held=wait_s <= told_s)

    def overdue(self, job_id: Hashable, predicted_s: float, age_s: float) -> None:
        """A job waits longer than it was told: a miss, by at least so much."""
        self._learn(job_id, age_s**ROOT - predicted_s**ROOT, held=False)

    def _learn(self, job_id: Hashable, error: float, held: bool) -> None:
        if job_id in self._errors:
            self._drop(self._errors.pop(job_id))
        else:
            self._held.append(held)
            self._level = min(0.995, max(0.05, self._level + self._gain * (self.quantile - held)))
        self._errors[job_id] = error
        insort(self._sorted, error)
        if len(self._errors) > self._window_jobs:
            self._drop(self._errors.pop(next(iter(self._errors))))

    def _drop(self, error: float) -> None:
        del self._sorted[bisect_left(self._sorted, error)]
