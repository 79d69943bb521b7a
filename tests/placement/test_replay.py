"""The replay of a visible queue: holes are used, nothing planned earlier is delayed, cores are never given twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.problem import Committed, PlaceOption
from placement.replay import FreeCores, forecast
from scheduler.model.runs import Resources
from tests.placement.worlds import NOW, cluster, nodes, queue, running, snapshot, view, waiting

CPU = queue("cpu")


def place(*jobs, free_cores=0, committed=(), **kind):
    look = snapshot(nodes(free=0, free_cores=free_cores, **kind), jobs=jobs)
    return PlaceOption(view(cluster("alder", CPU), look, committed=committed), CPU)


def starts(a_place, cores, duration_s=600, run_share=1.0):
    return forecast(a_place, NOW.timestamp(), run_share).start_s(cores, duration_s)


FULL = tuple(running(cores=4, walltime_s=3600, since_s=600, remote_id=str(n)) for n in range(4))  # 16 of 16 cores


def test_a_job_starts_when_the_running_jobs_reach_their_walltime():
    assert starts(place(*FULL), cores=4) == 3000
    assert starts(place(*FULL), cores=4, run_share=0.5) == 1500


def test_jobs_that_wait_already_go_first():
    assert starts(place(*FULL, waiting(cores=16, walltime_s=7200)), cores=4) == 3000 + 7200


def test_a_short_job_uses_the_hole_before_a_wide_one():
    hole = place(*FULL[:3], waiting(cores=16, walltime_s=7200), free_cores=4)
    assert starts(hole, cores=4, duration_s=3000) == 0
    assert starts(hole, cores=4, duration_s=3001) == 3000 + 7200


def test_a_higher_priority_goes_first_whenever_it_came():
    first = waiting(cores=16, walltime_s=1000, since_s=10, priority=9, remote_id="b")
    second = waiting(cores=16, walltime_s=500, since_s=999, priority=1, remote_id="a")
    plan = forecast(place(*FULL, first, second), NOW.timestamp(), 1.0)
    assert plan.start_s(16, 100) == 3000 + 1000 + 500


@pytest.mark.parametrize("reason", ["Dependency", "JobHeldUser", "JobHeldAdmin", "BeginTime", "AssocGrpCpuLimit"])
def test_jobs_that_are_held_back_take_no_cores(reason):
    assert starts(place(*FULL, waiting(cores=16, reason=reason)), cores=4) == 3000


def test_our_jobs_that_are_not_visible_yet_count():
    ours = Committed(queue="cpu", resources=Resources(nodes=4, cores_per_node=4, walltime_s=900), placed_at=NOW)
    assert starts(place(*FULL, committed=(ours,)), cores=4) == 3000 + 900
    shown = replace(ours, submitted_at=NOW - timedelta(hours=1))
    assert starts(place(*FULL, committed=(shown,)), cores=4) == 3000


def test_a_queue_that_is_mostly_hidden_gives_no_forecast():
    assert forecast(place(running(cores=4)), NOW.timestamp(), 1.0) is None
    assert forecast(place(), NOW.timestamp(), 1.0) is None


def test_jobs_of_nodes_that_two_partitions_share_free_no_more_than_is_busy():
    shared = tuple(running(cores=16, walltime_s=3600, since_s=600, remote_id=str(n)) for n in range(2))
    assert starts(place(*shared), cores=16) == 3000
    assert starts(place(*shared), cores=17) is None


def test_a_job_larger_than_what_ever_gets_free_has_no_start():
    assert starts(place(*FULL), cores=17) is None


def test_a_running_job_that_outlived_its_walltime_ends_any_moment():
    assert starts(place(running(cores=16, walltime_s=60, since_s=9999)), cores=4) == 1.0


def test_absurd_walltimes_are_cut():
    endless = tuple(replace(job, walltime_s=2**40) for job in FULL)
    assert starts(place(*endless), cores=4) <= 30 * 86_400


@given(
    st.integers(0, 8),
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 8)), max_size=5),
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 60)), max_size=12),
)
def test_no_core_is_given_twice_and_nobody_starts_later_for_those_behind(free, ends, jobs):
    plan, taken = FreeCores(free, ends), []
    for cores, duration in jobs:
        start = plan.earliest_s(cores, duration)
        if start is not None:
            plan.take(start, cores, duration)
            taken.append((start, cores, duration))
    for now in range(200):
        there = free + sum(cores for at, cores in ends if at <= now)
        used = sum(cores for start, cores, duration in taken if start <= now < start + duration)
        assert used <= there


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 8)), max_size=5), st.integers(1, 8), st.integers(1, 40))
def test_the_earliest_start_is_the_earliest(ends, cores, duration):
    plan = FreeCores(2, ends)

    def fits(start):
        return all(2 + sum(c for at, c in ends if at <= t) >= cores for t in range(start, start + duration))

    expected = next((start for start in range(100) if fits(start)), None)
    assert plan.earliest_s(cores, duration) == expected
