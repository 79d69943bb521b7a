"""All that our own ended runs teach a plan. It depends on nothing else, and so is kept while they are the same."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from placement.failures import Tally, tally
from placement.first_use import FirstUses
from placement.history import History
from placement.scores import Scores
from scheduler.model.jobs import FinishedRun


@dataclass(frozen=True, slots=True)
class OwnRuns:
    """Waits and run times, first uses of images, what systems broke, and how well estimators did."""

    history: History
    first_uses: FirstUses
    broken: Tally
    scores: Scores
    submitted_s: Sequence[float]
    """Unix times at which they were submitted, in rising order."""

    @classmethod
    def of(cls, runs: Sequence[FinishedRun], speeds: Mapping[str, float]) -> OwnRuns:
        """``speeds``: speed factors by system id."""
        submitted_s = sorted(run.submitted_at.timestamp() for run in runs)
        return cls(History(runs, speeds), FirstUses(runs), tally(runs), Scores(runs), submitted_s)

    def submitted_since(self, since_s: float) -> int:
        """How many of them were submitted from then on."""
        return len(self.submitted_s) - bisect_left(self.submitted_s, since_s)
