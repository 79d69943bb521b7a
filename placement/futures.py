"""Draws of a queue's future: its jobs played forward under EASY, each time with other run times and other newcomers.

Every draw is a system as it may be; what would happen to a job of ours in it is seen by sending the job there. The
same job uses the same part of its run-time distribution in the same draw everywhere, so that places are compared in
the same worlds and a second look at an unchanged queue gives the same answer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist, fmean
from typing import overload
from weakref import proxy

from placement.easy import Cluster, Load
from placement.looks import Look, SeenJob
from placement.order import Order, first_sizes, headed
from placement.played import DEPTH, Played
from placement.predict import Predictor, phase

LONGEST_S = 10 * 86_400.0
"""What has not started by then is taken to start then."""

COMING_S = 3 * 86_400.0
"""How far ahead newcomers are drawn."""

UNLIMITED_S = 365 * 86_400.0
"""No walltime is taken to be longer."""

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Copy:
    """A job of ours as it would be sent to one place; in line from ``ready_s`` on."""

    id: str
    place: str
    cores: int
    asked_s: float
    ready_s: float
    user: str
    kin: str


class Futures:
    """Some draws of what will happen in one place from a look at it on."""

    def __init__(
        self,
        look: Look,
        predictor: Predictor,
        order: Order,
        newcomers: Sequence[SeenJob] = (),
        draws: int = 8,
        *,
        depth: int = DEPTH,
    ) -> None:
        """newcomers: jobs that came in the weeks before, by submission; those of other weeks come again.

        depth: starts in each draw that are played one by one.
        """
        self._look, self._predictor, self._order = look, predictor, order
        self._newcomers, self._draws, self._depth = newcomers, draws, depth
        self._played: list[Played] = []
        self._phases: dict[str, float] = {}
        self._ages_s = {
            job.id: max(0.0, look.now_s - job.started_s) for job in look.running if job.started_s is not None
        }

    @cached_property
    def backlog_s(self) -> float:
        """Work in line for each core."""
        return sum(job.cores * job.asked_s for job in self._look.waiting) / max(1, self._look.cores)

    def starts_s(self, copy: Copy, until_s: float) -> tuple[float, ...]:
        """When a copy that is sent now would start, a draw each; ``until_s`` where later."""
        return tuple(self._start_s(n, draw, copy, until_s) for n, draw in enumerate(self._all()))

    def ends_s(self, copy: Copy, starts_s: Sequence[float]) -> tuple[float, ...]:
        """When it would end if it started so."""
        return tuple(at_s + self._run_s(n, copy) for n, at_s in enumerate(starts_s))

    def mean_run_s(self, copy: Copy) -> float:
        """How long it would run there, in the mean."""
        return fmean(self._run_s(n, copy) for n in range(self._draws))

    def held_starts_s(self, held: Collection[str], until_s: float) -> Mapping[str, tuple[float, ...]]:
        """When each of these, which are in line already, will start, a draw each; ``until_s`` where later."""
        return {each: tuple(draw.start_s(each, until_s) for draw in self._all()) for each in held}

    def play(self, n: int) -> None:
        """Play one draw as far as draws are played; else that is done by whoever asks first."""
        self._all()[n].play(self._look.now_s + LONGEST_S)

    # -- one draw ----------------------------------------------------------------------------------------------------

    def _all(self) -> Sequence[Played]:
        if not self._played:
            ranks_s = self._order.ranks_s(self._look.waiting)
            shown = self._shown(ranks_s)
            sizes = () if self._order.believed else first_sizes(self._look)
            for n in range(self._draws):
                if not self._order.believed:
                    pairs = zip(ranks_s, self._look.waiting, strict=True)
                    drawn_s = [rank_s + self._misjudged_s(n, job.id, job.user) for rank_s, job in pairs]
                    shown = self._shown(headed(drawn_s, self._look.waiting, sizes))
                self._played.append(Played(self._world(n, shown), self._depth))
        return self._played

    def _shown(self, ranks_s: Sequence[float]) -> Cluster:
        """The system as the look has it, its jobs in line at these ranks."""
        look = self._look
        waiting = [self._load(job, rank_s) for job, rank_s in zip(look.waiting, ranks_s, strict=True)]
        cluster = Cluster(look.cores, look.now_s, waiting=waiting)
        for job in look.running:
            began_s = look.now_s if job.started_s is None else min(job.started_s, look.now_s)
            cluster.run(self._load(job, 0.0), began_s)
        return cluster

    def _world(self, n: int, shown: Cluster) -> Cluster:
        world = shown.drawn(self._run_times(n), self._coming(n))
        for job in self._look.coming:
            rank_s = self._order.rank_s(job) + self._misjudged_s(n, job.id, job.user)
            world.enter(self._load(job, rank_s), job.submitted_s)
        world.advance(self._look.now_s)
        return world

    @staticmethod
    def _load(job: SeenJob, rank_s: float) -> Load:
        """A job of the look. How long it runs is drawn when it begins, as its kin's do."""
        asked_s = job.asked_s if 1.0 <= job.asked_s <= UNLIMITED_S else min(max(1.0, job.asked_s), UNLIMITED_S)
        return Load(job.id, job.cores if job.cores > 0 else 1, asked_s, asked_s, job.submitted_s, rank_s, job.kin)

    def _run_times(self, n: int) -> Callable[[Load], float]:
        """How long jobs run in one draw. It holds nothing that holds the draw: long queues go when they are let go."""
        phases, ages_s, run_s, part = self._phases, self._ages_s, self._predictor.run_s, (n + 0.5) / self._draws
        speed = self._look.speed

        def drawn(load: Load) -> float:
            at = phases.get(load.id)
            if at is None:
                at = phases[load.id] = phase(load.id)
            age_s, quantile = ages_s.get(load.id, 0.0), (at + part) % 1.0
            return max(age_s + 1.0, run_s(load.user, load.asked_s * speed, quantile, age_s * speed, load.cores) / speed)

        return drawn

    def _start_s(self, n: int, draw: Played, copy: Copy, until_s: float) -> float:
        rank_s = copy.ready_s + self._order.later_s(copy.user) + self._misjudged_s(n, copy.id, copy.user)
        asked_s = max(1.0, copy.asked_s)
        load = Load(copy.id, max(1, copy.cores), asked_s, asked_s, copy.ready_s, rank_s, copy.kin)
        return draw.start_among_s(load, copy.ready_s, until_s)

    def _run_s(self, n: int, copy: Copy) -> float:
        part = (self._phase(copy.id) + (n + 0.5) / self._draws) % 1.0
        speed = self._look.speed
        return self._predictor.run_s(copy.kin, copy.asked_s * speed, part, cores=copy.cores) / speed

    def _phase(self, name: str) -> float:
        if name not in self._phases:
            self._phases[name] = phase(name)
        return self._phases[name]

    def _misjudged_s(self, n: int, name: str, user: str) -> float:
        """By how much a draw ranks a job other than what is known says: as its user, and as the one job it is."""
        if not self._order.apart_s:
            return 0.0
        unsure_s = self._order.unsure_s(user) * _sigmas(f"{user} ranks", n, self._draws)
        return unsure_s + self._order.unsure_of_job_s(name) * _sigmas(f"{name} ranks", n, self._draws)

    def _coming(self, n: int) -> Sequence[Load]:
        """Who came from the same hour on, some weeks (at first) or some days ago, comes again."""
        back_s = DAY_S * (7 * (n + 1) if n < 3 else n)
        now_s = self._look.now_s
        first = bisect_right(self._newcomers, now_s - back_s, key=_submitted_s)
        last = bisect_right(self._newcomers, min(now_s, now_s - back_s + COMING_S), key=_submitted_s)
        held = proxy(self)  # the draw is ours
        return _Again(self._newcomers, first, last, lambda job: held._again(n, job, job.submitted_s + back_s))

    def _again(self, n: int, job: SeenJob, at_s: float) -> Load:
        rank_s = at_s + self._order.later_s(job.user) + self._misjudged_s(n, job.id, job.user)
        name = f"+{job.id}"
        self._phases[name] = self._phase(job.id)
        return Load(name, job.cores, job.asked_s, job.asked_s, at_s, rank_s, job.kin)


class _Again(Sequence[Load]):
    """Jobs that come again, made when they are asked for: most draws end long before the last one comes."""

    def __init__(self, jobs: Sequence[SeenJob], first: int, last: int, again: Callable[[SeenJob], Load]) -> None:
        self._jobs, self._first, self._last, self._make = jobs, first, last, again
        self._made: list[Load] = []

    def __len__(self) -> int:
        return self._last - self._first

    @overload
    def __getitem__(self, index: int) -> Load: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Load]: ...
    def __getitem__(self, index: int | slice) -> Load | Sequence[Load]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        while len(self._made) <= index:
            self._made.append(self._make(self._jobs[self._first + len(self._made)]))
        return self._made[index]


_NORMAL = NormalDist()


@lru_cache(maxsize=100_000)
def _sigmas(name: str, n: int, draws: int) -> float:
    return _NORMAL.inv_cdf((phase(name) + (n + 0.5) / draws) % 1.0 or 0.5)


def _submitted_s(job: SeenJob) -> float:
    return job.submitted_s
