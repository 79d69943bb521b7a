"""How long until the result, place by place: wait, staging, run and archive, each with median, p90 and its source.

Estimators are small functions in tables and answer None when they know nothing. The first that is sure is taken; of
those that guess the one that did best of late, or the most trusted one until that is known. What has been seen long ago
is believed less, and after an hour not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import NamedTuple

from placement.draws import as_many, drawn, mean_s, summed_up
from placement.experience import Experience
from placement.failures import Failures
from placement.filters import Screening
from placement.first_use import FirstUses
from placement.forecasts import DRAWS, Forecast, Forecasts
from placement.futures import LONGEST_S, Copy
from placement.history import History
from placement.holds import held
from placement.own_runs import OwnRuns
from placement.policy import price_usd
from placement.problem import Ask, PlaceKey, PlaceOption, Problem
from placement.race import Prospect, crowding_s
from placement.scores import Scores
from placement.slots import (
    UNSEEN_CORES,
    committed_cores,
    fitting_nodes,
    footprint_cores,
    free_cores,
    slots_for_us,
    total_cores,
)
from placement.utility import costs, kwh
from placement.visible import LONGEST_RUN_S, foreseeable, place_name, stands_as, waits_for_nodes
from placement.words import about, count
from scheduler.model.jobs import ArchiveMode, JobSpec
from scheduler.model.plan import Estimate, Term
from scheduler.model.runs import Resources, Runtime
from scheduler.model.snapshots import StartProbe
from scheduler.model.systems import BackendKind

STALE_S = 3600
"""A look at a system that is older says nothing of its queue."""

FRESH_S = 120
"""A look that is younger needs no mention of its age."""

HOLE_MARGIN_S = 60
"""How much earlier than the next in line a job must end to be sure to fit before it."""

SITE_PAUSE_S = 300
"""How long a site may take, at worst, to start what has room."""

NO_IMAGE = Term(0, 0, "no image to bring")

NO_HISTORY = Term(1800, 6 * 3600, "nothing known of this queue yet: anything from 0 to 6 h")


CROWD = 200
ROUNDING = 1.5
"""With more jobs in a plan, walltimes of one such step and memories of a factor of two are asked of a queue as one.

Jobs that differ by no more than such a step in anything are then estimated as one, but for where they go.
"""

WaitKey = tuple[PlaceKey, Resources, frozenset[object]]


@dataclass(slots=True)
class Evidence:
    """What the estimators know besides job and place, worked out once for a problem."""

    problem: Problem
    history: History
    first_uses: FirstUses
    failures: Failures
    scores: Scores
    waits: dict[WaitKey, Term] = field(default_factory=dict)
    draws_s: dict[WaitKey, tuple[float, ...]] = field(default_factory=dict)
    """Of those waits that are summed up from draws."""
    starts_s: dict[Copy, tuple[float, ...]] = field(default_factory=dict)
    """By job as it is replayed: many that ask for other memory are the same there."""
    told_waits_s: dict[WaitKey, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    """Median and 90th percentile by every estimator that had an answer."""
    rounded: dict[WaitKey, JobSpec] = field(default_factory=dict)
    own_estimates: dict[Hashable, Estimate] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: Problem) -> Evidence:
        speeds = {view.system.id: view.speed_factor for view in problem.systems}
        runs = problem.own_runs.of("", (problem.history, speeds), lambda: OwnRuns.of(problem.history, speeds))
        return cls(problem, runs.history, runs.first_uses, Failures(runs.broken, problem.now), runs.scores)

    @property
    def is_crowd(self) -> bool:
        """Whether there are so many jobs that those speak for others that are nearly alike."""
        return len(self.problem.asks) > CROWD

    def kin(self, ask: Ask) -> Hashable:
        """Equal for jobs that are nearly ``alike``: to a step in run time, walltime and memory."""
        spec, asked = ask.spec, ask.spec.resources
        run = self.history.run(spec, ask.owner, 1.0)
        image = spec.image if self.first_uses.knows(spec.image) else ""
        shape = asked.nodes, asked.cores_per_node, asked.gpus_per_node, asked.gpu_model
        steps = tuple(map(_step, (run.p50_s, run.p90_s, asked.walltime_s, asked.memory_mib)))
        return (*shape, *steps, image, *_beside(spec))

    def own(self, ask: Ask, place: PlaceOption) -> Estimate:
        """The job's own estimate, for which nothing else speaks."""
        alike = likeness(ask), place.key
        if alike not in self.own_estimates:
            self.own_estimates[alike] = estimated(ask, place, self)
        return self.own_estimates[alike]

    def as_asked(self, spec: JobSpec, place: PlaceOption) -> JobSpec:
        """The job whose wait is asked for: it, or in a crowd one that is rounded up and stands for all like it."""
        if not self.is_crowd:
            return spec
        resources = _rounded_up(spec.resources, place)
        key = place.key, resources, frozenset(spec.scheduler_options)
        if key not in self.rounded:
            self.rounded[key] = replace(spec, resources=resources)
        return self.rounded[key]

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


WaitEstimator = Callable[[JobSpec, PlaceOption, Evidence], Term | None]


def estimates(
    problem: Problem, screenings: Mapping[str, Screening], evidence: Evidence | None = None
) -> Mapping[str, tuple[Estimate, ...]]:
    """What every job may expect in each of its candidates, soonest first. ``evidence``: of this problem, if at hand."""
    evidence = evidence or Evidence.of(problem)
    like: Callable[[Ask], Hashable] = evidence.kin if evidence.is_crowd else likeness
    asked: dict[str, Hashable] = {}
    speakers: dict[Hashable, Ask] = {}
    for ask in problem.asks:
        alike = like(ask), tuple(place.key for place in screenings[ask.job_uuid].candidates)
        asked[ask.job_uuid] = alike
        if alike not in speakers or demand(ask) > demand(speakers[alike]):
            speakers[alike] = ask
    found = {
        alike: _soonest_first(ask, screenings[ask.job_uuid].candidates, evidence) for alike, ask in speakers.items()
    }
    return {uuid: found[alike] for uuid, alike in asked.items()}


def demand(ask: Ask) -> tuple[int, int, str]:
    """Of jobs that are nearly alike, the one for which this is greatest speaks for all: it asks for most."""
    return ask.spec.resources.walltime_s, ask.spec.resources.memory_mib, ask.job_uuid


def exactly(
    ask: Ask, expected: Sequence[Estimate], chosen: PlaceKey, places: Iterable[PlaceOption], evidence: Evidence
) -> tuple[Estimate, ...]:
    """The estimates of a job, in a crowd with its own of where it goes and of the next best place; soonest first."""
    if not evidence.is_crowd:
        return tuple(expected)
    keys = [PlaceKey(each.system_id, each.queue) for each in expected]
    shown = {chosen, next((key for key in keys if key != chosen), chosen)}
    own = {place.key: evidence.own(ask, place) for place in places if place.key in shown}
    found = [own.get(key, each) for key, each in zip(keys, expected, strict=True)]
    return tuple(sorted(found, key=lambda each: round(score_s(each))))


def likeness(ask: Ask) -> Hashable:
    """All that the estimators read of an ask: those for whom this is equal may expect the same everywhere."""
    return (ask.owner, ask.spec.image, ask.spec.resources, *_beside(ask.spec))


def _beside(spec: JobSpec) -> tuple[Hashable, ...]:
    return (
        spec.runtime,
        spec.array,
        spec.scheduler_options,
        tuple(each.source_url for each in spec.file_inputs),
        spec.archive_mode,
        spec.archive_system_id,
        spec.deadline_at,
        spec.usd_per_hour,
        spec.usd_per_kwh,
    )


def _soonest_first(ask: Ask, places: Iterable[PlaceOption], evidence: Evidence) -> tuple[Estimate, ...]:
    """To the second; of places that are as soon, the cheaper one first, then by name."""
    found = [(estimated(ask, place, evidence), place.view.price_usd_per_core_hour) for place in places]
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
    waits_s = _waits_s(_wait_key(evidence.as_asked(ask.spec, place), place), expected.wait, evidence)
    starts_s = tuple(now_s + max(wait_s, expected.staging.p50_s) for wait_s in waits_s)
    runs_s = drawn(expected.run, DRAWS, order_step=3)
    ends_s = tuple(at_s + run_s + expected.archive.p50_s for at_s, run_s in zip(starts_s, runs_s, strict=True))
    return Outlook(place.key, expected, Prospect(_name(place.key), starts_s, ends_s).later_by(expected.extra_s))


def estimated(ask: Ask, place: PlaceOption, evidence: Evidence) -> Estimate:
    """The same for people; what it comes to are the means over the same draws."""
    asked = evidence.as_asked(ask.spec, place)
    key = _wait_key(asked, place)
    wait = held(ask.spec, place, evidence.problem.now, queue_wait(asked, place, evidence))
    stage, run, bring_home = (
        staging(ask.spec, place, evidence),
        run_time(ask, place, evidence),
        archive(ask.spec, place),
    )
    start_s = sum(max(wait_s, stage.p50_s) for wait_s in _waits_s(key, wait, evidence)) / DRAWS
    run_s = mean_s(run.p50_s, run.p90_s, DRAWS)
    cores = footprint_cores(ask.spec.resources, fitting_nodes(ask.spec, place)) * tasks_at_once(ask.spec, place)
    taken_s = crowding_s(run_s + bring_home.p50_s, cores, total_cores(place.nodes) or UNSEEN_CORES)
    deadline_at = ask.spec.deadline_at
    expected = Estimate(
        system_id=place.key.system_id,
        queue=place.key.queue,
        wait=wait,
        staging=stage,
        run=run,
        archive=bring_home,
        expected_s=start_s + run_s + bring_home.p50_s + taken_s,
        told_waits_s=evidence.told_waits_s.get(key, {}),
        deadline_s=None if deadline_at is None else (deadline_at - evidence.problem.now).total_seconds(),
    )
    extra_s = costs(ask, place, expected, evidence.failures)
    noted = notes(ask, place, expected, evidence.failures, extra_s)
    return replace(expected, costs_s=extra_s, notes=noted) if extra_s or noted else expected


def _waits_s(key: WaitKey, wait: Term, evidence: Evidence) -> Sequence[float]:
    """Draws of the wait: those that it was summed up from, unless something else holds the job back."""
    waits_s = evidence.draws_s.get(key) if wait is evidence.waits[key] else None
    return drawn(wait, DRAWS) if waits_s is None else waits_s


def score_s(estimate: Estimate) -> float:
    """The figure by which places are compared: the mean time to solution, and what others of ours lose, in seconds.

    What else counts comes on top (``placement.utility``).
    """
    return estimate.expected_s + estimate.extra_s


# -- queue wait --------------------------------------------------------------------------------------------------


def queue_wait(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term:
    """What is sure; else the answer of the estimator that did best there of late, at first of the most trusted one."""
    key = _wait_key(spec, place)
    if key not in evidence.waits:
        sure = next((term for each in SURE if (term := each(spec, place, evidence)) is not None), None)
        evidence.waits[key] = sure or _guessed(spec, place, evidence)
    return evidence.waits[key]


def _guessed(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term:
    key = _wait_key(spec, place)
    answers = {name: each(spec, place, evidence) for name, each in GUESSES.items()}
    told = {name: term for name, term in answers.items() if term is not None}
    if not told:
        return NO_HISTORY
    evidence.told_waits_s[key] = {name: (term.p50_s, term.p90_s) for name, term in told.items()}
    best = evidence.scores.best(place.key, tuple(told))
    if best != REPLAY:
        evidence.draws_s.pop(key, None)
    term, score = told[best], evidence.scores.of(place.key, best)
    if score is None:
        return term
    held_p90 = f"{score.coverage_share:.0%} of its last {score.start_count} p90 held for jobs of ours"
    return Term(term.p50_s, term.p90_s, f"{term.source}; {held_p90}")


def _step(amount: float) -> int:
    return math.ceil(math.log(max(1.0, amount), ROUNDING))


def _rounded_up(resources: Resources, place: PlaceOption) -> Resources:
    """Walltime and memory to the next step of a coarse scale, memory never beyond the largest node."""
    largest_mib = max((kind.memory_mib for kind in place.nodes), default=resources.memory_mib)
    walltime_s = ROUNDING ** math.ceil(math.log(max(60, resources.walltime_s), ROUNDING))
    memory_mib = 2 ** math.ceil(math.log2(max(1, resources.memory_mib)))
    return replace(
        resources,
        walltime_s=min(round(walltime_s), max(resources.walltime_s, round(LONGEST_RUN_S))),
        memory_mib=max(resources.memory_mib, min(memory_mib, largest_mib)),
    )


def _wait_key(spec: JobSpec, place: PlaceOption) -> WaitKey:
    return place.key, spec.resources, frozenset(spec.scheduler_options)


def host_starts_at_once(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term | None:
    """A FORK job waits for nothing, except for a slot of this machine when all are seen to be taken."""
    if place.queue is not None:
        return None
    needed = footprint_cores(spec.resources, place.nodes) + committed_cores(place)
    busy = bool(place.nodes) and evidence.age_s(place) < STALE_S and free_cores(place.nodes) < needed
    if busy and place.view.system.backend is BackendKind.LOCAL:
        return None
    return Term(1, 5, "it starts at once on the host" + (", beside what keeps it busy" if busy else ""))


def free_nodes(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term | None:
    """Enough nodes stand empty, and nobody else waits for them, or only jobs that the site starts after this one's end.

    Then also those are free that the site keeps for such jobs. What it says of a job that is only asked about
    (``site_says``) is that it starts after them; what it does is start it.
    """
    age_s, kinds = evidence.age_s(place), fitting_nodes(spec, place)
    if age_s > STALE_S or sum(kind.free + kind.planned_nodes for kind in kinds) < spec.resources.nodes:
        return None
    ends_at = evidence.problem.now + timedelta(seconds=min(spec.resources.walltime_s, LONGEST_RUN_S) + HOLE_MARGIN_S)
    line_count = 0
    for job in filter(waits_for_nodes, place.visible_jobs):
        if job.expected_start_at is None or job.expected_start_at < ends_at:
            return None
        line_count += 1
    taken = committed_cores(place)
    empty = sum(kind.free + (kind.planned_nodes if line_count else 0) for kind in kinds)
    empty -= math.ceil(taken / kinds[0].cores) if kinds and kinds[0].cores else 0
    if empty < spec.resources.nodes:
        return None
    until = f" until {count(line_count, 'job')} in line may start" if line_count else " now"
    return _aged(Term(5, 60, f"{count(empty, 'node')} free{until}"), age_s)


def learnt_waits(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term | None:
    """What the waits of everyone's jobs taught (``placement.waits``), once there were enough of them."""
    age_s, queue = evidence.age_s(place), evidence.problem.watched.get(place.key)
    if queue is None or age_s > STALE_S:
        return None
    cores = footprint_cores(spec.resources, fitting_nodes(spec, place))
    said = queue.term(cores, spec.resources.walltime_s, evidence.problem.now.timestamp())
    if said is None:
        return None
    own_s = _own_work_s(place)
    return _aged(Term(said.p50_s + own_s / 2, said.p90_s + own_s, said.source), age_s)


def site_says(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term | None:
    """The site's own scheduler, asked without submitting (``sbatch --test-only``).

    It knows priorities, limits and reservations that we cannot see, but believes every asked walltime and foresees no
    later arrival, so the truth lies on both sides of it: p90 is twice its answer and five minutes more.
    """
    snapshot, age_s = place.view.snapshot, evidence.age_s(place)
    wanted = probe_for(spec, place)
    if snapshot is None or wanted is None or age_s > STALE_S:
        return None
    answers = [(probe, start_at) for probe, start_at in snapshot.starts if _speaks_for(probe, wanted)]
    if not answers:
        return None
    probe, start_at = min(answers, key=lambda answer: (answer[0] != wanted, answer[1], repr(answer[0])))
    wait_s = max(0.0, (start_at - snapshot.taken_at).total_seconds() - age_s)
    own_s = _own_work_s(place)
    source = "the site's scheduler" if probe == wanted else "the site's scheduler, asked for a larger job"
    return _aged(Term(wait_s + own_s / 2, 2 * wait_s + own_s + 300, source), age_s)


def foreseen(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term | None:
    """The queue as far as we see it, played forward: the median of some futures, and their 90th percentile."""
    forecast, copy = evidence.forecast(place), _copy(spec, place, evidence)
    if forecast is None:
        return None
    until_s = copy.ready_s + LONGEST_S
    if copy not in evidence.starts_s:
        evidence.starts_s[copy] = forecast.starts_s(copy, until_s)
    starts_s = evidence.starts_s[copy]
    if min(starts_s) >= until_s:
        return None
    waits_s = tuple(start_s - copy.ready_s for start_s in starts_s)
    evidence.draws_s[_wait_key(spec, place)] = as_many(waits_s, DRAWS)
    p50_s, p90_s = summed_up(waits_s)
    return _aged(
        Term(p50_s, p90_s, f"a replay of {count(forecast.visible_jobs, 'visible job')}"), evidence.age_s(place)
    )


def visible_queue(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term | None:
    """The likely start in the same futures, and the one if everybody used all of the walltime (as p90)."""
    forecast, copy = evidence.forecast(place), _copy(spec, place, evidence)
    if forecast is None:
        return None
    until_s = copy.ready_s + LONGEST_S
    likely_s = summed_up(forecast.starts_s(copy, until_s))[0] - copy.ready_s
    worst_s = forecast.latest_start_s(copy, until_s) - copy.ready_s
    if min(likely_s, worst_s) >= LONGEST_S:
        return None
    worst_s = max(likely_s, worst_s) + SITE_PAUSE_S
    return _aged(Term(likely_s, worst_s, _replay_of(forecast)), evidence.age_s(place))


def starts_in_line(place: PlaceOption, remote_id: str | None, evidence: Evidence) -> tuple[float, ...] | None:
    """When a job that waits there already will start, a draw each (Unix time); None where it cannot be seen."""
    forecast = evidence.forecast(place)
    if forecast is None or not any(job.id == remote_id for job in forecast.look.waiting):
        return None
    now_s = evidence.problem.now.timestamp()
    (starts_s,) = forecast.held_starts_s([remote_id or ""], now_s + LONGEST_S).values()
    return as_many([max(now_s, start_s) for start_s in starts_s], DRAWS)


def _replay_of(forecast: Forecast) -> str:
    return f"a replay of {count(forecast.visible_jobs, 'visible job')}"


def _copy(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Copy:
    """A job as it would be sent there now. Whose runs its own are like does not change when it starts."""
    return Copy(
        id="ours",
        place=place_name(place),
        cores=footprint_cores(spec.resources, fitting_nodes(spec, place)),
        asked_s=min(max(1.0, float(spec.resources.walltime_s)), LONGEST_RUN_S),
        ready_s=evidence.problem.now.timestamp(),
        user=stands_as(place),
        kin="",
    )


def own_history(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term | None:
    """What our own last jobs waited there."""
    return evidence.history.wait(place.key)


SURE: tuple[WaitEstimator, ...] = (host_starts_at_once, free_nodes)
"""What is seen and not guessed."""

REPLAY = "replay"
GUESSES: Mapping[str, WaitEstimator] = MappingProxyType(
    {"learnt": learnt_waits, "site": site_says, REPLAY: foreseen, "history": own_history}
)
"""By name, the most trusted first; their scores may put another in front."""


def probe_for(spec: JobSpec, place: PlaceOption) -> StartProbe | None:
    """What to ask the site of the job; None where there is no partition to ask of."""
    partition = place.queue.partition if place.queue else place.partition.name if place.partition else None
    return StartProbe(partition, spec.resources) if partition is not None else None


def _speaks_for(probe: StartProbe, wanted: StartProbe) -> bool:
    """Whether a probe's answer is an upper bound for the job: as large or larger in everything."""
    asked, needed = probe.resources, wanted.resources
    return (
        probe.partition == wanted.partition
        and asked.nodes >= needed.nodes
        and asked.cores_per_node >= needed.cores_per_node
        and asked.memory_mib >= needed.memory_mib
        and asked.walltime_s >= needed.walltime_s
        and asked.gpus_per_node >= needed.gpus_per_node
        and needed.gpu_model in (None, asked.gpu_model)
    )


def _own_work_s(place: PlaceOption) -> float:
    """How long the place would work on our jobs that it does not show yet, if it had nothing else to do."""
    total = total_cores(place.nodes)
    work = sum(
        footprint_cores(shape, place.nodes) * runs * shape.walltime_s for shape, runs in place.unseen_runs.items()
    )
    return work / total if total > 0 else 0.0


def _aged(term: Term, age_s: float) -> Term:
    source = term.source if age_s <= FRESH_S else f"{term.source}, seen {about(age_s)} ago"
    return Term(term.p50_s, max(term.p50_s, term.p90_s) + age_s, source)


# -- run time ----------------------------------------------------------------------------------------------------


def run_time(ask: Ask, place: PlaceOption, evidence: Evidence) -> Term:
    """One run there, or for an array all its tasks, in as many waves as the place needs."""
    one = evidence.history.run(ask.spec, ask.owner, place.view.speed_factor)
    waves = math.ceil(tasks(ask.spec) / tasks_at_once(ask.spec, place))
    return one if waves <= 1 else Term(one.p50_s * waves, one.p90_s * waves, f"{one.source}; {waves} waves of tasks")


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


def staging(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term:
    """Image and inputs: the image by what first uses took, inputs as constants until transfers are measured."""
    image = NO_IMAGE
    if spec.runtime is not Runtime.NONE:
        image = evidence.first_uses.term(place.view.system.id, spec.image, evidence.problem.now)
    here = (f"tapis://{place.view.system.id}/", "tapislocal://")
    away = sum(1 for each in spec.file_inputs if not (each.source_url or "").startswith(here))
    source = f"{image.source}; a guess for {count(away, 'input')}" if away else image.source
    return Term(image.p50_s + 5 * away, image.p90_s + 60 * away, source)


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
    price, energy = price_usd(ask.spec, place.view.system), kwh(ask, place, expected)
    kept = expected.kept_probability
    return (
        *((f"at most {price:.2f} USD",) if price else ()),
        *((f"about {energy:.2g} kWh",) if energy else ()),
        *failures.note(place.key, extra_s.get("failures", 0.0)),
        *((f"the deadline is kept with {kept:.0%}",) if kept is not None else ()),
    )
