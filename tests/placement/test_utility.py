"""What counts beside time: deadlines, prices, energy, what waits behind a job, other users, gangs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.engine import place
from placement.problem import PlaceKey
from placement.utility import expected_late_s, later_s
from placement.weights import Waiting, behind, weights
from scheduler.model.jobs import Gang
from scheduler.model.plan import Estimate, Reason, Term
from scheduler.model.runs import Resources
from scheduler.model.snapshots import StartProbe
from tests.placement.worlds import NOW, ask, cluster, nodes, problem, queue, snapshot, view

NOTHING = Term(0, 0)
ONE_NODE = nodes(total=1, free=1, free_cores=4)
FULL = nodes(free=0, free_cores=0)


def estimate(p50_s: float, p90_s: float, deadline_s: float | None) -> Estimate:
    run = Term(p50_s, p90_s)
    return Estimate(
        system_id="alder", queue=None, wait=NOTHING, staging=NOTHING, run=run, archive=NOTHING, deadline_s=deadline_s
    )


def starts_in(minutes: float, name: str, **notes):
    answer = (StartProbe("cpu", Resources(walltime_s=600)), NOW + timedelta(minutes=minutes))
    return view(cluster(name, notes={"berth": notes}), snapshot(FULL, starts=(answer,)))


def decided(*views, **changes):
    return place(problem(ask(walltime_s=600, **changes), *views)).decisions["job-1"]


# -- deadlines -------------------------------------------------------------------------------------------------------


def test_the_probability_that_a_deadline_is_kept_goes_through_both_quantiles():
    assert estimate(600, 3600, 600).kept_probability == pytest.approx(0.5)
    assert estimate(600, 3600, 3600).kept_probability == pytest.approx(0.9)
    assert estimate(600, 3600, -5).kept_probability == 0.0
    assert [estimate(600, 600, left_s).kept_probability for left_s in (599, 600)] == [0.0, 1.0]
    assert estimate(600, 3600, None).kept_probability is None


@pytest.mark.parametrize("deadline_s", [-100, 0, 1, 300, 2000, 50_000])
def test_the_expected_lateness_is_the_mean_over_many_draws(deadline_s):
    one = estimate(600, 1800, deadline_s)
    middle, spread = one.log_normal
    drawn = NormalDist(middle, spread).samples(20_000, seed=1)
    mean_s = sum(max(0.0, 2.718281828459045**each - deadline_s) for each in drawn) / len(drawn)
    assert expected_late_s(one) == pytest.approx(mean_s, rel=0.05, abs=1)


@given(st.floats(1, 1e6), st.floats(1, 50), st.floats(-1e6, 1e6))
def test_a_delay_never_makes_a_deadline_easier(p50_s, factor, deadline_s):
    one = estimate(p50_s, p50_s * factor, deadline_s)
    costs = [later_s(one, delay_s) for delay_s in (0, 60, 600, 3600, 86_400)]
    assert costs[0] == 0
    assert all(earlier <= later + 1e-3 * abs(later) + 1 for earlier, later in pairwise(costs))


def test_a_job_with_a_deadline_takes_the_surer_place_and_why_says_how_sure():
    sure, soon = starts_in(30, "alder"), view(cluster("birch"))
    unknown = replace(soon, snapshot=None)
    without = decided(sure, unknown)
    due = decided(starts_in(55, "alder"), unknown, deadline_at=NOW + timedelta(hours=3))
    assert without.winner.kept_probability is None
    assert due.winner.system_id == "alder"
    assert due.winner.kept_probability > due.losers[0].kept_probability
    assert "The deadline is kept with a probability of 9" in due.sentence
    assert any(note.startswith("the deadline is kept with") for note in due.losers[0].notes)


def test_of_two_jobs_the_one_with_the_deadline_starts_first():
    one_at_a_time = view(cluster("alder"), snapshot(ONE_NODE))
    late = ask("due", cores_per_node=4, walltime_s=7200, deadline_at=NOW + timedelta(hours=1), waited_s=1)
    other = ask("other", cores_per_node=4, walltime_s=7200, waited_s=600)
    plan = place(problem((late, other), one_at_a_time))
    assert plan.proven_optimal
    waits = {uuid: each.winner.wait.p50_s for uuid, each in plan.decisions.items()}
    assert waits["due"] < waits["other"]


# -- price and energy ------------------------------------------------------------------------------------------------


def test_a_price_breaks_ties_and_counts_against_time_only_where_time_has_a_value():
    cheap, dear = starts_in(30, "alder"), starts_in(10, "birch", pricePerCoreHour=12)
    assert decided(cheap, dear).winner.system_id == "birch"
    assert decided(cheap, dear, usd_per_hour=10.0).winner.system_id == "birch"
    won = decided(cheap, dear, usd_per_hour=1.0)
    assert won.winner.system_id == "alder"
    assert won.losers[0].costs_s["price"] == pytest.approx(12 * 0.4 / 6 * 3600)
    assert won.sentence.endswith("Next best is queue 'cpu' of 'birch', which costs more.")


def test_energy_is_shown_and_counts_where_a_kwh_has_a_price():
    lean, hungry = starts_in(12, "alder", wattsPerCore=1), starts_in(10, "birch", wattsPerCore=9000)
    assert decided(lean, hungry).winner.notes == ("about 0.6 kWh",)
    assert decided(lean, hungry, usd_per_hour=1.0, usd_per_kwh=0.2).winner.system_id == "alder"
    assert decided(lean, hungry, usd_per_kwh=0.2).winner.system_id == "birch"


# -- what waits behind a job, and other users ------------------------------------------------------------------------


def test_all_that_waits_behind_a_job_counts_once_however_many_ways_lead_to_it():
    waiting = {
        "b": Waiting(1.0, ["a"]),
        "c": Waiting(2.0, ["a"]),
        "d": Waiting(4.0, ["b", "c"]),
        "x": Waiting(1.0, ["y"]),
        "y": Waiting(1.0, ["x"]),
    }
    assert behind(waiting) == {"a": 7.0, "b": 4.0, "c": 4.0, "x": 1.0, "y": 1.0}
    assert behind({}) == {}


def test_a_job_that_others_wait_for_goes_first():
    one_at_a_time = view(cluster("alder"), snapshot(ONE_NODE))
    head = replace(ask("head", cores_per_node=4, walltime_s=3600, waited_s=1), behind_weight=5.0)
    other = ask("other", cores_per_node=4, walltime_s=3600, waited_s=600)
    plan = place(problem((head, other), one_at_a_time))
    assert plan.decisions["head"].winner.wait.p50_s < plan.decisions["other"].winner.wait.p50_s


def test_an_owner_with_a_hundred_jobs_does_not_push_back_one_with_a_single_job():
    crowd = tuple(ask(f"many-{n:03}", cores_per_node=4, walltime_s=3600, waited_s=900) for n in range(100))
    single = ask("single", owner="bob", cores_per_node=4, walltime_s=3600, waited_s=1)
    said = weights((*crowd, single))
    assert (said["many-000"], said["single"]) == (10, 100)
    plan = place(problem((*crowd, single), view(cluster("alder"), snapshot(ONE_NODE))))
    waits = [each.winner.wait.p50_s for each in plan.decisions.values()]
    assert plan.decisions["single"].winner.wait.p50_s == min(waits) < max(waits)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0, 1e300])
def test_absurd_weights_are_weights(weight):
    assert 1 <= weights([replace(ask(weight=weight), behind_weight=weight)])["job-1"] <= 10_000


# -- gangs -----------------------------------------------------------------------------------------------------------


def gang(size: int, of: int, **changes):
    return tuple(ask(f"job-{n}", gang=Gang("ring", of), **changes) for n in range(size))


def test_a_gang_goes_to_one_queue_together():
    wide = view(cluster("alder", queue("cpu"), queue("long")), snapshot(nodes("cpu"), nodes("long")))
    small = view(cluster("birch", notes={"berth": {"speedFactor": 3}}), snapshot(ONE_NODE))
    members = gang(3, 3, cores_per_node=4, walltime_s=36_000)
    plan = place(problem((*members, ask("alone", walltime_s=600)), wide, small))
    chosen = {(each.winner.system_id, each.winner.queue) for each in (plan.decisions[m.job_uuid] for m in members)}
    assert len(chosen) == 1
    assert plan.decisions["alone"].winner is not None


def test_a_gang_waits_for_all_its_members():
    plan = place(problem(gang(2, 3), view(cluster("alder"), snapshot())))
    assert {each.winner for each in plan.decisions.values()} == {None}
    assert plan.decisions["job-0"].sentence == (
        "It fits, but not now: queue 'cpu' of 'alder' waits for the rest of the gang: 2 of 3 jobs are there"
    )


def test_a_gang_goes_only_where_all_may_go_or_nowhere():
    plain, gpu = view(cluster("alder"), snapshot()), view(cluster("birch"), snapshot(nodes(gpus=1)))
    first, second = gang(2, 2)
    needs_gpu = replace(second, spec=replace(second.spec, resources=replace(second.spec.resources, gpus_per_node=1)))
    plan = place(problem((first, needs_gpu), plain, gpu))
    assert {each.winner.system_id for each in plan.decisions.values()} == {"birch"}
    alone = place(problem((first, needs_gpu), plain))
    assert {each.winner for each in alone.decisions.values()} == {None}
    assert Reason.GANG in {each.reason for each in alone.decisions["job-0"].rejections}


def test_gangs_of_two_owners_are_two_gangs_and_limits_count_every_member():
    system = cluster("alder", queue(max_jobs_per_user=2))
    mine = gang(3, 3)
    theirs = tuple(replace(each, job_uuid=f"their-{n}", owner="bob") for n, each in enumerate(gang(2, 2)))
    plan = place(problem((*mine, *theirs), view(system, snapshot())))
    placed = {uuid for uuid, each in plan.decisions.items() if each.winner}
    assert placed == {"their-0", "their-1"}
    assert plan.decisions["their-0"].winner.queue == PlaceKey("alder", "cpu").queue
