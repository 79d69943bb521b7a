"""What has been seen of a queue's waits, as a table to learn from; who still waits is in it, as a lower bound."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from placement.queue_state import Floats

QUANTILES = (0.5, 0.9)
"""The quantiles of the wait that are predicted, in the order of all arrays that hold them."""

ROOT = 0.25
"""Models learn the fourth root of waits: a logarithm is blind to hours, plain seconds are deaf to minutes."""

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Past:
    """rows: features, shape (n, features), oldest first. waits_s: shape (n, quantiles); for jobs that have started the
    wait in every column; for one that waits still the most likely value that is not below its age."""

    rows: Rows
    waits_s: Floats

    def behind(self, other: Past) -> Past:
        """The other's lessons first, as the older ones."""
        return Past(np.concatenate([other.rows, self.rows]), np.concatenate([other.waits_s, self.waits_s]))


Predict = Callable[[Rows], Floats]
"""Rows of shape (n, features) to the quantiles of their waits in seconds, shape (n, quantiles)."""

Fit = Callable[[Past], Predict | None]
"""A learner; None when it cannot learn from so little, or is not installed."""


class Lessons:
    """The newest jobs of one queue by submit time, as many as ``window_jobs``."""

    def __init__(self, columns: int, window_jobs: int) -> None:
        self._window_jobs = window_jobs
        self._rows = np.zeros((1024, columns), np.float32)
        self._at_s = np.zeros(1024)
        self._waits_s = np.zeros(1024)
        self._told_s = np.zeros((1024, len(QUANTILES)))
        self._index: dict[Hashable, int] = {}
        self._count = 0
        self.known_jobs = 0
        """Jobs that have started, ever."""

    def asked(self, job_id: Hashable, row: Rows, at_s: float, told_s: Floats) -> None:
        """A job joins the queue; its wait is not known."""
        if self._count == len(self._at_s):
            self._make_room()
        index = self._count
        self._rows[index], self._at_s[index], self._waits_s[index], self._told_s[index] = row, at_s, np.nan, told_s
        self._index[job_id] = index
        self._count += 1

    def started(self, job_id: Hashable, at_s: float) -> None:
        """Its wait is known; jobs that left the window or were never seen are passed over."""
        index = self._index.pop(job_id, None)
        if index is not None:
            self._waits_s[index] = max(0.0, at_s - self._at_s[index])
            self.known_jobs += 1

    def withdrawn(self, job_id: Hashable) -> None:
        """It never started: nothing to be learnt of its wait."""
        index = self._index.pop(job_id, None)
        if index is not None:
            self._at_s[index] = -np.inf

    def past(self, at_s: float) -> Past:
        """What is known now. A job that waits still counts with what it was told, or its age where that is more."""
        kept = np.arange(max(0, self._count - self._window_jobs), self._count)
        kept = kept[np.isfinite(self._at_s[kept])]
        waits_s = np.repeat(self._waits_s[kept, None], len(QUANTILES), axis=1)
        open_ = np.isnan(waits_s[:, 0])
        age_s = at_s - self._at_s[kept][open_]
        waits_s[open_] = np.maximum(self._told_s[kept][open_], age_s[:, None])
        return Past(self._rows[kept], waits_s)

    def _make_room(self) -> None:
        """Forget what left the window; else double."""
        drop = max(0, self._count - self._window_jobs)
        if drop < self._count // 2:
            for name in ("_rows", "_at_s", "_waits_s", "_told_s"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
            return
        for values in (self._rows, self._at_s, self._waits_s, self._told_s):
            values[: self._count - drop] = values[drop : self._count]
        self._index = {job_id: index - drop for job_id, index in self._index.items() if index >= drop}
        self._count -= drop
