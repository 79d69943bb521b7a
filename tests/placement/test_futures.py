"""Draws of a queue's future, and where the engine sends a job by them."""

from __future__ import annotations

import gc
from dataclasses import replace
from weakref import ref

from placement.experience import Experience, learn
from placement.futures import Copy, Futures
from placement.looks import Look, SeenJob
from placement.moves import SETTLE_S
from placement.order import Order
from placement.predict import Predictor, RunTimes
from placement.race import Rules, Spent
from placement.steer import Errand, Steering

NOW = 1_000_000.0
FAR = NOW + 1e6


def seen(name, cores=4, asked_s=1000.0, came_s=-100.0, started_s=None, user="ann", ended_s=None):
    at = [None if each is None else NOW + each for each in (started_s, ended_s)]
    return SeenJob(name, cores, asked_s, NOW + came_s, user, user, *at)


def look(running=(), waiting=(), cores=4, ended=()):
    return Look(NOW, cores, tuple(running), tuple(waiting), tuple(ended))


def copy(place="a", cores=4, asked_s=1000.0, ready_s=0.0):
    return Copy("mine", place, cores, asked_s, NOW + ready_s, "us", "us")


def futures(a_look, draws=4, newcomers=(), order=None):
    return Futures(a_look, Predictor(RunTimes()), order or Order(), newcomers, draws)


def test_futures_that_nobody_holds_are_gone_without_the_collector():
    gc.disable()
    try:
        several = futures(look(running=[seen("a", started_s=-10.0)]), newcomers=[seen("b", came_s=-8 * 86_400.0 + 60)])
        several.starts_s(copy(), FAR)
        watched = ref(several)
        del several
        assert watched() is None
    finally:
        gc.enable()


def test_an_empty_place_starts_a_job_as_soon_as_it_is_there():
    assert futures(look()).starts_s(copy(ready_s=60), FAR) == (NOW + 60,) * 4


def test_a_busy_place_starts_it_between_now_and_the_end_of_the_walltime():
    starts = futures(look(running=[seen("r", started_s=-500)])).starts_s(copy(), FAR)
    assert all(NOW < start <= NOW + 500 for start in starts)
    assert len(set(starts)) > 1


def test_who_waits_already_goes_first():
    alone = futures(look(running=[seen("r", started_s=-500)])).starts_s(copy(), FAR)
    behind = futures(look(running=[seen("r", started_s=-500)], waiting=[seen("w")])).starts_s(copy(), FAR)
    assert all(later > sooner for later, sooner in zip(behind, alone, strict=True))


def test_an_unchanged_queue_gives_the_same_draws_and_the_order_of_running_jobs_does_not_matter():
    running = [seen("r", 2, started_s=-500), seen("s", 2, started_s=-100)]
    one, other = look(running), look(running[::-1])
    assert futures(one).starts_s(copy(), FAR) == futures(other).starts_s(copy(), FAR)


def test_who_would_have_started_is_not_first_where_the_order_shown_is_not_the_order_served():
    a_look = look([seen("r", 2, started_s=0)], [seen("long", 2, asked_s=9000.0), seen("wide", came_s=-50)])
    doubted = Order(contradicted=20)
    assert futures(a_look, order=doubted).starts_s(copy(cores=2, asked_s=100.0), FAR) == (NOW,) * 4
    assert min(futures(a_look).starts_s(copy(cores=2, asked_s=100.0), FAR)) > NOW


def test_a_job_that_starts_after_the_horizon_is_taken_to_start_then():
    assert futures(look(cores=2)).starts_s(copy(cores=4), NOW + 7) == (NOW + 7,) * 4


def test_jobs_of_ours_that_are_still_being_staged_count():
    coming = Look(NOW, 4, (), (), coming=(seen("ours", came_s=50),))
    assert max(futures(coming).starts_s(copy(ready_s=100), FAR)) > NOW + 100
    assert futures(coming).starts_s(copy(asked_s=40, ready_s=0), FAR) == (NOW,) * 4
    assert futures(coming).held_starts_s(["ours"], FAR)["ours"] == (NOW + 50,) * 4


def test_copies_in_line_are_seen_to_start():
    a_look = look(running=[seen("r", started_s=-500)], waiting=[seen("mine", user="us")])
    assert futures(a_look).held_starts_s(["mine"], FAR)["mine"] == futures(
        look(running=[seen("r", started_s=-500)])
    ).starts_s(copy(), FAR)


def test_who_came_a_week_ago_comes_again_and_may_be_ranked_before_us():
    week_s = 7 * 86_400.0
    came = [seen(f"c{n}", asked_s=86_400.0, came_s=100 - week_s * n, user="boss") for n in (1, 2, 3)]
    order = Order(offset_s={"boss": -1e5})
    quiet = futures(look(running=[seen("r", started_s=0)]), 3).starts_s(copy(), FAR)
    crowded = futures(look(running=[seen("r", started_s=0)]), 3, sorted(came, key=lambda j: j.submitted_s), order)
    assert max(crowded.starts_s(copy(), FAR)) > max(quiet)


def test_ten_thousand_jobs_of_one_shape_are_foreseen_without_playing_them_all():
    waiting = [seen(f"w{n}", cores=1, asked_s=3600.0, came_s=n - 20_000.0) for n in range(10_000)]
    starts_s = futures(look(waiting=waiting, cores=100)).starts_s(copy(cores=1), FAR)
    assert all(NOW + 3600 * 5 < start_s <= NOW + 3600 * 100 for start_s in starts_s)


def test_no_walltime_and_no_size_is_too_absurd():
    waiting = [
        seen("for ever", asked_s=float("inf")),
        seen("none", asked_s=0.0),
        seen("huge", cores=10**9),
        seen("empty", cores=0),
        seen("tomorrow", came_s=1e6),
    ]
    running = [seen("late", 2, asked_s=0.0, started_s=-1e6), seen("early", 2, started_s=1e6)]
    there = futures(look(running, waiting))
    assert all(NOW <= start_s <= FAR for start_s in there.starts_s(copy(), FAR))
    assert there.starts_s(copy(cores=10**9), FAR) == (FAR,) * 4


def test_a_place_without_cores_starts_nothing():
    there = futures(look(waiting=[seen("w")], cores=0))
    assert there.starts_s(copy(), FAR) == (FAR,) * 4
    assert there.held_starts_s(["w"], FAR)["w"] == (FAR,) * 4


def experience(**looks):
    return learn(Experience(), looks)


def errand(**ready_s):
    return Errand(id="mine", copies={place: copy(place, ready_s=at_s) for place, at_s in ready_s.items()})


def test_a_job_goes_where_it_ends_soonest():
    known = experience(a=look(running=[seen("r", started_s=-1)]), b=look())
    assert Steering(known, NOW, Rules()).place(errand(a=0, b=0), Spent()) == ("b",)
    assert Steering(known, NOW, Rules()).place(errand(a=0, b=5000), Spent()) == ("a",)


def test_a_job_that_waits_is_moved_where_it_starts_at_once():
    long_wait = look(running=[seen("r", asked_s=1e5, started_s=-1)], waiting=[seen("mine", user="us")])
    known = experience(a=long_wait, b=look())
    steering = Steering(known, NOW, Rules(submissions_per_job=1.3, moves=True))
    held = {"a": steering.held({"a": ["mine"]})["a"]["mine"]}
    here_or_there = errand(a=0, b=0)
    standing = here_or_there.standing(["a"], waited_s=SETTLE_S)
    assert steering.reconsider(here_or_there, standing, held, Spent(10, 10)).submit == ("b",)
    assert steering.reconsider(here_or_there, standing, held, Spent(10, 13)).submit == ()
    assert steering.reconsider(here_or_there, replace(standing, waited_s=0.0), held, Spent(10, 10)).submit == ()


def test_what_a_job_used_in_one_place_is_known_where_it_asks_for_less_for_it_is_faster():
    slow, fast = replace(look(), speed=0.5), replace(look(), speed=1.5)
    ended = [seen(f"e{n}", asked_s=6000.0, came_s=-900, started_s=-900, ended_s=-300, user="us") for n in range(30)]
    known = learn(Experience(), {"slow": replace(slow, ended=tuple(ended))})
    there = Futures(fast, Predictor(known.run_times), Order())
    same, other = (there.mean_run_s(copy(asked_s=asked_s)) for asked_s in (2000.0, 6000.0))
    assert 200 <= same < 260, "600 s at half the speed are 200 s at one and a half"
    assert other / 6000 > same / 2000, "who asks for another walltime is not as well known"


def test_a_job_that_vanishes_from_sight_is_taken_to_have_ended():
    before = Look(NOW - 200, 4, (seen("r", started_s=-500),), ())
    known = learn(learn(Experience(), {"a": before}), {"a": look()})
    assert known.run_times.by_user["ann"] == ((1000.0, 4, 0.4),)


def test_what_ended_is_learned_once():
    ended = seen("r", started_s=-500, ended_s=-100)
    before = Look(NOW - 200, 4, (seen("r", started_s=-500),), ())
    known = learn(learn(Experience(), {"a": before}), {"a": look(ended=[ended])})
    assert known.run_times.by_user["ann"] == ((1000.0, 4, 0.4),)
