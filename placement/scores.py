"""How well each estimator of queue waits did where our own jobs waited: the same yardstick for all, queue by queue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from placement.problem import PlaceKey
from scheduler.model.jobs import FinishedRun

QUANTILES = (0.5, 0.9)

LAST = 50
"""Of our runs in a place, those that count; sites change."""

FEWEST = 10
"""Starts before an estimator is judged."""

BETTER = 0.9
"""An estimator takes another's place when its loss is below this share of the other's."""


@dataclass(frozen=True, slots=True)
class Score:
    """What an estimator said of our last starts in a place: mean pinball loss in seconds, and the share of p90 held."""

    start_count: int
    loss_s: float
    coverage_share: float


class Scores:
    """Scores by place and estimator."""

    def __init__(self, runs: Iterable[FinishedRun]) -> None:
        told: dict[tuple[PlaceKey, str], list[tuple[float, bool]]] = defaultdict(list)
        scored = [run for run in runs if run.told_waits_s and not run.broken]  # what was broken may never have started
        for run in sorted(scored, key=lambda run: (run.ended_at, run.owner, run.submitted_at)):
            for name, quantiles_s in run.told_waits_s.items():
                loss_s = sum(
                    _pinball_s(run.wait_s - said_s, q) for q, said_s in zip(QUANTILES, quantiles_s, strict=True)
                )
                told[PlaceKey(run.system_id, run.queue), name].append((loss_s, run.wait_s <= quantiles_s[-1]))
        self._scores = {key: _summed_up(losses[-LAST:]) for key, losses in told.items() if len(losses) >= FEWEST}

    def of(self, place: PlaceKey, name: str) -> Score | None:
        """None while too few of our jobs started there after it had answered."""
        return self._scores.get((place, name))

    def best(self, place: PlaceKey, names: Sequence[str]) -> str:
        """Which of these, the most trusted first, to believe: another only where it did clearly better."""
        best, *others = names
        for name in others:
            mine, its = self.of(place, best), self.of(place, name)
            if mine is not None and its is not None and its.loss_s < BETTER * mine.loss_s:
                best = name
        return best


def _pinball_s(error_s: float, quantile: float) -> float:
    """The loss that is least, in the mean, where the quantile is the true one."""
    return max(error_s * quantile, error_s * (quantile - 1))


def _summed_up(losses: list[tuple[float, bool]]) -> Score:
    count = len(losses)
    return Score(count, sum(loss_s for loss_s, _ in losses) / count, sum(held for _, held in losses) / count)
