"""All that our own ended runs teach a plan. It depends on nothing else, and so is kept while they are the same."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from placement.failures import Tally, tally
from placement.first_use import FirstUses
from placement.history import History
from placement.race import FOLLOWED_S, followers
from placement.scores import Scores
from scheduler.model.jobs import FinishedRun


@dataclass(frozen=True, slots=True)
class OwnRuns:
    """Waits and run times, first uses of images, what systems broke, and how well estimators did."""

    history: History
    first_uses: FirstUses
    broken: Tally
    scores: Scores
    submitted: Sequence[tuple[float, str]]
    """When (Unix time) and to which system they were, in that order."""

    @classmethod
    def of(cls, runs: Sequence[FinishedRun], speeds: Mapping[str, float]) -> OwnRuns:
        """``speeds``: speed factors by system id."""
        submitted = sorted((run.submitted_at.timestamp(), run.system_id) for run in runs)
        return cls(History(runs, speeds), FirstUses(runs), tally(runs), Scores(runs), submitted)

    def followers(self, now_s: float) -> float:
        """Jobs that come to a system that we use in ``FOLLOWED_S``, going by the last of those that have ended."""
        return followers(self.submitted[bisect_left(self.submitted, (now_s - FOLLOWED_S, "")) :])
