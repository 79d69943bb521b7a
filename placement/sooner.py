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

MOST_ADVISED = 50
"""Most different jobs of one plan for which variants are played."""


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


def advice_for(asks: Iterable[tuple[Ask, Estimate]], evidence: Evidence) -> Mapping[str, tuple[str, ...]]:
    """Advice by job uuid, for jobs and what they may expect; jobs of one owner that ask alike share theirs."""
    shared: dict[object, tuple[str, ...]] = {}
    found: dict[str, tuple[str, ...]] = {}
    for ask, winner in asks:
        key = (ask.owner, question(ask.spec), winner.run)
        if key not in shared and len(shared) < MOST_ADVISED:
            shared[key] = tuple(_advice(ask, winner, evidence))
        found[ask.job_uuid] = shared.get(key, ())
    return found


def _advice(ask: Ask, winner: Estimate, evidence: Evidence) -> Iterator[str]:
    (now,) = _soonest(ask, [ask.spec], evidence)
    if now is None:
        return
    for variants in (_shorter(ask, winner, evidence), _smaller(ask.spec)):
        starts = _soonest(ask, [each.spec for each in variants], evidence)
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


def _shorter(ask: Ask, winner: Estimate, evidence: Evidence) -> Sequence[Variant]:
    """Less walltime, the largest first; never less than such runs are known to take."""
    asked_s = ask.spec.resources.walltime_s
    known_s = winner.run.p90_s if winner.run.p90_s < asked_s else 0.0
    walltimes = {*WALLTIMES_S, *_before_closures(ask, evidence)}
    return [
        Variant(_with(ask.spec, walltime_s=each), f"{duration(each)} instead of {duration(asked_s)} of walltime")
        for each in sorted(walltimes, reverse=True)
        if max(known_s, 59) < each < asked_s
    ]


def _before_closures(ask: Ask, evidence: Evidence) -> Iterator[int]:
    """Walltimes with which the job would end before a window that it would run into."""
    now = evidence.problem.now
    for place in _places(ask, [ask.spec], evidence)[0]:
        wait = visible_queue(ask.spec, place, evidence)
        for closure in closures_ahead(ask.spec, place, now)[:1] if wait else ():
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


def _soonest(ask: Ask, specs: Sequence[JobSpec], evidence: Evidence) -> list[Start | None]:
    """For each spec its first start, with what else holds it back; None where no queue can be replayed."""
    found: list[Start | None] = []
    for spec, places in zip(specs, _places(ask, specs, evidence), strict=True):
        waits = [(visible_queue(spec, place, evidence), place) for place in places]
        starts = [Start(held(spec, place, evidence.problem.now, wait), place.key) for wait, place in waits if wait]
        found.append(min(starts, key=lambda start: (start.wait.p50_s, start.wait.p90_s), default=None))
    return found


def _places(ask: Ask, specs: Sequence[JobSpec], evidence: Evidence) -> list[tuple[PlaceOption, ...]]:
    asks = tuple(replace(ask, job_uuid=str(number), spec=spec) for number, spec in enumerate(specs))
    screenings = screen(replace(evidence.problem, asks=asks))
    return [screenings[each.job_uuid].candidates for each in asks]
