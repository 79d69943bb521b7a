"""A queue learnt from looks at it: everyone's starts teach, what was not seen does not."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

import placement.watched
from placement.evidence import Evidence
from placement.problem import PlaceKey, PlaceOption
from placement.queue_state import JobShape
from placement.queue_wait import queue_wait
from placement.waits import NO_HISTORY_S
from placement.watched import WatchedQueue
from scheduler.model.snapshots import Sighting
from scheduler.model.systems import UNLIMITED
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


# -- lived through again, out of what is remembered --


def remembered(number, submitted, started=None, ended=None, **changes):
    """A job by the minutes in which things happened to it."""
    instants = {
        name: None if minute is None else NOW + timedelta(minutes=minute)
        for name, minute in (("submitted_at", submitted), ("started_at", started), ("ended_at", ended))
    }
    known = {"partition": "cpu", "cores": 4, "walltime_s": 3600, "user": "bob", "seen_at": NOW}
    return Sighting(remote_id=str(number), **{**known, **instants, **changes})


def replayed(jobs, learners=None):
    found = WatchedQueue("cpu", learners or always(600, 1200))
    found.replay(jobs)
    return found


STEADY = [remembered(n, 20 * n, 20 * n + 10, 20 * n + 40) for n in range(300)]


def test_what_is_remembered_is_learnt_with_scores_and_coverage():
    found = replayed(STEADY)
    said = found.forecast(JOB, at_s(6000))
    assert (said.known_jobs, said.p50_s) == (300, pytest.approx(600, rel=0.01))
    assert said.coverage_share is not None
    assert not np.isnan(said.answers_s).any(), "it was fitted on the way"


def test_the_order_in_which_rows_come_does_not_matter():
    shuffled = random.Random(1).sample(STEADY, len(STEADY))
    one, other = (replayed(jobs).forecast(JOB, at_s(6000)) for jobs in (STEADY, shuffled))
    assert (one.p50_s, one.p90_s, one.coverage_share) == (other.p50_s, other.p90_s, other.coverage_share)


def test_a_queue_that_looks_showed_is_the_same_when_it_is_lived_through_again():
    looked, again = (
        watched(starts=40, wait_minutes=7),
        replayed(
            [
                remembered(
                    n,
                    20 * n + 1,
                    20 * n + 8,
                    20 * (n + 1) + 5,
                    user=waiting().user,
                    cores=waiting().cores,
                    walltime_s=waiting().walltime_s,
                )
                for n in range(40)
            ]
        ),
    )
    said = [found.forecast(JOB, at_s(1000)) for found in (looked, again)]
    assert said[0].known_jobs == said[1].known_jobs == 40
    assert said[0].p50_s == pytest.approx(said[1].p50_s, rel=0.05)


def test_looks_go_on_from_what_is_remembered():
    found = replayed([remembered(7, 1)])
    found.look(look(5, seen_waiting(7, 1)))
    found.look(look(10, seen_running(7, 1, 9)))
    assert found.model.known_jobs == 1


def test_only_the_newest_jobs_teach_but_all_of_them_move_the_queue(monkeypatch):
    monkeypatch.setattr(placement.watched, "WINDOW_JOBS", 50)
    found = replayed([*STEADY, remembered("still there", 6000, 6001)])
    assert found.model.known_jobs == 50
    assert found.forecast(JobShape(4.0, 3600.0, "bob"), at_s(6002)).p50_s > 0


@pytest.mark.parametrize(
    "jobs",
    [
        [],
        [remembered(1, 10, None, 20)],
        [remembered(1, 10, 20, 30, partition="gpu")],
        [remembered(1, 10)],
    ],
    ids=["none", "withdrawn", "of another queue", "waiting still"],
)
def test_who_did_not_start_here_teaches_nothing(jobs):
    found = replayed(jobs)
    assert found.model.known_jobs == 0
    assert found.forecast(JOB, at_s(60)).p50_s == NO_HISTORY_S[0]


@pytest.mark.parametrize(
    "odd",
    [
        remembered(900, 10, 5, 2),
        remembered(900, 10, 10, 10),
        remembered(900, 10, 20, 15),
        remembered(900, 10, 20, 30, cores=0, walltime_s=0, user=""),
        remembered(900, 10, 20, 30, cores=10**9, walltime_s=UNLIMITED),
        remembered(900, -(10**7), 20, 30),
    ],
    ids=["clock went back", "all at once", "ended before it began", "no size", "no limit", "waited for years"],
)
def test_odd_jobs_are_lived_through_and_leave_answers_that_are_numbers(odd):
    found = replayed([odd, *STEADY, replace(odd, submitted_at=NOW + timedelta(minutes=7000), started_at=None)])
    said = found.forecast(JOB, at_s(8000))
    assert np.isfinite([said.p50_s, said.p90_s]).all()
    assert said.known_jobs == 301


def test_a_number_that_the_site_uses_again_is_another_job():
    found = replayed([remembered(1, 10, 20), remembered(1, 5000, 5010, 5020)])
    assert found.model.known_jobs == 2


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
