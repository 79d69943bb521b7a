"""Recorded queues told again, event by event: what every predictor would have said at each submit, knowing no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bench.waits_traces import START, SUBMIT, Job, Trace, in_order
from placement.easy import Cluster, Load
from placement.features import FEATURES, described
from placement.futures import LONGEST_S
from placement.played import Played
from placement.queue_state import RUN, SINCE, SIZE, WALLTIME, Floats, JobShape, QueueState
from placement.recent import RecentWaits
from placement.waits import WaitModel

DAY_S = 86_400.0

BATCH_ROWS = 512
"""Jobs whose fitted answers are asked for at once; they hold until the next refit."""

PROBES = 600
"""Jobs of a trace for which its queue is replayed, evenly spread: a replay costs milliseconds."""

Window = Callable[[float], bool]
"""Whether a submit at this instant counts."""


@dataclass(slots=True)
class Said:
    """What was said of the jobs that count, and what came; seconds, shape (jobs,) each. nan: nothing was said."""

    waits_s: Floats
    p50_s: dict[str, Floats] = field(default_factory=dict)
    p90_s: dict[str, Floats] = field(default_factory=dict)

    def joined(self, other: Said) -> Said:
        """Both, one after the other."""
        both = Said(np.concatenate([self.waits_s, other.waits_s]))
        both.p50_s = {name: np.concatenate([self.p50_s[name], other.p50_s[name]]) for name in self.p50_s}
        both.p90_s = {name: np.concatenate([self.p90_s[name], other.p90_s[name]]) for name in self.p90_s}
        return both


@dataclass(frozen=True, slots=True)
class Seen:
    """What each job found, and what the baselines said of it."""

    rows: npt.NDArray[np.float32]
    median_s: Floats
    bound_s: Floats
    replayed_s: dict[str, Floats]


def seen(trace: Trace, counts: Window) -> Seen:
    """The features of every job, and the baselines, in one pass."""
    jobs, state, recent = trace.jobs, QueueState(trace.capacity), RecentWaits()
    rows = np.zeros((len(jobs), len(FEATURES)), np.float32)
    median_s, bound_s = np.full(len(jobs), np.nan), np.full(len(jobs), np.nan)
    replayed_s = {name: np.full(len(jobs), np.nan) for name in ("sim-user", "sim-pred")}
    chosen = np.array([index for index, job in enumerate(jobs) if counts(job.submit_at_s)])
    probes = set(chosen[:: max(1, len(chosen) // PROBES)].tolist())
    for at_s, what, index in in_order(jobs):
        job = jobs[index]
        if what == SUBMIT:
            rows[index] = described(state, job.shape, at_s)
            median_s[index] = _known(recent.quantile_s(job.shape.size, 0.5))
            bound_s[index] = _known(recent.bound_s(job.shape.size, 0.9))
            if index in probes:
                replayed_s["sim-user"][index] = replayed(state, job.shape, at_s, WALLTIME)
                replayed_s["sim-pred"][index] = replayed(state, job.shape, at_s, RUN)
        elif what == START:
            recent.learn(job.shape.size, job.wait_s)
        _happen(state, what, index, job, at_s)
    return Seen(rows, median_s, bound_s, replayed_s)


def _known(value: float | None) -> float:
    return np.nan if value is None else value


def _happen(state: QueueState, what: int, index: int, job: Job, at_s: float) -> None:
    if what == SUBMIT:
        state.submitted(index, job.shape, at_s)
    elif what == START:
        state.started(index, job.shape.user, at_s)
    else:
        state.ended(index, job.shape.user, at_s)


def replayed(state: QueueState, job: JobShape, at_s: float, runs: int) -> float:
    """When the job would start if nobody came after it and the queue were served by submission (EASY), in seconds.

    runs: WALLTIME or RUN, the column that says how long jobs run; reservations are made from walltimes either way.
    """
    running, waiting = state.running.columns, state.waiting.columns
    cluster = Cluster(max(int(state.capacity), int(state.used)), at_s)
    left_s = running[SINCE] + running[runs] - at_s
    late_s = np.minimum(running[SINCE] + running[WALLTIME], at_s + (at_s - running[SINCE])) - at_s
    ran_s = at_s - running[SINCE]
    run_s = ran_s + np.maximum(1.0, np.where(left_s > 0, left_s, late_s))
    for row, since_s in enumerate(running[SINCE].tolist()):
        walltime_s = max(float(running[WALLTIME, row]), float(run_s[row]))
        size = int(running[SIZE, row])
        cluster.run(Load(f"running {row}", size, walltime_s, float(run_s[row]), since_s, since_s), since_s)
    for row, since_s in enumerate(waiting[SINCE].tolist()):
        size, walltime_s = int(waiting[SIZE, row]), float(waiting[WALLTIME, row])
        cluster.enter(Load(f"waiting {row}", size, walltime_s, float(waiting[runs, row]), since_s, since_s), at_s)
    cluster.advance(at_s)
    asked = Load("asked", int(job.size), job.walltime_s, job.walltime_s, at_s, at_s)
    return Played(cluster, depth=cluster.in_line + 1).start_among_s(asked, at_s, at_s + LONGEST_S) - at_s


def told(model: WaitModel, trace: Trace, found: Seen, counts: Window, refits: Window) -> Said:
    """Play the trace to a model, which may have learnt from other traces before."""
    jobs = trace.jobs
    p50_s, p90_s = np.full(len(jobs), np.nan), np.full(len(jobs), np.nan)
    answers_s, first = model.answers_s(found.rows[:0]), 0
    for at_s, what, index in in_order(jobs):
        name = (trace.name, index)
        if what == START:
            model.started(name, at_s)
        if what != SUBMIT:
            continue
        stale = refits(at_s) and model.wants_refit(at_s)
        if stale:
            model.refit(at_s)
        if stale or index >= first + len(answers_s):
            answers_s, first = model.answers_s(found.rows[index : index + BATCH_ROWS]), index
        forecast = model.forecast(found.rows[index], at_s, answers_s[index - first])
        model.asked(name, found.rows[index], at_s, forecast)
        p50_s[index], p90_s[index] = forecast.p50_s, forecast.p90_s
    chosen = np.array([counts(job.submit_at_s) for job in jobs])
    waits_s = np.array([job.wait_s for job in jobs])[chosen]
    said = Said(waits_s)
    said.p50_s = {
        "zero": np.zeros(len(waits_s)),
        "hist-median": found.median_s[chosen],
        **{name: values[chosen] for name, values in found.replayed_s.items()},
        "berth": p50_s[chosen],
    }
    said.p90_s = {"hist-median": found.bound_s[chosen], "berth": p90_s[chosen]}
    return said


def days(*spans: tuple[float, float]) -> Window:
    """Instants in one of the spans of seconds."""
    return lambda at_s: any(first <= at_s < last for first, last in spans)


def windows(trace: Trace, shares: Sequence[float], length_s: float, lead_s: float = 0.0) -> Window:
    """Spans of a trace that begin at these shares of it, and ``lead_s`` earlier."""
    begins = [trace.begins_at_s + share * trace.span_s for share in shares]
    return days(*((at_s - lead_s, at_s + length_s) for at_s in begins))
