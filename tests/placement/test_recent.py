"""Quantiles and binomial bounds of the last waits."""

from __future__ import annotations

import random

import pytest

from placement.recent import MISSES_IN_A_ROW, LastWaits, RecentWaits, bound_index, fewest_for


@pytest.mark.parametrize(
    ("count", "quantile", "confidence", "index"),
    [
        (58, 0.95, 0.95, None),
        (59, 0.95, 0.95, 58),
        (28, 0.9, 0.95, None),
        (29, 0.9, 0.95, 28),
        (5, 0.5, 0.95, 4),
        (4, 0.5, 0.95, None),
        (0, 0.9, 0.95, None),
    ],
)
def test_the_bound_is_the_order_statistic_of_the_tables(count, quantile, confidence, index):
    """59 values for 0.95 with 0.95 is the number of Brevik, Nurmi & Wolski."""
    assert bound_index(count, quantile, confidence) == index


def test_the_fewest_values_are_the_first_that_have_a_bound():
    assert fewest_for(0.9, 0.95) == 29
    assert fewest_for(0.95, 0.95) == 59


@pytest.mark.parametrize("count", [40, 99, 100, 101, 400])
def test_the_true_quantile_is_below_the_bound_as_often_as_asked(count):
    dice = random.Random(count)
    index = bound_index(count, 0.9, 0.95)
    below = sum(sorted(dice.random() for _ in range(count))[index] >= 0.9 for _ in range(2000))
    assert 0.93 <= below / 2000 <= 1.0


def test_the_index_grows_with_the_count_across_the_change_of_method():
    indices = [bound_index(count, 0.9, 0.95) for count in range(29, 300)]
    assert indices == sorted(indices)


def test_too_few_waits_say_nothing():
    last = LastWaits()
    last.learn(10.0)
    last.learn(10.0)
    assert last.quantile_s(0.5) is None
    assert last.bound_s(0.9, 0.95) is None


def test_misses_in_a_row_make_it_forget_what_was_before():
    last = LastWaits()
    for _ in range(500):
        last.learn(10.0)
    for _ in range(MISSES_IN_A_ROW):
        assert last.bound_s(0.9, 0.95) == 10.0
        last.learn(1000.0)
    assert last.bound_s(0.9, 0.95) == 1000.0


def test_a_class_of_sizes_speaks_for_itself_once_it_knows_enough():
    recent = RecentWaits()
    for _ in range(50):
        recent.learn(1.0, 60.0)
    assert recent.quantile_s(100.0, 0.5) == 60.0
    for _ in range(50):
        recent.learn(100.0, 7200.0)
    assert recent.quantile_s(100.0, 0.5) == recent.bound_s(100.0, 0.9) == 7200.0
    assert recent.quantile_s(1.0, 0.5) == 60.0
