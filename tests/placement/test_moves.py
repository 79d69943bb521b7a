"""A queued job goes elsewhere on evidence only, and as its standing allows."""

from dataclasses import replace

import pytest

from placement.estimate import Outlook
from placement.moves import MOST_MOVES, SETTLE_S, Standing, further, where_it_waits
from placement.problem import PlaceKey
from placement.race import Prospect
from scheduler.model.plan import Estimate, Term

HOUR = 3600.0
HERE, THERE, YONDER = (PlaceKey(name, "normal") for name in ("here", "there", "yonder"))
STANDING = Standing(
    in_line={HERE: "7"}, lead=HERE, waited_s=HOUR, hedges_to={"there", "yonder"}, moves_to={"there", "yonder"}
)
HEDGED = replace(STANDING, hedge_count=2)


def prospect(key, wait_h, run_h=1.0):
    starts = [wait_h * HOUR, 2 * wait_h * HOUR]
    return Prospect(key.system_id, starts, [start + run_h * HOUR for start in starts])


def outlook(key, wait_h):
    term = Term(wait_h * HOUR, 2 * wait_h * HOUR)
    found = Estimate(system_id=key.system_id, queue=key.queue, wait=term, staging=term, run=term, archive=term)
    return Outlook(key, found, prospect(key, wait_h))


def gone_to(standing, here_h=10.0, **elsewhere_h):
    places = {"there": THERE, "yonder": YONDER}
    outlooks = [outlook(HERE, here_h), *(outlook(places[name], wait_h) for name, wait_h in elsewhere_h.items())]
    held = [prospect(key, here_h) for key in standing.in_line]
    best = further(standing, held, outlooks, 0.0)
    return best and (best.place.system_id, best.is_move)


def test_a_job_moves_where_its_result_comes_sooner_by_far():
    assert gone_to(STANDING, there=1.0, yonder=2.0) == ("there", True)
    assert gone_to(STANDING, there=9.5) is None
    assert gone_to(STANDING, here_h=0.3, there=0.0) is None, "half an hour is the least"


@pytest.mark.parametrize(
    "standing",
    [
        replace(STANDING, waited_s=SETTLE_S - 1),
        replace(STANDING, move_count=MOST_MOVES),
        replace(STANDING, moves_to=frozenset()),
    ],
)
def test_a_job_stays_that_has_only_just_come_or_was_moved_often_or_is_not_welcome(standing):
    assert gone_to(standing, there=1.0) is None


def test_what_a_move_saves_is_said():
    best = further(STANDING, [prospect(HERE, 10.0)], [outlook(THERE, 1.0)], 0.0)
    assert best.sooner_s == 1.5 * 9 * HOUR


def test_a_copy_that_was_asked_for_is_made_in_the_best_place_whatever_it_saves():
    assert gone_to(HEDGED, there=30.0, yonder=20.0) == ("yonder", False)
    assert gone_to(replace(HEDGED, hedges_to={"there"}), there=30.0, yonder=20.0) == ("there", False)


def test_a_job_that_waits_in_as_many_places_as_asked_goes_nowhere_else():
    assert gone_to(replace(HEDGED, in_line={HERE: "7", THERE: "8"}), yonder=0.1) is None


def test_a_job_for_which_no_place_allows_copies_may_move_instead():
    assert gone_to(replace(HEDGED, hedges_to=frozenset()), there=1.0) == ("there", True)


def test_where_a_job_waits_it_starts_as_is_foreseen_of_it_or_when_the_site_says_if_that_is_sooner():
    as_new = prospect(HERE, 10.0)
    assert where_it_waits(STANDING, HERE, as_new, None).starts_s == as_new.starts_s
    seen = where_it_waits(STANDING, HERE, as_new, (HOUR, 3 * HOUR))
    assert (seen.starts_s, seen.run_s) == ([HOUR, 3 * HOUR], HOUR)
    promised = replace(STANDING, start_at_s=2 * HOUR)
    assert where_it_waits(promised, HERE, as_new, (HOUR, 3 * HOUR)).starts_s == [HOUR, 2 * HOUR]
    assert where_it_waits(promised, THERE, as_new, None).starts_s == as_new.starts_s
