"""Run times beside requests: recent and alike jobs speak, and a job's age rules out what it has outlived."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from placement.predict import PRIOR, RECENT, Predictor, RunTimes, Used, learn, phase


def known(*shares, user="ann", asked_s=1000.0):
    return learn(RunTimes(), [Used(user, asked_s, share * asked_s) for share in shares])


def test_jobs_that_asked_for_the_same_stand_for_themselves():
    both = learn(known(0.1, 0.2, 0.3), [Used("ann", 9000, 9000)] * 3)
    assert Predictor(both).shares("ann", 1000) == [0.1, 0.2, 0.3]
    assert Predictor(both).shares("ann", 9000) == [1.0, 1.0, 1.0]


def test_nobody_in_particular_uses_the_prior():
    assert Predictor(known()).shares("ann", 1000) == list(PRIOR)


def test_few_runs_are_joined_by_the_prior():
    assert set(Predictor(known(0.5)).shares("ann", 1000)) == {0.5, *PRIOR}


def test_only_recent_runs_are_remembered():
    assert len(known(*[0.5] * 100).by_user["ann"]) == RECENT


def test_learning_leaves_what_was_known_as_it_was():
    before = known(0.5)
    learn(before, [Used("ann", 1000, 100)])
    assert before == known(0.5)


def test_a_job_outlives_the_shares_below_its_age():
    predictor = Predictor(known(0.1, 0.2, 0.8))
    assert predictor.run_s("ann", 1000, 0.0) == 100
    assert predictor.run_s("ann", 1000, 0.0, age_s=150) == 200
    assert predictor.run_s("ann", 1000, 0.99, age_s=300) == 800


def test_a_job_that_outlived_all_its_like_is_given_a_part_of_what_it_has_left():
    predictor = Predictor(known(0.1, 0.2, 0.3))
    assert predictor.run_s("ann", 1000, 0.0, age_s=900) == 910
    assert predictor.run_s("ann", 1000, 0.99, age_s=900) == 1000


def test_a_walltime_of_nothing_is_all_used():
    assert Used("ann", 0, 5).share == 1.0


@given(
    st.lists(st.floats(0, 1.5), max_size=30),
    st.floats(0, 0.999),
    st.floats(0, 0.999),
    st.floats(1, 1e6),
    st.floats(0, 2e6),
)
def test_a_run_time_is_longer_than_the_age_and_grows_with_the_quantile(shares, one, other, asked_s, age_s):
    predictor = Predictor(known(*shares, asked_s=asked_s))
    low, high = (predictor.run_s("ann", asked_s, quantile, age_s) for quantile in sorted((one, other)))
    assert low <= high
    assert low > age_s or (age_s == 0 and low >= 1)


def test_a_name_has_one_phase():
    assert phase("job-1") == phase("job-1") != phase("job-2")
    assert 0 <= phase("job-1") < 1
