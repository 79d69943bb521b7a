"""Whatever placement is told, it answers: a decision for every job, with a place or with a reason for every system."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from placement.engine import place
from placement.failures import Trials, guarded
from placement.problem import Committed, PlaceKey, SolveLimits
from scheduler.model.jobs import Gang
from scheduler.model.plan import Reason
from scheduler.model.runs import ArraySpec, Resources, SchedulerOption
from scheduler.model.snapshots import StartProbe
from scheduler.model.systems import UNLIMITED
from tests.placement.worlds import (
    NOW,
    ask,
    cluster,
    finished,
    host,
    nodes,
    problem,
    queue,
    running,
    snapshot,
    view,
    waiting,
)

LITTLE = SolveLimits(deterministic_time=0.05)
EVER = timedelta(days=10_000)
EMPTY, IDLE = nodes(total=0, free=0, free_cores=0), view(cluster("birch"), snapshot())
FULL = (running(walltime_s=UNLIMITED), waiting(walltime_s=UNLIMITED))


def noted(**notes):
    return view(cluster(notes={"berth": notes}), snapshot())


def seen(*kinds, **changes):
    return view(cluster(), snapshot(*kinds, **changes))


ANSWERED = {
    "nothing is known": (ask(), view(), {}),
    "no system": (ask(), None, {}),
    "no job": ((), IDLE, {}),
    "a queue without nodes": (ask(), seen(EMPTY), {}),
    "a queue without nodes in which jobs wait": (ask(), seen(EMPTY, jobs=FULL), {}),
    "nodes without cores": (ask(), seen(nodes(cores=0, memory_mib=0, free_cores=0)), {}),
    "less than no node": (ask(), seen(nodes(total=-3, free=-1, free_cores=-9, down=7)), {}),
    "a partition that is not there": (ask(), view(cluster("alder", queue("none")), snapshot()), {}),
    "a look from the future": (ask(), seen(age_s=-1e8), {}),
    "a look from long ago": (ask(), seen(age_s=1e9), {}),
    "runs that end before they start": (ask(), IDLE, {"history": (finished(run_s=-1e6, wait_s=-5),) * 4}),
    "runs that end after now": (ask(), IDLE, {"history": (finished(ended_at=NOW + EVER),) * 4}),
    "failures after now": (
        ask(),
        IDLE,
        {"history": (finished(ended_at=NOW + EVER, broken=True, completed=False),) * 4},
    ),
    "a history of zero-size jobs": (
        ask(),
        IDLE,
        {"history": (finished(run_s=0, wait_s=0, resources=Resources(nodes=0, walltime_s=0)),) * 4},
    ),
    "jobs that started before time began": (ask(), seen(jobs=(running(since_s=1e9), running(since_s=-1e9))), {}),
    "jobs of absurd size": (ask(), seen(jobs=(running(0, 0), running(10**12, 2**60), waiting(-5, -5))), {}),
    "a job that asks for no limit": (ask(walltime_s=UNLIMITED), view(cluster("alder", queue(max_walltime_s=-1))), {}),
    "a job that asks for nothing": (ask(nodes=0, cores_per_node=0, memory_mib=0, walltime_s=0), IDLE, {}),
    "a job that asks for everything": (ask(nodes=10**9, cores_per_node=10**9, memory_mib=10**12), IDLE, {}),
    "an array of nothing": (ask(array=ArraySpec((), 0)), IDLE, {}),
    "an array of a million": (ask(array=ArraySpec(tuple(range(10**6)), -1)), IDLE, {}),
    "answers of the site in the past": (
        ask(),
        seen(nodes(free=0), starts=((StartProbe("cpu", Resources()), NOW - EVER),)),
        {},
    ),
    "a place of the last plan that is gone": (ask(), IDLE, {"last_plan": {"job-1": PlaceKey("gone", None)}}),
    "jobs of ours that were never submitted": (
        ask(),
        view(
            cluster(), snapshot(), committed=(Committed(queue="cpu", resources=Resources(nodes=10**6), placed_at=NOW),)
        ),
        {},
    ),
    "limits below zero": (ask(), view(cluster("alder", queue(max_jobs=-7), max_jobs=-2)), {}),
    "a negative price": (ask(max_price_usd=1.0, usd_per_hour=1.0), noted(pricePerCoreHour=-5, pricePerGpuHour=-1), {}),
    "a price that is none": (ask(max_price_usd=math.nan, usd_per_hour=math.inf), noted(pricePerCoreHour="cheap"), {}),
    "a price beyond all": (
        ask(usd_per_hour=1e-300, usd_per_kwh=1e300),
        noted(pricePerCoreHour=9e5, wattsPerCore=9e5),
        {},
    ),
    "a speed of zero": (ask(), noted(speedFactor=0), {}),
    "a speed that is no number": (ask(), noted(speedFactor=math.nan), {}),
    "a weight that is no number": (ask(weight=math.nan), IDLE, {}),
    "a deadline long past": (ask(deadline_at=NOW - EVER), IDLE, {}),
    "a deadline in the far future": (ask(deadline_at=NOW + EVER * 100), IDLE, {}),
    "a gang of more than all": (ask(gang=Gang("ring", 10**9)), IDLE, {}),
    "constraints that nobody can read": (ask(constraints=("((", "name = ")), IDLE, {}),
    "options that nobody can read": (ask(scheduler_options=(SchedulerOption("--licenses", ",,:x:"),)), IDLE, {}),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_it_is_an_answer(name):
    asked, its_view, changes = ANSWERED[name]
    told = problem(asked, *([its_view] if its_view else []), **changes)
    plan = place(told, LITTLE)
    assert set(plan.decisions) == {each.job_uuid for each in told.asks}
    for each in plan.decisions.values():
        assert each.sentence
        if each.winner is None:
            assert {one.system_id for one in each.rejections} == {one.system.id for one in told.systems}
            assert all(isinstance(one.reason, Reason) for one in each.rejections)
        else:
            assert 0 <= each.winner.total_p50_s <= each.winner.total_p90_s < math.inf
            assert 0 <= each.winner.extra_s < math.inf
    assert place(told, LITTLE) == plan


def test_a_job_that_fits_nowhere_hears_why_of_each_system():
    views = (
        view(cluster("alder"), snapshot()),
        view(replace(cluster("birch"), enabled=False)),
        view(host("cedar")),
        view(cluster("elm"), may_execute=frozenset()),
        *guarded([view(cluster("fir"))], [_broken()] * 3, {PlaceKey("fir", "cpu"): Trials(1)}, NOW),
    )
    said = place(problem(ask(nodes=64, memory_mib=10**9), *views)).decisions["job-1"]
    assert said.winner is None
    assert {each.system_id: each.reason for each in said.rejections} == {
        "alder": Reason.MEMORY,
        "birch": Reason.DISABLED,
        "cedar": Reason.NODES,
        "elm": Reason.NOT_PERMITTED,
        "fir": Reason.FAILING,
    }


def _broken():
    return finished(run_s=1, system_id="fir", ended_at=NOW, completed=False, broken=True)


def test_jobs_of_which_no_two_are_alike_take_no_longer_than_their_limit_of_thinking():
    full = view(cluster("alder"), snapshot(nodes(free=0, free_cores=0), jobs=FULL))
    asks = tuple(ask(f"job-{n:05}", walltime_s=600 + n, image=f"image-{n}") for n in range(100))
    began_s = time.process_time()
    plan = place(problem(asks, full, IDLE), SolveLimits(deterministic_time=0.05, max_variables=1000))
    assert time.process_time() - began_s < 10
    assert all(each.winner for each in plan.decisions.values())
    assert 0 < plan.solved_share <= 1
    assert plan.gap_share >= 0
