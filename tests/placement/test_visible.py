"""What is visible of a queue, as forecasts start from it, and what they say of a job that joins."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from placement.experience import Experience
from placement.forecasts import Forecast, Forecasts
from placement.futures import Copy
from placement.problem import Committed, PlaceOption
from placement.visible import HIDDEN, foreseeable, look_of, remembered
from scheduler.model.runs import Resources
from scheduler.model.snapshots import Sighting
from tests.placement.worlds import NOW, cluster, nodes, queue, running, snapshot, view, waiting

CPU = queue("cpu")
NOW_S = NOW.timestamp()
FULL = tuple(running(cores=4, walltime_s=3600, since_s=600, remote_id=str(n)) for n in range(4))  # 16 of 16 cores
OURS = Committed(queue="cpu", resources=Resources(nodes=4, cores_per_node=4, walltime_s=900), placed_at=NOW)


def place(*jobs, free_cores=0, committed=(), **kind):
    look = snapshot(nodes(free=0, free_cores=free_cores, **kind), jobs=jobs, age_s=0)
    return PlaceOption(view(cluster("alder", CPU), look, committed=committed), CPU)


def latest_start_s(a_place, cores, asked_s=600.0):
    """When a job that joins now starts if everyone uses all of the walltime."""
    copy = Copy("ours", "alder/cpu", cores, asked_s, NOW_S, "", "")
    forecast = Forecast(foreseeable(a_place), Experience(), "alder/cpu")
    return forecast.latest_start_s(copy, NOW_S + 10**6) - NOW_S


def test_a_job_starts_at_the_latest_when_the_running_jobs_reach_their_walltime():
    assert latest_start_s(place(*FULL), cores=4) == 3000


def test_jobs_that_wait_already_go_first():
    assert latest_start_s(place(*FULL, waiting(cores=16, walltime_s=7200)), cores=4) == 3000 + 7200


def test_a_short_job_uses_the_hole_before_a_wide_one():
    hole = place(*FULL[:3], waiting(cores=16, walltime_s=7200), free_cores=4)
    assert latest_start_s(hole, cores=4, asked_s=3000) == 0
    assert latest_start_s(hole, cores=4, asked_s=3001) == 3000 + 7200


def test_the_order_that_the_site_shows_is_kept_whenever_jobs_came():
    first = waiting(cores=16, walltime_s=1000, since_s=10, priority=9, remote_id="b")
    second = waiting(cores=16, walltime_s=500, since_s=999, priority=1, remote_id="a")
    look = foreseeable(place(*FULL, second, first))
    assert [job.id for job in look.waiting] == ["b", "a"]


@pytest.mark.parametrize("reason", ["Dependency", "JobHeldUser", "JobHeldAdmin", "BeginTime", "AssocGrpCpuLimit"])
def test_jobs_that_are_held_back_take_no_cores(reason):
    assert latest_start_s(place(*FULL, waiting(cores=16, reason=reason)), cores=4) == 3000


def test_our_jobs_that_are_not_visible_yet_count():
    assert latest_start_s(place(*FULL, committed=(OURS,)), cores=4) == 3000 + 900
    shown = replace(OURS, submitted_at=NOW - timedelta(hours=1))
    assert latest_start_s(place(*FULL, committed=(shown,)), cores=4) == 3000


def test_a_queue_that_is_mostly_hidden_cannot_be_foreseen():
    assert foreseeable(place(running(cores=4))) is None
    assert foreseeable(place()) is None


def test_what_is_busy_and_hidden_stays_busy():
    look = foreseeable(place(*FULL[:3]))
    assert [(job.id, job.cores) for job in look.running][-1] == (HIDDEN, 4)


def test_jobs_on_cores_that_count_elsewhere_are_cut_to_what_is_busy_here():
    look = foreseeable(place(*FULL, free_cores=8))
    assert sum(job.cores for job in look.running) == 8


def test_absurd_sizes_and_walltimes_are_cut():
    odd = replace(waiting(cores=0), walltime_s=10**12, submitted_at=None)
    (job,) = look_of(snapshot(jobs=(odd,)), "alder", "cpu").waiting
    assert (job.cores, job.asked_s, job.submitted_s) == (1, 30 * 86_400.0, NOW_S - 10)


def test_rows_of_past_looks_are_one_look_of_who_ran_and_who_is_there_still():
    at = [NOW + timedelta(minutes=n) for n in range(4)]
    row = Sighting(
        remote_id="1", partition="cpu", cores=4, walltime_s=600, user="eve", submitted_at=at[0], seen_at=at[3]
    )
    rows = [
        replace(row, started_at=at[1], ended_at=at[2]),
        replace(row, remote_id="2", started_at=at[1]),
        replace(row, remote_id="3"),
        replace(row, remote_id="4", ended_at=at[2]),
    ]
    look = remembered(rows, "alder")
    assert [[job.id for job in jobs] for jobs in (look.ended, look.running, look.waiting)] == [["1"], ["2"], ["3"]]
    assert look.now_s == at[3].timestamp()


def test_a_forecast_is_kept_while_it_would_be_made_of_the_same():
    kept, made = Forecasts(), []

    def make():
        made.append(Forecast(foreseeable(place(*FULL)), Experience(), "alder/cpu"))
        return made[-1]

    first = kept.of("alder/cpu", ("a look", ()), make)
    assert kept.of("alder/cpu", ("a look", ()), make) is first
    assert kept.of("alder/cpu", ("a look", (OURS,)), make) is not first
    assert len(made) == 2


@pytest.mark.parametrize(("effective_user_id", "user"), [("berth", "berth"), ("${apiUserId}", "")])
def test_jobs_of_ours_that_come_are_ranked_as_the_login_that_all_share(effective_user_id, user):
    system = cluster("alder", CPU, effective_user_id=effective_user_id)
    there = PlaceOption(view(system, snapshot(nodes(free=0), jobs=FULL), committed=(OURS,)), CPU)
    assert [job.user for job in foreseeable(there).coming] == [user]
