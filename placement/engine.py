"""Placement from end to end: screen, estimate, assign, explain. Same problem, same plan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from placement.assign import LONGEST_S, MOST_CORES, Assignment, Counts, Kind, Limit, Option, cost, periods
from placement.estimate import estimates, probe_for, score_s, tasks_at_once
from placement.explain import decided
from placement.filters import Screening, screen
from placement.greedy import greedy
from placement.problem import Ask, Choice, PlaceKey, PlaceOption, Plan, Problem, SolveLimits
from placement.slots import fitting_nodes, footprint_cores, slots_for_us
from scheduler.model.plan import Estimate
from scheduler.model.snapshots import StartProbe
from scheduler.model.systems import UNLIMITED

STAY_S = 60
"""A job keeps the place of the last plan unless another is better by more than this."""

MAX_PROBES = 8
"""Most questions asked of one site's scheduler for one snapshot."""


def place(problem: Problem, limits: SolveLimits = SolveLimits()) -> Plan:  # noqa: B008 - frozen
    """Choose a place for every job that has one; say why for every job that has none.

    Raises SpecInvalid when an ask's constraints cannot be read. Every other ask gets a decision.
    """
    screenings = screen(problem)
    expected = estimates(problem, screenings)
    assignment = _assignment(problem, screenings, expected)
    counts, proven_optimal = _answer(assignment, limits, problem.seed)
    choices = _choices(assignment, counts)
    decisions = {
        uuid: decided(screenings[uuid], expected[uuid], choices.get(uuid), proven_optimal, problem.now)
        for uuid in sorted(screenings)
    }
    return Plan(decisions, proven_optimal)


def probes_for(problem: Problem) -> Mapping[str, tuple[StartProbe, ...]]:
    """What is worth asking each site's scheduler with the next snapshot, by system id: most wanted shapes first."""
    wanted: dict[str, Counter[StartProbe]] = defaultdict(Counter)
    screenings = screen(problem)
    for ask in problem.asks:
        for each in screenings[ask.job_uuid].candidates:
            probe = probe_for(ask.spec, each)
            if probe is not None:
                wanted[each.key.system_id][probe] += 1
    return {
        system_id: tuple(sorted(probes, key=lambda probe: (-probes[probe], repr(probe)))[:MAX_PROBES])
        for system_id, probes in sorted(wanted.items())
    }


def _answer(assignment: Assignment, limits: SolveLimits, seed: int) -> tuple[Counts, bool]:
    """Greedy where it reaches the lower bound (always so for a single job) or the problem is too large; else CP-SAT."""
    first = greedy(assignment)
    if cost(assignment, first) == assignment.lower_bound:
        return first, True
    variables = sum(len(kind.options) for kind in assignment.kinds) * len(assignment.starts_s)
    if variables > limits.max_variables:
        return first, False
    from placement.solve import solve  # the solver's library takes its time to load; most plans do without

    better, proven_optimal = solve(assignment, first, limits, seed)
    return min((better, first), key=lambda counts: cost(assignment, counts)), proven_optimal


def _assignment(
    problem: Problem, screenings: Mapping[str, Screening], expected: Mapping[str, Sequence[Estimate]]
) -> Assignment:
    """The problem in whole numbers; alike jobs become one kind, in an order that does not depend on the input's."""
    alike: dict[tuple[str, int, tuple[Option, ...]], list[Ask]] = defaultdict(list)
    places: dict[PlaceKey, PlaceOption] = {}
    for ask in problem.asks:
        here = {each.key: each for each in screenings[ask.job_uuid].candidates}
        places |= here
        stays = problem.last_plan.get(ask.job_uuid)
        options = tuple(_option(ask, here, each, stays) for each in expected[ask.job_uuid])
        if options:
            alike[ask.owner, _weight(ask), tuple(sorted(options, key=lambda o: (o.cost_s, _named(o.place))))].append(
                ask
            )
    kinds = [
        Kind(tuple(ask.job_uuid for ask in sorted(asks, key=_longest_waiting)), owner, weight, options)
        for (owner, weight, options), asks in alike.items()
    ]
    kinds.sort(key=lambda kind: kind.jobs)
    slots = {key: min(slots_for_us(places[key]), MOST_CORES) for key in sorted(places, key=_named)}
    limits = tuple(_limits(problem, slots, {ask.owner for ask in problem.asks}))
    return Assignment(tuple(kinds), slots, limits, periods(kinds, slots))


def _option(ask: Ask, here: Mapping[PlaceKey, PlaceOption], estimate: Estimate, stays: PlaceKey | None) -> Option:
    key = PlaceKey(estimate.system_id, estimate.queue)
    cores = footprint_cores(ask.spec.resources, fitting_nodes(ask.spec, here[key])) * tasks_at_once(ask.spec, here[key])
    cost_s = max(0, round(min(score_s(estimate), LONGEST_S)) - (STAY_S if key == stays else 0))
    return Option(key, cost_s, min(cores, MOST_CORES), round(min(max(1.0, estimate.run.p50_s), LONGEST_S)))


def _limits(problem: Problem, slots: Mapping[PlaceKey, int], owners: Iterable[str]) -> Iterable[Limit]:
    """What is left of every limit on numbers of jobs, of systems and of queues, for all and for each owner."""
    for view in problem.systems:
        system = view.system
        whole = frozenset(key for key in slots if key.system_id == system.id)
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


def _choices(assignment: Assignment, counts: Counts) -> Mapping[str, Choice]:
    """Which job of a kind goes where: who waits longest goes where the result is soonest."""
    choices: dict[str, Choice] = {}
    for g, kind in enumerate(assignment.kinds):
        taken = sorted(
            (kind.options[o].cost_s + assignment.starts_s[k], o, k, number)
            for (i, o, k), number in counts.items()
            if i == g
        )
        places = [
            Choice(kind.options[o].place, assignment.starts_s[k]) for _, o, k, number in taken for _ in range(number)
        ]
        choices |= zip(kind.jobs, places, strict=False)  # fewer places than jobs: the others keep waiting
    return choices


def _weight(ask: Ask) -> int:
    """Weight in hundredths, from 1 to 10,000; what is no number counts as 1.0."""
    weight = ask.spec.weight
    return max(1, min(10_000, round(weight * 100))) if -1e6 < weight < 1e6 else 100


def _longest_waiting(ask: Ask) -> tuple[float, str]:
    return ask.waiting_since.timestamp(), ask.job_uuid


def _named(key: PlaceKey) -> tuple[str, str]:
    return key.system_id, key.queue or ""
