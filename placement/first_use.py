"""Where an image lies already, and what its first use on a system cost: read off our own runs.

A system keeps an image that a job has run. The first job to use it fetches it, so its run is longer than those after it
by what fetching took.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from statistics import median, quantiles

from placement.words import count
from scheduler.model.jobs import FinishedRun
from scheduler.model.plan import Term

KEPT = timedelta(days=30)
"""An image that nobody used for longer may have been cleared away."""

FEWEST_LATER = 2
"""Later runs of an image that its first one is compared with."""

FEWEST_IMAGES = 3
"""First uses on a system from which its answer is its own."""

GUESS = Term(20, 120, "a guess for an image that was not used there, nothing measured yet")
PRESENT = Term(1, 5, "the image was used there before")


class FirstUses:
    """What completed runs tell of images on systems."""

    def __init__(self, runs: Iterable[FinishedRun]) -> None:
        self._last_at: dict[tuple[str, str], datetime] = {}
        took_s: dict[tuple[str, str], list[float]] = defaultdict(list)
        completed = [run for run in runs if run.completed]
        for run in sorted(completed, key=lambda run: (run.started_at, run.ended_at, run.run_s)):
            here = (run.system_id, run.image)
            took_s[here].append(run.run_s)
            self._last_at[here] = max(run.ended_at, self._last_at.get(here, run.ended_at))
        self._images = {image for _, image in took_s}
        on_system: dict[str, list[float]] = defaultdict(list)
        of_image: dict[str, list[float]] = defaultdict(list)
        for (system_id, image), (first_s, *later_s) in took_s.items():
            if len(later_s) >= FEWEST_LATER:
                delay_s = max(0.0, first_s - median(later_s))
                on_system[system_id].append(delay_s)
                of_image[image].append(delay_s)
        self._there = {
            system_id: _term(delays_s, f"first uses of {count(len(delays_s), 'image')} there took so long")
            for system_id, delays_s in on_system.items()
            if len(delays_s) >= FEWEST_IMAGES
        }
        self._elsewhere = {
            image: _term(delays_s, "as the first use of this image elsewhere") for image, delays_s in of_image.items()
        }

    def knows(self, image: str) -> bool:
        """Whether the image was used anywhere: all others are alike."""
        return image in self._images

    def is_present(self, system_id: str, image: str, now: datetime) -> bool:
        """Whether the image was used there lately; a run that ended after ``now`` (a clock jumped) is lately."""
        last_at = self._last_at.get((system_id, image))
        return last_at is not None and now - last_at <= KEPT

    def term(self, system_id: str, image: str, now: datetime) -> Term:
        """How long bringing the image there takes: nothing much where it was used, else as such first uses took."""
        if self.is_present(system_id, image, now):
            return PRESENT
        return self._there.get(system_id) or self._elsewhere.get(image, GUESS)


def _term(delays_s: list[float], source: str) -> Term:
    p90_s = quantiles(delays_s, n=10, method="inclusive")[8] if len(delays_s) >= 10 else max(delays_s)
    p50_s = median(delays_s)
    return Term(p50_s, max(p90_s, 2 * p50_s), source)
