"""A queue learnt from looks at it: everyone's starts teach, what was not seen does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from placement.estimate import Evidence, queue_wait
from placement.problem import PlaceKey, PlaceOption
from placement.queue_state import JobShape
from placement.watched import WatchedQueue
from tests.placement.worlds import NOW, cluster, nodes, problem, queue, running, snapshot, spec, view, waiting

JOB = JobShape(4.0, 3600.0, "")


def always(p50_s, p90_s):
    return {"one": lambda past: lambda found: np.tile([p50_s, p90_s], (len(found), 1))}


def look(minute, *jobs, **changes):
    return replace(snapshot(nodes(), jobs=jobs, **changes), taken_at=NOW + timedelta(minutes=minute))


def seen_waiting(number, minute):
    return replace(waiting(remote_id=str(number)), submitted_at=NOW + timedelta(minutes=minute))


def seen_running(number, submitted, started):
    at = NOW + timedelta(minutes=started)
    return replace(running(remote_id=str(number)), submitted_at=NOW + timedelta(minutes=submitted), started_at=at)


def watched(starts=0, wait_minutes=10):
    """A queue in which job after job was seen to wait so long."""
    found = WatchedQueue("cpu", always(600, 1200))
    found.look(look(0))
    for number in range(starts):
        found.look(look(20 * number + 5, seen_waiting(number, 20 * number + 1)))
        found.look(look(20 * number + 18, seen_running(number, 20 * number + 1, 20 * number + 1 + wait_minutes)))
    return found


def at_s(minute):
    return (NOW + timedelta(minutes=minute)).timestamp()


def test_a_start_between_two_looks_is_learnt_with_its_true_wait():
    found = watched(starts=5, wait_minutes=7)
    assert found.model.known_jobs == 5
    assert found.forecast(JOB, at_s(120)).p50_s == pytest.approx(420)


def test_who_is_gone_without_a_start_seen_teaches_nothing():
    found = watched()
    found.look(look(5, seen_waiting(1, 2)))
    found.look(look(10))
    found.look(look(15, seen_running(1, 2, 3)))
    assert found.model.known_jobs == 0


def test_who_was_there_before_the_first_look_is_counted_but_not_learnt():
    found = WatchedQueue("cpu", always(600, 1200))
    found.look(look(5, seen_waiting(1, 2)))
    found.look(look(10, seen_running(1, 2, 8)))
    assert found.model.known_jobs == 0


def test_a_look_from_before_the_last_one_is_passed_over():
    found = watched(starts=3)
    before = found.forecast(JOB, at_s(100))
    found.look(look(1, *(seen_waiting(n, 0) for n in range(50, 90))))
    assert found.forecast(JOB, at_s(100)).p50_s == before.p50_s


def test_a_look_that_was_cut_short_lets_nobody_go():
    found = watched()
    found.look(look(5, seen_waiting(1, 2)))
    found.look(look(10, jobs_total=50))
    found.look(look(15, seen_running(1, 2, 12)))
    assert found.model.known_jobs == 1
    assert found.forecast(JOB, at_s(20)).known_jobs == 1


def test_jobs_of_other_partitions_are_not_of_this_queue():
    found = watched()
    found.look(look(5, replace(seen_waiting(1, 2), partition="gpu")))
    found.look(look(15, replace(seen_running(1, 2, 12), partition="gpu")))
    assert found.model.known_jobs == 0


# -- as an estimator --

CPU = queue("cpu")
FULL = snapshot(
    nodes(free=0, free_cores=0),
    jobs=(*(running(remote_id=str(n)) for n in range(4)), waiting(remote_id="9", cores=16)),
)


def wait(queue_watched, age_s=10):
    place = PlaceOption(view(cluster("alder", CPU), replace(FULL, taken_at=NOW - timedelta(seconds=age_s))), CPU)
    asked = problem((), place.view, watched={PlaceKey("alder", "cpu"): queue_watched})
    return queue_wait(spec(), place, Evidence.of(asked))


def test_a_queue_that_was_watched_long_enough_speaks_and_says_how_often_it_was_right():
    term = wait(watched(starts=120))
    assert term.p50_s == pytest.approx(600)
    assert term.source.startswith("learnt from 120 starts there; ")
    assert term.source.endswith("% of the last p90 held")


def test_an_old_look_widens_what_was_learnt():
    queue_watched = watched(starts=120)
    assert wait(queue_watched, age_s=1800).p90_s == pytest.approx(wait(queue_watched, age_s=10).p90_s + 1790)
    assert "30 min ago" in wait(queue_watched, age_s=1800).source


def test_a_queue_that_was_hardly_watched_leaves_the_word_to_the_others():
    assert "replay" in wait(watched(starts=20)).source
