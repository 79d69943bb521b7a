"""What a job finds in a queue, as numbers: right on queues that fit on a hand, and blind to the future."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from placement.features import FEATURES, described
from placement.queue_state import JobShape, QueueState, log_wait
from tests.placement.queues import DAY_S, Recorded, events, happen, played, random_queue, row

HOUR_S = 3600.0


def value(name, state, job=None, at_s=0.0):
    return described(state, job or JobShape(4, HOUR_S, "alice"), at_s)[FEATURES.index(name)]


def full_machine():
    """10 nodes, of which 8 run until one hour from now; two jobs of 4 and of 1 wait since 10 and 5 minutes."""
    state = QueueState(capacity=10)
    state.submitted("big", JobShape(8, 2 * HOUR_S, "bob"), -HOUR_S)
    state.started("big", "bob", -HOUR_S)
    state.submitted("first", JobShape(4, HOUR_S, "carol"), -600)
    state.submitted("second", JobShape(1, 600, "alice"), -300)
    return state


def test_the_row_has_a_finite_number_for_every_name_even_in_an_empty_queue():
    found = described(QueueState(), JobShape(1, 60, "alice"), 0.0)
    assert found.shape == (len(FEATURES),) == (len(set(FEATURES)),)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("free", 0.2),
        ("room", -0.2),
        ("room_behind_all", -0.7),
        ("head_waits", 1),
        ("shadow", math.log1p(HOUR_S)),
        ("start_alone_late", math.log1p(HOUR_S)),
        ("fits_beside", 0),
        ("waiting", math.log1p(2)),
        ("running", math.log1p(1)),
        ("waiting_not_larger", math.log1p(2)),
        ("oldest", log_wait(600)),
        ("easier_oldest", log_wait(600)),
        ("easier_youngest", log_wait(300)),
        ("own_waiting", math.log1p(1)),
        ("own_oldest", log_wait(300)),
        ("same_waiting", 0),
        ("own_running", 0),
        ("last_5", log_wait(0)),
        ("start_ago", math.log1p(HOUR_S)),
        ("work_last_hour", math.log1p((4 * HOUR_S + 600) * 0.4 / 10)),
    ],
)
def test_a_number_says_what_its_name_promises(name, expected):
    assert value(name, full_machine()) == pytest.approx(expected)


def test_a_short_job_fits_beside_the_first_in_line_and_a_long_one_only_on_what_is_left_over():
    state = full_machine()
    assert value("fits_beside", state, JobShape(2, HOUR_S / 2, "dora")) == 1
    assert value("fits_beside", state, JobShape(2, 9 * HOUR_S, "dora")) == 1, "6 nodes are left over beside the first"
    assert value("fits_beside", state, JobShape(3, 60, "dora")) == 0, "only 2 are free"


def test_a_user_who_ends_early_is_expected_to_do_so_again():
    state = QueueState(capacity=10)
    for name, ran_s in (("a", 360), ("b", 720)):
        state.submitted(name, JobShape(1, HOUR_S, "alice"), 0.0)
        state.started(name, "alice", 0.0)
        state.ended(name, "alice", ran_s)
    assert state.expected_run_s(JobShape(1, 2 * HOUR_S, "alice")) == pytest.approx(0.15 * 2 * HOUR_S)
    assert state.expected_run_s(JobShape(1, 2 * HOUR_S, "bob")) > 0.3 * 2 * HOUR_S


def test_who_used_much_lately_has_the_higher_usage_and_it_is_forgiven():
    state = QueueState(capacity=10)
    state.submitted("a", JobShape(10, DAY_S, "alice"), 0.0)
    state.started("a", "alice", 0.0)
    state.submitted("b", JobShape(1, DAY_S, "bob"), 1000 * DAY_S)
    state.started("b", "bob", 1000 * DAY_S)
    assert value("own_usage", state, JobShape(1, 60, "alice"), 1001 * DAY_S) < 1e-6
    assert value("own_usage", state, JobShape(1, 60, "bob"), 1001 * DAY_S) > 0.99


def test_what_is_withdrawn_or_never_seen_leaves_no_trace_in_the_counts():
    state = full_machine()
    state.ended("second", "alice", 0.0)
    state.ended("never seen", "alice", 0.0)
    state.started("never seen either", "alice", 0.0)
    assert value("own_waiting", state) == 0
    assert value("waiting", state) == pytest.approx(math.log1p(1))
    assert value("running", state) == pytest.approx(math.log1p(1))


@pytest.mark.parametrize("seed", range(5))
def test_changing_the_future_changes_nothing(seed):
    jobs = random_queue(seed)
    for job in jobs[50::60]:
        now_s = job.submit_at_s
        other = [_with_another_future(each, now_s) for each in jobs if each.submit_at_s <= now_s]
        assert np.array_equal(row(jobs, job), row(other, other[jobs.index(job)]))


def _with_another_future(job: Recorded, now_s: float) -> Recorded:
    """Whatever of the job is later than now comes at another time."""
    start_at_s = job.start_at_s if job.start_at_s <= now_s else now_s + 7 * (job.start_at_s - now_s) + 99
    end_at_s = job.end_at_s if job.end_at_s <= now_s else max(start_at_s, now_s) + 12_345
    return replace(job, start_at_s=start_at_s, end_at_s=end_at_s)


def test_looking_at_a_queue_does_not_change_it():
    looked_at, left_alone = QueueState(), QueueState()
    for at_s, what, job in events(random_queue(7)):
        described(looked_at, JobShape(2, HOUR_S, "a stranger"), at_s)
        happen(looked_at, what, job, at_s)
        happen(left_alone, what, job, at_s)
        found = (described(state, job.shape, at_s) for state in (looked_at, left_alone))
        assert np.array_equal(*found)


@pytest.mark.parametrize("seed", range(3))
def test_what_came_has_gone_when_all_have_ended(seed):
    state = played(random_queue(seed))
    assert len(state.waiting) == len(state.running) == 0
    assert state.used == pytest.approx(0)
    assert all((user.waiting_jobs, user.running_jobs) == (0, 0) for user in state.users.values())
    assert state.capacity >= 32
