"""What holds a job back beside the queue: maintenance ahead, reservations, licences that are taken."""

from __future__ import annotations

from datetime import timedelta

import pytest

from placement.engine import place
from placement.holds import held
from scheduler.model.plan import Term
from scheduler.model.runs import SchedulerOption
from scheduler.model.snapshots import Closure, Licence
from tests.placement.worlds import NOW, ask, cluster, host, nodes, problem, running, snapshot, spec, view

SOON = Term(5, 60, "4 nodes free now")
HOUR = 3600


def closure(starts_h: float, ends_h: float, **changes):
    fields = {"reservation": "upgrade", "partition": "cpu", "nodes": 4, "maintenance": True}
    starts_at, ends_at = NOW + timedelta(hours=starts_h), NOW + timedelta(hours=ends_h)
    return Closure(**fields | {"starts_at": starts_at, "ends_at": ends_at} | changes)


def wait(a_spec, *closures, look=None, term=SOON):
    seen = look or snapshot(closures=closures)
    return held(a_spec, view(cluster(), seen).queue_places[0], NOW, term)


def test_a_walltime_that_ends_before_the_maintenance_is_not_held():
    assert wait(spec(walltime_s=HOUR), closure(2, 10)) == SOON


def test_a_walltime_that_reaches_into_the_maintenance_starts_after_it():
    term = wait(spec(walltime_s=3 * HOUR), closure(2, 10))
    assert (term.p50_s, term.p90_s) == (10 * HOUR + 60, 10 * HOUR + 120)
    assert term.source == "4 nodes free now; after maintenance (in 2 h, for 8 h)"


def test_a_start_that_may_slip_into_the_maintenance_is_late_at_worst():
    term = wait(spec(walltime_s=HOUR), closure(2, 10), term=Term(600, 2 * HOUR, "a replay"))
    assert (term.p50_s, term.p90_s) == (600, 10 * HOUR + 60)
    assert "maintenance" in term.source


def test_a_maintenance_that_leaves_enough_nodes_holds_nobody():
    assert wait(spec(walltime_s=3 * HOUR, nodes=2), closure(2, 10, nodes=2)) == SOON
    assert wait(spec(walltime_s=3 * HOUR, nodes=3), closure(2, 10, nodes=2)).p50_s > 9 * HOUR


def test_nodes_that_are_down_for_the_maintenance_are_not_counted_twice():
    look = snapshot(nodes(free=2, down=2, free_cores=8), closures=(closure(-1, 1, nodes=2),))
    assert wait(spec(nodes=2), look=look) == SOON
    assert wait(spec(nodes=3), look=look).p50_s == HOUR + 60


def test_two_windows_hold_one_after_the_other_and_reservations_together():
    twice = wait(spec(walltime_s=3 * HOUR), closure(1, 2), closure(4, 5))
    assert twice.p50_s == 5 * HOUR + 60
    together = wait(spec(walltime_s=2 * HOUR), closure(1, 3, nodes=2), closure(1, 4, nodes=2, maintenance=False))
    assert together.p50_s == 4 * HOUR + 60
    assert "the reservation upgrade" in together.source


@pytest.mark.parametrize(
    "harmless",
    [closure(-9, -1), closure(0, 9, partition="debug"), closure(10_000, 20_000)],
    ids=["over", "of-another-partition", "far-away"],
)
def test_windows_that_do_not_concern_the_job_hold_nothing(harmless):
    assert wait(spec(walltime_s=HOUR), harmless) == SOON


def test_a_job_that_names_the_reservation_may_use_it():
    inside = spec(walltime_s=3 * HOUR, scheduler_options=(SchedulerOption("--reservation", "upgrade"),))
    assert wait(inside, closure(0, 10)) == SOON


def test_a_reservation_without_an_end_is_a_year_and_not_for_ever():
    assert wait(spec(), closure(0, 10**6)).p50_s == 365 * 86_400 + 60


def test_a_host_has_no_reservations():
    assert held(spec(), view(host(), snapshot(closures=(closure(0, 9),))).host_place, NOW, SOON) == SOON


def test_a_long_job_goes_where_no_maintenance_is_ahead_and_a_short_one_stays():
    closing = view(cluster("alder", notes={"berth": {"speedFactor": 2}}), snapshot(closures=(closure(2, 10),)))
    open_one = view(cluster("birch"), snapshot())
    long, short = ask("long", walltime_s=4 * HOUR), ask("short", walltime_s=HOUR)
    plan = place(problem((long, short), closing, open_one))
    assert {uuid: each.winner.system_id for uuid, each in plan.decisions.items()} == {"long": "birch", "short": "alder"}


def licensed(free: int, **changes):
    look = snapshot(licences=(Licence(name="matlab", total=2, free=free),), **changes)
    return wait(spec(scheduler_options=(SchedulerOption("--licenses", "matlab"),)), look=look)


def test_a_licence_that_is_free_holds_nothing():
    assert licensed(1) == SOON


def test_a_licence_that_is_taken_comes_back_when_a_job_ends():
    jobs = tuple(running(walltime_s=hours * HOUR, since_s=HOUR, remote_id=str(hours)) for hours in (2, 3, 9))
    term = licensed(0, jobs=jobs)
    assert (term.p50_s, term.p90_s) == (2 * HOUR, 8 * HOUR)
    assert term.source == "4 nodes free now; the licence matlab is taken, back when a running job ends"


def test_a_licence_that_is_taken_by_nobody_we_see_is_waited_for_honestly():
    assert (licensed(0).p50_s, licensed(0).p90_s) == (1800, 6 * HOUR)
