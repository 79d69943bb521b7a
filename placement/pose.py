"""The question of a plan in whole numbers, and the answer read back as places of jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from placement.assign import LONGEST_S, MOST_CORES, Assignment, Counts, Kind, Limit, Option, periods
from placement.estimate import demand, score_s, tasks_at_once
from placement.evidence import CROWD
from placement.filters import Screening
from placement.gangs import GangKey, gang_of
from placement.history import History
from placement.problem import Ask, Choice, PlaceKey, PlaceOption, Problem
from placement.slots import fitting_nodes, footprint_cores, slots_for_us
from placement.utility import later_s
from placement.weights import weights
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
    places = {place.key: place for screening in screenings.values() for place in screening.candidates}
    alike: dict[_Alike, list[Ask]] = defaultdict(list)
    posed: dict[tuple[int, PlaceKey | None], int] = {}
    choices: dict[tuple[Option, ...], int] = {}
    weight = weights(problem.asks)
    limited = _limited_per_user(problem)
    for ask in sorted(problem.asks, key=demand, reverse=True):  # who speaks for others comes first
        stays, estimates = problem.last_plan.get(ask.job_uuid), expected[ask.job_uuid]
        same = id(estimates), stays  # who is estimated alike shares them
        if same not in posed:
            posed[same] = choices.setdefault(_options(ask, places, estimates, stays), len(choices))
        if estimates:
            owner = ask.owner if len(problem.asks) <= CROWD or limited else ""
            what = _Alike(owner, weight[ask.job_uuid], posed[same], ask.spec.deadline_at, gang_of(ask))
            alike[what].append(ask)
    options = list(choices)
    kinds = [_kind(each, asks, options[each.choice]) for each, asks in alike.items() if each.gang is None]
    gangs = {each.gang: [one for one in alike if one.gang == each.gang] for each in alike if each.gang}
    kinds += [_gang([(one, alike[one], options[one.choice]) for one in members]) for members in gangs.values()]
    kinds.sort(key=lambda kind: kind.jobs)
    slots = {key: min(slots_for_us(places[key]), MOST_CORES) for key in sorted(places, key=_named)}
    limits = tuple(_limits(problem, slots, {ask.owner for ask in problem.asks}))
    runs_s = sorted(history.run(ask.spec, ask.owner, 1.0).p50_s for ask in problem.asks if expected[ask.job_uuid])
    typical_s = runs_s[len(runs_s) // 2] if runs_s else 0.0
    starts_s = periods(kinds, slots, typical_s)
    due = {ask.job_uuid: expected[ask.job_uuid] for ask in problem.asks if ask.spec.deadline_at is not None}
    return Assignment(tuple(_due(kind, due, starts_s) for kind in kinds), slots, limits, starts_s)


class _Alike(NamedTuple):
    """What the jobs of a kind have in common."""

    owner: str
    """Empty in a crowd where no limit is a user's."""
    weight: int
    choice: int
    """Number of the options that they have."""
    deadline_at: datetime | None
    gang: GangKey | None


def _kind(each: _Alike, asks: Iterable[Ask], options: tuple[Option, ...]) -> Kind:
    jobs = tuple(ask.job_uuid for ask in sorted(asks, key=_longest_waiting))
    return Kind(jobs, each.owner, each.weight, options)


def _gang(members: Sequence[tuple[_Alike, Sequence[Ask], tuple[Option, ...]]]) -> Kind:
    """All of a gang as one: the cores of all, as long as the longest, at their mean cost by weight."""
    jobs = tuple(sorted(ask.job_uuid for _, asks, _ in members for ask in asks))
    weight = sum(each.weight * len(asks) for each, asks, _ in members)
    here: dict[PlaceKey, list[tuple[Option, int, int]]] = defaultdict(list)
    for each, asks, its_options in members:
        for option in its_options:
            here[option.place].append((option, len(asks), each.weight * len(asks)))
    options = [
        Option(
            place,
            sum(option.cost_s * share for option, _, share in found) // weight,
            min(MOST_CORES, sum(option.cores * number for option, number, _ in found)),
            max(option.run_s for option, _, _ in found),
        )
        for place, found in here.items()
        if len(found) == len(members)
    ]
    options.sort(key=lambda option: (option.cost_s, _named(option.place)))
    return Kind(jobs, members[0][0].owner, weight, tuple(options), together=True)


def _due(kind: Kind, due: Mapping[str, Sequence[Estimate]], starts_s: Sequence[int]) -> Kind:
    """The kind with what each delay costs it by its deadline, of which the jobs of a gang may have several."""
    late = [due[uuid] for uuid in (kind.jobs if kind.together else sorted(kind.jobs)[:1]) if uuid in due]
    if not late:
        return kind
    at = [{_key(each): each for each in estimates} for estimates in late]
    return replace(kind, options=tuple(replace(each, late_s=_late_s(each, at, starts_s)) for each in kind.options))


def _late_s(option: Option, at: Sequence[Mapping[PlaceKey, Estimate]], starts_s: Sequence[int]) -> tuple[int, ...]:
    """By period. In a gang the mean over its jobs with a deadline."""
    here = [each[option.place] for each in at]
    return tuple(
        round(min(LONGEST_S, sum(later_s(each, delay_s) for each in here) / len(here))) for delay_s in starts_s
    )


def read(assignment: Assignment, counts: Counts) -> Mapping[str, Choice]:
    """Which job of a kind goes where: who waits longest goes where the result is soonest."""
    found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for (g, o, k), number in counts.items():
        cost_s = assignment.kinds[g].options[o].cost_s + assignment.starts_s[k]
        found[g].extend([(cost_s, o, k)] * number)
    choices: dict[str, Choice] = {}
    for g, taken in found.items():
        kind = assignment.kinds[g]
        if kind.together:
            taken *= len(kind.jobs)
        places = [Choice(kind.options[o].place, assignment.starts_s[k]) for _, o, k in sorted(taken)]
        choices |= zip(kind.jobs, places, strict=False)  # fewer places than jobs: the others keep waiting
    return choices


def _options(
    ask: Ask, places: Mapping[PlaceKey, PlaceOption], estimates: Iterable[Estimate], stays: PlaceKey | None
) -> tuple[Option, ...]:
    """Cheapest first; of equal ones the order of the estimates stays."""
    options = [_option(ask, places[_key(each)], each, stays) for each in estimates]
    return tuple(sorted(options, key=lambda option: option.cost_s))


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


def _limited_per_user(problem: Problem) -> bool:
    """Whether any limit on numbers of jobs is one for each user."""
    systems = [view.system for view in problem.systems]
    limits = [each.max_jobs_per_user for each in systems]
    limits += [queue.max_jobs_per_user for each in systems for queue in each.queues]
    return any(0 <= most < UNLIMITED for most in limits)


def _longest_waiting(ask: Ask) -> tuple[float, str]:
    return ask.waiting_since.timestamp(), ask.job_uuid


def _named(key: PlaceKey) -> tuple[str, str]:
    return key.system_id, key.queue or ""
