"""The true order of a queue, learned from who started before whom."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.easy import Cluster, Load
from placement.looks import Look, SeenJob
from placement.order import Order, first_sizes, headed, learn, rising

HOUR = 3600.0


def job(name, at_h, user, cores=4, asked_s=1000, started_h=None):
    started_s = None if started_h is None else started_h * HOUR
    return SeenJob(name, cores, asked_s, at_h * HOUR, user, user, started_s)


def look(now_h, running=(), waiting=(), ended=()):
    return Look(now_h * HOUR, 64, tuple(running), tuple(waiting), tuple(ended))


EARLY, LATE = job("early", 0, "behind"), job("late", 10, "ahead")
BEFORE = look(11, waiting=[EARLY, LATE])
OVERTAKEN = look(12, running=[job("late", 10, "ahead", started_h=11.5)], waiting=[EARLY])


def test_who_passes_a_job_that_would_have_fitted_as_well_is_ranked_before_it():
    order = Order()
    for _ in range(5):
        order = learn(order, BEFORE, OVERTAKEN)
    assert order.rank_s(LATE) < order.rank_s(EARLY) + HOUR
    assert order.offset_s["ahead"] == pytest.approx(-order.offset_s["behind"], rel=0.2)


@pytest.mark.parametrize(
    ("stays", "why"),
    [
        (job("early", 0, "behind", cores=5), "it needs more cores"),
        (job("early", 0, "behind", asked_s=1001), "it needs more time"),
        (job("early", 11.8, "behind"), "it came after the start"),
        (job("early", 0, "ahead"), "it is of the same user"),
    ],
)
def test_a_job_that_had_its_reason_to_stay_teaches_nothing(stays, why):
    after = look(12, running=[job("late", 10, "ahead", started_h=11.5)], waiting=[stays])
    assert learn(Order(), look(11, waiting=[stays, LATE]), after).offset_s.get("behind", 0.0) == 0.0, why


def test_a_site_that_serves_by_submission_leaves_offsets_at_zero():
    after = look(12, running=[job("early", 0, "behind", started_h=11.5)], waiting=[LATE])
    order = learn(Order(), BEFORE, after)
    assert set(order.offset_s.values()) <= {0.0}
    assert order.apart_s == 0.0
    assert order.believed


def test_a_shown_order_that_is_contradicted_often_is_not_believed():
    order = Order()
    for _ in range(20):
        order = learn(order, BEFORE, OVERTAKEN)
    assert not order.believed
    assert order.ranks_s([EARLY, LATE]) == [order.rank_s(EARLY), order.rank_s(LATE)]


def test_the_first_look_teaches_from_all_that_ended():
    ended = [job("late", 10, "ahead", started_h=11), job("early", 0, "behind", started_h=30)]
    order = learn(Order(), None, look(40, ended=ended))
    assert order.offset_s["ahead"] < 0 < order.offset_s["behind"]
    assert order.unsure_s("nobody") == order.apart_s > order.unsure_s("ahead") > 0


def test_where_the_order_is_believed_ranks_rise_along_it():
    order = Order(offset_s={"behind": 20 * HOUR})
    first, second = order.ranks_s([EARLY, LATE])
    assert first < second


@given(st.lists(st.floats(-1e6, 1e6), max_size=40))
def test_pooled_values_rise_and_keep_their_sum(values):
    pooled = rising(values)
    assert all(a < b for a, b in pairwise(pooled))
    assert sum(pooled) == pytest.approx(sum(values), abs=0.001 * len(values) ** 2 + 1e-3)


LARGE = job("large", 5, "us", cores=40, started_h=5, asked_s=20 * HOUR)
LONG = job("long", 0, "a", cores=20, asked_s=16 * HOUR)


@pytest.mark.parametrize(
    ("waiting", "sizes", "why"),
    [
        ([], set(), "nobody waits"),
        ([job("wide", 9, "b", cores=60)], {60}, "it is too large for what is free"),
        ([LONG, job("wide", 9, "b", cores=60)], {60}, "the long one would delay it"),
        ([LONG, job("wide", 9, "b", cores=30)], set(), "the long one would leave it enough"),
        ([LONG, job("wide", 9, "b", cores=60), job("half", 8, "c", cores=30)], {60}, "the half is not in the way"),
        ([job("brief", 0, "a", asked_s=HOUR), job("wide", 9, "b", cores=60)], set(), "the brief one would be over"),
        ([job("vast", 0, "a", cores=65)], set(), "it never starts"),
    ],
)
def test_that_nobody_starts_tells_how_large_the_first_in_line_is(waiting, sizes, why):
    assert first_sizes(look(10, running=[LARGE], waiting=waiting)) == sizes, why


def test_the_foremost_job_of_such_a_size_is_put_first_and_the_others_keep_their_ranks():
    waiting = [job("a", 0, "a"), job("b", 1, "b", cores=9), job("c", 2, "c", cores=9)]
    assert headed([10.0, 30.0, 20.0], waiting, {9}) == [10.0, 30.0, 9.0]
    assert headed([10.0, 30.0, 20.0], waiting, {8}) == [10.0, 30.0, 20.0]


@given(
    st.lists(
        st.tuples(st.integers(1, 8), st.integers(1, 50), st.integers(0, 60), st.integers(0, 60)),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 120),
)
def test_under_backfilling_the_first_in_line_is_always_of_such_a_size(shapes, at_s):
    loads = [
        Load(str(n), cores, asked_s, max(1, asked_s // 2), came_s, rank_s)
        for n, (cores, asked_s, came_s, rank_s) in enumerate(sorted(shapes, key=lambda shape: shape[2]))
    ]
    site = Cluster(8, arrivals=loads)
    site.advance(at_s)
    waiting = [SeenJob(j.id, j.cores, j.asked_s, j.submitted_s, "", "") for j in site.waiting]
    running = [SeenJob(j.id, j.cores, j.asked_s, j.submitted_s, "", "", began_s) for j, began_s in site.running]
    assert not waiting or waiting[0].cores in first_sizes(Look(at_s, 8, running, waiting))
