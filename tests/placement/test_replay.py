"""The replay of a visible queue: holes are used, nothing planned earlier is delayed, cores are never given twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.easy import Load
from placement.futures import Copy
from placement.predict import Predictor, RunTimes
from placement.problem import Committed, PlaceOption
from placement.replay import MAX_REPLAYED, forecast
from scheduler.model.runs import Resources
from tests.placement.worlds import NOW, cluster, nodes, queue, running, snapshot, view, waiting

CPU = queue("cpu")


def place(*jobs, free_cores=0, committed=(), **kind):
    look = snapshot(nodes(free=0, free_cores=free_cores, **kind), jobs=jobs)
    return PlaceOption(view(cluster("alder", CPU), look, committed=committed), CPU)


class Uses(Predictor):
    """Every job uses the same share of its walltime."""

    def __init__(self, share):
        self.share = share

    def run_s(self, user, asked_s, quantile, age_s=0.0):
        return age_s + (asked_s - age_s) * self.share


def starts(a_place, cores, duration_s=600, run_share=1.0):
    """The wait where nothing is uncertain; None when there is none."""
    wait_s = forecast(a_place, NOW.timestamp(), Uses(run_share)).wait(cores, duration_s)
    assert wait_s is None or wait_s[0] == wait_s[1]
    return wait_s and wait_s[0]


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
    assert starts(place(*FULL, first, second), 16, 100) == 3000 + 1000 + 500


@pytest.mark.parametrize("reason", ["Dependency", "JobHeldUser", "JobHeldAdmin", "BeginTime", "AssocGrpCpuLimit"])
def test_jobs_that_are_held_back_take_no_cores(reason):
    assert starts(place(*FULL, waiting(cores=16, reason=reason)), cores=4) == 3000


def test_our_jobs_that_are_not_visible_yet_count():
    ours = Committed(queue="cpu", resources=Resources(nodes=4, cores_per_node=4, walltime_s=900), placed_at=NOW)
    assert starts(place(*FULL, committed=(ours,)), cores=4) == 3000 + 900
    shown = replace(ours, submitted_at=NOW - timedelta(hours=1))
    assert starts(place(*FULL, committed=(shown,)), cores=4) == 3000


def test_a_queue_that_is_mostly_hidden_gives_no_forecast():
    assert forecast(place(running(cores=4)), NOW.timestamp(), Uses(1.0)) is None
    assert forecast(place(), NOW.timestamp(), Uses(1.0)) is None


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


def test_what_waits_behind_many_is_counted_as_work():
    crowd = tuple(waiting(cores=16, walltime_s=100, since_s=n, remote_id=f"w{n}") for n in range(MAX_REPLAYED + 10))
    assert starts(place(*FULL, *crowd), cores=16) == 3000 + 100 * (MAX_REPLAYED + 10)


def test_run_times_that_are_not_known_make_the_answer_wide():
    seen = forecast(place(*FULL), NOW.timestamp(), Predictor(RunTimes()))
    p50_s, p90_s = seen.wait(4, 600)
    assert 0 < p50_s < p90_s <= 3000


SHAPES = st.lists(st.tuples(st.integers(1, 16), st.integers(60, 90_000), st.integers(0, 9)), max_size=12)


@given(SHAPES, st.integers(1, 16), st.integers(60, 90_000))
def test_the_room_that_is_left_is_where_a_last_job_would_start(shapes, cores, asked_s):
    """The short way over the room that others leave gives what sending the job there gives."""
    jobs = [
        waiting(cores=c, walltime_s=w, since_s=s, priority=-n, remote_id=f"w{n}") for n, (c, w, s) in enumerate(shapes)
    ]
    plan = forecast(place(*FULL, *jobs), NOW.timestamp(), Predictor(RunTimes())).futures
    copy = Copy("mine", "", cores, asked_s, NOW.timestamp() + 5, "me", "me")
    until_s = NOW.timestamp() + 1e9
    for n, draw in enumerate(plan._all()):
        sent = Load("mine", cores, asked_s, 1.0, copy.ready_s, 1e12)
        assert plan.starts_s(copy, until_s)[n] == draw.start_among_s(sent, copy.ready_s, until_s)
