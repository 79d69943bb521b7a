"""The replay that is a baseline: no core is given twice, and the earliest start is found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.free_cores import FreeCores


@given(
    st.integers(0, 8),
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 8)), max_size=5),
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 60)), max_size=12),
)
def test_no_core_is_given_twice_and_nobody_starts_later_for_those_behind(free, ends, jobs):
    plan, taken = FreeCores(free, ends), []
    for cores, duration in jobs:
        start = plan.earliest_s(cores, duration)
        if start is not None:
            plan.take(start, cores, duration)
            taken.append((start, cores, duration))
    for now in range(200):
        there = free + sum(cores for at, cores in ends if at <= now)
        used = sum(cores for start, cores, duration in taken if start <= now < start + duration)
        assert used <= there


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 8)), max_size=5), st.integers(1, 8), st.integers(1, 40))
def test_the_earliest_start_is_the_earliest(ends, cores, duration):
    plan = FreeCores(2, ends)

    def fits(start):
        return all(2 + sum(c for at, c in ends if at <= t) >= cores for t in range(start, start + duration))

    expected = next((start for start in range(100) if fits(start)), None)
    assert plan.earliest_s(cores, duration) == expected
