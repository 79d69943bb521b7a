"""The figures of ``bench.waits`` are what they say: records are read as written, and nothing is known early."""

from __future__ import annotations

import gzip
from dataclasses import replace

import numpy as np
import pytest

from bench.waits import bound, log_error, of_traces
from bench.waits_replay import Said, days, replayed, seen, told, windows
from bench.waits_traces import Job, Trace, generated, in_order, read_swf, read_waits, swf_traces, wait_records
from placement.queue_state import RUN, WALLTIME, JobShape, QueueState
from placement.waits import WaitModel

SWF = """\
; MaxProcs: 128
; Note: a line that says nothing
 2 100 50 600 4 -1 -1 8 500 -1 1 7 1 1 1 -1 -1 -1
 1  10  0 300 -1 -1 -1 2 400 -1 1 7 1 1 1 -1 -1 -1
 3 110  5   0 4 -1 -1 4 400 -1 0 8 1 1 1 -1 -1 -1
 4 120 -1 300 4 -1 -1 4 400 -1 0 8 1 1 1 -1 -1 -1
"""


def test_a_trace_is_read_without_the_jobs_that_never_ran_and_with_runs_cut_at_the_request(tmp_path):
    (tmp_path / "small.swf").write_text(SWF)
    first, second = read_swf(tmp_path / "small.swf").jobs
    assert first == Job(JobShape(2, 400, 7), 10, 10, 310)
    assert second == Job(JobShape(4, 500, 7), 100, 150, 650)
    assert read_swf(tmp_path / "small.swf").capacity == 128


def test_a_folder_gives_its_traces_with_waits_packed_or_not(tmp_path):
    (tmp_path / "b.swf").write_text(SWF)
    (tmp_path / "a.swf.gz").write_bytes(gzip.compress(SWF.encode()))
    (tmp_path / "c.swf").write_text(SWF.replace(" 50 ", "  0 "))
    (tmp_path / "README.md").write_text("no trace")
    assert [trace.name for trace in swf_traces(tmp_path)] == ["a", "b"]


def test_recorded_waits_are_read(tmp_path):
    (tmp_path / "month.csv").write_text(
        "job,user,submit_at,start_at,end_at,nodes,cpus,walltime_min\n5,3,1000,1060,2000,2,96,30\n"
    )
    (job,) = next(wait_records(tmp_path)).jobs
    assert job == Job(JobShape(2, 1800, "3"), 1000, 1060, 2000)
    assert read_waits(tmp_path / "month.csv").capacity is None


def test_the_generated_machine_never_runs_more_than_it_has_and_starts_nobody_early():
    trace = generated(800)
    used = peak = 0.0
    for at_s, size in sorted(
        [(job.end_at_s, -job.shape.size) for job in trace.jobs]
        + [(job.start_at_s, job.shape.size) for job in trace.jobs]
    ):
        used += size
        peak = max(peak, used)
        assert used <= 64, at_s
    assert peak > 50
    assert all(job.wait_s >= 0 for job in trace.jobs)
    assert np.mean([job.wait_s > 600 for job in trace.jobs]) > 0.3


def test_events_come_in_the_order_of_time_and_of_a_jobs_life():
    jobs = [Job(JobShape(1, 60, "a"), 0, 5, 5), Job(JobShape(1, 60, "a"), 5, 5, 9)]
    assert in_order(jobs) == [(0, 1, 0), (5, 1, 1), (5, 2, 0), (5, 2, 1), (5, 3, 0), (9, 0, 1)]


def test_what_is_told_in_a_window_does_not_change_with_what_comes_after_it():
    trace = generated(500)
    counts = days((0.0, trace.jobs[350].submit_at_s))
    later = [_later(job, trace.jobs[349].submit_at_s) for job in trace.jobs]
    other = replace(trace, jobs=tuple(later))
    both = [told(WaitModel(), each, seen(each, counts), counts, lambda _: True) for each in (trace, other)]
    for name in both[0].p50_s:
        assert np.array_equal(both[0].p50_s[name], both[1].p50_s[name], equal_nan=True), name
    for name in both[0].p90_s:
        assert np.array_equal(both[0].p90_s[name], both[1].p90_s[name], equal_nan=True), name


def _later(job: Job, now_s: float) -> Job:
    """What happens to the job after now happens three hours later."""
    return replace(
        job,
        start_at_s=job.start_at_s + (10_800 if job.start_at_s > now_s else 0),
        end_at_s=job.end_at_s + (10_800 if job.end_at_s > now_s else 0),
    )


def test_a_generated_trace_is_predicted_better_than_by_the_baselines():
    ((_, said, _),) = of_traces([generated()])
    error_s = {name: np.nanmean(np.abs(said.waits_s - values)) for name, values in said.p50_s.items()}
    assert error_s["berth"] < 0.7 * min(value for name, value in error_s.items() if name != "berth")
    assert 0.8 < bound(said, "berth")[0] < 0.97


def test_windows_begin_at_their_share_of_the_trace_or_earlier_by_the_lead():
    trace = Trace("t", (Job(JobShape(1, 1, "a"), 100, 100, 101), Job(JobShape(1, 1, "a"), 1100, 1100, 1101)), None)
    counts, fits = windows(trace, (0.5,), 100), windows(trace, (0.5,), 100, lead_s=50)
    assert [counts(at_s) for at_s in (599, 600, 699, 700)] == [False, True, True, False]
    assert [fits(at_s) for at_s in (549, 550, 699, 700)] == [False, True, True, False]


def test_a_replay_plans_who_waits_before_the_job():
    state = QueueState(capacity=10)
    state.submitted("runs", JobShape(10, 1000, "a"), 0.0)
    state.started("runs", "a", 0.0)
    state.submitted("waits", JobShape(8, 500, "a"), 10.0)
    assert replayed(state, JobShape(4, 300, "b"), 100.0, WALLTIME) == pytest.approx(900 + 500)
    assert replayed(state, JobShape(2, 300, "b"), 100.0, WALLTIME) == pytest.approx(900)
    assert replayed(state, JobShape(4, 300, "b"), 100.0, RUN) == pytest.approx(300 + 0.4 * 500)


def test_the_figures_of_a_bound_are_taken_over_the_jobs_that_both_bound():
    said = Said(np.array([10.0, 20.0, 30.0]))
    said.p90_s = {"berth": np.array([15.0, 15.0, 15.0]), "hist-median": np.array([np.nan, 40.0, 40.0])}
    assert bound(said, "berth") == (0.0, 15.0, 2)
    assert bound(said, "hist-median") == (1.0, 40.0, 2)


def test_the_log_error_counts_a_factor_the_same_both_ways():
    assert log_error(np.array([0.0]), np.array([60.0])) == pytest.approx(np.log(2))
    assert log_error(np.array([60.0]), np.array([0.0])) == pytest.approx(np.log(2))
