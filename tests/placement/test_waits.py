"""The model of a queue's waits: it says what it does not know, listens to who is right, and keeps its promise."""

from __future__ import annotations

import numpy as np
import pytest

from placement.features import FEATURES
from placement.lessons import Past
from placement.waits import FIRST_FIT_JOBS, NO_HISTORY_S, RECENT, REFIT_S, WaitModel
from tests.placement.queues import rows


def says(p50_s, p90_s):
    """A learner that always gives the same answer."""
    return lambda past: lambda found: np.tile([p50_s, p90_s], (len(found), 1))


def no_answer(past):
    return None


ROWS = rows(4000, len(FEATURES)).astype(np.float32)


def lived(model, waits_s, every_s=600.0, refit=True):
    """Jobs one after the other; the forecasts that they were given."""
    told = []
    events = sorted(
        [(number * every_s, 0, number) for number in range(len(waits_s))]
        + [(number * every_s + wait_s, 1, number) for number, wait_s in enumerate(waits_s)]
    )
    for at_s, is_start, number in events:
        if is_start:
            model.started(number, at_s)
            continue
        if refit and model.wants_refit(at_s):
            model.refit(at_s)
        told.append(model.forecast(ROWS[number], at_s))
        model.asked(number, ROWS[number], at_s, told[-1])
    return told


def waits(count, mean_s=3600.0, seed=1):
    return np.random.default_rng(seed).exponential(mean_s, count).tolist()


def test_a_queue_without_history_may_take_from_nothing_to_six_hours():
    forecast = WaitModel().forecast(ROWS[0], 0.0)
    assert forecast.p50_s == NO_HISTORY_S[0]
    assert forecast.p90_s >= NO_HISTORY_S[1]
    assert (forecast.coverage_share, forecast.known_jobs, forecast.mostly) == (None, 0, "")


def test_the_first_starts_are_heard_before_anything_can_be_fitted():
    told = lived(WaitModel({"none": no_answer}), [100.0] * 20)
    assert told[-1].p50_s == pytest.approx(100.0)
    assert told[-1].mostly == RECENT


def test_the_blend_turns_to_the_predictor_that_is_right():
    told = lived(WaitModel({"far off": says(90_000, 200_000), "right": says(2500, 8300)}), waits(1000))
    assert told[-1].p50_s == pytest.approx(2500, rel=0.1)
    assert told[-1].mostly in ("right", RECENT)


@pytest.mark.parametrize("answer", [(2500, 8300), (10, 20), (90_000, 900_000)], ids=["right", "low", "high"])
def test_nine_of_ten_jobs_start_before_the_bound_whatever_the_predictors_say(answer):
    waits_s = waits(3000)
    told = lived(WaitModel({"one": says(*answer)}), waits_s)
    held = [wait_s <= each.p90_s for wait_s, each in zip(waits_s, told, strict=True)][500:]
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)
    assert told[-1].coverage_share == pytest.approx(0.9, abs=0.03)


def test_the_bound_is_never_below_the_median():
    told = lived(WaitModel({"crossed": says(5000, 100)}), waits(300))
    assert all(each.p90_s >= each.p50_s for each in told)


def test_jobs_that_never_start_are_felt_while_they_wait():
    model = WaitModel({"none": no_answer})
    lived(model, [60.0] * 300)
    before_s = model.forecast(ROWS[0], 180_000.0).p90_s
    for number in range(300, 500):
        at_s = 180_000.0 + number
        model.asked(number, ROWS[number], at_s, model.forecast(ROWS[number], at_s))
    assert model.forecast(ROWS[0], 400_000.0).p90_s > 10 * before_s


def test_it_is_fitted_when_enough_is_new_and_once_a_day():
    model = WaitModel({"one": says(1, 2)})
    assert not model.wants_refit(0.0)
    lived(model, [1.0] * FIRST_FIT_JOBS, refit=False)
    assert model.wants_refit(0.0)
    model.refit(0.0)
    assert not model.wants_refit(REFIT_S)
    model.asked("new", ROWS[0], 70_000.0, model.forecast(ROWS[0], 70_000.0))
    model.started("new", 70_001.0)
    assert not model.wants_refit(REFIT_S - 1)
    assert model.wants_refit(REFIT_S)


def test_a_new_queue_starts_with_what_other_queues_taught():
    seen = []

    def fit(past):
        seen.append(len(past.rows))
        return says(100, 200)(past)

    pooled = Past(ROWS[:500], np.full((500, 2), 60.0))
    model = WaitModel({"one": fit}, pooled)
    assert model.wants_refit(0.0)
    model.refit(0.0)
    assert model.forecast(ROWS[0], 0.0).p50_s == pytest.approx(100)
    lived(model, [100.0] * 2100, refit=False)
    model.refit(9e9)
    assert seen == [500, 2100], "with so many of its own it needs the others no more"


def test_answers_for_many_jobs_are_the_same_as_for_each():
    model = WaitModel()
    lived(model, waits(600))
    at_once = model.answers_s(ROWS[:20])
    for number in range(20):
        one, many = model.forecast(ROWS[number], 1e6), model.forecast(ROWS[number], 1e6, at_once[number])
        assert one.p50_s == pytest.approx(many.p50_s)
        assert one.p90_s == pytest.approx(many.p90_s)


def test_unknown_and_withdrawn_jobs_change_nothing():
    model = WaitModel({"none": no_answer})
    model.started("never asked", 10.0)
    model.asked("gone", ROWS[0], 0.0, model.forecast(ROWS[0], 0.0))
    model.withdrawn("gone", 5.0)
    model.started("gone", 10.0)
    assert model.known_jobs == 0
