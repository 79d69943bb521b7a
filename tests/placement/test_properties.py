"""What holds of every plan: nothing beyond capacity, more places never worse, and an answer to any input."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.assign import UNPLACED_S, cost
from placement.engine import answer, place
from placement.estimate import estimates
from placement.evidence import Evidence
from placement.filters import screen
from placement.gangs import gathered
from placement.greedy import greedy
from placement.pose import pose
from placement.problem import Problem, SolveLimits
from placement.weights import weights
from scheduler.model.plan import Reason
from scheduler.model.runs import SchedulerOption
from scheduler.model.snapshots import Closure, Licence
from scheduler.model.systems import UNLIMITED
from tests.placement.test_engine import problems
from tests.placement.worlds import NOW, ask, cluster, finished, nodes, problem, queue, running, snapshot, view

LITTLE = SolveLimits(deterministic_time=0.05)
PATIENT = SolveLimits(deterministic_time=2)


def answered(asked: Problem, limits=LITTLE):
    screenings, evidence = gathered(asked.asks, screen(asked)), Evidence.of(asked)
    assignment = pose(asked, screenings, estimates(asked, screenings, evidence), evidence.history)
    found = answer(assignment, greedy(assignment), limits, asked.seed)
    return assignment, found.counts, found.proven_optimal


def objective(asked: Problem, assignment, counts) -> int:
    """What the plan minimises; jobs that no place can take count as waiting, which costs more than any place."""
    posed = {uuid for kind in assignment.kinds for uuid in kind.jobs}
    waiting = (weight for uuid, weight in weights(asked.asks).items() if uuid not in posed)
    return cost(assignment, counts) + sum(weight * UNPLACED_S for weight in waiting)


# -- capacity and more places ------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(problems())
def test_no_plan_does_more_work_in_a_place_than_its_slots_can(asked):
    assignment, counts, _ = answered(asked)
    for key in assignment.slots:
        for period in assignment.ended_periods:
            work = sum(
                number * assignment.work(assignment.kinds[g].options[o], k, period)
                for (g, o, k), number in counts.items()
                if assignment.kinds[g].options[o].place == key and k <= period
            )
            assert work <= assignment.room(key, period)
    for limit in assignment.limits:
        taken = sum(
            number
            for (g, o, _), number in counts.items()
            if limit.counts(assignment.kinds[g], assignment.kinds[g].options[o])
        )
        assert taken <= max(0, limit.left)


FULL = snapshot(nodes(total=1, free=0, free_cores=0), jobs=(running(walltime_s=86_400),))


@st.composite
def contests(draw):
    """Jobs that stand in each other's way: small systems of different speed, and more work than they have room for."""
    views = tuple(
        view(
            cluster(name, notes={"berth": {"speedFactor": draw(st.sampled_from([0.8, 1, 1.2]))}}),
            draw(st.sampled_from([FULL, *(snapshot(nodes(total=n, free=n, free_cores=4 * n)) for n in (1, 2, 4))])),
        )
        for name in ("alder", "birch", "cedar")[: draw(st.integers(1, 3))]
    )
    asks = tuple(
        ask(
            f"job-{n}",
            cores_per_node=draw(st.sampled_from([2, 4])),
            walltime_s=draw(st.sampled_from([600, 3600, 36_000])),
            weight=draw(st.sampled_from([1.0, 3.0])),
        )
        for n in range(draw(st.integers(1, 9)))
    )
    run_s = draw(st.sampled_from([240, 1000, 3000]))
    return problem(asks, *views, history=tuple(finished(run_s=run_s) for _ in range(3)))


@settings(max_examples=40)
@given(st.one_of(problems(), contests()), st.randoms(use_true_random=False))
def test_the_same_problem_gets_the_same_plan_in_whatever_order_it_is_told(asked, random):
    def shuffled(items):
        return tuple(random.sample(items, len(items)))

    told = replace(asked, asks=shuffled(asked.asks), systems=shuffled(asked.systems), history=shuffled(asked.history))
    assert repr(place(asked, LITTLE)) == repr(place(asked, LITTLE)) == repr(place(told, LITTLE))


@settings(max_examples=60)
@given(st.one_of(problems(), contests()))
def test_one_more_system_never_makes_a_proven_plan_worse(asked):
    fewer = replace(asked, systems=asked.systems[:-1])
    (one, counts_one, proven_one), (two, counts_two, proven_two) = answered(fewer, PATIENT), answered(asked, PATIENT)
    if proven_one and proven_two:
        assert objective(asked, two, counts_two) <= objective(fewer, one, counts_one)


@pytest.mark.parametrize("jobs", [2, 3, 6])
@pytest.mark.parametrize("speed", [1.1, 1.2, 1.5])
def test_a_system_that_is_of_no_use_changes_no_plan(jobs, speed):
    """A faster one that is full for a day once made the periods shorter, and the plan worse for their ends."""
    asks = tuple(ask(f"job-{n}", cores_per_node=4) for n in range(jobs))
    useful = view(cluster("alder"), snapshot(nodes(total=1, free=1, free_cores=4)))
    full = view(cluster("birch", notes={"berth": {"speedFactor": speed}}), FULL)
    history = (finished(run_s=240),) * 3
    alone, both = problem(asks, useful, history=history), problem(asks, useful, full, history=history)
    costs = [objective(asked, *answered(asked, PATIENT)[:2]) for asked in (alone, both)]
    assert costs[0] == costs[1]


# -- bad input ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(problems())
def test_a_job_that_fits_nowhere_hears_it_of_every_system(asked):
    for each in place(asked, LITTLE).decisions.values():
        if each.winner is None:
            assert {one.system_id for one in each.rejections} == {one.system.id for one in asked.systems}
            assert all(isinstance(one.reason, Reason) for one in each.rejections)


ABSURD = st.one_of(
    st.floats(), st.integers(), st.text(max_size=5), st.none(), st.booleans(), st.lists(st.integers(), max_size=2)
)
NAMES = ("speedFactor", "pricePerCoreHour", "pricePerGpuHour", "outboundNetwork", "storageQuotaMB", "allowedImages")


@settings(max_examples=80)
@given(st.dictionaries(st.sampled_from([*NAMES, "facts"]), ABSURD), ABSURD)
def test_absurd_notes_are_an_answer(notes, berth):
    systems = (
        view(cluster("alder", notes={"berth": notes}), snapshot()),
        view(cluster("birch", notes={"berth": berth})),
    )
    asked = ask(max_price_usd=1.0, needs_network=True, storage_mib=10, gpus_per_node=0)
    result = place(problem(asked, *systems)).decisions["job-1"]
    assert result.sentence
    assert result.winner is None or 0 <= result.winner.total_p50_s <= result.winner.total_p90_s < float("inf")


INSTANTS = st.integers(-(10**7), 10**9).map(lambda seconds: NOW + timedelta(seconds=seconds))
CLOSURES = st.builds(
    lambda starts_at, ends_at, count, name: Closure(
        reservation=name, partition="cpu", nodes=count, starts_at=starts_at, ends_at=ends_at, maintenance=count > 2
    ),
    INSTANTS,
    INSTANTS,
    st.integers(-1, 9),
    st.sampled_from(["a", "b"]),
)
LICENCES = st.builds(Licence, name=st.sampled_from(["x", "y"]), total=st.integers(-1, 3), free=st.integers(-1, 3))


@settings(max_examples=80)
@given(
    st.lists(CLOSURES, max_size=4).map(tuple),
    st.none() | st.lists(LICENCES, max_size=2).map(tuple),
    st.sampled_from([60, 86_400, UNLIMITED, 2**40]),
    st.sampled_from(["x", "x:2,y", "x|y", ",,:", "x:99999999"]),
    st.integers(-(10**6), 10**6),
)
def test_any_reservation_licence_and_walltime_is_an_answer_whenever_it_was_seen(
    closures, licences, walltime_s, asked_licences, age_s
):
    options = (SchedulerOption("--licenses", asked_licences),)
    place_to_be = view(
        cluster("alder", queue(max_walltime_s=UNLIMITED)),
        snapshot(closures=closures, licences=licences, age_s=age_s, jobs=(running(walltime_s=UNLIMITED),)),
    )
    result = place(problem(ask(walltime_s=walltime_s, scheduler_options=options), place_to_be)).decisions["job-1"]
    assert result.winner or result.rejections
    if result.winner:
        assert 0 <= result.winner.wait.p50_s <= result.winner.wait.p90_s < float("inf")


def test_ten_thousand_identical_jobs_take_seconds():
    asks = tuple(ask(f"job-{n:05}", walltime_s=86_400) for n in range(10_000))
    full = view(cluster("birch"), snapshot(nodes(free=0, free_cores=0), jobs=tuple(running() for _ in range(4))))
    began_s = time.process_time()
    plan = place(problem(asks, view(None, snapshot()), full), SolveLimits())
    assert time.process_time() - began_s < 30
    assert all(each.winner for each in plan.decisions.values())
