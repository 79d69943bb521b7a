"""What would start a job sooner: the same job with less of one thing, played in the replay of the queues.

Only what the replay shows is said, for what it takes for likely and for the worst that it foresees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from placement.evidence import Evidence
from placement.explain import place_name
from placement.filters import screen
from placement.gist import question
from placement.holds import closures_ahead, held, walltime_before
from placement.problem import Ask, PlaceKey, PlaceOption
from placement.queue_wait import visible_queue
from placement.slots import nodes_free_for
from placement.words import about, count, duration, memory
from scheduler.model.jobs import JobSpec
from scheduler.model.plan import Estimate, Reason, Rejection, Term
from scheduler.model.runs import Resources
from scheduler.model.systems import LogicalQueue

WALLTIMES_S = tuple(minutes * 60 for minutes in (5, 10, 15, 30, 60, 120, 240, 480, 720, 1440, 2880))
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

OPENED_BY_LESS = frozenset({Reason.WALLTIME, Reason.NODES, Reason.CORES, Reason.MEMORY})
"""What keeps a job out of a place that would take it with less; where nothing else does, variants are played there too.
"""


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


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that will wait: what it may expect, where it goes first, and where it cannot go."""

    ask: Ask
    expected: Sequence[Estimate]
    rejections: Sequence[Rejection] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """What would start a job sooner, in words, and the places of which the replay has told."""

    words: tuple[str, ...] = ()
    played: frozenset[PlaceKey] = frozenset()


def advice_for(jobs: Iterable[Waiting], evidence: Evidence) -> Mapping[str, Advice]:
    """Advice by job uuid. Jobs of one owner that ask alike and go to one place share theirs."""
    shared: dict[object, Advice] = {}
    found: dict[str, Advice] = {}
    for job in jobs:
        taking = [PlaceKey(each.system_id, each.queue) for each in job.expected[:MOST_PLACES]]
        places = frozenset((*taking, *islice(_opened(job.rejections), MOST_PLACES)))
        run = job.expected[0].run
        key = (job.ask.owner, question(job.ask.spec), run, places)
        if key not in shared and len(shared) < MOST_ADVISED:
            shared[key] = _advice(Scene(job.ask, run, places, evidence))
        found[job.ask.job_uuid] = shared.get(key, Advice())
    return found


def _opened(rejections: Iterable[Rejection]) -> Iterator[PlaceKey]:
    """Places in whose way one thing stands, which asking for less of it removes."""
    obstacles: dict[PlaceKey, list[Reason]] = {}
    for each in rejections:
        obstacles.setdefault(PlaceKey(each.system_id, each.queue), []).append(each.reason)
    return (key for key, found in obstacles.items() if len(found) == 1 and found[0] in OPENED_BY_LESS)


@dataclass(frozen=True, slots=True)
class Scene:
    """A job, how long it runs where it goes, and the places in which its variants are played."""

    ask: Ask
    run: Term
    places: frozenset[PlaceKey]
    evidence: Evidence

    def all(self) -> Iterator[PlaceOption]:
        """The places, whether they take the job as it is or not."""
        for view in self.evidence.problem.systems:
            yield from (each for each in (*view.queue_places, view.host_place) if each.key in self.places)

    def visible(self) -> frozenset[PlaceKey]:
        """Those of the places whose queues can be replayed."""
        return frozenset(each.key for each in self.all() if self.evidence.forecast(each) is not None)

    def open_to(self, specs: Sequence[JobSpec]) -> list[list[PlaceOption]]:
        """For each spec those of the places that can take it."""
        asks = tuple(replace(self.ask, job_uuid=str(number), spec=spec) for number, spec in enumerate(specs))
        problem = self.evidence.problem
        ids = {key.system_id for key in self.places}
        systems = tuple(view for view in problem.systems if view.system.id in ids)
        screenings = screen(replace(problem, asks=asks, systems=systems))
        return [[each for each in screenings[ask.job_uuid].candidates if each.key in self.places] for ask in asks]

    def starts(self, specs: Sequence[JobSpec]) -> list[Start | None]:
        """For each spec its first start, with what else holds it back; None where no queue can be replayed.

        A replay counts cores: one that starts a job at once is believed where nodes are seen to be free for it.
        """
        found: list[Start | None] = []
        for spec, places in zip(specs, self.open_to(specs), strict=True):
            waits = [(visible_queue(spec, place, self.evidence), place) for place in places]
            now = self.evidence.problem.now
            starts = [
                Start(held(spec, place, now, wait), place.key)
                for wait, place in waits
                if wait and (wait.p50_s > 0 or nodes_free_for(spec, place) >= spec.resources.nodes)
            ]
            found.append(min(starts, key=lambda start: (start.wait.p50_s, start.wait.p90_s), default=None))
        return found


def _advice(scene: Scene) -> Advice:
    (now,) = scene.starts([scene.ask.spec])
    if now is None:
        return Advice()
    words: list[str] = []
    for less in LESS:
        variants = list(less(scene))
        starts = scene.starts([each.spec for each in variants])
        gains = [
            (_gain_s(now, start), variant, start) for variant, start in zip(variants, starts, strict=True) if start
        ]
        most_s = max((gain_s for gain_s, *_ in gains), default=0.0)
        if most_s < max(LEAST_GAIN_S, LEAST_SHARE * now.wait.p50_s):
            continue
        gain_s, variant, start = next(each for each in gains if each[0] >= GOOD_SHARE * most_s)
        where = place_name(start.place.system_id, start.place.queue)
        words.append(f"{variant.words}: about {about(gain_s)} earlier, in {where}")
    return Advice(tuple(words), scene.visible())


def _gain_s(now: Start, then: Start) -> float:
    """How much earlier it is likely to start; nothing when at worst it is no earlier."""
    return now.wait.p50_s - then.wait.p50_s if then.wait.p90_s < now.wait.p90_s else 0.0


# -- less of one thing -----------------------------------------------------------------------------------------------


def _shorter(scene: Scene) -> Iterator[Variant]:
    """Less walltime, the largest first; never less than such runs are known to take."""
    asked_s = scene.ask.spec.resources.walltime_s
    is_known = scene.evidence.history.knows(scene.ask.spec, scene.ask.owner) and scene.run.p90_s < asked_s
    known_s = scene.run.p90_s if is_known else 0.0
    offers = (*WALLTIMES_S, *_before_closures(scene), *(_largest(each).walltime_s for each in scene.all()))
    for each in _below(asked_s, offers):
        if each > max(known_s, 59):
            words = f"{duration(each)} instead of {duration(asked_s)} of walltime"
            yield _with(scene, words, walltime_s=each)


def _before_closures(scene: Scene) -> Iterator[int]:
    """Walltimes with which the job would end before a window that it would run into."""
    spec, now = scene.ask.spec, scene.evidence.problem.now
    for place in scene.open_to([spec])[0]:
        wait = visible_queue(spec, place, scene.evidence)
        for closure in closures_ahead(spec, place, now)[:1] if wait else ():
            yield walltime_before(closure, wait.p90_s if wait else 0.0, now)


def _smaller(scene: Scene) -> Iterator[Variant]:
    """Fewer nodes."""
    asked = scene.ask.spec.resources.nodes
    parts = (asked * 3 // 4, asked // 2, asked // 4)
    for nodes in _below(asked, (*parts, *(_largest(each).nodes for each in scene.all()))):
        yield _with(scene, f"{count(nodes, 'node')} instead of {asked}", nodes=nodes)


def _narrower(scene: Scene) -> Iterator[Variant]:
    """Fewer cores per node: only where that opens a place, as a replay does not see which nodes have some free."""
    asked = scene.ask.spec.resources.cores_per_node
    for cores in _below(asked, (_largest(each).cores_per_node for each in scene.all())):
        yield _with(scene, f"{count(cores, 'core')} per node instead of {asked}", cores_per_node=cores)


def _lighter(scene: Scene) -> Iterator[Variant]:
    """Less memory per node, likewise."""
    asked = scene.ask.spec.resources.memory_mib
    for mib in _below(asked, (_largest(each).memory_mib for each in scene.all())):
        yield _with(scene, f"{memory(mib)} instead of {memory(asked)} of memory per node", memory_mib=mib)


LESS: Sequence[Callable[[Scene], Iterator[Variant]]] = (_shorter, _smaller, _narrower, _lighter)
"""What may be asked less of. Each gives its variants with the most first, so that the smallest change is advised."""


def _below(asked: int, offered: Iterable[int]) -> Sequence[int]:
    """What is less than was asked, the most first."""
    return sorted({each for each in offered if 0 < each < asked}, reverse=True)


def _with(scene: Scene, words: str, **less: Any) -> Variant:
    spec = scene.ask.spec
    return Variant(replace(spec, resources=replace(spec.resources, **less)), words)


def _largest(place: PlaceOption) -> Resources:
    """The most of each that one job may ask for there."""
    queue, seen = place.queue or LogicalQueue(name="", partition=""), place.partition
    nodes = [queue.max_nodes, sum(kind.total for kind in place.nodes)]
    walltimes_s = [queue.max_walltime_s]
    if seen is not None:
        nodes += [seen.max_nodes] if seen.max_nodes is not None else []
        walltimes_s += [seen.max_walltime_s] if seen.max_walltime_s is not None else []
    return Resources(
        nodes=min(nodes),
        cores_per_node=min(queue.max_cores_per_node, max((kind.cores for kind in place.nodes), default=0)),
        memory_mib=min(queue.max_memory_mib, max((kind.memory_mib for kind in place.nodes), default=0)),
        walltime_s=min(walltimes_s),
    )
