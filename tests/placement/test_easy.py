"""The simulated batch system: no core is given twice, holes are used, and the first in line never waits for it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.easy import NEVER_S, Cluster, Load
from tests.placement import plain_easy


def load(name, cores, asked_s, run_s=None, at_s=0.0, rank_s=None):
    return Load(name, cores, asked_s, asked_s if run_s is None else run_s, at_s, at_s if rank_s is None else rank_s)


def played(cores, loads):
    """Starts by name of a system that is left to itself."""
    cluster = Cluster(cores, arrivals=sorted(loads, key=lambda each: each.submitted_s))
    return {start.load.id: start.at_s for start in cluster.advance(1e12)}


def test_jobs_start_in_order_as_cores_become_free():
    assert played(4, [load("a", 4, 100), load("b", 4, 50), load("c", 4, 10)]) == {"a": 0, "b": 100, "c": 150}


def test_a_job_that_ends_early_lets_the_next_start_early():
    assert played(4, [load("a", 4, 100, run_s=30), load("b", 4, 50)]) == {"a": 0, "b": 30}


def test_a_short_job_fills_the_hole_before_a_wide_one():
    jobs = [load("a", 3, 100), load("wide", 4, 50), load("short", 1, 100), load("long", 1, 101)]
    assert played(4, jobs) == {"a": 0, "wide": 100, "short": 0, "long": 150}


def test_a_long_job_may_use_cores_that_the_first_in_line_will_not_need():
    jobs = [load("a", 3, 100), load("wide", 3, 50), load("long", 1, 1000), load("longer", 1, 2000)]
    assert played(5, jobs) == {"a": 0, "wide": 100, "long": 0, "longer": 0}


def test_spare_cores_are_given_once():
    jobs = [load("a", 3, 100), load("wide", 4, 50), load("long", 1, 1000), load("longer", 1, 2000)]
    assert played(5, jobs) == {"a": 0, "wide": 100, "long": 0, "longer": 150}


def test_a_better_rank_goes_first_whenever_it_came():
    jobs = [load("a", 4, 100), load("b", 4, 50, at_s=1), load("c", 4, 10, at_s=2, rank_s=-5)]
    assert played(4, jobs) == {"a": 0, "c": 100, "b": 110}


def test_a_job_larger_than_the_system_never_starts_and_stops_nobody():
    assert played(4, [load("huge", 5, 10), load("a", 4, 100), load("b", 1, 9)]) == {"a": 0, "b": 100}


def test_a_job_that_is_announced_gets_in_line_at_its_time():
    cluster = Cluster(4)
    cluster.enter(load("a", 4, 10), at_s=70)
    assert cluster.advance(69) == []
    assert cluster.entering
    assert [start.at_s for start in cluster.advance(70)] == [70]


def test_withdrawing_the_first_in_line_lets_others_start_at_once():
    cluster = Cluster(4, arrivals=[load("a", 3, 100), load("wide", 4, 50), load("long", 1, 1000)])
    cluster.advance(10)
    assert [start.load.id for start in cluster.withdraw("wide")] == ["long"]
    assert cluster.withdraw("wide") == []


def test_a_job_withdrawn_before_it_arrives_never_starts():
    cluster = Cluster(4)
    cluster.enter(load("a", 4, 10), at_s=70)
    cluster.withdraw("a")
    assert cluster.next_s == NEVER_S


def test_a_copy_goes_its_own_way():
    cluster = Cluster(4, arrivals=[load("a", 4, 100), load("b", 4, 100)])
    cluster.advance(10)
    twin = cluster.copy()
    twin.withdraw("b")
    assert twin.advance(1e9) == []
    assert [start.load.id for start in cluster.advance(1e9)] == ["b"]


def test_what_runs_already_is_counted_until_its_walltime():
    cluster = Cluster(4, now_s=1000)
    cluster.run(load("old", 3, 600, run_s=500, at_s=0), started_s=900)
    cluster.enter(load("wide", 4, 10), 1000)
    cluster.enter(load("short", 1, 501), 1000)
    assert {s.load.id: s.at_s for s in cluster.advance(1e9)} == {"wide": 1400, "short": 1410}


# -- properties ----------------------------------------------------------------------------------------------------

CORES = 8
SHAPES = st.tuples(
    st.integers(1, CORES), st.integers(1, 50), st.floats(0.0, 1.0), st.integers(0, 60), st.integers(-30, 30)
)
QUEUES = st.lists(SHAPES, min_size=1, max_size=30)


def loads_of(shapes, offsets=True):
    made = [
        Load(f"j{n}", cores, asked, max(1, round(asked * share)), at, at + offset * offsets)
        for n, (cores, asked, share, at, offset) in enumerate(shapes)
    ]
    return sorted(made, key=lambda each: each.submitted_s)


@given(QUEUES)
def test_cores_are_never_given_twice_and_every_job_runs_once(shapes):
    loads = loads_of(shapes)
    cluster = Cluster(CORES, arrivals=loads)
    starts = cluster.advance(1e9)
    assert sorted(start.load.id for start in starts) == sorted(each.id for each in loads)
    for at_s in {start.at_s for start in starts}:
        busy = sum(s.load.cores for s in starts if s.at_s <= at_s < s.at_s + s.load.run_s)
        assert busy <= CORES
    assert (cluster.free, cluster.waiting, cluster.running) == (CORES, [], [])
    done = sum(end.load.cores * (end.at_s - end.started_s) for end in cluster.ended)
    assert done == pytest.approx(sum(each.cores * each.run_s for each in loads))
    assert all(start.at_s >= start.load.submitted_s for start in starts)


LEAVERS = st.dictionaries(st.integers(0, 59), st.integers(0, 90), max_size=4)


@given(st.lists(SHAPES, min_size=1, max_size=60), LEAVERS)
def test_every_shortcut_agrees_with_the_plain_rule(shapes, leavers):
    loads = loads_of(shapes)
    leaves_s = {f"j{n}": at_s + 0.5 for n, at_s in leavers.items()}
    cluster = Cluster(CORES, arrivals=loads)
    starts = []
    for name, at_s in sorted(leaves_s.items(), key=lambda each: each[1]):
        starts += cluster.advance(at_s)
        starts += cluster.withdraw(name)
    starts += cluster.advance(1e9)
    assert {start.load.id: start.at_s for start in starts} == plain_easy.starts_s(CORES, loads, leaves_s)


def test_ten_thousand_jobs_of_one_shape_are_played_at_once():
    cluster = Cluster(100, waiting=[load(f"j{n}", 1, 60, run_s=30, rank_s=n) for n in range(10_000)])
    starts = cluster.advance(1e9)
    assert [start.at_s for start in starts[::100]] == [30.0 * n for n in range(100)]


def test_a_hole_is_found_among_many_that_do_not_fit():
    long = [load(f"long{n}", 1, 1000 + n, rank_s=n) for n in range(500)]
    jobs = [load("a", 3, 100, rank_s=-2), load("wide", 4, 50, rank_s=-1), *long, load("short", 1, 90, rank_s=600)]
    assert played(4, jobs)["short"] == 0
    assert played(4, jobs)["long0"] == 150


@given(QUEUES)
@settings(max_examples=50)
def test_the_first_in_line_starts_no_later_than_was_reserved_for_it(shapes):
    """First come, first served: nobody can get ahead of the first in line, so its reservation must hold."""
    loads = loads_of(shapes, offsets=False)
    cluster = Cluster(CORES, arrivals=loads)
    promised: dict[str, float] = {}
    while cluster.next_s < NEVER_S:
        for start in cluster.step():
            assert start.at_s <= promised.get(start.load.id, NEVER_S)
        if cluster.waiting:
            first = cluster.waiting[0]
            claims = sorted((started + each.asked_s, each.cores) for each, started in cluster.running)
            free, index = cluster.free, 0
            while free < first.cores:
                free += claims[index][1]
                index += 1
            promised.setdefault(first.id, claims[index - 1][0])


@given(QUEUES)
@settings(max_examples=50)
def test_the_same_jobs_have_the_same_fate_in_steps_and_in_one_go(shapes):
    loads = loads_of(shapes)
    whole = Cluster(CORES, arrivals=loads).advance(1e9)
    stepped, cluster = [], Cluster(CORES, arrivals=loads)
    for at_s in range(0, 200, 7):
        stepped += cluster.advance(at_s)
    assert stepped + cluster.advance(1e9) == whole
