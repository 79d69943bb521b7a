"""How long jobs wait in one queue, learnt while it runs: several predictors, one blend, one promise that is kept.

Every predictor is scored on every job by the same yardstick (the pinball loss of its quantiles); the better it did of
late, the more the blend listens to it. The blend's 90th percentile is then moved until it holds (``calibrate``).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from placement.calibrate import Calibrator
from placement.features import FEATURES
from placement.lessons import QUANTILES, ROOT, Fit, Lessons, Past, Predict, Rows
from placement.neighbours import fit_neighbours
from placement.queue_state import Floats
from placement.recent import RecentWaits
from placement.trees import fit_trees

WINDOW_JOBS = 40_000
"""The newest jobs, from which it learns: longer windows were better on all traces tried, up to here."""

LATELY_SHARE = 1 / 3
"""The newest part of it, for the trees that listen only to the present."""

REFIT_S = 86_400.0
"""Learners are fitted anew so often, if nothing else is said, and earlier while what is known doubles."""

FIRST_FIT_JOBS = 100

POOLED_UNTIL_JOBS = 2000
"""A queue that has seen fewer starts also learns from other queues, whose features are scaled to their machines."""

HEDGE = 8.0
"""How much the blend turns to the better predictor: one that is worse by a tenth is heard less than half as much."""

MEMORY = 0.998
"""What a score keeps at every new outcome; the last 500 make it."""

FEWEST_SCORES = 20
"""Outcomes before a predictor is judged."""

NO_HISTORY_S = (1800.0, 6 * 3600.0)
"""Nothing is known: anything from 0 to 6 h."""

SIZE_COLUMN = FEATURES.index("size")


def fit_trees_lately(past: Past) -> Predict | None:
    """Trees of the newest part only: they follow a queue that changes."""
    newest = int(LATELY_SHARE * len(past.rows))
    return fit_trees(Past(past.rows[-newest:], past.waits_s[-newest:]))


LEARNERS: Mapping[str, Fit] = MappingProxyType(
    {"trees": fit_trees, "trees lately": fit_trees_lately, "neighbours": fit_neighbours}
)

RECENT = "recent waits"
"""The predictor that is never fitted; it answers until the others can, and is scored with them."""


@dataclass(frozen=True, slots=True)
class WaitForecast:
    """What a job is told, in seconds; how often the last bounds held (None: too few to say), and from how many starts.

    answers_s: what every predictor said, shape (predictors, quantiles); nan where it had no answer. blend_s: the
    quantiles before calibration.
    """

    p50_s: float
    p90_s: float
    coverage_share: float | None
    known_jobs: int
    mostly: str
    answers_s: Floats
    blend_s: Floats


@dataclass(frozen=True, slots=True)
class _Told:
    size: float
    at_s: float
    forecast: WaitForecast


class WaitModel:
    """The waits of one queue. Owned by whoever moves it in the order of time: asked, started or withdrawn, refitted."""

    def __init__(
        self, learners: Mapping[str, Fit] = LEARNERS, pooled: Past | None = None, refit_s: float = REFIT_S
    ) -> None:
        """``pooled``: what other queues taught, for as long as this one knows little."""
        self._learners, self._pooled, self._refit_s = learners, pooled, refit_s
        self._lessons = Lessons(len(FEATURES), WINDOW_JOBS)
        self._recent = RecentWaits()
        self._fitted: list[Predict | None] = [None] * len(learners)
        self._fitted_at_s, self._fitted_jobs = -np.inf, 0
        self._losses = np.zeros((len(learners) + 1, len(QUANTILES)))
        self._scored = np.zeros(len(learners) + 1)
        self._bound = Calibrator(QUANTILES[-1])
        self._open: dict[Hashable, _Told] = {}

    @property
    def known_jobs(self) -> int:
        """Starts that it has learnt from."""
        return self._lessons.known_jobs

    def answers_s(self, rows: Rows) -> Floats:
        """What the fitted predictors say, shape (n, predictors, quantiles), nan for no answer.

        Many rows cost little more than one, and the answers stay right until the next refit.
        """
        said = np.full((len(rows), len(self._fitted) + 1, len(QUANTILES)), np.nan)
        for member, predict in enumerate(self._fitted):
            if predict is not None and len(rows):
                said[:, member] = predict(rows)
        return said

    def forecast(self, row: Rows, at_s: float, answers_s: Floats | None = None) -> WaitForecast:
        """What a job that finds the queue like this now is told. ``answers_s``: its slice, where asked before."""
        answers_s = self.answers_s(row[None])[0] if answers_s is None else answers_s
        answers_s[-1] = self._of_recent(2.0 ** row[SIZE_COLUMN])
        heard = np.flatnonzero(~np.isnan(answers_s[:, 0]))
        if not len(heard):
            blend_s, mostly = np.array(NO_HISTORY_S), ""
        else:
            weights = self._weights(heard)
            blend_s = np.maximum.accumulate((weights * answers_s[heard] ** ROOT).sum(axis=0) ** (1 / ROOT))
            mostly = [*self._learners, RECENT][heard[int(weights[:, 0].argmax())]]
        p50_s = float(blend_s[0])
        p90_s = max(p50_s, self._bound.bound_s(float(blend_s[-1]), at_s))
        return WaitForecast(p50_s, p90_s, self._bound.coverage_share, self.known_jobs, mostly, answers_s, blend_s)

    def asked(self, job_id: Hashable, row: Rows, at_s: float, forecast: WaitForecast) -> None:
        """A job joined the queue and was told so."""
        self._lessons.asked(job_id, row, at_s, np.array([forecast.p50_s, forecast.p90_s]))
        self._bound.asked(job_id, float(forecast.blend_s[-1]), forecast.p90_s, at_s)
        self._open[job_id] = _Told(2.0 ** float(row[SIZE_COLUMN]), at_s, forecast)

    def started(self, job_id: Hashable, at_s: float) -> None:
        """It started: every predictor is scored, the bound moves. Unknown jobs are passed over."""
        self._lessons.started(job_id, at_s)
        told = self._open.pop(job_id, None)
        if told is None:
            return
        wait_s = max(0.0, at_s - told.at_s)
        self._bound.started(job_id, at_s)
        self._recent.learn(told.size, wait_s)
        error_s = wait_s - told.forecast.answers_s
        loss = np.maximum(error_s * QUANTILES, error_s * (np.array(QUANTILES) - 1))
        self._losses = MEMORY * self._losses + np.nan_to_num(loss)
        self._scored = MEMORY * self._scored + ~np.isnan(loss[:, 0])

    def withdrawn(self, job_id: Hashable, at_s: float) -> None:
        """It left without a start."""
        self._lessons.withdrawn(job_id)
        self._bound.withdrawn(job_id, at_s)
        self._open.pop(job_id, None)

    def wants_refit(self, at_s: float) -> bool:
        """Whether enough is new."""
        if self._fitted_at_s == -np.inf and self._pooled is not None:
            return True
        new = self.known_jobs - self._fitted_jobs
        return new >= max(FIRST_FIT_JOBS, self._fitted_jobs) or (
            new > 0 and self._fitted_at_s + self._refit_s <= at_s and self.known_jobs >= FIRST_FIT_JOBS
        )

    def refit(self, at_s: float) -> None:
        """Fit every learner to what is known now; seconds of one core."""
        past = self.past(at_s)
        if self._pooled is not None and self.known_jobs < POOLED_UNTIL_JOBS:
            past = past.behind(self._pooled)
        self._fitted = [fit(past) for fit in self._learners.values()]
        self._fitted_at_s, self._fitted_jobs = at_s, self.known_jobs

    def past(self, at_s: float) -> Past:
        """What it learns from, for other queues to start with."""
        return self._lessons.past(at_s)

    def _of_recent(self, size: float) -> Sequence[float]:
        found = [self._recent.quantile_s(size, quantile) for quantile in QUANTILES]
        return [np.nan if value is None else value for value in found]

    def _weights(self, heard: npt.NDArray[np.int64]) -> Floats:
        """Shape (heard, quantiles), columns sum to 1. Who has hardly been scored yet counts as much as the best."""
        scored = self._scored[heard] >= FEWEST_SCORES
        loss = (self._losses[heard] + 1.0) / np.maximum(self._scored[heard], 1.0)[:, None]
        best = loss[scored].min(axis=0) if scored.any() else loss.max(axis=0)
        worse = np.where(scored[:, None], loss / best - 1, 0.0)
        weights = np.exp(-HEDGE * worse)
        return np.asarray(weights / weights.sum(axis=0))
