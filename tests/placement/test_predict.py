"""Run times beside requests: recent and alike jobs speak, and a job's age rules out what it has outlived."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from placement.predict import PRIOR, RECENT, SAME_ASK, Predictor, RunTimes, Used, learn, phase


def known(*shares, user="ann", asked_s=1000.0):
    return learn(RunTimes(), [Used(user, asked_s, share * asked_s) for share in shares])


def drawn(known, asked_s=1000.0, age_s=0.0, cores=1, draws=100):
    predictor = Predictor(known)
    return [predictor.run_s("ann", asked_s, (n + 0.5) / draws, age_s, cores) / asked_s for n in range(draws)]


def test_nobody_in_particular_uses_the_prior():
    assert set(drawn(known())) == set(PRIOR)


def test_most_draws_of_a_job_are_the_shares_of_those_that_asked_for_the_same():
    both = learn(known(*[0.2] * 5), [Used("ann", 9000, 9000)] * 5)
    assert drawn(both).count(0.2) > 60
    assert drawn(both, asked_s=9000).count(1.0) > 60


def test_those_that_asked_for_something_else_count_beside_them():
    asked_for_else = known(*[0.3] * 5, asked_s=9000)
    assert drawn(asked_for_else).count(0.3) > 50
    assert drawn(learn(asked_for_else, [Used("ann", 1000, 700)] * 5)).count(0.3) < 20


def test_runs_on_other_cores_count_less_than_runs_on_as_many():
    both = learn(RunTimes(), [Used("ann", 1000, 200, cores=4), Used("ann", 1000, 700, cores=64)] * 5)
    assert drawn(both, cores=4).count(0.2) > 60 > 40 > drawn(both, cores=4).count(0.7)
    assert drawn(both, cores=64).count(0.7) > 60


def test_a_run_counts_more_than_one_before_it():
    assert drawn(known(*[0.3, 0.7] * 10)).count(0.7) > drawn(known(*[0.3, 0.7] * 10)).count(0.3)
    assert drawn(known(*[0.3, 0.7] * 10)).count(0.3) > 40


def test_only_recent_runs_are_remembered():
    assert len(known(*[0.5] * 100).by_user["ann"]) == RECENT


def test_learning_leaves_what_was_known_as_it_was():
    before = known(0.5)
    learn(before, [Used("ann", 1000, 100)])
    assert before == known(0.5)


def test_a_job_outlives_the_shares_below_its_age():
    aged = drawn(known(*[0.1, 0.2, 0.8] * 5), age_s=300)
    assert min(aged) == 0.4
    assert aged.count(0.8) > 80


def test_a_job_that_outlived_all_its_like_is_judged_by_what_jobs_in_general_do():
    assert set(drawn(known(*[0.1, 0.2, 0.3] * 5), age_s=500)) == {0.6, 0.8, 1.0}


def test_a_job_beyond_its_walltime_is_about_to_end():
    assert drawn(known(0.1), age_s=1000) == [1.001] * 100


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


ASKED = st.floats(1.0, 1e5)
PAST = st.lists(st.tuples(ASKED, st.integers(1, 4), st.floats(0.01, 1.0)), max_size=12)
QUESTIONS = st.lists(st.tuples(ASKED, st.integers(1, 6), st.floats(0.0, 0.99)), min_size=1, max_size=8)


@given(PAST, QUESTIONS)
def test_what_was_asked_before_changes_no_answer(past, questions):
    """Walltimes just inside and outside of what counts as the same among them."""
    asked = [*questions, *((each * by, cores, 0.5) for each, cores, _ in past for by in (1 / SAME_ASK, 1.0, SAME_ASK))]
    kept = learn(RunTimes(), [Used("ann", asked_s, share * asked_s, cores) for asked_s, cores, share in past])
    one = Predictor(kept)
    for asked_s, cores, quantile in asked:
        alone = Predictor(kept).run_s("ann", asked_s, quantile, cores=cores)
        assert one.run_s("ann", asked_s, quantile, cores=cores) == alone
