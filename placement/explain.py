"""Sentences for people: why a place won, why others lost, what would help. Made here, once, in a stable order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from placement.filters import Screening, failing
from placement.problem import Choice, PlaceKey, PlaceOption
from placement.rejections import of_place
from placement.words import about, listed
from scheduler.model.plan import Decision, Estimate, Reason, Rejection, Term

LONG_WAIT_S = 300
"""From this expected wait on it is worth saying what would open other places."""


def decided(
    screening: Screening,
    expected: Sequence[Estimate],
    choice: Choice | None,
    proven_optimal: bool,
    decided_at: datetime,
) -> Decision:
    """The decision on one job as it is stored and shown. ``expected``: its estimates, soonest first."""
    rejections = (*screening.rejections, *screening.later)
    if choice is None:
        places = {each.key: each for each in screening.candidates}
        full = tuple(_used_up(places[_key(each)]) for each in expected)
        return Decision(
            winner=None,
            rejections=(*rejections, *full),
            proven_optimal=proven_optimal,
            sentence=refusal(replace(screening, later=(*screening.later, *full))),
            decided_at=decided_at,
            advice=advice(screening),
        )
    system_id, queue = choice.place
    chosen = next(each for each in expected if each.queue == queue and each.system_id == system_id)
    winner = _delayed(chosen, choice.delay_s)
    losers = tuple([untold(each) if each.told_waits_s else each for each in expected if each is not chosen])
    return Decision(
        winner=winner,
        losers=losers,
        rejections=rejections,
        proven_optimal=proven_optimal,
        sentence=f"{_expectation(winner)} {_against(winner, losers)}",
        decided_at=decided_at,
    )


def untold(loser: Estimate) -> Estimate:
    """An estimate that will never be scored or run, without what it would be scored by and what would be done."""
    return replace(loser, told_waits_s={}, image_actions=()) if loser.told_waits_s or loser.image_actions else loser


def refusal(screening: Screening) -> str:
    """Why a job has no place now: one sentence over all systems. Systems that were not meant stay unsaid."""
    if screening.later:
        return "It fits, but not now: " + _all(screening.later)
    if not screening.rejections:
        return "There is no system to run it on"
    meant = [each for each in screening.rejections if each.reason is not Reason.NOT_NAMED]
    return "No system can run it: " + _all(meant or screening.rejections)


def rejection_sentence(rejection: Rejection) -> str:
    """Why one place cannot take the job: "queue 'debug' of 'alder' allows at most 10 min of walltime (24 h asked)"."""
    return _SENTENCES[rejection.reason](rejection)


def advice(screening: Screening, known: Collection[PlaceKey] = (), limit: int = 3) -> tuple[str, ...]:
    """Changes that would open a place in whose way exactly one thing stands. ``known``: places not to speak of."""
    obstacles: dict[PlaceKey, list[Rejection]] = {}
    for each in screening.rejections:
        if PlaceKey(each.system_id, each.queue) in known:
            continue
        obstacles.setdefault(PlaceKey(each.system_id, each.queue), []).append(each)
    alone = [found[0] for found in obstacles.values() if len(found) == 1]
    return tuple(_ADVICE[each.reason](each) for each in alone if _helps(each))[:limit]


def place_name(system_id: str, queue: str | None) -> str:
    """How a place is called in sentences."""
    return f"'{system_id}'" if queue is None else f"queue '{queue}' of '{system_id}'"


# -- the winner --------------------------------------------------------------------------------------------------


def _key(estimate: Estimate) -> PlaceKey:
    return PlaceKey(estimate.system_id, estimate.queue)


def _delayed(estimate: Estimate, delay_s: int) -> Estimate:
    if delay_s == 0:
        return estimate
    wait = estimate.wait
    source = f"{wait.source}; then {about(delay_s)} behind other jobs of ours"
    return replace(estimate, wait=Term(wait.p50_s + delay_s, wait.p90_s + delay_s, source))


def _expectation(winner: Estimate) -> str:
    terms = (("wait", winner.wait), ("staging", winner.staging), ("run", winner.run), ("archive", winner.archive))
    parts = "; ".join(f"{name} {_range(term)} ({term.source})" for name, term in terms)
    name = place_name(*_key(winner))
    return (
        f"{name[0].upper()}{name[1:]} should have the result in about {about(winner.total_p50_s)}, "
        f"9 times in 10 within {about(winner.total_p90_s)}: {parts}."
        f"{_deadline(winner)}"
    )


def _deadline(winner: Estimate) -> str:
    kept = winner.kept_probability
    return "" if kept is None else f" The deadline is kept with a probability of {kept:.0%}."


def _range(term: Term) -> str:
    low, high = about(term.p50_s), about(term.p90_s)
    return low if low == high else f"{low}, up to {high}"


def _against(winner: Estimate, losers: Sequence[Estimate]) -> str:
    if not losers:
        return "It is the only place that can take the job now."
    best = losers[0]
    name, later_s = place_name(*_key(best)), best.total_p50_s - winner.total_p50_s
    if later_s >= 1:
        return f"Next best is {name}, about {about(later_s)} later."
    if best.extra_s - winner.extra_s > -later_s:
        return f"Next best is {name}, {_DEARER[_dearest(best, winner)]}."
    if best.total_p90_s > winner.total_p90_s:
        return f"Next best is {name}, no later in the median but less sure."
    if later_s > -1:
        return f"Next best is {name}, just as soon."
    return f"Alone it would be about {about(-later_s)} sooner in {name}; all waiting jobs together are sooner this way."


_DEARER: Mapping[str, str] = {
    "failures": "which loses more time to failures of the system",
    "lateness": "which is less likely to keep the deadline",
    "price": "which costs more",
    "energy": "which uses more energy",
    "image": "which is less sure to run the image as it is",
}
"""What else than time may decide, by reason."""


def _dearest(loser: Estimate, winner: Estimate) -> str:
    return max(_DEARER, key=lambda reason: loser.costs_s.get(reason, 0.0) - winner.costs_s.get(reason, 0.0))


def _used_up(place: PlaceOption) -> Rejection:
    """A candidate is only left out where a limit on numbers of jobs was used up by others of the same plan."""
    if place.breakers:
        return failing(place, place.breakers[0])
    return of_place(place, Reason.JOB_LIMIT, limit="jobs, with those placed just now")


# -- rejections and advice ---------------------------------------------------------------------------------------


def _where(rejection: Rejection) -> str:
    return place_name(rejection.system_id, rejection.queue)


def _allows(rejection: Rejection) -> str:
    return f"{_where(rejection)} allows {rejection.limit} ({rejection.asked} asked)"


def _unknown_queue(rejection: Rejection) -> str:
    offered = f" (it has {rejection.limit})" if rejection.limit else ""
    return f"{_where(rejection)} has no queue" + (f" '{rejection.asked}'{offered}" if rejection.asked else "s")


_SENTENCES: Mapping[Reason, Callable[[Rejection], str]] = {
    Reason.DISABLED: lambda r: f"{_where(r)} is disabled",
    Reason.CANNOT_EXECUTE: lambda r: f"{_where(r)} holds files and runs no jobs",
    Reason.NOT_PERMITTED: lambda r: f"{r.asked} may not run jobs on {_where(r)}",
    Reason.NO_CREDENTIAL: lambda r: f"{r.asked} has no credential for {_where(r)}",
    Reason.NOT_NAMED: lambda r: f"{_where(r)} is not the system asked for, '{r.asked}'",
    Reason.JOB_TYPE: lambda r: f"{_where(r)} runs {r.limit} jobs ({r.asked} asked)",
    Reason.RUNTIME: lambda r: f"{_where(r)} has the container runtime {r.limit} ({r.asked} asked)",
    Reason.QUEUE_UNKNOWN: _unknown_queue,
    Reason.QUEUE_DOWN: lambda r: f"{_where(r)} starts no jobs at the moment",
    Reason.NODES: _allows,
    Reason.CORES: _allows,
    Reason.MEMORY: lambda r: f"{_where(r)} allows {r.limit} of memory ({r.asked} asked)",
    Reason.WALLTIME: lambda r: f"{_where(r)} allows {r.limit} of walltime ({r.asked} asked)",
    Reason.GPUS: lambda r: f"{_where(r)} has {r.limit or 'no GPUs'} ({r.asked} asked)",
    Reason.CONSTRAINT: lambda r: f'{_where(r)} does not meet "{r.asked}"' + (f" ({r.limit})" if r.limit else ""),
    Reason.ARRAY: lambda r: f"the host of {_where(r)} runs no job arrays, only queues do",
    Reason.JOB_LIMIT: lambda r: f"{_where(r)} is at its limit of {r.limit}",
    Reason.IMAGE: lambda r: f"{_where(r)} cannot run the image: {r.limit or r.asked}",
    Reason.NODES_DOWN: lambda r: f"{_where(r)} has {r.limit or 'none'} up that the job could use ({r.asked} asked)",
    Reason.LICENCE: lambda r: f"{_where(r)} has the licence {r.limit or 'not'} ({r.asked} asked)",
    Reason.ACCOUNT: lambda r: f"{_where(r)} lets this login charge {r.limit or 'no account'} ({r.asked} asked)",
    Reason.ALLOCATION: lambda r: f"{_where(r)} has {r.limit or 'nothing'} left of the allocation ({r.asked} asked)",
    Reason.QOS: lambda r: f"{_where(r)} offers this login the QOS {r.limit or 'none'} ({r.asked} asked)",
    Reason.BUDGET: lambda r: f"{_where(r)} may cost {r.limit} ({r.asked} allowed)",
    Reason.NETWORK: lambda r: f"{_where(r)} lets jobs reach no outside network",
    Reason.STORAGE: lambda r: f"{_where(r)} has room for {r.limit} of files ({r.asked} asked)",
    Reason.FAILING: lambda r: f"{_where(r)} broke our last {r.asked} at once; it may have the next {r.limit}",
    Reason.GANG: lambda r: (
        f"{_where(r)} waits for the rest of the gang: {r.asked} are there"
        if r.asked
        else f"{_where(r)} cannot take all jobs of the gang now"
    ),
    Reason.POLICY: lambda r: f"{_where(r)} runs only the images {r.limit} ({r.asked} asked)",
}

_ADVICE: Mapping[Reason, Callable[[Rejection], str]] = {
    Reason.NODES: lambda r: f"ask for {r.limit} to use {_where(r)}",
    Reason.CORES: lambda r: f"ask for {r.limit} to use {_where(r)}",
    Reason.MEMORY: lambda r: f"ask for {r.limit} of memory to use {_where(r)}",
    Reason.WALLTIME: lambda r: f"ask for {r.limit} of walltime to use {_where(r)}",
    Reason.LICENCE: lambda r: f"ask for {r.limit} of licences to use {_where(r)}",
    Reason.ACCOUNT: lambda r: f"charge {r.limit} to use {_where(r)}",
    Reason.QOS: lambda r: f"ask for the QOS {r.limit} to use {_where(r)}",
    Reason.BUDGET: lambda r: f"allow {r.limit} to use {_where(r)}, or ask for less walltime",
    Reason.NOT_PERMITTED: lambda r: f"ask the owner of {_where(r)} for the permission EXECUTE",
    Reason.NO_CREDENTIAL: lambda r: f"register a credential of {r.asked} for {_where(r)}",
}
"""What a user can change, by what stands in the way."""


def _helps(rejection: Rejection) -> bool:
    offers = bool(rejection.limit) or rejection.reason in (Reason.NOT_PERMITTED, Reason.NO_CREDENTIAL)
    return rejection.reason in _ADVICE and offers and not rejection.limit.startswith("no ")


def _all(rejections: Iterable[Rejection]) -> str:
    return listed([rejection_sentence(each) for each in rejections])
