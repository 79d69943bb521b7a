"""What a queue looks like from outside: who waits, who runs, and what the last starts were like.

Moved by three events in the order of time (submitted, started, ended). Nothing that has not happened yet can enter it,
so whatever is computed from it is causal by construction.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LONG_AGO_S = 30 * 86_400.0
"""Stands for "never" where an age is asked."""

RECENT_STARTS = 256
"""Starts that are remembered one by one; a busy queue has so many in a day."""

USAGE_HALF_LIFE_S = 3 * 86_400.0
"""How fast used node-seconds are forgiven; sites configure a day to a fortnight."""

RATE_HALF_LIFE_S = 6 * 3600.0
"""Over what time starts are counted to a rate."""

BURST_GAP_S = 120.0
"""Submissions of a user that follow each other faster are one burst."""

SHAPES_KEPT = 64
"""Different shapes of job remembered for a user; the newest ones."""

FIRST_SHARE = 0.4
"""Share of the walltime that jobs use, before any has ended (medians of public traces: 0.27 to 0.47)."""

NO_INDEX = -1
"""Index of a user who has never been seen."""

SHORTEST_S = 60.0
"""No job is expected to run for less."""


class JobShape(NamedTuple):
    """What a scheduler sees of a job at submit time. ``size``: nodes or cores, the same for all jobs of a queue."""

    size: float
    walltime_s: float
    user: Hashable


class Rows:
    """Columns of numbers with rows that come and go by id; the order of rows means nothing."""

    def __init__(self, columns: int) -> None:
        self._values = np.zeros((columns, 256))
        self._ids: list[Hashable] = []
        self._index: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def columns(self) -> Floats:
        """Shape (columns, rows); a view that the next event changes."""
        return self._values[:, : len(self._ids)]

    def add(self, row_id: Hashable, values: Sequence[float]) -> None:
        """Add a row; its id is new."""
        count = len(self._ids)
        if count == self._values.shape[1]:
            self._values = np.concatenate([self._values, np.zeros_like(self._values)], axis=1)
        self._values[:, count] = values
        self._index[row_id] = count
        self._ids.append(row_id)

    def pop(self, row_id: Hashable) -> list[float] | None:
        """Take a row out; None when there is none of this id."""
        index = self._index.pop(row_id, None)
        if index is None:
            return None
        values: list[float] = self._values[:, index].tolist()
        last = self._ids.pop()
        if last != row_id:
            self._values[:, index] = self._values[:, len(self._ids)]
            self._index[last] = index
            self._ids[index] = last
        return values


@dataclass(slots=True)
class Decayed:
    """A sum whose parts lose half of their weight in every half-life."""

    half_life_s: float
    _left: float = 0.0
    _at_s: float = 0.0

    def add(self, amount: float, at_s: float) -> None:
        """Count ``amount`` as of now."""
        self._left, self._at_s = self.at(at_s) + amount, at_s

    def at(self, at_s: float) -> float:
        """What is left of the sum."""
        return self._left * 0.5 ** (max(0.0, at_s - self._at_s) / self.half_life_s) if self._left else 0.0


def _rate() -> Decayed:
    return Decayed(RATE_HALF_LIFE_S)


@dataclass(slots=True)
class User:
    """What the queue knows of one of its users. Waits are -1 before the first; the usual one is a geometric mean."""

    index: int
    shares: deque[float] = field(default_factory=lambda: deque(maxlen=2))
    waiting_jobs: int = 0
    running_jobs: int = 0
    running_size: float = 0.0
    submitted_at_s: float = -LONG_AGO_S
    burst_jobs: int = 0
    started_at_s: float = -LONG_AGO_S
    last_wait_s: float = -1.0
    usual_wait_s: float = -1.0
    starts: Decayed = field(default_factory=_rate)
    alike: dict[tuple[float, float], tuple[float, float]] = field(default_factory=dict)
    """By size and walltime: when the last such job started, and what it had waited."""


SIZE, WALLTIME, SINCE, USER, RUN, LOG_SIZE, LOG_WALLTIME = range(7)
"""Columns of the waiting and the running; seconds, since the submit or the start."""

START_AT, START_WAIT, START_LOG_SIZE, START_LOG_WALLTIME, START_USER = range(5)
"""Columns of the remembered starts."""


def log_wait(wait_s: float) -> float:
    """Waits span five decades, and ten seconds more or less mean nothing."""
    return math.log(max(0.0, wait_s) + 10.0)


class QueueState:
    """The queue as the events so far left it. Ids not known are passed over: a look from outside misses some."""

    def __init__(self, capacity: float | None = None) -> None:
        """``capacity``: what the queue can run at once, in the unit of sizes; None: the most that was seen running."""
        self._given, self._peak = capacity, 1.0
        self.waiting, self.running = Rows(7), Rows(7)
        self.used = 0.0
        self.users: dict[Hashable, User] = {}
        self.share = FIRST_SHARE
        self.starts = np.zeros((5, RECENT_STARTS))
        self.started_jobs = 0
        self.usages = np.zeros(64)
        """By user index: size-seconds handed out, as many as they weighed at ``_usage_from_s``."""
        self._usage_from_s: float | None = None
        self.submit_rate, self.start_rate, self.size_rate = _rate(), _rate(), _rate()

    @property
    def capacity(self) -> float:
        """What the queue can run at once."""
        return self._given or self._peak

    def submitted(self, job_id: Hashable, job: JobShape, at_s: float) -> None:
        """A job joins the queue."""
        user = self._user(job.user)
        user.waiting_jobs += 1
        user.burst_jobs = user.burst_jobs + 1 if at_s - user.submitted_at_s < BURST_GAP_S else 0
        user.submitted_at_s = at_s
        self.submit_rate.add(1.0, at_s)
        size, walltime_s = max(1.0, job.size), max(1.0, job.walltime_s)
        run_s = self.expected_run_s(job)
        row = (size, walltime_s, at_s, user.index, run_s, math.log2(size), math.log2(walltime_s))
        self.waiting.add((job.user, job_id), row)

    def started(self, job_id: Hashable, owner: Hashable, at_s: float) -> None:
        """A waiting job starts."""
        row = self.waiting.pop((owner, job_id))
        if row is None:
            return
        size, walltime_s, since_s, index, run_s, log_size, log_walltime = row
        self.running.add((owner, job_id), (size, walltime_s, at_s, index, run_s, log_size, log_walltime))
        self.used += size
        self._peak = max(self._peak, self.used)
        wait_s = max(0.0, at_s - since_s)
        self.starts[:, self.started_jobs % RECENT_STARTS] = (at_s, log_wait(wait_s), log_size, log_walltime, index)
        self.started_jobs += 1
        self.start_rate.add(1.0, at_s)
        self.size_rate.add(size, at_s)
        self._charge(int(index), size * run_s, at_s)
        user = self._user(owner)
        user.waiting_jobs -= 1
        user.running_jobs += 1
        user.running_size += size
        user.starts.add(1.0, at_s)
        user.started_at_s, user.last_wait_s = at_s, wait_s
        usual_s = wait_s if user.usual_wait_s < 0 else user.usual_wait_s
        user.usual_wait_s = (usual_s + 10) ** 0.7 * (wait_s + 10) ** 0.3 - 10
        user.alike.pop((size, walltime_s), None)
        user.alike[size, walltime_s] = (at_s, wait_s)
        if len(user.alike) > SHAPES_KEPT:
            del user.alike[next(iter(user.alike))]

    def ended(self, job_id: Hashable, owner: Hashable, at_s: float) -> None:
        """A running job ends, or a waiting one is withdrawn."""
        user = self._user(owner)
        row = self.running.pop((owner, job_id))
        if row is None:
            user.waiting_jobs -= self.waiting.pop((owner, job_id)) is not None
            return
        size, walltime_s, since_s, *_ = row
        self.used -= size
        user.running_jobs -= 1
        user.running_size -= size
        share = min(1.0, max(0.0, at_s - since_s) / walltime_s)
        user.shares.append(share)
        self.share += 0.02 * (share - self.share)

    def known(self, name: Hashable) -> User:
        """What is known of a user; nothing, of one never seen, who has no index yet."""
        return self.users.get(name) or User(NO_INDEX)

    def usage(self, user: User) -> float:
        """Size-seconds handed out to a user, on the scale of ``usages``."""
        return 0.0 if user.index == NO_INDEX else float(self.usages[user.index])

    def _user(self, name: Hashable) -> User:
        if name not in self.users:
            self.users[name] = User(len(self.users))
            if len(self.users) > self.usages.size:
                self.usages = np.concatenate([self.usages, np.zeros_like(self.usages)])
        return self.users[name]

    def expected_run_s(self, job: JobShape) -> float:
        """The share of the walltime that the user's last two jobs used (Tsafrir, Etsion & Feitelson, TPDS 2007)."""
        shares = self.known(job.user).shares
        share = sum(shares) / len(shares) if shares else self.share
        return max(SHORTEST_S, job.walltime_s * share)

    def _charge(self, index: int, work: float, at_s: float) -> None:
        """Fair share: later work weighs more than earlier, which spares forgiving everyone at every event."""
        if self._usage_from_s is None:
            self._usage_from_s = at_s
        half_lives = (at_s - self._usage_from_s) / USAGE_HALF_LIFE_S
        if half_lives > 100:
            self.usages *= 0.5**half_lives
            self._usage_from_s, half_lives = at_s, 0.0
        self.usages[index] += work * 2.0**half_lives
