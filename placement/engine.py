"""Placement from end to end: screen, estimate, assign, explain. Same problem, same plan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from placement.assign import Assignment, Counts, cost
from placement.estimate import Outlook, estimates, exactly, outlook
from placement.evidence import Evidence
from placement.explain import LONG_WAIT_S, advice, decided
from placement.filters import Screening, screen
from placement.gangs import gathered
from placement.greedy import greedy
from placement.improve import improve
from placement.moves import Further, SecondThought, Standing, reconsider, where_it_waits
from placement.pose import pose, read
from placement.problem import DEFAULT_LIMITS, Choice, PlaceKey, Plan, Problem, SolveLimits
from placement.queue_wait import probe_for, starts_in_line
from placement.race import Change, Prospect, Rules, Spent, first_ends_s
from placement.sooner import Waiting, advice_for
from scheduler.model.plan import Decision, Estimate
from scheduler.model.snapshots import StartProbe

MAX_PROBES = 8
"""Most questions asked of one site's scheduler for one snapshot."""


class Answer(NamedTuple):
    """What greedy and solver came to, whether nothing is better, and the share of kinds that the solver looked at."""

    counts: Counts
    proven_optimal: bool
    solved_share: float = 1.0


def place(problem: Problem, limits: SolveLimits = DEFAULT_LIMITS) -> Plan:
    """Choose a place for every job that has one; say why for every job that has none.

    Every ask gets a decision, however strange the facts; none of them can keep the others from theirs.
    """
    screenings = gathered(problem.asks, screen(problem))
    evidence = Evidence.of(problem)
    expected = estimates(problem, screenings, evidence)
    assignment = pose(problem, screenings, expected, evidence.history)
    choices, found = choose(assignment, limits, problem.seed)
    decisions = explained(screenings, expected, choices, found.proven_optimal, evidence)
    gap_share = cost(assignment, found.counts) / max(1, assignment.lower_bound) - 1
    return Plan(decisions, found.proven_optimal, gap_share, found.solved_share)


def explained(
    screenings: Mapping[str, Screening],
    expected: Mapping[str, Sequence[Estimate]],
    choices: Mapping[str, Choice],
    proven_optimal: bool,
    evidence: Evidence,
) -> Mapping[str, Decision]:
    """The decision on every job that was asked for, with what it may expect where it goes and what would help it."""
    problem = evidence.problem
    shown = {
        ask.job_uuid: exactly(ask, expected[ask.job_uuid], choice.place, screenings[ask.job_uuid].candidates, evidence)
        for ask in problem.asks
        if (choice := choices.get(ask.job_uuid)) is not None
    }
    decisions = {
        uuid: decided(screenings[uuid], shown.get(uuid, expected[uuid]), choices.get(uuid), proven_optimal, problem.now)
        for uuid in sorted(screenings)
    }
    return _advised(decisions, screenings, evidence)


def choose(
    assignment: Assignment, limits: SolveLimits = DEFAULT_LIMITS, seed: int = 0
) -> tuple[Mapping[str, Choice], Answer]:
    """The place of every job that has one, by uuid: the first choice of a server and of the bench alike."""
    found = answer(assignment, greedy(assignment), limits, seed)
    return read(assignment, found.counts), found


def rethink(
    problem: Problem, standings: Mapping[str, Standing], rules: Rules, spent: Spent
) -> Mapping[str, SecondThought]:
    """What should change for queued jobs, by uuid; those for which nothing does are left out.

    Who waits longest is thought over first, and what it is given is spent for those after it. A place that breaks jobs
    at once is tried by new jobs, never by these; who waits there may leave. No job leaves its gang.
    """
    evidence, screenings, now_s = Evidence.of(problem), screen(problem), problem.now.timestamp()
    shut = [place for view in problem.systems if view.breakers for place in (view.host_place, *view.queue_places)]
    found: dict[str, SecondThought] = {}
    for ask in sorted(problem.asks, key=lambda ask: (ask.waiting_since.timestamp(), ask.job_uuid)):
        if ask.spec.gang:  # one place was chosen for all of it
            continue
        standing = standings[ask.job_uuid]
        candidates = {place.key: place for place in screenings[ask.job_uuid].candidates if not place.breakers}
        candidates |= {place.key: place for place in shut if place.breakers and place.key in standing.in_line}
        outlooks = {key: outlook(ask, place, evidence) for key, place in candidates.items()}
        if standing.lead not in outlooks:
            continue
        held = [
            where_it_waits(standing, key, outlooks[key].prospect, starts_in_line(candidates[key], remote_id, evidence))
            for key, remote_id in standing.in_line.items()
            if key in outlooks
        ]
        offered = {key: each.prospect for key, each in outlooks.items()}
        change = reconsider(standing, held, offered, rules, spent, now_s)
        spent = spent.more(submissions=len(change.submit))
        if (thought := _thought(standing, held, outlooks, change)) != SecondThought():
            found[ask.job_uuid] = thought
    return found


def _thought(
    standing: Standing, held: Sequence[Prospect], outlooks: Mapping[PlaceKey, Outlook], change: Change
) -> SecondThought:
    """A change read back as places. What leaves the place in which it leads is a move, made by the attempt that takes
    over.
    """
    gone = tuple(key for key, each in outlooks.items() if each.prospect.place in change.withdraw)
    best = next((each for each in outlooks.values() if each.prospect.place in change.submit), None)
    further = None
    if best is not None:
        sooner_s = fmean(first_ends_s(held)) - best.prospect.mean_end_s
        further = Further(best.estimate, standing.lead in gone, sooner_s)
    return SecondThought(further, tuple(key for key in gone if key != standing.lead))


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


def _advised(
    decisions: Mapping[str, Decision], screenings: Mapping[str, Screening], evidence: Evidence
) -> Mapping[str, Decision]:
    """The decisions, with what would start those jobs sooner that wait for long: first what a replay has shown."""
    asks = {ask.job_uuid: ask for ask in evidence.problem.asks}
    long = [
        Waiting(asks[uuid], (each.winner, *each.losers), each.rejections)
        for uuid, each in decisions.items()
        if each.winner and each.winner.wait.p50_s >= LONG_WAIT_S
    ]
    words = {
        uuid: (*each.words, *advice(screenings[uuid], known=each.played))
        for uuid, each in advice_for(long, evidence).items()
    }
    return {uuid: replace(each, advice=words[uuid]) if words.get(uuid) else each for uuid, each in decisions.items()}


def answer(assignment: Assignment, first: Counts, limits: SolveLimits, seed: int) -> Answer:
    """The greedy plan where it reaches the lower bound (always so for a single job); else CP-SAT, on all or on parts.

    first: the greedy plan; no worse one is answered.
    """
    if cost(assignment, first) == assignment.lower_bound:
        return Answer(first, True)
    from placement.solve import solve  # the solver's library takes its time to load; most plans do without

    kinds = len(assignment.kinds)
    if sum(len(kind.options) for kind in assignment.kinds) * len(assignment.starts_s) > limits.max_variables:
        better = improve(assignment, first, solve, limits, seed)
        return Answer(better.counts, False, better.solved_count / kinds)
    counts, proven_optimal = solve(assignment, first, limits, seed)
    return Answer(min((counts, first), key=lambda each: cost(assignment, each)), proven_optimal)
