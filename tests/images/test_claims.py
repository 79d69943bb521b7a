"""Who gives way in a full store, and when a job is taken to begin."""

from __future__ import annotations

from math import inf

import pytest

from images.claims import LEAD_S, SHORT, Claim, Foreseen, Grade, gives_way, is_short, together

IDLE, QUEUED, BEGUN = Grade.IDLE, Grade.QUEUED, Grade.BEGUN


def claim(name, grade=QUEUED, starts_in_s=0.0, size=10.0, used=0.0):
    return Claim(name, size, grade, starts_in_s, used)


WANTS = claim("wants", starts_in_s=60)
CASES = {
    "what nobody needs goes, the longest unused first": (
        [claim("b", IDLE, inf, used=2), claim("a", IDLE, inf, used=1), claim("late", starts_in_s=9e9)],
        15,
        ["a", "b"],
    ),
    "then what is needed last": ([claim("x", starts_in_s=1e4), claim("y", starts_in_s=2e4)], 5, ["y"]),
    "as many as it takes": ([claim("x", starts_in_s=1e4), claim("y", starts_in_s=2e4)], 15, ["y", "x"]),
    "nothing goes in vain": ([claim("x", starts_in_s=1e4), claim("y", starts_in_s=2e4)], 21, None),
    "what is about as pressing stays": ([claim("x", starts_in_s=6 * 60 + 5 * LEAD_S)], 5, None),
    "and what is more pressing": ([claim("x", starts_in_s=0)], 5, None),
    "of two that begin as soon the large one goes": ([claim("x", starts_in_s=60, size=61)], 5, ["x"]),
    "what is read stays": ([claim("x", BEGUN, inf, size=1000)], 5, None),
}


@pytest.mark.parametrize(("held", "missing_bytes", "gone"), CASES.values(), ids=CASES)
def test_images_give_way_to_those_that_are_needed_sooner(held, missing_bytes, gone):
    goes = gives_way(WANTS, held, missing_bytes)
    assert (goes and [each.digest for each in goes]) == gone


def test_nothing_gives_way_to_what_is_late_already():
    held = [claim("x", starts_in_s=1e5)]
    assert gives_way(claim("begun", BEGUN), held, 5) is None


def test_a_start_is_foreseen_from_both_quantiles_and_from_how_long_the_job_waited():
    foreseen = Foreseen(600.0, 6000.0)
    left_s = [foreseen.starts_in_s(waited_s) for waited_s in (0.0, 60.0, 600.0, 6000.0, 1e9)]
    assert 0 < left_s[0] < 600
    assert left_s == sorted(left_s), "who waited long waits on"
    assert [Foreseen(600.0, 600.0).starts_in_s(waited_s) for waited_s in (0.0, 500.0, 900.0)] == [600, 100, 0]
    assert Foreseen(0.0, 0.0).starts_in_s(0.0) == 1.0


def test_the_more_jobs_await_an_image_the_sooner_one_of_them_begins():
    assert together([]) == inf
    assert together([100.0]) == pytest.approx(100)
    assert together([600.0, 600.0]) == pytest.approx(330 - LEAD_S)
    assert together([inf, 100.0]) == pytest.approx(100)


def test_a_store_is_short_once_what_is_needed_takes_more_than_its_share_of_it():
    assert [is_short(needed, 100.0) for needed in (0, 100 * SHORT, 100 * SHORT + 1)] == [False, False, True]
    assert not is_short(1e18, None), "without a quota there is nothing to give back"
