"""Jobs to places by CP-SAT: the least weighted time to solution over all jobs at once. The only home of ortools."""

from __future__ import annotations

from collections import Counter, defaultdict

from ortools.sat.python import cp_model

from placement.assign import UNPLACED_S, Assignment, Counts, Limit
from placement.problem import PlaceKey, SolveLimits


def solve(assignment: Assignment, hint: Counts, limits: SolveLimits, seed: int) -> tuple[Counts, bool]:
    """A best answer as far as the limits allow, starting from ``hint``; and whether none is better.

    One worker, a fixed seed and deterministic time: the same question gets the same answer on any machine.
    ``hint`` itself comes back when nothing better was found in time.
    """
    model = cp_model.CpModel()
    kinds, starts = assignment.kinds, range(len(assignment.starts_s))

    # variables: how many jobs of a kind start in a place in a period, and how many keep waiting
    chosen = {
        (g, o, k): model.new_int_var(
            0, kind.number, f"{kind.jobs[0]}@{option.place.system_id}/{option.place.queue}+{k}"
        )
        for g, kind in enumerate(kinds)
        for o, option in enumerate(kind.options)
        for k in starts
    }
    waiting = [model.new_int_var(0, kind.number, f"{kind.jobs[0]} waits") for kind in kinds]

    # every job has one place or waits
    for g, kind in enumerate(kinds):
        taken = [chosen[g, o, k] for o in range(len(kind.options)) for k in starts]
        model.add(sum(taken) + waiting[g] == kind.number).with_name(f"{kind.jobs[0]} once")

    # no place does more work for us than its slots can
    options_in = defaultdict[PlaceKey, list[tuple[int, int]]](list)
    for g, kind in enumerate(kinds):
        for o, option in enumerate(kind.options):
            options_in[option.place].append((g, o))
    for place, here in options_in.items():
        taking = [(assignment.cores(option), option.run_s) for option in (kinds[g].options[o] for g, o in here)]
        for period in assignment.ended_periods:
            begun = [chosen[g, o, k] for g, o in here for k in range(period + 1)]
            left_s = [assignment.starts_s[period + 1] - assignment.starts_s[k] for k in range(period + 1)]
            works = [cores * min(run_s, until_s) for cores, run_s in taking for until_s in left_s]
            used = cp_model.LinearExpr.weighted_sum(begun, works)
            model.add(used <= assignment.room(place, period)).with_name(f"{place.system_id}/{place.queue} by {period}")

    # limits on numbers of jobs
    counted = defaultdict[Limit, list[cp_model.LinearExprT]](list)
    for (g, o, _), variable in chosen.items():
        for limit in assignment.limits_of(kinds[g], kinds[g].options[o]):
            counted[limit].append(kinds[g].jobs_each * variable)
    for limit, jobs in counted.items():
        model.add(sum(jobs) <= limit.left)

    # objective: weighted seconds until all results
    placed = sum(
        kinds[g].weight * kinds[g].options[o].after_s(assignment.starts_s, k) * variable
        for (g, o, k), variable in chosen.items()
    )
    model.minimize(placed + sum(kind.weight * UNPLACED_S * waiting[g] for g, kind in enumerate(kinds)))

    # solve, from the greedy answer on
    for key, variable in chosen.items():
        model.add_hint(variable, hint.get(key, 0))
    hinted = Counter[int]()
    for (g, _, _), number in hint.items():
        hinted[g] += number
    for g, kind in enumerate(kinds):
        model.add_hint(waiting[g], kind.number - hinted[g])
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = limits.deterministic_time
    solver.parameters.cp_model_presolve = False  # it takes longer than what it saves in models of this kind
    status = solver.solve(model)
    if status == cp_model.UNKNOWN:
        return hint, False
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise RuntimeError(f"the placement model is {solver.status_name(status)}, yet all jobs may wait: a bug")
    counts = {key: number for key, variable in chosen.items() if (number := solver.value(variable))}
    return counts, status == cp_model.OPTIMAL
