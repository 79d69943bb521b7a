"""Placement as a whole: same problem same plan, no decision against a filter, and words for every job."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.engine import MAX_PROBES, place, probes_for, rethink
from placement.estimate import score_s
from placement.explain import rejection_sentence
from placement.filters import NOT_NOW, screen
from placement.gangs import gathered
from placement.moves import SecondThought, Standing
from placement.problem import Breaker, PlaceKey, Problem, SolveLimits
from placement.race import Rules, Spent
from scheduler.model.jobs import Gang
from scheduler.model.plan import Reason
from scheduler.model.runs import ArraySpec, JobType, Resources
from scheduler.model.snapshots import PartitionState, StartProbe
from tests.placement.worlds import (
    NOW,
    advised,
    ask,
    cluster,
    finished,
    host,
    nodes,
    problem,
    queue,
    running,
    snapshot,
    view,
    waiting,
)

LITTLE = SolveLimits(deterministic_time=0.05)
FULL = tuple(running(remote_id=str(n)) for n in range(4))
LONG = tuple(running(remote_id=str(n), walltime_s=100 * 3600, since_s=60) for n in range(4))
BUSY = view(cluster("alder"), snapshot(nodes(free=0, free_cores=0), jobs=FULL))
IDLE = view(cluster("birch"), snapshot())
MOVES, UNSPENT = Rules(submissions_per_job=1.3, moves=True), Spent(jobs=10, submissions=10)


def decision(an_ask, *views, **changes):
    return place(problem(an_ask, *views, **changes)).decisions[an_ask.job_uuid]


def won(a_decision):
    return None if a_decision.winner is None else (a_decision.winner.system_id, a_decision.winner.queue)


# -- where jobs go --


def test_a_job_goes_to_the_idle_cluster_and_the_sentence_says_why():
    result = decision(ask(walltime_s=3600), BUSY, IDLE)
    assert won(result) == ("birch", "cpu")
    assert [each.system_id for each in result.losers] == ["alder"]
    assert result.proven_optimal
    assert result.decided_at == NOW
    assert result.sentence == (
        "Queue 'cpu' of 'birch' should have the result in about 24 min, 9 times in 10 within 62 min: "
        "wait 5 s, up to 1 min (4 nodes free now); "
        "staging 20 s, up to 2 min (a guess for an image that was not used there, nothing measured yet); "
        "run 24 min, up to 60 min (no runs known: jobs use about 40 % of the walltime they ask for); "
        "archive 2 s, up to 10 s (a guess for outputs that stay on the system). "
        "Next best is queue 'cpu' of 'alder', about 5 min later."
    )


def test_a_faster_system_wins_when_its_wait_is_short_and_loses_when_it_is_long():
    quick = cluster("alder", notes={"berth": {"speedFactor": 3}})
    assert won(decision(ask(walltime_s=7200), view(quick, snapshot()), IDLE)) == ("alder", "cpu")
    assert won(decision(ask(walltime_s=600), view(quick, BUSY.snapshot), IDLE)) == ("birch", "cpu")


def test_a_short_walltime_opens_the_short_queue():
    kinds = (nodes("cpu", free=0, free_cores=0), nodes("debug", total=1, free=1, free_cores=4))
    system = cluster("alder", queue("cpu"), queue("debug", max_walltime_s=600))
    look = snapshot(*kinds, jobs=FULL)
    assert won(decision(ask(walltime_s=600), view(system, look))) == ("alder", "debug")
    long = decision(ask(walltime_s=3600), view(system, look))
    assert won(long) == ("alder", "cpu")
    said = "10 min instead of 1 h of walltime: earlier, in queue 'debug' of 'alder'"
    assert advised(long) == [said], "and not a second time, without its gain"


def test_gpu_jobs_go_where_gpus_are():
    gpu = view(cluster("alder"), snapshot(nodes(gpus=2, gpu_model="A100", free=0, free_cores=0), jobs=FULL))
    assert won(decision(ask(gpus_per_node=1), gpu, IDLE)) == ("alder", "cpu")


def test_jobs_spread_when_one_place_cannot_take_them_all():
    asks = tuple(ask(f"job-{n}", nodes=4, cores_per_node=4, walltime_s=3600) for n in range(4))
    plan = place(problem(asks, view(cluster("alder"), snapshot()), IDLE))
    assert sorted(won(each)[0] for each in plan.decisions.values()) == ["alder", "alder", "birch", "birch"]
    delayed = [each for each in plan.decisions.values() if "behind other jobs of ours" in each.winner.wait.source]
    assert len(delayed) == 2


def test_who_waits_longest_of_alike_jobs_goes_where_the_result_is_soonest():
    asks = tuple(ask(f"job-{n}", nodes=4, cores_per_node=4, walltime_s=3600, waited_s=n) for n in range(3))
    plan = place(problem(asks, IDLE))
    waits = {uuid: each.winner.wait.p50_s for uuid, each in plan.decisions.items()}
    assert waits["job-2"] < waits["job-1"] < waits["job-0"]


def test_a_sure_place_wins_over_one_that_may_be_much_later():
    unknown = view(cluster("alder"))
    hidden = nodes(free=0, free_cores=0)
    answer = (StartProbe("cpu", Resources()), NOW + timedelta(minutes=40))
    sure = view(cluster("birch"), snapshot(hidden, starts=(answer,)))
    result = decision(ask(), unknown, sure)
    assert won(result) == ("birch", "cpu")
    assert result.losers[0].total_p50_s < result.winner.total_p50_s
    assert result.sentence.endswith("Next best is queue 'cpu' of 'alder', no later in the median but less sure.")


def test_of_places_that_are_as_soon_the_cheaper_one_wins():
    paid = view(cluster("alder", notes={"berth": {"pricePerCoreHour": 0.1}}), snapshot())
    assert won(decision(ask(), paid, IDLE)) == ("birch", "cpu")


def test_the_plan_is_better_than_one_job_after_the_other():
    """Alone the small job would take the place that only the other one needs."""
    gpu = view(cluster("alder"), snapshot(nodes(total=1, free=1, free_cores=4, gpus=1)))
    plain = view(cluster("birch"), snapshot(nodes(total=1, free=1, free_cores=4)))
    small = ask("small", cores_per_node=4, walltime_s=36_000)
    large = ask("large", cores_per_node=4, walltime_s=72_000, gpus_per_node=1)
    plan = place(problem((small, large), gpu, plain))
    assert plan.proven_optimal
    assert {uuid: won(each)[0] for uuid, each in plan.decisions.items()} == {"small": "birch", "large": "alder"}


def test_a_job_keeps_the_place_of_the_last_plan_when_nothing_is_much_better():
    twin = view(cluster("cedar"), snapshot())
    assert won(decision(ask(), IDLE, twin)) == ("birch", "cpu")
    assert won(decision(ask(), IDLE, twin, last_plan={"job-1": PlaceKey("cedar", "cpu")})) == ("cedar", "cpu")
    assert won(decision(ask(), IDLE, BUSY, last_plan={"job-1": PlaceKey("alder", "cpu")})) == ("birch", "cpu")


def test_jobs_beyond_a_limit_wait_with_the_reason():
    system = cluster("alder", queue(max_jobs_per_user=3))
    asks = tuple(ask(f"job-{n}", waited_s=60 - n) for n in range(4))
    plan = place(problem(asks, view(system, active={("cpu", "alice"): 1})))
    assert [won(plan.decisions[f"job-{n}"]) is not None for n in range(4)] == [True, True, False, False]
    left_out = plan.decisions["job-3"]
    assert [each.reason for each in left_out.rejections] == [Reason.JOB_LIMIT]
    assert left_out.sentence == (
        "It fits, but not now: queue 'cpu' of 'alder' is at its limit of jobs, with those placed just now"
    )


def test_a_job_that_fits_nowhere_has_typed_rejections_and_no_winner():
    result = decision(ask(nodes=99), view(cluster("alder", queue(max_nodes=8))), view(host("elm")))
    assert result.winner is None
    assert [each.system_id for each in result.rejections] == ["alder", "elm"]
    assert result.sentence.startswith("No system can run it: queue 'cpu' of 'alder' allows at most 8 nodes (99 nodes")


def test_without_any_system_every_job_still_gets_an_answer():
    assert decision(ask()).sentence == "There is no system to run it on"
    assert place(problem()).decisions == {}


# -- what is worth asking a site --


def test_probes_are_the_shapes_that_wait_most_wanted_first_and_bounded():
    asks = (*(ask(f"job-{n}", walltime_s=600 + n) for n in range(20)), ask("x", walltime_s=609))
    probes = probes_for(problem(asks, IDLE, view(host("elm"))))
    assert set(probes) == {"birch"}
    assert len(probes["birch"]) == MAX_PROBES
    assert probes["birch"][0] == StartProbe("cpu", Resources(walltime_s=609))


def test_an_answered_probe_decides_between_two_busy_clusters():
    hidden = nodes(free=0, free_cores=0)
    probe = probes_for(problem(ask(), view(cluster("alder"), snapshot(hidden))))["alder"][0]

    def busy(name, minutes):
        return view(cluster(name), snapshot(hidden, starts=((probe, NOW + timedelta(minutes=minutes)),)))

    assert won(decision(ask(), busy("alder", 50), busy("birch", 10))) == ("birch", "cpu")
    assert won(decision(ask(), busy("alder", 10), busy("birch", 50))) == ("alder", "cpu")


# -- properties --


@st.composite
def looks(draw):
    if draw(st.integers(0, 4)) == 0:
        return None
    kinds = tuple(
        nodes(
            partition,
            cores=draw(st.sampled_from([0, 4, 64])),
            memory_mib=draw(st.sampled_from([0, 4000, 256_000])),
            total=draw(st.integers(0, 8)),
            free=(free := draw(st.integers(0, 3))),
            free_cores=free * 4,
            down=draw(st.integers(0, 2)),
            gpus=draw(st.sampled_from([0, 0, 2])),
            features=draw(st.sampled_from([(), ("ib",)])),
        )
        for partition in ("cpu", "debug")
    )
    make = st.builds(
        lambda kind, cores, walltime_s, since_s, part, reason: kind(
            cores, walltime_s, since_s, partition=part, remote_id=str(since_s), reason=reason
        ),
        st.sampled_from([running, waiting]),
        st.integers(1, 300),
        st.sampled_from([60, 3600, 2**31]),
        st.integers(-100, 100_000),
        st.sampled_from(["cpu", "debug", "other"]),
        st.sampled_from(["", "Priority", "JobHeldUser", "a new word"]),
    )
    partitions = tuple(PartitionState(name=name, up=draw(st.integers(0, 5)) > 0) for name in ("cpu", "debug"))
    start = (StartProbe("cpu", Resources()), NOW + timedelta(seconds=draw(st.integers(-9999, 99_999))))
    return snapshot(
        *kinds,
        jobs=tuple(draw(st.lists(make, max_size=8))),
        age_s=draw(st.sampled_from([-99, 10, 1800, 99_999])),
        partitions=draw(st.sampled_from([(), partitions])),
        starts=draw(st.sampled_from([(), (start,)])),
    )


@st.composite
def problems(draw):
    views = []
    for name in ("alder", "birch", "cedar")[: draw(st.integers(0, 3))]:
        queues = (queue("cpu", max_jobs=draw(st.sampled_from([-1, 2, 5]))), queue("debug", max_walltime_s=600))
        notes = {"berth": {"speedFactor": draw(st.sampled_from([1, 2.5, -3, "x"])), "pricePerCoreHour": 0.1}}
        system = cluster(name, *queues, notes=notes, max_jobs_per_user=draw(st.sampled_from([-1, 3])))
        system = draw(st.sampled_from([system, system, host(name), replace(system, enabled=False)]))
        may = draw(st.sampled_from([frozenset({"*"}), frozenset({"alice"})]))
        active = {("cpu", "alice"): draw(st.integers(0, 3))}
        views.append(view(system, draw(looks()), may_execute=may, active=active))
    asks = tuple(
        ask(
            f"job-{n}",
            owner=draw(st.sampled_from(["alice", "bob"])),
            waited_s=draw(st.integers(0, 99)),
            weight=draw(st.sampled_from([1.0, 3.0, -1.0, float("nan"), float("inf")])),
            nodes=draw(st.sampled_from([1, 1, 2, 9])),
            cores_per_node=draw(st.sampled_from([1, 4])),
            walltime_s=draw(st.sampled_from([60, 600, 7200, 2**31])),
            gpus_per_node=draw(st.sampled_from([0, 0, 0, 1])),
            job_type=draw(st.sampled_from([None, None, JobType.FORK])),
            array=draw(st.sampled_from([None, None, ArraySpec(tuple(range(30)), 4)])),
            constraints=draw(st.sampled_from([(), (), ("maxMinutes > 10",)])),
            deadline_at=draw(st.sampled_from([None, None, None, NOW + timedelta(hours=1), NOW - timedelta(days=1)])),
            usd_per_hour=draw(st.sampled_from([0.0, 0.0, 2.0])),
            gang=draw(st.sampled_from([None, None, None, None, Gang("a", 2), Gang("b", 3)])),
        )
        for n in range(draw(st.integers(0, 7)))
    )
    wait_s, system_id = st.integers(0, 9999), st.sampled_from(["alder", "gone"])
    runs = draw(
        st.lists(st.builds(lambda w, s: finished(wait_s=w, run_s=w, system_id=s), wait_s, system_id), max_size=6)
    )
    return Problem(now=NOW, asks=asks, systems=tuple(views), history=tuple(runs))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_every_ask_gets_a_decision_that_no_filter_contradicts(asked):
    plan, screenings = place(asked, LITTLE), gathered(asked.asks, screen(asked))
    assert set(plan.decisions) == {each.job_uuid for each in asked.asks}
    for uuid, each in plan.decisions.items():
        candidates = {option.key for option in screenings[uuid].candidates}
        placed = [*([each.winner] if each.winner else []), *each.losers]
        assert len(placed) == (len(candidates) if each.winner else 0)
        assert {PlaceKey(one.system_id, one.queue) for one in placed} <= candidates
        rejected = {PlaceKey(one.system_id, one.queue) for one in each.rejections}
        assert not rejected & {PlaceKey(one.system_id, one.queue) for one in placed}
        assert each.winner or any(one.reason in NOT_NOW for one in each.rejections) == screenings[uuid].possible
        assert each.sentence
        assert all(rejection_sentence(one) for one in each.rejections)
        for one in placed:
            for term in (one.wait, one.staging, one.run, one.archive):
                assert 0 <= term.p50_s <= term.p90_s < float("inf")
                assert term.source


@settings(max_examples=60, deadline=None)
@given(problems())
def test_no_plan_goes_beyond_a_limit_on_numbers_of_jobs(asked):
    plan = place(asked, LITTLE)
    owners = {each.job_uuid: each.owner for each in asked.asks}
    placed = [(each.winner, owners[uuid]) for uuid, each in plan.decisions.items() if each.winner]
    for each in asked.systems:
        for owner in ("alice", "bob"):
            new = sum(1 for winner, who in placed if (winner.system_id, who) == (each.system.id, owner))
            most = each.system.max_jobs_per_user
            assert not new or most < 0 or each.active_jobs(owner=owner) + new <= most
        for one in each.system.queues:
            new = sum(1 for winner, _ in placed if (winner.system_id, winner.queue) == (each.system.id, one.name))
            assert not new or one.max_jobs < 0 or each.active_jobs(one.name) + new <= one.max_jobs


@settings(max_examples=40, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_changes_nothing(asked, random):
    def shuffled(items):
        return tuple(random.sample(items, len(items)))

    other = replace(asked, asks=shuffled(asked.asks), systems=shuffled(asked.systems), history=shuffled(asked.history))
    one, two = place(asked, LITTLE), place(other, LITTLE)
    assert repr(one) == repr(two)


def test_the_order_of_jobs_that_compete_changes_nothing():
    asks = tuple(ask(f"job-{n}", nodes=1 + n % 4, cores_per_node=4, walltime_s=600 * (1 + n % 5)) for n in range(12))
    runs = tuple(finished(run_s=n * 10, ended_at=NOW - timedelta(minutes=n)) for n in range(1, 60))
    one = place(problem(asks, IDLE, BUSY, history=runs), LITTLE)
    two = place(problem(asks[::-1], BUSY, IDLE, history=runs[::-1]), LITTLE)
    assert one == two
    assert any("behind other jobs of ours" in each.winner.wait.source for each in one.decisions.values())


@settings(max_examples=40, deadline=None)
@given(problems())
def test_a_job_without_a_candidate_is_possible_only_when_time_may_heal_it(asked):
    for screening in screen(asked).values():
        assert all(each.reason in NOT_NOW for each in screening.later)
        assert not any(each.reason in NOT_NOW for each in screening.rejections)


def test_ten_thousand_identical_jobs_are_an_answer():
    asks = tuple(ask(f"job-{n:05}", walltime_s=600) for n in range(10_000))
    plan = place(problem(asks, IDLE, BUSY), LITTLE)
    assert len(plan.decisions) == 10_000
    assert all(each.winner for each in plan.decisions.values())


def test_a_single_job_is_decided_without_loading_the_solver():
    code = (
        "import sys; from tests.placement.worlds import *; from placement.engine import place;"
        "place(problem(ask(), view(cluster(), snapshot()), view(host())));"
        "print([name for name in ('numpy', 'ortools') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_the_same_problem_gets_the_same_plan(seed):
    asks = tuple(ask(f"job-{n}", nodes=1 + n % 4, walltime_s=600 * (1 + n % 5)) for n in range(12))
    asked = problem(asks, IDLE, BUSY, seed=seed)
    assert place(asked, LITTLE) == place(asked, LITTLE)


def test_in_a_crowd_jobs_that_are_nearly_alike_are_estimated_as_one_but_for_where_they_go():
    busy = snapshot(nodes(free=0, free_cores=0), jobs=tuple(running(cores=4, remote_id=str(n)) for n in range(4)))
    views = tuple(view(cluster(name), busy) for name in ("alder", "birch", "cedar"))
    asks = tuple(ask(f"job-{n:03}", walltime_s=1000 + n // 4) for n in range(201))
    plan = place(problem(asks, *views))
    first, last = (plan.decisions[uuid] for uuid in ("job-000", "job-200"))
    assert first.losers[-1] == last.losers[-1]
    assert first.winner.run.p90_s < last.winner.run.p90_s, "each has its own run time"
    assert place(problem(asks[::-1], *views)) == plan


def test_in_a_crowd_each_job_is_shown_every_place_once_and_the_soonest_first():
    looks = [
        snapshot(nodes(free=0, free_cores=0), jobs=tuple(running(walltime_s=n * 900) for _ in range(4)))
        for n in range(1, 6)
    ]
    views = tuple(view(cluster(f"c{n}"), look) for n, look in enumerate(looks))
    asks = tuple(ask(f"job-{n:03}", walltime_s=600 + 40 * n) for n in range(201))
    for each in place(problem(asks, *views), LITTLE).decisions.values():
        assert sorted(one.system_id for one in (each.winner, *each.losers)) == [one.system.id for one in views]
        assert [round(score_s(one)) for one in each.losers] == sorted(round(score_s(one)) for one in each.losers)


# -- jobs that wait ---------------------------------------------------------------------------------------------------


def test_a_queued_job_moves_to_an_idle_cluster_and_stays_where_it_will_start_soon():
    ours, waits = replace(waiting(remote_id="7", walltime_s=600), submitted_at=NOW - timedelta(hours=2)), 9 * 3600
    ahead = waiting(cores=16, walltime_s=100 * 3600, remote_id="9", priority=9.0)
    full = view(cluster("alder"), snapshot(nodes(free=0, free_cores=0), jobs=(*LONG, ahead, ours)))
    key = PlaceKey("alder", "cpu")
    stands = Standing(in_line={key: "7"}, lead=key, waited_s=waits, moves_to={"alder", "birch"})
    asked = problem(ask(walltime_s=36_000), full, IDLE)
    moved = rethink(asked, {"job-1": stands}, MOVES, UNSPENT)["job-1"].further
    assert (moved.place.system_id, moved.is_move) == ("birch", True)
    assert moved.sooner_s > 3600
    soon = replace(stands, start_at_s=NOW.timestamp() + 60)
    assert rethink(asked, {"job-1": soon}, MOVES, UNSPENT) == {}
    assert rethink(asked, {"job-1": stands}, MOVES, Spent(jobs=10, submissions=13)) == {}
    of_two = ask(walltime_s=36_000, gang=Gang("pair", 2))
    assert rethink(replace(asked, asks=(of_two,)), {"job-1": stands}, MOVES, UNSPENT) == {}, "no job leaves its gang"


def test_a_copy_is_taken_back_in_a_slow_place_once_the_lead_will_end_sooner_and_the_lead_never_is():
    slow = view(cluster("cedar", notes={"berth": {"speedFactor": 0.1}}), snapshot(nodes(free=0, free_cores=0)))
    fast, late = PlaceKey("birch", "cpu"), PlaceKey("cedar", "cpu")
    known = tuple(finished(run_s=3000.0) for _ in range(10))
    asked = problem(ask(walltime_s=36_000), IDLE, slow, history=known)
    stands = Standing(in_line={fast: "7", late: "8"}, lead=fast, waited_s=60, hedge_count=2)
    assert rethink(asked, {"job-1": stands}, MOVES, UNSPENT) == {"job-1": SecondThought(no_longer=(late,))}
    assert rethink(asked, {"job-1": replace(stands, lead=late)}, MOVES, UNSPENT) == {}


def test_what_one_job_is_given_is_spent_for_those_that_came_after_it():
    key = PlaceKey("alder", "cpu")
    full = view(cluster("alder"), snapshot(nodes(free=0, free_cores=0), jobs=LONG))
    asks = tuple(ask(f"job-{n}", waited_s=3600 * n, walltime_s=36_000) for n in range(3))
    stands = Standing(in_line={key: None}, lead=key, waited_s=9 * 3600, moves_to={"birch"})
    for some in (asks, asks[::-1]):
        found = rethink(problem(some, full, IDLE), dict.fromkeys(["job-0", "job-1", "job-2"], stands), MOVES, UNSPENT)
        assert set(found) == {"job-1", "job-2", "job-0"}
        few = Spent(jobs=10, submissions=12)
        assert set(rethink(problem(some, full, IDLE), dict.fromkeys(found, stands), MOVES, few)) == {"job-2"}


def test_no_queued_job_moves_to_a_place_on_trial_and_who_waits_in_one_may_leave():
    open_again = {"cpu": Breaker(broken_count=3, next_trial_at=NOW, trials_left=1)}
    shut = {"cpu": Breaker(broken_count=3, next_trial_at=NOW + timedelta(hours=1))}
    key = PlaceKey("alder", "cpu")
    stands = Standing(in_line={key: None}, lead=key, waited_s=9 * 3600, moves_to={"birch"})
    asked = ask(walltime_s=36_000)
    full = view(cluster("alder"), snapshot(nodes(free=0, free_cores=0), jobs=LONG), breakers=shut)
    left = rethink(problem(asked, full, IDLE), {"job-1": stands}, MOVES, UNSPENT)
    assert left["job-1"].further.place.system_id == "birch"
    assert rethink(problem(asked, full, replace(IDLE, breakers=open_again)), {"job-1": stands}, MOVES, UNSPENT) == {}
