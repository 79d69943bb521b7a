"""A queue as looks from outside show it, and what its jobs teach: everyone's starts, not only ours."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from datetime import datetime

import numpy as np

from placement.features import described
from placement.lessons import Fit, Past
from placement.queue_state import JobShape, QueueState
from placement.waits import FIRST_FIT_JOBS, LEARNERS, WaitForecast, WaitModel
from placement.words import count
from scheduler.model.plan import Term
from scheduler.model.snapshots import SystemSnapshot, VisibleJob

STRANGER = ""
"""Our users by their names on the system are not known here: a job is forecast as that of a new user."""


class WatchedQueue:
    """One partition: its state and its wait model, moved from look to look. Sizes are cores. One owner."""

    def __init__(self, partition: str, learners: Mapping[str, Fit] = LEARNERS, pooled: Past | None = None) -> None:
        """``pooled``: what other queues taught, until this one has seen enough."""
        self.model = WaitModel(learners, pooled)
        self._partition = partition
        self._state = QueueState()
        self._waiting: dict[Hashable, JobShape] = {}
        self._running: dict[Hashable, JobShape] = {}
        self._looked_at_s: float | None = None

    def look(self, snapshot: SystemSnapshot) -> None:
        """Learn what happened since the last look. A look that is older than the last one teaches nothing.

        Who was waiting and is gone may have run in between or been withdrawn: nothing is learnt of its wait. A look
        that was cut short says nothing of who is missing.
        """
        at_s = snapshot.taken_at.timestamp()
        if self._looked_at_s is not None and at_s <= self._looked_at_s:
            return
        jobs = {job.remote_id: job for job in snapshot.jobs if job.partition == self._partition}
        if snapshot.is_whole:
            self._let_go(jobs, at_s)
        for job in sorted(jobs.values(), key=lambda job: (_seconds(job.submitted_at, at_s), job.remote_id)):
            if job.remote_id not in self._waiting and job.remote_id not in self._running:
                self._meet(job, at_s)
            if job.running and job.remote_id in self._waiting:
                self._start(job, at_s)
        self._looked_at_s = at_s

    def forecast(self, job: JobShape, at_s: float) -> WaitForecast:
        """What a job that joins now is told; the queue stays as it is."""
        return self.model.forecast(described(self._state, job, at_s).astype(np.float32))

    def term(self, size: float, walltime_s: float, at_s: float) -> Term | None:
        """The forecast for a job of ours in words, once there were starts enough to learn from."""
        if self.model.known_jobs < FIRST_FIT_JOBS:
            return None
        said = self.forecast(JobShape(size, walltime_s, STRANGER), at_s)
        source = f"learnt from {count(said.known_jobs, 'start')} there"
        if said.coverage_share is not None:
            source += f"; {said.coverage_share:.0%} of the last p90 held"
        return Term(said.p50_s, said.p90_s, source)

    def _let_go(self, jobs: Mapping[str, VisibleJob], at_s: float) -> None:
        for gone in [job_id for job_id in self._running if job_id not in jobs]:
            self._state.ended(gone, self._running.pop(gone).user, at_s)
        for gone in [job_id for job_id in self._waiting if job_id not in jobs]:
            self._state.ended(gone, self._waiting.pop(gone).user, at_s)
            self.model.withdrawn(gone)

    def _meet(self, job: VisibleJob, at_s: float) -> None:
        """A job not seen before. What it found is known unless it was there before the first look."""
        shape = JobShape(float(max(1, job.cores)), float(max(1, job.walltime_s)), job.user)
        submitted_at_s = min(at_s, _seconds(job.submitted_at, at_s))
        if self._looked_at_s is not None and submitted_at_s >= self._looked_at_s:
            row = described(self._state, shape, submitted_at_s).astype(np.float32)
            self.model.asked(job.remote_id, row, submitted_at_s, self.model.forecast(row))
        self._state.submitted(job.remote_id, shape, submitted_at_s)
        self._waiting[job.remote_id] = shape

    def _start(self, job: VisibleJob, at_s: float) -> None:
        shape = self._waiting.pop(job.remote_id)
        started_at_s = min(at_s, _seconds(job.started_at, at_s))
        self._state.started(job.remote_id, shape.user, started_at_s)
        self.model.started(job.remote_id, started_at_s)
        self._running[job.remote_id] = shape


def _seconds(at: datetime | None, otherwise_s: float) -> float:
    return otherwise_s if at is None else at.timestamp()
