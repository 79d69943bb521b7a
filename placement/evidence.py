"""What estimators know besides job and place, worked out once for a problem, and which jobs are nearly alike."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from placement.experience import Experience
from placement.failures import Failures
from placement.first_use import FirstUses
from placement.forecasts import Forecast, Forecasts
from placement.futures import Copy
from placement.history import History
from placement.own_runs import OwnRuns
from placement.problem import Ask, PlaceKey, PlaceOption, Problem
from placement.scores import Scores
from placement.slots import UNSEEN_CORES, total_cores
from placement.visible import LONGEST_RUN_S, foreseeable, place_name
from scheduler.model.jobs import JobSpec
from scheduler.model.plan import Estimate, Term
from scheduler.model.runs import Resources

STALE_S = 3600
"""A look at a system that is older says nothing of its queue."""

CROWD = 200
ROUNDING = 1.5
"""With more jobs in a plan, walltimes of one such step and memories of a factor of two are asked of a queue as one.

Jobs that differ by no more than such a step in anything are then estimated as one, but for where they go.
"""

WaitKey = tuple[PlaceKey, Resources, frozenset[object]]


class Wait(NamedTuple):
    """How long a queue lets a job wait: for people, as draws, and as each estimator had it (median and p90)."""

    term: Term
    draws_s: tuple[float, ...]
    told_s: Mapping[str, tuple[float, float]]


class Shared(NamedTuple):
    """What jobs that are nearly alike and go to the same place are shown alike: all places but two, soonest first."""

    expected: Sequence[Estimate]
    others: Sequence[tuple[int, int, Estimate]]
    """With what they come to in whole seconds, and their index in ``expected``."""
    shown: Sequence[tuple[int, PlaceOption]]
    """Where they go and the next best place, by index, of which each has an estimate of its own."""


@dataclass(slots=True)
class Evidence:
    """What the estimators know besides job and place, worked out once for a problem."""

    problem: Problem
    history: History
    first_uses: FirstUses
    failures: Failures
    scores: Scores
    followers: float
    """Jobs of ours that come to a system in a day."""
    tells_images_apart: bool = False
    """Whether it is known of any image that it runs somewhere or does not."""
    keeps_images: bool = False
    """Whether any system does: then it matters what an image is, and whose."""
    waits: dict[WaitKey, Wait] = field(default_factory=dict)
    draws_s: dict[WaitKey, tuple[float, ...]] = field(default_factory=dict)
    """As they were replayed, believed or not."""
    starts_s: dict[Copy, tuple[float, ...]] = field(default_factory=dict)
    """By job as it is replayed: many that ask for other memory are the same there."""
    rounded: dict[Hashable, JobSpec] = field(default_factory=dict)
    own_estimates: dict[Hashable, Estimate] = field(default_factory=dict)
    sizes_cores: dict[PlaceKey, int] = field(default_factory=dict)
    shared: dict[tuple[int, PlaceKey], Shared] = field(default_factory=dict)
    """By id of the estimates that jobs share, and by where they go."""
    losers: dict[int, tuple[Sequence[Estimate], Sequence[tuple[int, int, Estimate]]]] = field(default_factory=dict)
    """By id of the estimates that jobs share: they, and as they are shown beside a winner."""

    @classmethod
    def of(cls, problem: Problem) -> Evidence:
        speeds = {view.system.id: view.speed_factor for view in problem.systems}
        runs = problem.own_runs.of("", (problem.history, speeds), lambda: OwnRuns.of(problem.history, speeds))
        failures, followers = Failures(runs.broken, problem.now), runs.followers(problem.now.timestamp())
        tells_images_apart = any(view.image_verdicts for view in problem.systems)
        keeps_images = any(view.stores is not None for view in problem.systems)
        known = runs.history, runs.first_uses, failures, runs.scores
        return cls(problem, *known, followers, tells_images_apart, keeps_images)

    @property
    def is_crowd(self) -> bool:
        """Whether there are so many jobs that those speak for others that are nearly alike."""
        return len(self.problem.asks) > CROWD

    def kin(self, ask: Ask) -> Hashable:
        """Equal for jobs that are nearly ``alike``: to a step in run time, walltime and memory."""
        spec, asked = ask.spec, ask.spec.resources
        run = self.history.run(spec, ask.owner, 1.0)
        matters = self.tells_images_apart or self.first_uses.knows(spec.image)
        image: Hashable = spec.image if matters else ""
        if ask.image is not None and self.keeps_images:
            image = image, _content(ask), ask.owner
        shape = asked.nodes, asked.cores_per_node, asked.gpus_per_node, asked.gpu_model
        steps = tuple(map(_step, (run.p50_s, run.p90_s, asked.walltime_s, asked.memory_mib)))
        return (*shape, *steps, image, *_beside(spec))

    def as_asked(self, spec: JobSpec, place: PlaceOption) -> JobSpec:
        """The job whose wait is asked for: it, or in a crowd one that is rounded up and stands for all like it."""
        if not self.is_crowd:
            return spec
        resources = _rounded_up(spec.resources, place.largest_node_mib)
        key = resources, spec.scheduler_options
        found = self.rounded.get(key)
        if found is None:
            found = self.rounded[key] = replace(spec, resources=resources)
        return found

    def size_cores(self, place: PlaceOption) -> int:
        """Cores of the place, or what one is taken to have of which no nodes are seen."""
        if place.key not in self.sizes_cores:
            self.sizes_cores[place.key] = total_cores(place.nodes) or UNSEEN_CORES
        return self.sizes_cores[place.key]

    def age_s(self, place: PlaceOption) -> float:
        """Age of the place's snapshot; a snapshot from the future (a clock jumped) counts as new."""
        snapshot = place.view.snapshot
        return math.inf if snapshot is None else max(0.0, (self.problem.now - snapshot.taken_at).total_seconds())

    def forecast(self, place: PlaceOption) -> Forecast | None:
        """What is foreseen of the place's queue; None where too little of it is visible, or that was long ago."""
        return None if self.age_s(place) > STALE_S else foresee(place, self.problem.experience, self.problem.forecasts)


def foresee(place: PlaceOption, known: Experience, kept: Forecasts) -> Forecast | None:
    """The forecast of a queue that is kept, or a new one; None where too little of it is visible."""
    name = place_name(place)

    def make() -> Forecast | None:
        look = foreseeable(place)
        return None if look is None else Forecast(look, known, name)

    return kept.of(name, (place.view.snapshot, place.unseen), make)


def likeness(ask: Ask) -> Hashable:
    """All that the estimators read of an ask: those for whom this is equal may expect the same everywhere."""
    return (ask.owner, ask.spec.image, _content(ask), ask.spec.resources, *_beside(ask.spec))


def _content(ask: Ask) -> str:
    return ask.image.manifest_digest if ask.image is not None else ""


def _beside(spec: JobSpec) -> tuple[Hashable, ...]:
    return (
        spec.runtime,
        spec.is_mpi,
        spec.array,
        spec.scheduler_options,
        tuple(each.source_url for each in spec.file_inputs),
        spec.archive_mode,
        spec.archive_system_id,
        spec.deadline_at,
        spec.usd_per_hour,
        spec.usd_per_kwh,
    )


def _step(amount: float) -> int:
    return math.ceil(math.log(max(1.0, amount), ROUNDING))


@lru_cache(maxsize=10_000)
def _rounded_up(resources: Resources, largest_mib: int | None) -> Resources:
    """Walltime and memory to the next step of a coarse scale, memory never beyond the largest node."""
    walltime_s = ROUNDING ** math.ceil(math.log(max(60, resources.walltime_s), ROUNDING))
    memory_mib = 2 ** math.ceil(math.log2(max(1, resources.memory_mib)))
    return replace(
        resources,
        walltime_s=min(round(walltime_s), max(resources.walltime_s, round(LONGEST_RUN_S))),
        memory_mib=max(resources.memory_mib, min(memory_mib, largest_mib or resources.memory_mib)),
    )


def wait_key(spec: JobSpec, place: PlaceOption) -> WaitKey:
    """All that a wait there depends on: jobs for whom it is equal wait alike."""
    return place.key, spec.resources, frozenset(spec.scheduler_options)
