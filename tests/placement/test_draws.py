"""A median and a 90th percentile become draws, and draws become them again."""

from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.draws import as_many, drawn, summed_up
from scheduler.model.plan import Term


@pytest.mark.parametrize("term", [Term(1800, 21_600), Term(60, 61), Term(0, 900), Term(7, 7), Term(0, 0)])
def test_draws_have_the_quantiles_that_they_were_made_of(term):
    p50_s, p90_s = summed_up(drawn(term, 199))
    assert p50_s == pytest.approx(term.p50_s, abs=1)
    assert p90_s == pytest.approx(term.p90_s, rel=0.05, abs=1)


def test_another_order_of_the_draws_changes_nothing_but_their_order():
    term = Term(1800, 21_600)
    assert drawn(term, 8) != drawn(term, 8, order_step=3)
    assert sorted(drawn(term, 8)) == sorted(drawn(term, 8, order_step=3))


def test_a_bound_below_the_median_is_taken_for_the_median():
    assert drawn(Term(100, 5), 4) == pytest.approx((100,) * 4)


@given(st.lists(st.floats(0, 1e7), min_size=2, max_size=12))
def test_median_and_p90_are_the_tenths_of_the_draws(draws_s):
    tenths = quantiles(draws_s, n=10, method="inclusive")
    assert summed_up(draws_s) == (tenths[4], tenths[8])


def test_few_draws_stand_for_more():
    assert as_many((1.0, 2.0, 3.0), 6) == (1.0, 1.0, 2.0, 2.0, 3.0, 3.0)
    assert summed_up((5.0,)) == (5.0, 5.0)
