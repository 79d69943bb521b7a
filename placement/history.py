"""What finished runs teach: waits of a queue and run times of an image, as quantiles of the most recent ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import quantiles

from placement.predict import Predictor, RunTimes, Used, learn
from placement.problem import PlaceKey
from placement.words import count
from scheduler.model.jobs import FinishedRun, JobSpec
from scheduler.model.plan import Term

LAST = 20
"""Recent runs tell more than many (Tsafrir, Etsion & Feitelson, TPDS 2007)."""

FEWEST = 3
"""Below this many runs a quantile is hearsay."""


class History:
    """Finished runs by what they are asked for."""

    def __init__(self, runs: Iterable[FinishedRun], speeds: Mapping[str, float]) -> None:
        """``speeds``: speed factor by system id, so that run times of one system speak for another."""
        self._waits: dict[PlaceKey, list[float]] = defaultdict(list)
        self._runs: dict[tuple[str, str | None], list[float]] = defaultdict(list)
        used: list[Used] = []
        self._waited: dict[PlaceKey, Term | None] = {}
        self._learnt: dict[tuple[str, str], Term | None] = {}
        self._told: dict[tuple[str, str, float, int], Term] = {}
        for run in sorted(runs, key=lambda run: (run.ended_at, run.owner, run.image, run.submitted_at)):
            if run.broken:
                continue
            self._waits[PlaceKey(run.system_id, run.queue)].append(run.wait_s)
            if not run.completed:
                continue
            run_s = run.run_s
            work_s = run_s * speeds.get(run.system_id, 1.0)
            self._runs[run.image, run.owner].append(work_s)
            self._runs[run.image, None].append(work_s)
            used.append(Used(run.owner, max(1, run.resources.walltime_s), run_s))
        self._known = learn(RunTimes(), used)
        self._predictor = Predictor(self._known)

    def wait(self, place: PlaceKey) -> Term | None:
        """The wait of our last runs in this place; None when there were too few."""
        if place not in self._waited:
            waits_s = self._waits.get(place, ())
            self._waited[place] = _term(waits_s, lambda n: f"the last {count(n, 'wait')} of ours there")
        return self._waited[place]

    def run(self, spec: JobSpec, owner: str, speed_factor: float) -> Term:
        """The run time there, never above the asked walltime: from runs of this image, else from what users ask."""
        asked = spec.image, owner, speed_factor, spec.resources.walltime_s
        found = self._told.get(asked)
        if found is None:
            found = self._told[asked] = self._run(spec, owner, speed_factor)
        return found

    def knows(self, spec: JobSpec, owner: str) -> bool:
        """Whether there were runs enough to tell how long such a job takes; else ``run`` is mostly a guess."""
        return self._of_image(spec.image, owner) is not None or len(self._known.by_user.get(owner, ())) >= FEWEST

    def _run(self, spec: JobSpec, owner: str, speed_factor: float) -> Term:
        asked_s = float(spec.resources.walltime_s)
        known = self._of_image(spec.image, owner)
        if known is not None:
            return _capped(known, 1 / speed_factor, asked_s)
        run_count = len(self._known.by_user.get(owner, ()))
        source = f"what {owner} used of the walltime in {count(run_count, 'run')}"
        if not run_count:
            source = "no runs known: jobs use about 40 % of the walltime they ask for"
        asked_s = max(1.0, asked_s)
        p50_s, p90_s = (self._predictor.run_s(owner, asked_s, quantile) for quantile in (0.5, 0.9))
        return Term(min(p50_s, asked_s), min(max(p50_s, p90_s), asked_s), source)

    def _of_image(self, image: str, owner: str) -> Term | None:
        if (image, owner) not in self._learnt:
            own, anyone = self._runs.get((image, owner), ()), self._runs.get((image, None), ())
            self._learnt[image, owner] = _term(
                own, lambda n: f"the last {count(n, 'run')} of this image by {owner}"
            ) or _term(anyone, lambda n: f"the last {count(n, 'run')} of this image")
        return self._learnt[image, owner]


def _term(values: Sequence[float], source: Callable[[int], str]) -> Term | None:
    recent = values[-LAST:]
    if len(recent) < FEWEST:
        return None
    tenths = quantiles(recent, n=10, method="inclusive")
    p90 = max(recent) if len(recent) < 10 else tenths[8]
    return Term(tenths[4], p90, source(len(recent)))


def _capped(term: Term, factor: float, most_s: float) -> Term:
    return Term(min(term.p50_s * factor, most_s), min(term.p90_s * factor, most_s), term.source)
