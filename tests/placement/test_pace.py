"""The pace of a queue: what it says of work ahead, held against adding up every job that asks for no more."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from placement.easy import Load
from placement.pace import FEWEST, STEP, Pace

ASKS = st.tuples(st.integers(1, 16), st.integers(1, 5000))
LINES = st.lists(ASKS, min_size=1, max_size=40)


def loads(asks):
    return [
        Load(f"{n}", cores, float(asked_s), float(asked_s), 0.0, float(n)) for n, (cores, asked_s) in enumerate(asks)
    ]


def added_up(asks, most, longest_s):
    return sum(cores * asked_s for cores, asked_s in asks if cores <= most and asked_s <= longest_s)


@given(LINES, LINES, ASKS, st.integers(0, 40))
def test_a_job_waits_for_the_share_ahead_that_asks_for_no_more_at_the_pace_of_such_jobs(begun, waiting, asked, ahead):
    cores, longest_s = asked[0], STEP ** math.ceil(math.log(asked[1], STEP))
    factors = sorted(max(each / cores, its_s / longest_s) for each, its_s in begun)
    scale = max(1.0, factors[min(FEWEST, len(factors)) - 1])
    done = added_up(begun, cores * scale, longest_s * scale) or added_up(begun, math.inf, math.inf)
    share = added_up(waiting, cores * scale, longest_s * scale) / added_up(waiting, math.inf, math.inf)
    a_core_second_s = 600.0 * min(1 / added_up(begun, math.inf, math.inf), share / done)
    pace = Pace(50.0, 600.0, loads(begun), loads(waiting))
    expected_s = 50.0 + a_core_second_s * added_up(waiting[:ahead], math.inf, math.inf)
    assert pace.start_s(cores, float(asked[1]), ahead - 0.5) == expected_s
