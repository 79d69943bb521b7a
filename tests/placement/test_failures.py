"""What failures of a system cost, and the breaker: both from ended runs alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from placement.engine import place
from placement.failures import Failures, Trials, guarded, suspects, tally
from placement.problem import PlaceKey
from scheduler.model.plan import Reason, Term
from tests.placement.worlds import NOW, ask, cluster, finished, problem, queue, snapshot, view

HERE = PlaceKey("alder", "cpu")


def broken(ago_s: float, run_s: float = 5, **changes):
    return finished(run_s=run_s, ended_at=NOW - timedelta(seconds=ago_s), completed=False, broken=True, **changes)


def well(ago_s: float, run_s: float = 300, **changes):
    return finished(run_s=run_s, ended_at=NOW - timedelta(seconds=ago_s), **changes)


def breakers(*runs, trials=None, systems=None):
    [guarded_view] = guarded([view(systems or cluster())], runs, trials or {}, NOW)
    return guarded_view.breakers


# -- the price -------------------------------------------------------------------------------------------------------


def test_one_failure_among_few_runs_is_not_taken_for_the_rule():
    assert Failures(tally(()), NOW).probability(HERE) == pytest.approx(0.01)
    assert 0.02 < Failures(tally((broken(60),)), NOW).probability(HERE) < 0.2
    assert Failures(tally(tuple(broken(n) for n in range(200))), NOW).probability(HERE) > 0.9


def test_what_a_run_did_to_itself_is_no_failure_of_the_system():
    failed = tuple(finished(completed=False) for _ in range(50))
    assert Failures(tally(failed), NOW).probability(HERE) < 0.01


def test_a_queue_leans_on_its_system_and_old_failures_are_forgotten():
    runs = tuple(broken(60, queue="gpu") for _ in range(20))
    seen = Failures(tally(runs), NOW)
    assert seen.probability(PlaceKey("alder", "gpu")) > seen.probability(HERE) > 0.1
    assert seen.probability(PlaceKey("birch", "cpu")) == pytest.approx(0.01)
    old = tuple(broken(60 * 86_400, queue="gpu") for _ in range(20))
    assert Failures(tally(old), NOW).probability(PlaceKey("alder", "gpu")) < 0.02


def test_what_was_counted_before_fades_as_if_it_were_counted_now():
    runs = tuple(broken(minute * 1000) for minute in range(8))
    later = NOW + timedelta(days=9)
    counted_now = Failures(tally((*runs, replace(runs[0], system_id="birch", ended_at=later))), later)
    assert Failures(tally(runs), later).probability(HERE) == pytest.approx(counted_now.probability(HERE))


def test_what_is_lost_grows_with_the_wait_and_the_run():
    seen = Failures(tally(tuple(broken(60) for _ in range(20))), NOW)
    short, long = Term(60, 60), Term(7200, 7200)
    assert seen.loss_s(HERE, short, short) < seen.loss_s(HERE, long, short) < seen.loss_s(HERE, long, long)


def test_of_places_that_are_as_soon_the_one_that_breaks_less_wins_and_why_says_so():
    runs = tuple(broken(7200 + n, run_s=900) for n in range(8))
    views = view(cluster("alder"), snapshot()), view(cluster("birch"), snapshot())
    decided = place(problem(ask(walltime_s=3600), *views, history=runs)).decisions["job-1"]
    assert decided.winner.system_id == "birch"
    [loser] = decided.losers
    assert loser.costs_s["failures"] > 60
    assert "the system breaks about 45% of runs there: 12 min lost on average" in loser.notes[-1]
    assert decided.sentence.endswith("'alder', which loses more time to failures of the system.")


# -- the breaker -----------------------------------------------------------------------------------------------------


def test_three_jobs_broken_at_once_open_the_breaker_and_one_that_survives_closes_it():
    row = broken(300), broken(200), broken(100)
    assert not breakers(*row[:2])
    assert set(breakers(*row)) == {None, "cpu"}
    assert not breakers(*row, well(50))
    assert not breakers(broken(300, run_s=90), *row[1:])
    assert not breakers(*row, trials={HERE: Trials(0, NOW - timedelta(seconds=80))})
    assert breakers(*row, trials={HERE: Trials(0, NOW - timedelta(days=1))})


def test_the_pause_doubles_up_to_an_hour_and_then_one_trial_is_let_through():
    pauses = []
    for count in (3, 4, 5, 9, 20):
        found = breakers(*(broken(10 + n) for n in range(count)))["cpu"]
        pauses.append((found.next_trial_at - NOW).total_seconds() + 10)
        assert found.trials_left == 0
    assert pauses == [60, 120, 240, 3600, 3600]
    assert breakers(*(broken(70 + n) for n in range(3)))["cpu"].trials_left == 1
    on_trial = breakers(*(broken(70 + n) for n in range(3)), trials={HERE: Trials(1)})["cpu"]
    assert (on_trial.trials_left, on_trial.on_trial_count) == (0, 1)


def test_a_queue_that_breaks_jobs_leaves_the_others_of_its_system_open():
    system = cluster("alder", queue("cpu"), queue("gpu"))
    row = *(broken(100 + n, queue="gpu") for n in range(3)), well(50)
    assert set(breakers(*row, systems=system)) == {"gpu"}
    assert suspects(row) == {"alder"}
    assert suspects(row[:2]) == frozenset()


def test_a_clock_that_jumped_back_makes_no_pause_longer():
    found = breakers(*(broken(-86_400 - n) for n in range(3)))["cpu"]
    assert found.next_trial_at == NOW + timedelta(seconds=60)


def test_why_says_that_a_place_rests_and_until_when():
    runs = tuple(broken(10 + n) for n in range(4))
    views = guarded([view(cluster("alder"), snapshot())], runs, {}, NOW)
    decided = place(problem(ask(), *views, history=runs)).decisions["job-1"]
    assert decided.winner is None
    assert [each.reason for each in decided.rejections] == [Reason.FAILING]
    assert decided.sentence == (
        "It fits, but not now: queue 'cpu' of 'alder' broke our last 4 jobs at once; it may have the next at 12:01 UTC"
    )


def test_of_many_jobs_one_tries_a_place_on_trial():
    runs = tuple(broken(100 + n) for n in range(3))
    views = guarded([view(cluster("alder"), snapshot())], runs, {}, NOW)
    plan = place(problem(tuple(ask(f"job-{n}") for n in range(5)), *views, history=runs))
    assert sum(each.winner is not None for each in plan.decisions.values()) == 1
    left_out = next(each for each in plan.decisions.values() if each.winner is None)
    assert left_out.sentence.endswith(
        "broke our last 3 jobs at once; it may have the next once the one on trial survives"
    )


@pytest.mark.parametrize("dies_after_s", [5, 600])
def test_a_system_that_breaks_everything_cannot_attract_everything(dies_after_s):
    """Jobs of ten minutes one after the other, a minute apart: a fast system breaks each of them, a slow one none."""
    fast = view(cluster("alder", notes={"berth": {"speedFactor": 3}}), snapshot())
    slow = view(cluster("birch"), snapshot())
    history, under_way, sent = [], [], []
    for minute in range(240):
        now = NOW + timedelta(minutes=minute)
        history += [run for run in under_way if run.ended_at <= now]
        under_way = [run for run in under_way if run.ended_at > now]
        trials = {HERE: Trials(sum(run.system_id == "alder" for run in under_way))}
        views = guarded([fast, slow], history, trials, now)
        chosen = place(problem(ask(), *views, history=tuple(history))).decisions["job-1"].winner.system_id
        sent.append(chosen)
        run_s = dies_after_s if chosen == "alder" else 240
        ended_at = now + timedelta(seconds=5 + run_s)
        made = broken if chosen == "alder" else well
        under_way.append(made((NOW - ended_at).total_seconds(), run_s=run_s, system_id=chosen))
    assert 1 <= sent.count("alder") <= 24
    assert sent[-30:].count("alder") <= 1
