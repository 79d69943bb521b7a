"""A queued job goes elsewhere on evidence only, and as its standing allows."""

from dataclasses import replace

import pytest

from placement.moves import MOST_MOVES, SETTLE_S, Standing, reconsider, where_it_waits
from placement.problem import PlaceKey
from placement.race import Change, Prospect, Rules, Spent

HOUR = 3600.0
HERE, THERE, YONDER = (PlaceKey(name, "normal") for name in ("here", "there", "yonder"))
STANDING = Standing(
    in_line={HERE: "7"}, lead=HERE, waited_s=HOUR, hedges_to={"there", "yonder"}, moves_to={"there", "yonder"}
)
HEDGED = replace(STANDING, hedge_count=2)
RULES = Rules(submissions_per_job=1.3, moves=True)
LITTLE_SPENT = Spent(jobs=100, submissions=110)


def prospect(key, wait_h, run_h=1.0):
    starts = [wait_h * HOUR, 2 * wait_h * HOUR]
    return Prospect(key.system_id, starts, [start + run_h * HOUR for start in starts])


def change(standing, here_h=10.0, spent=LITTLE_SPENT, rules=RULES, **elsewhere_h):
    places = {"there": THERE, "yonder": YONDER}
    offered = {HERE: prospect(HERE, here_h)}
    offered |= {places[name]: prospect(places[name], wait_h) for name, wait_h in elsewhere_h.items()}
    held = [prospect(key, here_h) for key in standing.in_line]
    return reconsider(standing, held, offered, rules, spent, 0.0)


def copied_to(name):
    return Change(submit=(name,))


def moved_to(name):
    return Change(submit=(name,), withdraw=("here",))


STAYS = Change()


def test_a_job_moves_where_its_result_comes_sooner_by_far():
    assert change(STANDING, there=1.0, yonder=2.0) == moved_to("there")
    assert change(STANDING, there=9.5) == STAYS
    assert change(STANDING, here_h=0.15, there=0.0) == STAYS, "a quarter of an hour is the least"


def test_a_job_stays_when_what_may_be_spent_on_moves_is_spent():
    assert change(STANDING, there=1.0, spent=Spent(jobs=100, submissions=130)) == STAYS


@pytest.mark.parametrize(
    "standing",
    [
        replace(STANDING, waited_s=SETTLE_S - 1),
        replace(STANDING, move_count=MOST_MOVES),
        replace(STANDING, moves_to=frozenset()),
    ],
)
def test_a_job_stays_that_has_only_just_come_or_was_moved_often_or_is_not_welcome(standing):
    assert change(standing, there=1.0) == STAYS


def test_a_copy_that_was_asked_for_is_made_in_the_best_place_whatever_it_saves():
    assert change(HEDGED, there=30.0, yonder=20.0) == copied_to("yonder")
    assert change(replace(HEDGED, hedges_to={"there"}), there=30.0, yonder=20.0) == copied_to("there")


def test_a_copy_that_was_asked_for_has_no_price():
    assert change(HEDGED, there=30.0, spent=Spent(jobs=100, submissions=300)) == copied_to("there")


def test_a_copy_that_was_asked_for_is_not_made_where_it_would_be_taken_back():
    slow = {THERE: prospect(THERE, 0.1, run_h=9.0)}
    assert reconsider(HEDGED, [prospect(HERE, 1.0)], slow, RULES, LITTLE_SPENT, 0.0) == STAYS


def test_a_job_that_waits_in_as_many_places_as_asked_goes_nowhere_else():
    assert change(replace(HEDGED, in_line={HERE: "7", THERE: "8"}), yonder=0.1) == STAYS


def test_a_copy_that_became_a_loss_is_taken_back_and_nothing_is_sent_in_its_place():
    held = [prospect(HERE, 1.0), prospect(THERE, 2.0, run_h=9.0)]
    twice = replace(HEDGED, in_line={HERE: "7", THERE: "8"})
    assert reconsider(twice, held, {YONDER: prospect(YONDER, 0.1)}, RULES, LITTLE_SPENT, 0.0) == Change((), ("there",))


def test_copies_that_nobody_asked_for_are_made_where_the_rules_allow_them_and_owners_too():
    rules = replace(RULES, copies=2)
    assert change(STANDING, there=0.0, rules=rules) == copied_to("there")
    assert change(replace(STANDING, hedges_to=frozenset()), there=0.0, rules=rules) == STAYS
    assert change(STANDING, there=0.0, rules=rules, spent=Spent(jobs=100, submissions=130)) == STAYS


def test_a_job_for_which_no_place_allows_copies_may_move_instead():
    assert change(replace(HEDGED, hedges_to=frozenset()), there=1.0) == moved_to("there")


def test_where_a_job_waits_it_starts_as_is_foreseen_of_it_or_when_the_site_says_if_that_is_sooner():
    as_new = prospect(HERE, 10.0)
    assert where_it_waits(STANDING, HERE, as_new, None).starts_s == as_new.starts_s
    seen = where_it_waits(STANDING, HERE, as_new, (HOUR, 3 * HOUR))
    assert (seen.starts_s, seen.run_s) == ([HOUR, 3 * HOUR], HOUR)
    promised = replace(STANDING, start_at_s=2 * HOUR)
    assert where_it_waits(promised, HERE, as_new, (HOUR, 3 * HOUR)).starts_s == [HOUR, 2 * HOUR]
    assert where_it_waits(promised, THERE, as_new, None).starts_s == as_new.starts_s
