"""Whatever fits rows to waits finds what is there, says nothing of what it cannot know, and repeats itself."""

from __future__ import annotations

import numpy as np
import pytest

from placement.features import FEATURES
from placement.lessons import Lessons, Past
from placement.neighbours import fit_neighbours
from placement.trees import fit_trees
from placement.waits import LEARNERS, fit_trees_lately
from tests.placement.queues import rows

WORK = FEATURES.index("waiting_work")


def past(count=2000, seed=1):
    """The wait is about a thousand seconds for each step of the waiting work, times luck."""
    found = rows(count, len(FEATURES), seed).astype(np.float32)
    luck = np.random.default_rng(seed).lognormal(0.0, 0.3, count)
    waits_s = 1000 * np.maximum(1.0, 4 + 2 * found[:, WORK]) * luck
    return Past(found, np.repeat(waits_s[:, None], 2, axis=1))


@pytest.mark.parametrize("fit", LEARNERS.values(), ids=LEARNERS)
def test_a_learner_finds_what_the_wait_depends_on(fit):
    known, new = past(3000), past(500, seed=2)
    said = fit(known)(new.rows)
    assert said.shape == (500, 2)
    assert (said >= 0).all()
    error_s = np.abs(said[:, 0] - new.waits_s[:, 0]).mean()
    ignorant_s = np.abs(np.median(known.waits_s[:, 0]) - new.waits_s[:, 0]).mean()
    assert error_s < 0.9 * ignorant_s
    assert 0.4 < (new.waits_s[:, 0] <= said[:, 0]).mean() < 0.6
    assert 0.75 < (new.waits_s[:, 0] <= said[:, 1]).mean() < 0.97


@pytest.mark.parametrize("fit", LEARNERS.values(), ids=LEARNERS)
def test_the_same_past_gives_the_same_answers(fit):
    new = past(50, seed=3).rows
    assert np.array_equal(fit(past())(new), fit(past())(new))


@pytest.mark.parametrize("fit", LEARNERS.values(), ids=LEARNERS)
def test_a_learner_says_nothing_of_a_handful_of_jobs(fit):
    assert fit(past(50)) is None


def test_without_lightgbm_there_are_no_trees_and_no_error(monkeypatch):
    monkeypatch.setattr("placement.trees.library", lambda: None)
    assert fit_trees(past()) is None
    assert fit_trees_lately(past()) is None
    assert fit_neighbours(past()) is not None


# -- what they learn from --


def lessons(count=0, window_jobs=1000):
    found = Lessons(2, window_jobs)
    for number in range(count):
        found.asked(number, np.array([number, 0], np.float32), float(number), np.array([60.0, 600.0]))
    return found


def test_who_waits_still_counts_with_what_it_was_told_or_its_age():
    found = lessons(2)
    found.asked("old", np.zeros(2, np.float32), -500.0, np.array([60.0, 600.0]))
    found.started(0, 30.0)
    assert found.past(100.0).waits_s.tolist() == [[30.0, 30.0], [99.0, 600.0], [600.0, 600.0]]
    assert found.known_jobs == 1


def test_who_was_withdrawn_teaches_nothing():
    found = lessons(3)
    found.withdrawn(1)
    found.started(1, 50.0)
    assert found.past(100.0).rows[:, 0].tolist() == [0, 2]


def test_only_the_newest_are_kept_and_late_starts_of_others_are_passed_over():
    found = lessons(5000, window_jobs=300)
    found.started(3, 9000.0)
    found.started(4999, 9000.0)
    known = found.past(9000.0)
    assert known.rows[:, 0].tolist() == list(range(4700, 5000))
    assert known.waits_s[-1].tolist() == [4001.0, 4001.0]
    assert len(found._rows) < 3000
