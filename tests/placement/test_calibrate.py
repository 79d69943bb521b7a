"""A bound that is told holds as often as it promises, whatever the predictor behind it is worth."""

from __future__ import annotations

import random

import pytest

from placement.calibrate import FEWEST_JOBS, FIRST_FACTOR, Calibrator


def held_share(predict, waits_s, quantile=0.9, skip=500):
    """Tell and learn job by job; the share of bounds that held after the first ones."""
    calibrator, held = Calibrator(quantile), []
    for number, wait_s in enumerate(waits_s):
        predicted_s = predict(number)
        told_s = calibrator.bound_s(predicted_s)
        held.append(wait_s <= told_s)
        calibrator.started(number, predicted_s, told_s, wait_s)
    return sum(held[skip:]) / len(held[skip:])


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_coverage_is_right_however_wrong_the_predictor_is(factor, quantile):
    dice = random.Random(1)
    waits_s = [dice.expovariate(1 / 3600) for _ in range(4000)]
    assert held_share(lambda _: 3600 * factor, waits_s, quantile) == pytest.approx(quantile, abs=0.02)


def test_coverage_holds_when_the_queue_gets_ten_times_slower_and_fast_again():
    dice = random.Random(2)
    waits_s = [dice.expovariate(1 / 600) * (10 if number // 1000 % 2 else 1) for number in range(6000)]
    assert held_share(lambda _: 600.0, waits_s) == pytest.approx(0.9, abs=0.03)


def test_without_outcomes_a_bound_is_only_widened_and_no_coverage_is_claimed():
    calibrator = Calibrator(0.9)
    assert calibrator.bound_s(100.0) == 100 * FIRST_FACTOR
    assert calibrator.coverage_share is None


def test_who_waits_longer_than_told_is_a_miss_before_it_starts_and_counts_once():
    calibrator = Calibrator(0.9)
    for number in range(FEWEST_JOBS):
        calibrator.overdue(number, 100.0, 1000.0)
    assert calibrator.coverage_share == 0
    assert calibrator.bound_s(100.0) == pytest.approx(1000.0)
    for number in range(FEWEST_JOBS):
        calibrator.started(number, 100.0, 200.0, 5000.0)
    assert calibrator.coverage_share == 0
    assert calibrator.bound_s(100.0) == pytest.approx(5000.0)


def test_a_bound_is_never_below_zero():
    calibrator = Calibrator(0.9)
    for number in range(100):
        calibrator.started(number, 10_000.0, 10_000.0, 0.0)
    assert calibrator.bound_s(1.0) == 0
