"""Recorded queues for ``bench.waits``: readers of two formats, and a queue made up where there is no record."""

from __future__ import annotations

import csv
import heapq
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from backends.swf import SwfJob
from bench.logs import logs_in, name_of, opened, read_log
from placement.queue_state import JobShape


@dataclass(frozen=True, slots=True)
class Job:
    """One job as accounting tells it; instants in seconds on the record's clock."""

    shape: JobShape
    submit_at_s: float
    start_at_s: float
    end_at_s: float

    @property
    def wait_s(self) -> float:
        return self.start_at_s - self.submit_at_s


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs by submit time. ``capacity``: processors or nodes; None where the record does not say."""

    name: str
    jobs: tuple[Job, ...]
    capacity: float | None

    @property
    def begins_at_s(self) -> float:
        return self.jobs[0].submit_at_s

    @property
    def span_s(self) -> float:
        return self.jobs[-1].submit_at_s - self.begins_at_s


def swf_traces(folder: Path) -> Iterator[Trace]:
    """Every log in the Standard Workload Format in which waits are recorded."""
    for path in logs_in(folder):
        trace = read_swf(path)
        if any(job.wait_s > 0 for job in trace.jobs):
            yield trace


def read_swf(path: Path) -> Trace:
    """A log in the Standard Workload Format. Jobs that never ran are left out; none runs longer than it asked for."""
    log = read_log(path)
    jobs = (_job_of(job) for job in log.jobs if job.run_s > 0 and job.wait_s >= 0 and _size(job) > 0)
    by_submit = sorted(jobs, key=lambda job: job.submit_at_s)
    return Trace(name_of(path), tuple(by_submit), float(log.cores) if log.cores else None)


def _job_of(job: SwfJob) -> Job:
    walltime_s = job.asked_s if job.asked_s > 0 else job.run_s
    start_at_s = job.submit_s + job.wait_s
    shape = JobShape(float(_size(job)), walltime_s, job.user)
    return Job(shape, job.submit_s, start_at_s, start_at_s + min(job.run_s, walltime_s))


def _size(job: SwfJob) -> int:
    return job.used_cores if job.used_cores > 0 else job.asked_cores


def wait_records(folder: Path) -> Iterator[Trace]:
    """Every ``*.csv`` and ``*.csv.gz``: one month of one queue each, in the order of their names."""
    for path in logs_in(folder, ".csv"):
        yield read_waits(path)


def read_waits(path: Path) -> Trace:
    """Columns submit_at, start_at, end_at (seconds), nodes, walltime_min, user."""
    with opened(path) as lines:
        jobs = [
            Job(
                JobShape(float(row["nodes"]), 60 * float(row["walltime_min"]), row["user"]),
                float(row["submit_at"]),
                float(row["start_at"]),
                float(row["end_at"]),
            )
            for row in csv.DictReader(lines)
        ]
    return Trace(name_of(path), tuple(sorted(jobs, key=lambda job: job.submit_at_s)), None)


def generated(jobs: int = 2500, capacity: int = 64, seed: int = 1) -> Trace:
    """First come, first served on one machine; users ask for about twice what they need."""
    dice = random.Random(seed)
    ends: list[tuple[float, int]] = []
    free, at_s, start_at_s = capacity, 0.0, 0.0
    made = []
    for _ in range(jobs):
        at_s += dice.expovariate(1 / 1500) * (0.4 if at_s % 86_400 > 43_200 else 1.6)
        user, size = dice.randrange(12), 2 ** dice.randrange(6)
        run_s = 60 + dice.lognormvariate(7.5 + user / 12, 1.0)
        start_at_s = max(at_s, start_at_s)
        while ends and (ends[0][0] <= start_at_s or free < size):
            end_at_s, freed = heapq.heappop(ends)
            free, start_at_s = free + freed, max(start_at_s, end_at_s)
        free -= size
        heapq.heappush(ends, (start_at_s + run_s, size))
        asked_s = 600.0 * math.ceil(run_s * (1.2 + 2 * dice.random()) / 600)
        made.append(Job(JobShape(float(size), asked_s, user), at_s, start_at_s, start_at_s + run_s))
    return Trace("generated", tuple(made), float(capacity))


def in_order(jobs: Iterable[Job]) -> list[tuple[float, int, int]]:
    """(instant, what, index of the job) in the order of time; at one instant ends come first and starts last."""
    events = []
    for index, job in enumerate(jobs):
        at_once = job.end_at_s <= job.start_at_s
        events += [
            (job.submit_at_s, SUBMIT, index),
            (job.start_at_s, START, index),
            (max(job.start_at_s, job.end_at_s), END_AT_ONCE if at_once else END, index),
        ]
    return sorted(events)


END, SUBMIT, START, END_AT_ONCE = range(4)
