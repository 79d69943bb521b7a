"""Small queues for the tests of wait prediction: jobs with known times, and the events that they make."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from placement.features import described
from placement.queue_state import Floats, JobShape, QueueState

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """A job as accounting tells it afterwards; instants in seconds from the start of the record."""

    name: str
    shape: JobShape
    submit_at_s: float
    start_at_s: float
    end_at_s: float


def played(jobs: Iterable[Recorded], until_s: float = float("inf"), capacity: float | None = None) -> QueueState:
    """The state after all events up to an instant, that instant included."""
    state = QueueState(capacity)
    for at_s, what, job in events(jobs):
        if at_s > until_s:
            break
        happen(state, what, job, at_s)
    return state


def happen(state: QueueState, what: str, job: Recorded, at_s: float) -> None:
    match what:
        case "submit":
            state.submitted(job.name, job.shape, at_s)
        case "start":
            state.started(job.name, job.shape.user, at_s)
        case "end":
            state.ended(job.name, job.shape.user, at_s)


def events(jobs: Iterable[Recorded]) -> Iterator[tuple[float, str, Recorded]]:
    """In the order of time; a job's own events in the order of its life."""
    found = [
        (at_s, step, what, job)
        for job in jobs
        for step, (what, at_s) in enumerate(
            (("submit", job.submit_at_s), ("start", job.start_at_s), ("end", job.end_at_s))
        )
    ]
    for at_s, _, what, job in sorted(found, key=lambda each: (each[0], each[3].name, each[1])):
        yield at_s, what, job


def row(jobs: Iterable[Recorded], job: Recorded, capacity: float | None = None) -> Floats:
    """What the job found when it was submitted, if these were the jobs."""
    return described(
        played((each for each in jobs if each != job), job.submit_at_s, capacity), job.shape, job.submit_at_s
    )


def random_queue(seed: int, jobs: int = 300, users: int = 5) -> list[Recorded]:
    """Jobs of all shapes in a queue that is mostly full; starts keep no particular order."""
    dice = random.Random(seed)
    made, at_s = [], 0.0
    for number in range(jobs):
        at_s += dice.expovariate(1 / 300)
        wait_s = dice.choice((0.0, dice.expovariate(1 / 3600), dice.expovariate(1 / 20_000)))
        walltime_s = dice.choice((600.0, 3600.0, 86_400.0))
        shape = JobShape(float(2 ** dice.randrange(6)), walltime_s, f"user{dice.randrange(users)}")
        start_at_s = at_s + wait_s
        made.append(Recorded(f"{number:05}", shape, at_s, start_at_s, start_at_s + walltime_s * dice.random()))
    return made


def rows(count: int, columns: int, seed: int = 1) -> Floats:
    """Numbers without meaning, for what only has to have the shape of features."""
    return np.random.default_rng(seed).normal(size=(count, columns))
