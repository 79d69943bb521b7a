"""The assignment: no place over its slots, no limit broken, never worse than greedy, best where it is said to be."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from placement.assign import Assignment, Kind, Limit, Option, cost, periods
from placement.greedy import greedy
from placement.improve import improve
from placement.problem import PlaceKey, SolveLimits
from placement.solve import solve

PLACES = (PlaceKey("alder", "cpu"), PlaceKey("birch", "cpu"), PlaceKey("elm", None))
LITTLE = SolveLimits(deterministic_time=0.05)


def option(place, cost_s, cores, run_s):
    return Option(PLACES[place], cost_s, cores, run_s)


@st.composite
def assignments(draw, max_jobs=4, kinds=5):
    made = []
    for g in range(draw(st.integers(1, kinds))):
        options = tuple(
            option(place, draw(st.integers(0, 5000)), draw(st.integers(1, 40)), draw(st.integers(1, 9000)))
            for place in sorted(draw(st.sets(st.integers(0, 2), max_size=3)))
        )
        jobs = tuple(f"job-{g}-{n}" for n in range(draw(st.integers(1, max_jobs))))
        made.append(Kind(jobs, draw(st.sampled_from(["alice", "bob"])), draw(st.integers(1, 500)), options))
    slots = {place: draw(st.integers(1, 32)) for place in PLACES}
    limits = tuple(
        Limit(frozenset(draw(st.sets(st.sampled_from(PLACES), min_size=1))), draw(st.integers(0, 4)), owner)
        for owner in draw(st.lists(st.sampled_from([None, "alice"]), max_size=2))
    )
    return Assignment(tuple(made), slots, limits, periods(made, slots, 600))


@st.composite
def crowds(draw):
    """Many different jobs that stand in each other's way."""
    made = []
    for g in range(draw(st.integers(10, 40))):
        places = range(3) if draw(st.booleans()) else (0, draw(st.integers(1, 2)))
        run_s, cores = draw(st.integers(60, 9000)), draw(st.sampled_from([1, 4, 8]))
        options = tuple(option(place, draw(st.integers(0, 3000)) + run_s, cores, run_s) for place in sorted(places))
        gang = draw(st.integers(0, 9)) == 0
        jobs = (f"job-{g}", f"job-{g}-b") if gang else (f"job-{g}",)
        made.append(Kind(jobs, draw(st.sampled_from(["alice", "bob"])), draw(st.integers(1, 200)), options, gang))
    slots = {place: draw(st.sampled_from([4, 8, 16])) for place in PLACES}
    limits = (Limit(frozenset({PLACES[0]}), draw(st.integers(0, 20)), "alice"),) if draw(st.booleans()) else ()
    return Assignment(tuple(made), slots, limits, periods(made, slots, 1200))


def check_holds(assignment, counts):
    """Written from the words of the model alone, not with the code that plans."""
    starts = assignment.starts_s
    for g, kind in enumerate(assignment.kinds):
        assert sum(n for (i, _, _), n in counts.items() if i == g) <= (1 if kind.together else len(kind.jobs))
    assert all(n >= 0 for n in counts.values())
    for place, slots in assignment.slots.items():
        for end in starts[1:]:
            work = 0
            for (g, o, k), n in counts.items():
                each = assignment.kinds[g].options[o]
                if each.place == place and starts[k] < end:
                    work += n * min(each.cores, slots) * min(each.run_s, end - starts[k])
            assert work <= slots * end
    for limit in assignment.limits:
        assert limit.left >= sum(
            n * (len(assignment.kinds[g].jobs) if assignment.kinds[g].together else 1)
            for (g, o, _), n in counts.items()
            if assignment.kinds[g].options[o].place in limit.places and limit.owner in (None, assignment.kinds[g].owner)
        )


@given(assignments())
def test_greedy_stays_within_slots_and_limits(assignment):
    check_holds(assignment, greedy(assignment))


@settings(max_examples=40, deadline=None)
@given(assignments())
def test_the_solver_stays_within_slots_and_limits_and_is_never_worse_than_greedy(assignment):
    first = greedy(assignment)
    better, _ = solve(assignment, first, LITTLE, seed=0)
    check_holds(assignment, better)
    assert assignment.lower_bound <= cost(assignment, better) <= cost(assignment, first)


def test_a_limit_that_is_said_twice_counts_once():
    two = Kind(("a", "b"), "alice", 1, (option(0, 60, 1, 60),))
    limit = Limit(frozenset({PLACES[0]}), 2)
    asked = Assignment((two,), {PLACES[0]: 4}, (limit, limit), (0,))
    assert sum(greedy(asked).values()) == 2
    assert sum(solve(asked, {}, LITTLE, seed=0)[0].values()) == 2


@settings(max_examples=25, deadline=None)
@given(assignments(max_jobs=1, kinds=3))
def test_what_is_called_optimal_is_the_best_of_all_answers(assignment):
    counts, proven_optimal = solve(assignment, greedy(assignment), SolveLimits(deterministic_time=2), seed=0)
    assert proven_optimal
    periods_ = range(len(assignment.starts_s))
    choices = [
        [None, *((g, o, k) for o in range(len(kind.options)) for k in periods_)]
        for g, kind in enumerate(assignment.kinds)
    ]
    best = cost(assignment, counts)
    for answer in product(*choices):
        keys = {key: 1 for key in answer if key is not None}
        if cost(assignment, keys) < best:
            try:
                check_holds(assignment, keys)
            except AssertionError:
                continue
            raise AssertionError(f"{keys} is cheaper than {dict(counts)}")


@settings(max_examples=10, deadline=None)
@given(assignments(), st.integers(0, 9))
def test_the_same_question_gets_the_same_answer(assignment, seed):
    first = greedy(assignment)
    assert solve(assignment, first, LITTLE, seed) == solve(assignment, first, LITTLE, seed)


@settings(max_examples=15, deadline=None)
@given(crowds())
def test_placing_the_worst_parts_anew_is_never_worse_than_greedy_and_always_the_same(assignment):
    first = greedy(assignment)
    better = improve(assignment, first, solve, LITTLE, seed=0)
    check_holds(assignment, better.counts)
    assert assignment.lower_bound <= cost(assignment, better.counts) <= cost(assignment, first)
    assert better == improve(assignment, first, solve, LITTLE, seed=0)


def test_a_part_placed_anew_is_better_where_greedy_was_wrong():
    small = Kind(("small",), "alice", 100, (option(0, 100, 4, 3600), option(1, 110, 4, 3600)))
    large = Kind(("large",), "alice", 100, (option(0, 200, 4, 9000),))
    others = tuple(Kind((f"other-{n}",), "alice", 100, (option(2, 50, 1, 600),)) for n in range(50))
    slots = {PLACES[0]: 4, PLACES[1]: 4, PLACES[2]: 64}
    kinds = (small, *others, large)
    assignment = Assignment(kinds, slots, (), periods(kinds, slots, 3600))
    better = improve(assignment, greedy(assignment), solve, SolveLimits(), 0)
    assert cost(assignment, better.counts) == assignment.lower_bound + 100 * 10 < cost(assignment, greedy(assignment))
    assert 2 <= better.solved_count < len(kinds)


def test_greedy_takes_a_job_first_that_a_delay_would_make_late():
    def kind(name, *late_s):
        return Kind((name,), "alice", 100, (Option(PLACES[0], 600, 4, 600, late_s),))

    assignment = Assignment((kind("calm"), kind("due", 0, 6000, 12_000)), {PLACES[0]: 4}, (), (0, 600, 1200))
    assert greedy(assignment) == {(1, 0, 0): 1, (0, 0, 1): 1}


def test_a_gang_has_one_place_or_none():
    gang = Kind(("a", "b", "c"), "alice", 300, (option(0, 10, 6, 600), option(1, 90, 6, 600)), together=True)
    slots = {PLACES[0]: 8, PLACES[1]: 8}
    tight, tighter = (Limit(frozenset({place}), left) for place, left in ((PLACES[0], 2), (PLACES[1], 2)))
    roomy = Assignment((gang,), slots, (tight,), (0, 600))
    assert greedy(roomy) == solve(roomy, {}, SolveLimits(), 0)[0] == {(0, 1, 0): 1}
    full = Assignment((gang,), slots, (tight, tighter), (0, 600))
    assert greedy(full) == solve(full, {}, SolveLimits(), 0)[0] == {}


def test_the_solver_sees_what_one_after_the_other_does_not():
    """Greedy gives the small job the place that only it could do without."""
    small = Kind(("small",), "alice", 100, (option(0, 100, 4, 3600), option(1, 110, 4, 3600)))
    large = Kind(("large",), "alice", 100, (option(0, 200, 4, 9000),))
    slots = {PLACES[0]: 4, PLACES[1]: 4}
    assignment = Assignment((small, large), slots, (), periods((small, large), slots, 3600))
    first = greedy(assignment)
    better, proven_optimal = solve(assignment, first, SolveLimits(), 0)
    assert proven_optimal
    assert cost(assignment, first) > cost(assignment, better) == 100 * (110 + 200)


def test_a_job_beyond_all_limits_waits():
    kind = Kind(("a", "b", "c"), "alice", 100, (option(0, 10, 1, 10),))
    assignment = Assignment((kind,), {PLACES[0]: 8}, (Limit(frozenset({PLACES[0]}), 2, "alice"),), (0, 60))
    assert sum(greedy(assignment).values()) == 2
    assert sum(solve(assignment, {}, SolveLimits(), 0)[0].values()) == 2


def test_without_time_the_hint_stands():
    kinds = tuple(
        Kind((f"job-{n}",), "alice", 100, (option(0, n, 3, 100 * n), option(1, n, 3, 90 * n))) for n in range(1, 30)
    )
    slots = {PLACES[0]: 8, PLACES[1]: 8}
    assignment = Assignment(kinds, slots, (), periods(kinds, slots, 1350))
    first = greedy(assignment)
    counts, proven_optimal = solve(assignment, first, SolveLimits(deterministic_time=0.0), 0)
    assert cost(assignment, counts) <= cost(assignment, first)
    assert not proven_optimal


def test_ten_thousand_alike_jobs_are_one_kind_to_the_solver():
    jobs = tuple(f"job-{n}" for n in range(10_000))
    kind = Kind(jobs, "alice", 100, (option(0, 30, 1, 600), option(1, 90, 1, 300)))
    slots = {PLACES[0]: 64, PLACES[1]: 32}
    assignment = Assignment((kind,), slots, (), periods((kind,), slots, 300))
    first = greedy(assignment)
    counts, _ = solve(assignment, first, SolveLimits(), 0)
    check_holds(assignment, counts)
    assert sum(counts.values()) == 10_000
    assert cost(assignment, counts) <= cost(assignment, first)
