"""The question of a plan in whole numbers, and the answer read back as places of jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from placement.assign import LONGEST_S, MOST_CORES, Assignment, Counts, Kind, Limit, Option, periods
from placement.estimate import score_s, tasks_at_once
from placement.filters import Screening
from placement.history import History
from placement.problem import Ask, Choice, PlaceKey, PlaceOption, Problem
from placement.slots import fitting_nodes, footprint_cores, slots_for_us
from scheduler.model.plan import Estimate
from scheduler.model.systems import UNLIMITED

STAY_S = 60
"""A job keeps the place of the last plan unless another is better by more than this."""


def pose(
    problem: Problem,
    screenings: Mapping[str, Screening],
    expected: Mapping[str, Sequence[Estimate]],
    history: History,
) -> Assignment:
    """The problem in whole numbers; alike jobs become one kind, in an order that does not depend on the input's."""
    alike: dict[tuple[str, int, tuple[Option, ...]], list[Ask]] = defaultdict(list)
    places: dict[PlaceKey, PlaceOption] = {}
    for ask in problem.asks:
        here = {each.key: each for each in screenings[ask.job_uuid].candidates}
        places |= here
        stays = problem.last_plan.get(ask.job_uuid)
        options = [_option(ask, here[_key(each)], each, stays) for each in expected[ask.job_uuid]]
        if options:
            options.sort(key=lambda option: option.cost_s)  # of equal ones the order of the estimates stays
            alike[ask.owner, _weight(ask), tuple(options)].append(ask)
    kinds = [
        Kind(tuple(ask.job_uuid for ask in sorted(asks, key=_longest_waiting)), owner, weight, options)
        for (owner, weight, options), asks in alike.items()
    ]
    kinds.sort(key=lambda kind: kind.jobs)
    slots = {key: min(slots_for_us(places[key]), MOST_CORES) for key in sorted(places, key=_named)}
    limits = tuple(_limits(problem, slots, {ask.owner for ask in problem.asks}))
    runs_s = sorted(history.run(ask.spec, ask.owner, 1.0).p50_s for ask in problem.asks if expected[ask.job_uuid])
    typical_s = runs_s[len(runs_s) // 2] if runs_s else 0.0
    return Assignment(tuple(kinds), slots, limits, periods(kinds, slots, typical_s))


def read(assignment: Assignment, counts: Counts) -> Mapping[str, Choice]:
    """Which job of a kind goes where: who waits longest goes where the result is soonest."""
    found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for (g, o, k), number in counts.items():
        cost_s = assignment.kinds[g].options[o].cost_s + assignment.starts_s[k]
        found[g].extend([(cost_s, o, k)] * number)
    choices: dict[str, Choice] = {}
    for g, taken in found.items():
        kind = assignment.kinds[g]
        places = [Choice(kind.options[o].place, assignment.starts_s[k]) for _, o, k in sorted(taken)]
        choices |= zip(kind.jobs, places, strict=False)  # fewer places than jobs: the others keep waiting
    return choices


def _option(ask: Ask, place: PlaceOption, estimate: Estimate, stays: PlaceKey | None) -> Option:
    cores = footprint_cores(ask.spec.resources, fitting_nodes(ask.spec, place)) * tasks_at_once(ask.spec, place)
    cost_s = max(0, round(min(score_s(estimate), LONGEST_S)) - (STAY_S if place.key == stays else 0))
    return Option(place.key, cost_s, min(cores, MOST_CORES), round(min(max(1.0, estimate.run.p50_s), LONGEST_S)))


def _key(estimate: Estimate) -> PlaceKey:
    return PlaceKey(estimate.system_id, estimate.queue)


def _limits(problem: Problem, slots: Mapping[PlaceKey, int], owners: Iterable[str]) -> Iterable[Limit]:
    """What is left of every limit on numbers of jobs, of systems and of queues, for all and for each owner.

    A place on trial takes one job.
    """
    for view in problem.systems:
        system = view.system
        whole = frozenset(key for key in slots if key.system_id == system.id)
        for name, breaker in view.breakers.items():
            here = whole if name is None else whole & {PlaceKey(system.id, name)}
            if here:
                yield Limit(here, breaker.trials_left)
        scopes: list[tuple[str | None, frozenset[PlaceKey], int, int]] = [
            (None, whole, system.max_jobs, system.max_jobs_per_user)
        ]
        for queue in system.queues:
            scopes.append(
                (queue.name, whole & {PlaceKey(system.id, queue.name)}, queue.max_jobs, queue.max_jobs_per_user)
            )
        for name, places, most, most_per_user in scopes:
            if places and 0 <= most < UNLIMITED:
                yield Limit(places, max(0, most - view.active_jobs(name)))
            if places and 0 <= most_per_user < UNLIMITED:
                for owner in sorted(owners):
                    yield Limit(places, max(0, most_per_user - view.active_jobs(name, owner)), owner)


def _weight(ask: Ask) -> int:
    """Weight in hundredths, from 1 to 10,000; what is no number counts as 1.0."""
    weight = ask.spec.weight
    return max(1, min(10_000, round(weight * 100))) if -1e6 < weight < 1e6 else 100


def _longest_waiting(ask: Ask) -> tuple[float, str]:
    return ask.waiting_since.timestamp(), ask.job_uuid


def _named(key: PlaceKey) -> tuple[str, str]:
    return key.system_id, key.queue or ""
