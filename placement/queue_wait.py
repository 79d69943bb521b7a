"""How long a job waits in a queue: estimators as small functions in tables, which answer None when they know nothing.

The first that is sure is taken; of those that guess the one that did best of late, or the most trusted one until that
is known. What has been seen long ago is believed less, and after an hour not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType

from placement.draws import as_many, drawn, summed_up
from placement.evidence import STALE_S, Evidence, Wait, wait_key
from placement.forecasts import DRAWS, Forecast
from placement.futures import LONGEST_S, Copy
from placement.problem import PlaceOption
from placement.slots import (
    committed_cores,
    fitting_nodes,
    footprint_cores,
    free_cores,
    total_cores,
)
from placement.visible import LONGEST_RUN_S, place_name, stands_as, waits_for_nodes
from placement.words import about, count
from scheduler.model.jobs import JobSpec
from scheduler.model.plan import Term
from scheduler.model.snapshots import StartProbe
from scheduler.model.systems import BackendKind

FRESH_S = 120
"""A look that is younger needs no mention of its age."""

HOLE_MARGIN_S = 60
"""How much earlier than the next in line a job must end to be sure to fit before it."""

SITE_PAUSE_S = 300
"""How long a site may take, at worst, to start what has room."""

NO_HISTORY = Term(1800, 6 * 3600, "nothing known of this queue yet: anything from 0 to 6 h")

WaitEstimator = Callable[[JobSpec, PlaceOption, Evidence], Term | None]


def queue_wait(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term:
    """What is sure; else the answer of the estimator that did best there of late, at first of the most trusted one."""
    return wait_there(spec, place, evidence).term


def wait_there(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Wait:
    """The same with its draws, which are those of the replay where that is believed."""
    key = wait_key(spec, place)
    found = evidence.waits.get(key)
    if found is None:
        sure = next((term for each in SURE if (term := each(spec, place, evidence)) is not None), None)
        found = Wait(sure, drawn(sure, DRAWS), {}) if sure else _guessed(spec, place, evidence)
        evidence.waits[key] = found
    return found


def _guessed(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Wait:
    answers = {name: each(spec, place, evidence) for name, each in GUESSES.items()}
    told = {name: term for name, term in answers.items() if term is not None}
    if not told:
        return Wait(NO_HISTORY, drawn(NO_HISTORY, DRAWS), {})
    told_s = {name: (term.p50_s, term.p90_s) for name, term in told.items()}
    best = evidence.scores.best(place.key, tuple(told))
    term, score = told[best], evidence.scores.of(place.key, best)
    if score is not None:
        held_p90 = f"{score.coverage_share:.0%} of its last {score.start_count} p90 held for jobs of ours"
        term = Term(term.p50_s, term.p90_s, f"{term.source}; {held_p90}")
    if best != REPLAY:
        return Wait(term, drawn(term, DRAWS), told_s)
    return Wait(term, evidence.draws_s[wait_key(spec, place)], told_s)


def host_starts_at_once(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term | None:
    """A FORK job waits for nothing, except for a slot of this machine when all are seen to be taken."""
    if place.queue is not None:
        return None
    needed = footprint_cores(spec.resources, place.nodes) + committed_cores(place)
    busy = bool(place.nodes) and evidence.age_s(place) < STALE_S and free_cores(place.nodes) < needed
    if busy and place.view.system.backend in (BackendKind.LOCAL, BackendKind.K8S):
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
    return _aged(Term(wait_s + own_s / 2, 2 * wait_s + own_s + SITE_PAUSE_S, source), age_s)


def foreseen(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term | None:
    """The queue as far as we see it, played forward: the median of some futures, and their 90th percentile."""
    forecast, copy = evidence.forecast(place), _copy(spec, place, evidence)
    if forecast is None:
        return None
    starts_s, until_s = _starts_s(copy, forecast, evidence), copy.ready_s + LONGEST_S
    if min(starts_s) >= until_s:
        return None
    waits_s = [start_s - copy.ready_s for start_s in starts_s]
    evidence.draws_s[wait_key(spec, place)] = as_many(waits_s, DRAWS)
    p50_s, p90_s = summed_up(waits_s)
    return _aged(Term(p50_s, p90_s, _replay_of(forecast)), evidence.age_s(place))


def visible_queue(spec: JobSpec, place: PlaceOption, evidence: Evidence) -> Term | None:
    """The likely start in the same futures, and the one if everybody used all of the walltime (as p90)."""
    forecast, copy = evidence.forecast(place), _copy(spec, place, evidence)
    if forecast is None:
        return None
    until_s = copy.ready_s + LONGEST_S
    likely_s = summed_up(_starts_s(copy, forecast, evidence))[0] - copy.ready_s
    worst_s = forecast.latest_start_s(copy, until_s) - copy.ready_s
    if min(likely_s, worst_s) >= LONGEST_S:
        return None
    worst_s = max(likely_s, worst_s) + SITE_PAUSE_S
    return _aged(Term(likely_s, worst_s, _replay_of(forecast)), evidence.age_s(place))


def _starts_s(copy: Copy, forecast: Forecast, evidence: Evidence) -> tuple[float, ...]:
    """When such a job would start there, a draw each, looked for once."""
    if copy not in evidence.starts_s:
        evidence.starts_s[copy] = forecast.starts_s(copy, copy.ready_s + LONGEST_S)
    return evidence.starts_s[copy]


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
