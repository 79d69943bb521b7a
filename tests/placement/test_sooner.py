"""What would start a job sooner, and only where a replay of the queue shows it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from placement.engine import place
from scheduler.model.snapshots import Closure
from tests.placement.worlds import (
    NOW,
    advised,
    ask,
    cluster,
    finished,
    nodes,
    problem,
    queue,
    running,
    snapshot,
    view,
    waiting,
)

HOUR = 3600
FULL = {"free": 0, "free_cores": 0}


def decision(an_ask, *views, **changes):
    return place(problem(an_ask, *views, **changes)).decisions[an_ask.job_uuid]


def busy(*jobs, free: int = 0, **changes):
    look = snapshot(nodes(free=free, free_cores=4 * free), jobs=jobs, **changes)
    return view(cluster("alder"), look)


def behind_a_large_job(hours: float = 10):
    """One of four nodes is free until the next in line gets all of them."""
    holders = [running(4, hours * HOUR, since_s=0, remote_id=str(n)) for n in range(3)]
    return busy(*holders, waiting(16, 24 * HOUR, priority=9, remote_id="9"), free=1)


def test_a_walltime_that_fits_before_what_waits_ahead_is_advised_with_what_it_gains():
    result = decision(ask(cores_per_node=4, walltime_s=24 * HOUR), behind_a_large_job())
    assert result.winner.wait.p50_s > 10 * HOUR
    assert result.advice[0].startswith("8 h instead of 24 h of walltime: about 14.")
    assert result.advice[0].endswith(" h earlier, in queue 'cpu' of 'alder'")


def test_an_advice_holds_when_it_is_followed():
    place_to_be = behind_a_large_job()
    long = decision(ask(cores_per_node=4, walltime_s=24 * HOUR), place_to_be)
    short = decision(ask(cores_per_node=4, walltime_s=8 * HOUR), place_to_be)
    assert long.winner.wait.p50_s - short.winner.wait.p50_s > 13 * HOUR


def test_no_walltime_is_advised_that_such_runs_are_known_to_exceed():
    runs = tuple(finished(run_s=run_s * HOUR) for run_s in (7, 8, 9))
    result = decision(ask(cores_per_node=4, walltime_s=24 * HOUR), behind_a_large_job(), history=runs)
    assert not any("walltime" in each for each in result.advice)


def test_one_run_of_the_user_is_too_little_to_keep_a_walltime_from_being_advised():
    once = (finished(run_s=60, image="another"),)
    result = decision(ask(cores_per_node=4, walltime_s=24 * HOUR), behind_a_large_job(), history=once)
    assert any("8 h instead of 24 h" in each for each in result.advice)


def test_fewer_nodes_are_advised_where_they_are_free():
    holders = [running(4, 10 * HOUR, since_s=0, remote_id=str(n)) for n in range(2)]
    result = decision(ask(nodes=4, cores_per_node=4, walltime_s=24 * HOUR), busy(*holders, waiting(16), free=2))
    assert not result.advice or "instead of 4" in result.advice[0]
    alone = busy(*holders, free=2)
    (advice,) = decision(ask(nodes=4, cores_per_node=4, walltime_s=24 * HOUR), alone).advice
    assert re.fullmatch(r"2 nodes instead of 4: about \d(\.\d)? h earlier, in queue 'cpu' of 'alder'", advice)


def test_what_a_maintenance_leaves_is_advised_to_the_minute():
    window = Closure(
        reservation="m",
        partition="cpu",
        nodes=4,
        starts_at=NOW + timedelta(hours=3),
        ends_at=NOW + timedelta(hours=13),
        maintenance=True,
    )
    result = decision(ask(walltime_s=24 * HOUR), busy(free=4, closures=(window,)))
    assert result.advice == ("2 h 54 min instead of 24 h of walltime: about 13 h earlier, in queue 'cpu' of 'alder'",)


def test_less_of_what_keeps_a_job_out_of_a_place_is_advised_where_that_place_starts_it_sooner():
    system = cluster("alder", queue("cpu"), queue("small", max_nodes=2), queue("thin"))
    kinds = (nodes(**FULL), nodes("small"), nodes("thin", cores=2, memory_mib=1000, free_cores=8))
    holders = tuple(running(4, HOUR, since_s=0, remote_id=str(n)) for n in range(4))

    def said(**asked):
        return advised(decision(ask(walltime_s=HOUR, **asked), view(system, snapshot(*kinds, jobs=holders))))

    fewer = "2 nodes instead of 3: earlier, in queue 'small' of 'alder'"
    narrower = "2 cores per node instead of 4: earlier, in queue 'thin' of 'alder'"
    lighter = "1000 MiB instead of 2000 MiB of memory per node: earlier, in queue 'thin' of 'alder'"
    assert said(nodes=3, cores_per_node=4) == [fewer, narrower]
    assert said(nodes=3, cores_per_node=2, memory_mib=2000) == [fewer, lighter]
    assert said(nodes=3, cores_per_node=4, memory_mib=2000) == [fewer], "two things keep it from the thin nodes"


def test_a_place_that_would_start_it_no_sooner_is_not_advised():
    system = cluster("alder", queue("cpu"), queue("debug", max_walltime_s=600))
    holders = [
        running(4, HOUR, since_s=0, remote_id=f"{name}{n}", partition=name)
        for name in ("cpu", "debug")
        for n in range(4)
    ]
    look = snapshot(nodes(**FULL), nodes("debug", **FULL), jobs=tuple(holders))
    assert decision(ask(walltime_s=HOUR), view(system, look)).advice == ()


def test_free_cores_on_nodes_that_are_partly_used_are_not_taken_for_a_node():
    holders = tuple(running(3, HOUR, since_s=0, remote_id=str(n)) for n in range(2))
    pieces = view(cluster("alder"), snapshot(nodes(total=2, free=0, free_cores=2), jobs=holders))
    assert decision(ask(nodes=2, cores_per_node=2, walltime_s=HOUR), pieces).advice == ()
    one = running(2, HOUR, since_s=0)
    half = view(cluster("alder"), snapshot(nodes(total=2, free=1, free_cores=6), jobs=(one,)))
    fewer = "1 node instead of 2: earlier, in queue 'cpu' of 'alder'"
    assert advised(decision(ask(nodes=2, cores_per_node=4, walltime_s=HOUR), half)) == [fewer]


def test_nothing_is_advised_where_nothing_helps_or_nothing_is_seen():
    full = busy(*(running(4, 10 * HOUR, since_s=0, remote_id=str(n)) for n in range(4)))
    assert decision(ask(cores_per_node=4, walltime_s=24 * HOUR), full).advice == ()
    assert decision(ask(cores_per_node=4, walltime_s=24 * HOUR), busy()).advice == ()


@given(
    st.lists(st.tuples(st.integers(1, 16), st.integers(60, 200_000)), max_size=8),
    st.integers(1, 4),
    st.sampled_from([60, HOUR, 24 * HOUR, 2**31]),
)
def test_whatever_is_advised_starts_earlier_in_the_replay(jobs, node_count, walltime_s):
    queue = [waiting(cores, walltime, priority=-n, remote_id=f"w{n}") for n, (cores, walltime) in enumerate(jobs)]
    holders = [running(4, 10 * HOUR, since_s=0, remote_id=str(n)) for n in range(3)]
    here = busy(*holders, *queue, free=1)
    asked = ask(nodes=node_count, cores_per_node=4, walltime_s=walltime_s)
    result = decision(asked, here)
    for each in result.advice:
        nodes_then = int(each.split()[0]) if "node" in each.split(":")[0] else node_count
        if nodes_then != node_count:
            then = decision(
                replace(asked, spec=ask(nodes=nodes_then, cores_per_node=4, walltime_s=walltime_s).spec), here
            )
            assert then.winner.wait.p50_s < result.winner.wait.p50_s
