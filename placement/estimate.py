"""How long until the result, place by place: wait, staging, run and archive, each with median, p90 and its source."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from placement.draws import drawn, mean_s
from placement.evidence import Evidence, Shared, Wait, likeness
from placement.explain import untold
from placement.failures import Failures
from placement.filters import Screening
from placement.forecasts import DRAWS
from placement.holds import held
from placement.policy import price_usd
from placement.problem import Ask, PlaceKey, PlaceOption, Problem
from placement.queue_wait import wait_there
from placement.race import Prospect, crowding_s
from placement.slots import fitting_nodes, footprint_cores, slots_for_us
from placement.stores import brought
from placement.utility import costs, kwh
from placement.words import count
from scheduler.model.jobs import ArchiveMode, JobSpec
from scheduler.model.plan import Estimate, Term
from scheduler.model.runs import Runtime
from scheduler.model.verdicts import Fit, ImageVerdict

NO_IMAGE = Term(0, 0, "no image to bring")


def estimates(
    problem: Problem, screenings: Mapping[str, Screening], evidence: Evidence | None = None
) -> Mapping[str, tuple[Estimate, ...]]:
    """What every job may expect in each of its candidates, soonest first. ``evidence``: of this problem, if at hand."""
    evidence = evidence or Evidence.of(problem)
    like: Callable[[Ask], Hashable] = evidence.kin if evidence.is_crowd else likeness
    asked: dict[str, tuple[Hashable, int]] = {}
    speakers: dict[tuple[Hashable, int], Ask] = {}
    number_of = _numbered(screening.candidates for screening in screenings.values())
    for ask in problem.asks:
        alike = like(ask), number_of[id(screenings[ask.job_uuid].candidates)]
        asked[ask.job_uuid] = alike
        speaker = speakers.get(alike)
        if speaker is None or demand(ask) > demand(speaker):
            speakers[alike] = ask
    found = {
        alike: _soonest_first(ask, screenings[ask.job_uuid].candidates, evidence) for alike, ask in speakers.items()
    }
    return {uuid: found[alike] for uuid, alike in asked.items()}


def _numbered(choices: Iterable[Sequence[PlaceOption]]) -> Mapping[int, int]:
    """A number for each choice of places, by id: the same for the same places."""
    numbers: dict[tuple[PlaceKey, ...], int] = {}
    found: dict[int, int] = {}
    for places in choices:
        if id(places) not in found:
            found[id(places)] = numbers.setdefault(tuple(place.key for place in places), len(numbers))
    return found


def demand(ask: Ask) -> tuple[int, int, str]:
    """Of jobs that are nearly alike, the one for which this is greatest speaks for all: it asks for most."""
    return ask.spec.resources.walltime_s, ask.spec.resources.memory_mib, ask.job_uuid


def exactly(
    ask: Ask, expected: Sequence[Estimate], chosen: PlaceKey, places: Iterable[PlaceOption], evidence: Evidence
) -> tuple[Estimate, ...]:
    """The estimates of a job, in a crowd with its own of where it goes and of the next best place; soonest first."""
    if not evidence.is_crowd:
        return tuple(expected)
    shared = _shared(expected, chosen, places, evidence)
    found = list(shared.others)
    for index, own in _own(ask, shared.shown, evidence):
        insort(found, (round(score_s(own)), index, own))
    return tuple([each for _, _, each in found])


def _shared(
    expected: Sequence[Estimate], chosen: PlaceKey, places: Iterable[PlaceOption], evidence: Evidence
) -> Shared:
    alike = id(expected), chosen
    if alike not in evidence.shared:
        keys = [PlaceKey(each.system_id, each.queue) for each in expected]
        two = {chosen, next((key for key in keys if key != chosen), chosen)}
        shown = [(keys.index(place.key), place) for place in places if place.key in two]
        others = [each for each, key in zip(_ranked(expected, evidence), keys, strict=True) if key not in two]
        evidence.shared[alike] = Shared(expected, others, shown)
    return evidence.shared[alike]


def _ranked(expected: Sequence[Estimate], evidence: Evidence) -> Sequence[tuple[int, int, Estimate]]:
    """As they are shown beside winners."""
    if id(expected) not in evidence.losers:
        ranked = [(round(score_s(each)), n, untold(each)) for n, each in enumerate(expected)]
        evidence.losers[id(expected)] = expected, ranked
    return evidence.losers[id(expected)][1]


def _own(ask: Ask, places: Iterable[tuple[int, PlaceOption]], evidence: Evidence) -> Iterator[tuple[int, Estimate]]:
    """The job's own estimates, for which nothing else speaks, with the places' indices."""
    alike, one = likeness(ask), _Job(ask, evidence)
    for index, place in places:
        own = evidence.own_estimates.get((alike, place.key))
        if own is None:
            own = evidence.own_estimates[alike, place.key] = one.estimated(place)
        yield index, own


def _soonest_first(ask: Ask, places: Iterable[PlaceOption], evidence: Evidence) -> tuple[Estimate, ...]:
    """To the second; of places that are as soon, the cheaper one first, then by name."""
    one = _Job(ask, evidence)
    found = [(one.estimated(place), place.view.tariff.usd_per_core_hour or 0.0) for place in places]
    found.sort(key=lambda each: (round(score_s(each[0])), each[1], each[0].system_id, each[0].queue or ""))
    return tuple(each for each, _ in found)


class Outlook(NamedTuple):
    """What one job may expect in one place, were it alone: for people, and as draws, whose ends count all it costs."""

    key: PlaceKey
    estimate: Estimate
    prospect: Prospect


def outlook(ask: Ask, place: PlaceOption, evidence: Evidence) -> Outlook:
    """The terms of the time to solution, and what they come to."""
    expected = estimated(ask, place, evidence)
    now_s = evidence.problem.now.timestamp()
    waits_s = _waits_s(wait_there(evidence.as_asked(ask.spec, place), place, evidence), expected.wait)
    starts_s = tuple(now_s + max(wait_s, expected.staging.p50_s) for wait_s in waits_s)
    runs_s = drawn(expected.run, DRAWS, order_step=3)
    ends_s = tuple(at_s + run_s + expected.archive.p50_s for at_s, run_s in zip(starts_s, runs_s, strict=True))
    return Outlook(place.key, expected, Prospect(_name(place.key), starts_s, ends_s).later_by(expected.extra_s))


def estimated(ask: Ask, place: PlaceOption, evidence: Evidence) -> Estimate:
    """The same for people; what it comes to are the means over the same draws."""
    return _Job(ask, evidence).estimated(place)


class _Job:
    """A job of which is estimated what it may expect here and there; what is the same everywhere is worked out once."""

    def __init__(self, ask: Ask, evidence: Evidence) -> None:
        self._ask, self._spec, self._evidence, self._now = ask, ask.spec, evidence, evidence.problem.now
        deadline_at = ask.spec.deadline_at
        self._deadline_s = None if deadline_at is None else (deadline_at - self._now).total_seconds()
        self._asked: dict[int | None, JobSpec] = {}
        self._runs: dict[float, Term] = {}

    def estimated(self, place: PlaceOption) -> Estimate:
        ask, spec, evidence = self._ask, self._spec, self._evidence
        in_queue = wait_there(self._as_asked(place), place, evidence)
        wait = held(spec, place, self._now, in_queue.term)
        stage, run, bring_home = staging(ask, place, evidence), self._run_time(place), archive(spec, place)
        there_s = stage.p50_s
        start_s = sum([there_s if there_s > wait_s else wait_s for wait_s in _waits_s(in_queue, wait)]) / DRAWS
        run_s = mean_s(run.p50_s, run.p90_s, DRAWS)
        cores = footprint_cores(spec.resources, fitting_nodes(spec, place)) * tasks_at_once(spec, place)
        held_s, in_line_s = run_s + bring_home.p50_s, start_s - there_s
        taken_s = crowding_s(held_s, in_line_s, cores, evidence.size_cores(place), evidence.followers)
        told: dict[str, Any] = {
            "system_id": place.key.system_id,
            "queue": place.key.queue,
            "wait": wait,
            "staging": stage,
            "run": run,
            "archive": bring_home,
            "expected_s": start_s + run_s + bring_home.p50_s + taken_s,
            "told_waits_s": in_queue.told_s,
            "deadline_s": self._deadline_s,
            "image_actions": verdict.actions if (verdict := place.image_verdict(spec)) else (),
        }
        expected = Estimate(**told)
        extra_s = costs(ask, place, expected, evidence.failures)
        return Estimate(**told, costs_s=extra_s, notes=notes(ask, place, expected, evidence.failures, extra_s))

    def _as_asked(self, place: PlaceOption) -> JobSpec:
        most_mib = place.largest_node_mib
        if most_mib not in self._asked:
            self._asked[most_mib] = self._evidence.as_asked(self._spec, place)
        return self._asked[most_mib]

    def _run_time(self, place: PlaceOption) -> Term:
        """One run there, or for an array all its tasks, in as many waves as the place needs."""
        speed_factor = place.view.speed_factor
        one = self._runs.get(speed_factor)
        if one is None:
            one = self._runs[speed_factor] = self._evidence.history.run(self._spec, self._ask.owner, speed_factor)
        waves = math.ceil(tasks(self._spec) / tasks_at_once(self._spec, place)) if self._spec.array else 1
        if waves <= 1:
            return one
        return Term(one.p50_s * waves, one.p90_s * waves, f"{one.source}; {waves} waves of tasks")


def _waits_s(in_queue: Wait, wait: Term) -> Sequence[float]:
    """Draws of the wait: those of the queue, unless something else holds the job back."""
    return in_queue.draws_s if wait is in_queue.term else drawn(wait, DRAWS)


def score_s(estimate: Estimate) -> float:
    """The figure by which places are compared: the mean time to solution, and what others of ours lose, in seconds.

    What else counts comes on top (``placement.utility``).
    """
    return estimate.expected_s + estimate.extra_s


# -- runs --------------------------------------------------------------------------------------------------------


def tasks(spec: JobSpec) -> int:
    """Runs in the job: 1, or the tasks of its array."""
    return max(1, len(spec.array.indices)) if spec.array else 1


def tasks_at_once(spec: JobSpec, place: PlaceOption) -> int:
    """How many of them run side by side there: as many as asked, as far as the place has room for us."""
    if spec.array is None:
        return 1
    room = slots_for_us(place) // footprint_cores(spec.resources, fitting_nodes(spec, place))
    asked = spec.array.limit or tasks(spec)
    return max(1, min(tasks(spec), asked, room))


def _name(key: PlaceKey) -> str:
    return f"{key.system_id}/{key.queue or ''}"


# -- staging, archive and what else is worth saying --------------------------------------------------------------


def staging(ask: Ask, place: PlaceOption, evidence: Evidence) -> Term:
    """Image and inputs: the image as it is brought there, or by what first uses took; inputs as constants until
    transfers are measured."""
    spec, image = ask.spec, NO_IMAGE
    if spec.runtime is not Runtime.NONE:
        first_use = evidence.first_uses.term(place.view.system.id, spec.image, evidence.problem.now)
        image = brought(ask, place.view) or first_use
    if not spec.file_inputs:
        return image
    here = (f"tapis://{place.view.system.id}/", "tapislocal://")
    away = sum(1 for each in spec.file_inputs if not (each.source_url or "").startswith(here))
    if not away:
        return image
    return Term(image.p50_s + 5 * away, image.p90_s + 60 * away, f"{image.source}; a guess for {count(away, 'input')}")


def archive(spec: JobSpec, place: PlaceOption) -> Term:
    """Bringing outputs home, as plain constants until transfers are measured."""
    if spec.archive_mode is ArchiveMode.NEVER:
        return Term(0, 0, "nothing is archived")
    if spec.archive_system_id in (None, place.view.system.id):
        return Term(2, 10, "a guess for outputs that stay on the system")
    return Term(10, 120, "a guess for outputs that move, nothing measured yet")


def notes(
    ask: Ask, place: PlaceOption, expected: Estimate, failures: Failures, extra_s: Mapping[str, float]
) -> tuple[str, ...]:
    """Facts that people want to see beside the figures."""
    price, energy = price_usd(ask.spec, place.view.tariff), kwh(ask, place, expected)
    kept = expected.kept_probability
    return (
        *((f"at most {price:.2f} USD",) if price else ()),
        *((f"about {energy:.2g} kWh",) if energy else ()),
        *failures.note(place.key, extra_s.get("failures", 0.0)),
        *((f"the deadline is kept with {kept:.0%}",) if kept is not None else ()),
        *image_notes(place.image_verdict(ask.spec)),
    )


def image_notes(verdict: ImageVerdict | None) -> tuple[str, ...]:
    """What is done to make the image run there, what is not certain, and what it suffers from."""
    if verdict is None:
        return ()
    said = {
        Fit.FIXABLE: f"image: {verdict.reason}; {verdict.fix}",
        Fit.UNKNOWN: f"the image may not run: {verdict.reason}",
    }
    warnings = tuple(f"image: {warning}" for warning in verdict.warnings)
    return (*((said[verdict.fit],) if verdict.fit in said else ()), *warnings)
