"""A queue as looks from outside show it, and what its jobs teach: everyone's starts, not only ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import IntEnum

import numpy as np

from placement.features import described
from placement.lessons import Fit, Past
from placement.queue_state import JobShape, QueueState
from placement.waits import FIRST_FIT_JOBS, LEARNERS, WINDOW_JOBS, WaitForecast, WaitModel
from placement.words import count
from scheduler.model.plan import Term
from scheduler.model.snapshots import Sighting, SystemSnapshot, VisibleJob

STRANGER = ""
"""Our users by their names on the system are not known here: a job is forecast as that of a new user."""

LONGEST_S = 30 * 86_400
"""Nothing is believed to ask for more; what asks for no limit runs no longer either."""

SCORED_JOBS = 2000
"""The last jobs of a replay, which are forecast: what a bound and the scores of predictors remember."""


class WatchedQueue:
    """One partition: its state and its wait model, moved from look to look. Sizes are cores. One owner."""

    def __init__(self, partition: str, learners: Mapping[str, Fit] = LEARNERS, pooled: Past | None = None) -> None:
        """``pooled``: what other queues taught, until this one has seen enough."""
        self.model = WaitModel(learners, pooled)
        self._partition = partition
        self._state = QueueState()
        self._waiting: dict[str, JobShape] = {}
        self._running: dict[str, JobShape] = {}
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
                self._start(job.remote_id, min(at_s, _seconds(job.started_at, at_s)))
        self._looked_at_s = at_s

    def replay(self, jobs: Iterable[Sighting]) -> None:
        """Live through what is remembered of this queue, in the order of time, before the first look.

        Everyone moves the queue; as many as the model learns from are described, and the last of them are forecast by
        what the others taught, so that scores and coverage are there at once. Some 20 s of a core for 40,000 jobs.
        """
        mine = sorted((job for job in jobs if job.partition == self._partition), key=_by_submit)
        first_taught = len(mine) - WINDOW_JOBS
        fitted_at = max(len(mine) // 2, len(mine) - SCORED_JOBS)
        for at_s, happens, index in sorted(_lives(mine)):
            job_id = mine[index].remote_id
            match happens:
                case _Event.SUBMIT:
                    if index == fitted_at and self.model.known_jobs >= FIRST_FIT_JOBS:
                        self.model.refit(at_s)
                    self._leave(job_id, at_s)  # sites use their numbers again
                    self._join(job_id, _shape(mine[index]), at_s, taught=index >= first_taught)
                case _Event.START if job_id in self._waiting:
                    self._start(job_id, at_s)
                case _Event.END | _Event.END_AT_ONCE:
                    self._leave(job_id, at_s)

    def forecast(self, job: JobShape, at_s: float) -> WaitForecast:
        """What a job that joins now is told; the queue stays as it is."""
        return self.model.forecast(described(self._state, job, at_s).astype(np.float32), at_s)

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
        for gone in [job_id for job_id in (*self._running, *self._waiting) if job_id not in jobs]:
            self._leave(gone, at_s)

    def _meet(self, job: VisibleJob, at_s: float) -> None:
        """A job not seen before. What it found is known unless it was there before the first look."""
        submitted_at_s = min(at_s, _seconds(job.submitted_at, at_s))
        taught = self._looked_at_s is not None and submitted_at_s >= self._looked_at_s
        self._join(job.remote_id, _shape(job), submitted_at_s, taught)

    # -- what happens to a job ---------------------------------------------------------------------------------------

    def _join(self, job_id: str, shape: JobShape, at_s: float, taught: bool) -> None:
        """``taught``: the queue is known as the job found it, so that its wait will teach."""
        if taught:
            row = described(self._state, shape, at_s).astype(np.float32)
            self.model.asked(job_id, row, at_s, self.model.forecast(row, at_s))
        self._state.submitted(job_id, shape, at_s)
        self._waiting[job_id] = shape

    def _start(self, job_id: str, at_s: float) -> None:
        shape = self._running[job_id] = self._waiting.pop(job_id)
        self._state.started(job_id, shape.user, at_s)
        self.model.started(job_id, at_s)

    def _leave(self, job_id: str, at_s: float) -> None:
        """It ended, or was withdrawn; a job that is not here is passed over."""
        shape = self._running.pop(job_id, None)
        if shape is None:
            shape = self._waiting.pop(job_id, None)
            self.model.withdrawn(job_id, at_s)
        if shape is not None:
            self._state.ended(job_id, shape.user, at_s)


def _seconds(at: datetime | None, otherwise_s: float) -> float:
    return otherwise_s if at is None else at.timestamp()


def _shape(job: VisibleJob | Sighting) -> JobShape:
    return JobShape(float(max(1, job.cores)), float(min(max(1, job.walltime_s), LONGEST_S)), job.user)


class _Event(IntEnum):
    """What happens to a job, in the order in which it is told at one instant."""

    END = 0
    SUBMIT = 1
    START = 2
    END_AT_ONCE = 3


def _lives(jobs: Sequence[Sighting]) -> Iterator[tuple[float, _Event, int]]:
    """When what happened to which of the jobs. Where clocks went back, a job's life still goes forward."""
    for index, job in enumerate(jobs):
        submit_s = job.submitted_at.timestamp()
        yield submit_s, _Event.SUBMIT, index
        start_s = max(submit_s, _seconds(job.started_at, submit_s))
        if job.started_at is not None:
            yield start_s, _Event.START, index
        if job.ended_at is not None:
            end_s = max(start_s, job.ended_at.timestamp())
            yield end_s, _Event.END if end_s > start_s else _Event.END_AT_ONCE, index


def _by_submit(job: Sighting) -> tuple[datetime, str]:
    return job.submitted_at, job.remote_id
