"""How jobs stand in a line whose order is not shown."""

from __future__ import annotations

import random
from math import sqrt
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.looks import Look, SeenJob
from placement.order import Order
from placement.order import learn as look_at
from placement.ranks import SCALES_S, UNKNOWN, believed, learn

HOUR = 3600.0


def job(name, at_h, user):
    return SeenJob(name, 4, 1000, at_h * HOUR, user, user)


EARLY, LATE = job("early", 0, "behind"), job("late", 10, "ahead")


def known_after(*passings, waiting=()):
    return believed(learn(UNKNOWN, passings, {each.id for each in waiting}))


def test_who_passes_is_ranked_before_and_who_is_passed_behind_its_submission():
    known = known_after((LATE, (EARLY,)))
    assert known.later_s("ahead") < 0 < known.later_s("behind")
    assert known.later_s("ahead") == pytest.approx(-known.later_s("behind"))


def test_each_fact_makes_surer_of_both_users():
    known = [learn(UNKNOWN[:1], [(LATE, (EARLY,))] * count, ())[0] for count in range(4)]
    for user in ("ahead", "behind"):
        variances = [each.user(user).variance for each in known]
        assert variances == sorted(variances, reverse=True)
        assert variances[-1] > 0


def test_of_one_user_the_job_that_was_passed_stands_farther_behind_than_the_others():
    known = known_after((LATE, (EARLY,)), waiting=[EARLY])
    assert known.later_s("behind", "early") > known.later_s("behind", "another")


def test_what_two_jobs_of_one_user_tell_is_about_the_jobs_alone():
    second = job("second", 0, "ahead")
    known = known_after((LATE, (second,)), waiting=[second])
    assert known.later_s("ahead") == 0.0
    assert known.later_s("ahead", "second") > 0


def test_a_job_that_waits_no_more_is_forgotten():
    assert "early" not in known_after((LATE, (EARLY,))).jobs


def test_what_was_to_be_expected_teaches_nothing():
    known = known_after((job("first", 0, "a"), (job("next", 2000, "b"),)))
    assert known.later_s("a") == known.later_s("b") == 0.0


@pytest.mark.parametrize("apart_h", [3, 24])
def test_how_far_users_are_apart_is_found_out_and_their_ranks_with_it(apart_h):
    dice = random.Random(apart_h)
    later_s = {f"user {n}": dice.gauss(0.0, apart_h * HOUR) for n in range(30)}
    passings = []
    for n in range(1500):
        one, other = dice.sample(sorted(later_s), 2)
        jobs = [job(f"{user} {n}", dice.uniform(0, 2 * apart_h), user) for user in (one, other)]
        ranked = sorted(jobs, key=lambda each: each.submitted_s + later_s[each.user])
        passings.append((ranked[0], ranked[1:]))
    known = known_after(*passings)
    missed_s = sqrt(fmean((known.later_s(user) - truth_s) ** 2 for user, truth_s in later_s.items()))
    assert apart_h / 2 <= known.users_apart_s / HOUR <= apart_h * 2
    assert missed_s < apart_h * HOUR / 2


def test_before_anything_is_known_users_are_a_day_apart():
    assert believed(UNKNOWN).users_apart_s == SCALES_S[0] == 24 * HOUR


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.booleans()), max_size=30))
def test_beliefs_stay_finite_however_strange_the_facts_are(facts):
    passings = [
        (job("a", first / HOUR, "a"), (job("b", second / HOUR, "a" if alike else "b"),))
        for first, second, alike in facts
    ]
    for scale in learn(UNKNOWN, passings, {"a", "b"}):
        for belief in (*scale.users.values(), *scale.jobs.values()):
            assert abs(belief.later_s) < 1e12
            assert 0 <= belief.variance <= (48 * HOUR) ** 2


def test_an_order_that_is_not_believed_is_told_by_who_passed_whom():
    before = Look(11 * HOUR, 64, (), (EARLY, LATE))
    after = Look(12 * HOUR, 64, (LATE._replace(started_s=11.5 * HOUR),), (EARLY,))
    order = Order()
    for _ in range(5):
        order = look_at(order, before, after)
    assert not order.believed
    assert order.rank_s(EARLY) == EARLY.submitted_s + order.unshown.later_s("behind", "early")
    assert order.rank_s(EARLY) > order.rank_s(LATE)
    assert order.unsure_s("behind") < order.unsure_s("nobody")
    assert order.unsure_of_job_s("early") < order.unsure_of_job_s("another")
