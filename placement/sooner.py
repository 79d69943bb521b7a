"""What would start a job sooner: the same job with less walltime or fewer nodes, played in the replay of the queues.

Only what the replay shows is said, for what it takes for likely and for the worst that it foresees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from placement.estimate import Evidence, visible_queue
from placement.explain import place_name
from placement.filters import question, screen
from placement.holds import closures_ahead, held, walltime_before
from placement.problem import Ask, PlaceKey, PlaceOption
from placement.words import about, count, duration
from scheduler.model.jobs import JobSpec
from scheduler.model.plan import Estimate, Term

WALLTIMES_S = tuple(minutes * 60 for minutes in (15, 30, 60, 120, 240, 480, 720, 1440, 2880))
"""Walltimes that people ask for; smaller steps gain little."""

LEAST_GAIN_S = 300
LEAST_SHARE = 0.25
"""An advice is worth giving when it gains more than both: so many seconds, and this share of the wait."""

GOOD_SHARE = 0.8
"""The smallest change is advised that gains this share of what the largest one gains."""

MOST_ADVISED = 10
"""Most different jobs of one plan for which variants are played: each takes dozens of replays."""

MOST_PLACES = 3
"""Places in which they are played: where the job goes, and those that are next best."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The job with one thing changed, and how that is said."""

    spec: JobSpec
    words: str


@dataclass(frozen=True, slots=True)
class Start:
    """Where the replay starts a job first, and when."""

    wait: Term
    place: PlaceKey


def advice_for(jobs: Iterable[tuple[Ask, Sequence[Estimate]]], evidence: Evidence) -> Mapping[str, tuple[str, ...]]:
    """Advice by job uuid, for jobs with what they may expect, where they go first.

    Jobs of one owner that ask alike and go to one place share theirs.
    """
    shared: dict[object, tuple[str, ...]] = {}
    found: dict[str, tuple[str, ...]] = {}
    for ask, expected in jobs:
        keys = tuple(PlaceKey(each.system_id, each.queue) for each in expected[:MOST_PLACES])
        key = (ask.owner, question(ask.spec), expected[0].run, keys)
        if key not in shared and len(shared) < MOST_ADVISED:
            shared[key] = tuple(_advice(Scene(ask, expected[0].run, frozenset(keys), evidence)))
        found[ask.job_uuid] = shared.get(key, ())
    return found


@dataclass(frozen=True, slots=True)
class Scene:
    """A job, how long it runs where it goes, and the places in which its variants are played."""

    ask: Ask
    run: Term
    places: frozenset[PlaceKey]
    evidence: Evidence

    def open_to(self, specs: Sequence[JobSpec]) -> list[list[PlaceOption]]:
        """For each spec those of the places that can take it."""
        asks = tuple(replace(self.ask, job_uuid=str(number), spec=spec) for number, spec in enumerate(specs))
        problem = self.evidence.problem
        ids = {key.system_id for key in self.places}
        systems = tuple(view for view in problem.systems if view.system.id in ids)
        screenings = screen(replace(problem, asks=asks, systems=systems))
        return [[each for each in screenings[ask.job_uuid].candidates if each.key in self.places] for ask in asks]

    def starts(self, specs: Sequence[JobSpec]) -> list[Start | None]:
        """For each spec its first start, with what else holds it back; None where no queue can be replayed."""
        found: list[Start | None] = []
        for spec, places in zip(specs, self.open_to(specs), strict=True):
            waits = [(visible_queue(spec, place, self.evidence), place) for place in places]
            now = self.evidence.problem.now
            starts = [Start(held(spec, place, now, wait), place.key) for wait, place in waits if wait]
            found.append(min(starts, key=lambda start: (start.wait.p50_s, start.wait.p90_s), default=None))
        return found


def _advice(scene: Scene) -> Iterator[str]:
    (now,) = scene.starts([scene.ask.spec])
    if now is None:
        return
    for variants in (_shorter(scene), _smaller(scene.ask.spec)):
        starts = scene.starts([each.spec for each in variants])
        gains = [
            (_gain_s(now, start), variant, start) for variant, start in zip(variants, starts, strict=True) if start
        ]
        most_s = max((gain_s for gain_s, *_ in gains), default=0.0)
        if most_s < max(LEAST_GAIN_S, LEAST_SHARE * now.wait.p50_s):
            continue
        gain_s, variant, start = next(each for each in gains if each[0] >= GOOD_SHARE * most_s)
        where = place_name(start.place.system_id, start.place.queue)
        yield f"{variant.words}: about {about(gain_s)} earlier, in {where}"


def _gain_s(now: Start, then: Start) -> float:
    """How much earlier it is likely to start; nothing when at worst it is no earlier."""
    return now.wait.p50_s - then.wait.p50_s if then.wait.p90_s < now.wait.p90_s else 0.0


def _shorter(scene: Scene) -> Sequence[Variant]:
    """Less walltime, the largest first; never less than such runs are known to take."""
    spec = scene.ask.spec
    asked_s = spec.resources.walltime_s
    known_s = scene.run.p90_s if scene.run.p90_s < asked_s else 0.0
    return [
        Variant(_with(spec, walltime_s=each), f"{duration(each)} instead of {duration(asked_s)} of walltime")
        for each in sorted({*WALLTIMES_S, *_before_closures(scene)}, reverse=True)
        if max(known_s, 59) < each < asked_s
    ]


def _before_closures(scene: Scene) -> Iterator[int]:
    """Walltimes with which the job would end before a window that it would run into."""
    spec, now = scene.ask.spec, scene.evidence.problem.now
    for place in scene.open_to([spec])[0]:
        wait = visible_queue(spec, place, scene.evidence)
        for closure in closures_ahead(spec, place, now)[:1] if wait else ():
            yield walltime_before(closure, wait.p90_s if wait else 0.0, now)


def _smaller(spec: JobSpec) -> Sequence[Variant]:
    """Fewer nodes, the most first."""
    asked = spec.resources.nodes
    return [
        Variant(_with(spec, nodes=nodes), f"{count(nodes, 'node')} instead of {asked}")
        for nodes in (asked * 3 // 4, asked // 2, asked // 4)
        if 0 < nodes < asked
    ]


def _with(spec: JobSpec, *, walltime_s: int | None = None, nodes: int | None = None) -> JobSpec:
    asked = spec.resources
    resources = replace(asked, walltime_s=walltime_s or asked.walltime_s, nodes=nodes or asked.nodes)
    return replace(spec, resources=resources)
