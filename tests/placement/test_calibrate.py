"""A bound that is told holds as often as it promises, whatever the predictor behind it is worth."""

from __future__ import annotations

import random

import pytest

from placement.calibrate import FEWEST_JOBS, FIRST_FACTOR, Calibrator


def lived(calibrator, waits_s, predicted_s=3600.0, every_s=600.0):
    """Jobs one after the other; for each whether what it was told held."""
    told_s = []
    events = [(number * every_s, 0, number) for number in range(len(waits_s))]
    events += [(number * every_s + wait_s, 1, number) for number, wait_s in enumerate(waits_s)]
    for at_s, is_start, number in sorted(events):
        if is_start:
            calibrator.started(number, at_s)
            continue
        told_s.append(calibrator.bound_s(predicted_s, at_s))
        calibrator.asked(number, predicted_s, told_s[-1], at_s)
    return [wait_s <= bound_s for wait_s, bound_s in zip(waits_s, told_s, strict=True)]


def share(held):
    return sum(held) / len(held)


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_coverage_is_right_however_wrong_the_predictor_is(factor, quantile):
    dice = random.Random(1)
    waits_s = [dice.expovariate(1 / 3600) for _ in range(4000)]
    held = lived(Calibrator(quantile), waits_s, 3600 * factor)
    assert share(held[500:]) == pytest.approx(quantile, abs=0.02)


def test_coverage_holds_when_the_queue_gets_ten_times_slower_and_fast_again():
    dice = random.Random(2)
    waits_s = [dice.expovariate(1 / 600) * (10 if number // 1000 % 2 else 1) for number in range(6000)]
    assert share(lived(Calibrator(0.9), waits_s, 600.0)[500:]) == pytest.approx(0.9, abs=0.03)


def test_coverage_is_right_while_the_long_waits_are_not_known_yet():
    """A fifth of the jobs waits for the time of a hundred others and more; what is known already is all short."""
    dice = random.Random(3)
    waits_s = [dice.choice((10.0, 10.0, 10.0, 10.0, dice.uniform(6e4, 6e5))) for _ in range(3000)]
    held = lived(Calibrator(0.9, gain=0.0), waits_s, 60.0)
    assert share(held[1500:]) == pytest.approx(0.9, abs=0.02)


def test_without_outcomes_a_bound_is_only_widened_and_no_coverage_is_claimed():
    calibrator = Calibrator(0.9)
    for number in range(FEWEST_JOBS):
        calibrator.asked(number, 100.0, 200.0, 0.0)
    assert calibrator.bound_s(100.0, 0.0) == 100 * FIRST_FACTOR
    assert calibrator.coverage_share is None


def test_who_waits_longer_than_told_is_a_miss_before_it_starts_and_counts_once():
    calibrator = Calibrator(0.9)
    for number in range(FEWEST_JOBS):
        calibrator.asked(number, 100.0, 200.0, 0.0)
    calibrator.look_for_overdue(1000.0)
    assert calibrator.coverage_share == 0
    for number in range(FEWEST_JOBS):
        calibrator.started(number, 5000.0)
    assert calibrator.coverage_share == 0
    assert calibrator.bound_s(100.0, 5000.0) == pytest.approx(5000.0)


def test_who_waits_still_counts_with_what_it_has_waited():
    calibrator = Calibrator(0.9, gain=0.0)
    lived(calibrator, [100.0] * 100, predicted_s=100.0)
    for number in range(100, 150):
        calibrator.asked(number, 100.0, 100.0, 60_000.0)
    before_s, later_s = (calibrator.bound_s(100.0, at_s) for at_s in (60_001.0, 90_000.0))
    assert before_s == pytest.approx(100.0, rel=0.01)
    assert later_s == pytest.approx(30_000.0, rel=0.01)


def test_a_withdrawn_job_says_that_it_would_have_waited_longer_and_nothing_more():
    calibrator = Calibrator(0.9)
    lived(calibrator, [100.0] * 100, predicted_s=100.0)
    before_s = calibrator.bound_s(100.0, 70_000.0)
    for number in range(100, 110):
        calibrator.asked(number, 100.0, 100.0, 70_000.0)
        calibrator.withdrawn(number, 70_001.0)
    assert calibrator.bound_s(100.0, 1e9) == pytest.approx(before_s)
    calibrator.started(105, 80_000.0)
    assert calibrator.bound_s(100.0, 1e9) == pytest.approx(before_s)


def test_a_bound_is_never_below_zero():
    calibrator = Calibrator(0.9)
    lived(calibrator, [0.0] * 100, predicted_s=10_000.0)
    assert calibrator.bound_s(1.0, 1e6) == 0
