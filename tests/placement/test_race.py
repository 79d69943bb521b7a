"""Copies and moves: worth their price or not made, and none that would lose the race by winning it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.race import (
    FOLLOWED_S,
    Change,
    Prospect,
    Rules,
    Spent,
    crowding_s,
    first_ends_s,
    losing,
    reconsidered,
    saved_s,
)

HOUR = 3600.0
RACE = Rules(submissions_per_job=2.0, copies=3, moves=True)
MOVES = Rules(submissions_per_job=1.3, copies=1, moves=True)


def prospect(place, starts_h, run_h=1.0):
    return Prospect(place, [s * HOUR for s in starts_h], [(s + run_h) * HOUR for s in starts_h])


def test_the_copy_that_starts_first_runs_even_if_it_ends_later():
    fast, slow = prospect("fast", [2, 9], run_h=1), prospect("slow", [1, 20], run_h=8)
    assert first_ends_s([fast, slow]) == [9 * HOUR, 10 * HOUR]


def test_a_copy_is_worth_what_it_saves_in_the_mean():
    here, there = prospect("a", [4, 4]), prospect("b", [0, 6])
    assert saved_s([here], there, 0.0, here) == 1 * HOUR
    assert saved_s([here], there, 0.0) == (4 + 0 + 4 + (4 - 0.3 * 6)) / 4 * HOUR


def test_queues_know_nothing_of_each_other():
    """Drawn in pairs the copy would never be first."""
    here = prospect("a", [1, 9])
    assert saved_s([here], prospect("b", [2, 9]), 0.0, here) == 0.25 * (-1 - 8 + 7 + 0) * HOUR
    assert saved_s([here], prospect("b", [2, 9]), 0.0) > 7 / 4 * HOUR / 2


@pytest.mark.parametrize(("price_h", "submitted"), [(2.5, ("b",)), (2.6, ())])
def test_a_further_copy_is_sent_when_it_saves_more_than_its_price(price_h, submitted):
    change = reconsidered([prospect("a", [4, 4])], [prospect("b", [0, 6])], RACE, price_h * HOUR, 0.0)
    assert change == Change(submit=submitted)


def test_nothing_is_sent_when_nothing_is_left_to_spend():
    assert reconsidered([prospect("a", [40])], [prospect("b", [0])], RACE, None, 0.0) == Change()


def test_a_copy_in_a_slow_place_is_taken_back_once_a_start_there_would_be_a_loss():
    held = [prospect("fast", [1, 1], run_h=1), prospect("slow", [2, 2], run_h=5)]
    assert losing(held, now_s=0.0) == ("slow",)
    assert reconsidered(held, [], RACE, 0.0, 0.0) == Change(withdraw=("slow",))


def test_the_last_copy_is_never_taken_back():
    assert losing([prospect("slow", [9], run_h=99)], now_s=0.0) == ()


def test_a_move_takes_the_old_copy_back_and_must_save_its_share_of_what_is_left():
    here = prospect("here", [9])
    assert reconsidered([here], [prospect("there", [5])], MOVES, 60, 0.0) == Change(("there",), ("here",))
    assert reconsidered([here], [prospect("there", [8])], MOVES, 60, 0.0) == Change()


def test_a_full_set_exchanges_the_copy_that_promises_least():
    held = [prospect("a", [9]), prospect("b", [20]), prospect("c", [9.5])]
    change = reconsidered(held, [prospect("d", [0])], RACE, 60, 0.0)
    assert change.submit == ("d",)
    assert len(change.withdraw) == 1


def test_without_moves_nothing_is_exchanged():
    rules = Rules(submissions_per_job=9, copies=1)
    assert reconsidered([prospect("a", [9])], [prospect("b", [0])], rules, 0.0, 0.0) == Change()


def test_the_price_rises_as_the_budget_runs_out_and_ends_with_it():
    prices = [Spent(jobs=100, submissions=n).price_s(RACE) for n in (100, 150, 190, 199)]
    assert prices == sorted(prices)
    assert Spent(jobs=100, submissions=200).price_s(RACE) is None


HOURS = st.lists(st.floats(0, 100), min_size=3, max_size=3)


@given(st.lists(st.tuples(HOURS, st.floats(0.1, 20)), min_size=1, max_size=4), HOURS)
def test_a_change_never_leaves_a_job_without_a_copy(shapes, other):
    held = [prospect(f"h{n}", starts, run_h) for n, (starts, run_h) in enumerate(shapes)]
    change = reconsidered(held, [prospect("new", other)], RACE, 60.0, 0.0)
    kept = {each.place for each in held} - set(change.withdraw)
    assert kept | set(change.submit)
    assert len(kept) + len(change.submit) <= max(len(held), RACE.copies)


def test_a_job_takes_its_work_of_all_who_come_until_the_queue_has_drained():
    busy_s = crowding_s(10 * HOUR, 5 * HOUR, 16, 160, followers=12)
    assert busy_s == 12 * HOUR
    assert crowding_s(10 * HOUR, 50 * HOUR, 16, 160, followers=12) == busy_s


def test_where_jobs_start_at_once_one_more_takes_little_of_those_that_follow():
    followed_h = FOLLOWED_S / HOUR
    assert crowding_s(HOUR, 0.0, 16, 160, followers=12) == pytest.approx(12 * 0.1 * HOUR * (1 / followed_h))
    assert crowding_s(HOUR, 0.0, 16, 160, followers=0) == 0.0
