"""A job and the queue that it joins, as numbers: what a predictor of its wait may look at.

Amounts of work are divided by what the machine can run at once, so that they are times; amounts that span decades are
logarithms. The meaning of every number is its name in ``FEATURES``, in that order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from placement.queue_state import (
    LOG_SIZE,
    LOG_WALLTIME,
    LONG_AGO_S,
    RECENT_STARTS,
    RUN,
    SINCE,
    SIZE,
    START_AT,
    START_LOG_SIZE,
    START_LOG_WALLTIME,
    START_USER,
    START_WAIT,
    USER,
    WALLTIME,
    Floats,
    JobShape,
    QueueState,
    log_wait,
)

NOBODY = -1.0
"""Stands for the age of nobody."""

Values = tuple[float, ...]


def described(state: QueueState, job: JobShape, at_s: float) -> Floats:
    """What a job that joins the queue now would find, shape (len(FEATURES),); the state stays as it is."""
    moment = _Moment(state, job, at_s)
    return np.array([value for describe in _GROUPS for value in describe(moment)])


class _Moment:
    """What several groups of features need, worked out once."""

    def __init__(self, state: QueueState, job: JobShape, at_s: float) -> None:
        self.state, self.at_s = state, at_s
        self.size, self.walltime_s = max(1.0, job.size), max(1.0, job.walltime_s)
        self.user = state.known(job.user)
        self.run_s = state.expected_run_s(job)
        self.capacity = state.capacity
        self.free = self.capacity - state.used
        self.log_size, self.log_walltime = math.log2(self.size), math.log2(self.walltime_s)
        self.waiting, self.running = state.waiting.columns, state.running.columns
        self.age_s = at_s - self.waiting[SINCE]
        self.work = self.waiting[SIZE] * self.waiting[RUN]
        self.own = self.waiting[USER] == self.user.index
        self.alike = self._likeness(self.waiting[LOG_SIZE], self.waiting[LOG_WALLTIME])
        self.ran_s = at_s - self.running[SINCE]
        self.left_s = np.maximum(self.running[SINCE] + self.running[WALLTIME] - at_s, 0.0)
        self.expected_left_s = np.where(
            self.ran_s < self.running[RUN], self.running[RUN] - self.ran_s, np.minimum(self.left_s, self.ran_s)
        )

    def _likeness(self, log_size: Floats, log_walltime: Floats) -> Floats:
        """1 for the same shape; halving or doubling size or walltime costs about 40 %."""
        return np.exp(-0.5 * (np.abs(log_size - self.log_size) + np.abs(log_walltime - self.log_walltime)))

    def starts(self) -> tuple[Floats, Floats]:
        """The remembered starts and how alike they are to the job."""
        starts = self.state.starts[:, : min(self.state.started_jobs, RECENT_STARTS)]
        return starts, self._likeness(starts[START_LOG_SIZE], starts[START_LOG_WALLTIME])

    def machine_time(self, work: float) -> float:
        """Work as time of the whole machine, log seconds."""
        return _log(work / self.capacity)


def _shape(it: _Moment) -> Values:
    hours, days = it.at_s / 3600, it.at_s / 86_400
    return (
        it.log_size,
        it.log_walltime,
        it.log_size + it.log_walltime,
        it.size / it.capacity,
        math.log2(it.run_s),
        it.run_s / it.walltime_s,
        hours % 24,
        days % 7,
    )


def _room(it: _Moment) -> Values:
    """When the job would start: were it alone, behind the first in the queue, behind all of them."""
    soonest, latest = _Releases(it, it.expected_left_s), _Releases(it, it.left_s)
    in_line, shadow_s, head_size = float(it.waiting[SIZE].sum()), 0.0, 0.0
    if len(it.age_s):
        head_size = float(it.waiting[SIZE, np.argmin(it.waiting[SINCE])])
        shadow_s = latest.when(head_size)
    spare = latest.free_at(shadow_s) - head_size
    fits_beside = it.size <= it.free and (it.walltime_s <= shadow_s or it.size <= spare)
    return (
        it.free / it.capacity,
        (it.free - it.size) / it.capacity,
        (it.free - it.size - in_line) / it.capacity,
        float(fits_beside),
        float(head_size > it.free),
        _log(shadow_s),
        _log(soonest.when(it.size)),
        _log(latest.when(it.size)),
        _log(soonest.when(min(it.capacity, it.size + in_line))),
    )


class _Releases:
    """When how much becomes free, if nothing else started."""

    def __init__(self, it: _Moment, left_s: Floats) -> None:
        order = np.argsort(left_s)
        self.at_s = left_s[order]
        self.free = np.cumsum(it.running[SIZE][order]) + it.free
        self.now = it.free

    def when(self, size: float) -> float:
        """Seconds until so much is free; the last end where it never is."""
        if self.now >= size or not len(self.at_s):
            return 0.0
        return float(self.at_s[min(int(np.searchsorted(self.free, size)), len(self.at_s) - 1)])

    def free_at(self, after_s: float) -> float:
        """What is free then."""
        index = int(np.searchsorted(self.at_s, after_s, side="right"))
        return float(self.free[index - 1]) if index else self.now


def _load(it: _Moment) -> Values:
    sizes, work = it.waiting[SIZE], it.work
    not_larger = sizes <= it.size
    running_work = float(it.expected_left_s @ it.running[SIZE])
    waiting_work = float(work.sum())
    return (
        _log(len(it.ran_s)),
        it.machine_time(running_work),
        it.machine_time(float(it.left_s @ it.running[SIZE])),
        _log(len(sizes)),
        it.machine_time(waiting_work),
        it.machine_time(running_work + waiting_work),
        it.machine_time(float(sizes @ it.waiting[WALLTIME])),
        _log(10 * float(sizes.sum()) / it.capacity),
        float(sizes.min()) if len(sizes) else 0.0,
        _log(int(np.count_nonzero(not_larger))),
        it.machine_time(float(work @ not_larger)),
        it.machine_time(float(work @ (it.waiting[RUN] <= it.run_s))),
        it.machine_time(float(work @ (it.age_s < 3600))),
        it.machine_time(float(work @ (_usage(it, it.waiting[USER]) < it.state.usage(it.user)))),
    )


def _usage(it: _Moment, indices: Floats) -> Floats:
    return np.asarray(it.state.usages[indices.astype(np.int64)])


def _ages(it: _Moment) -> Values:
    """Who waits already, and how long: lower bounds of waits that are not known yet."""
    easier = (it.waiting[SIZE] <= it.size) & (it.waiting[WALLTIME] <= it.walltime_s)
    easier_s = it.age_s[easier]
    return (
        _oldest(it.age_s),
        _middle(it.age_s),
        _log(len(easier_s)),
        _oldest(easier_s),
        _middle(easier_s),
        _youngest(easier_s),
        float(np.mean(it.age_s > 3600)) if len(it.age_s) else 0.0,
    )


def _own(it: _Moment) -> Values:
    user, at_s = it.user, it.at_s
    own_s = it.age_s[it.own]
    same_s = it.age_s[it.own & (it.waiting[SIZE] == it.size) & (it.waiting[WALLTIME] == it.walltime_s)]
    alike_at_s, alike_wait_s = user.alike.get((it.size, it.walltime_s), (-LONG_AGO_S, NOBODY))
    usage, usages = it.state.usage(user), it.state.usages[: len(it.state.users)]
    return (
        _log(user.waiting_jobs),
        it.machine_time(float(it.work @ it.own)),
        _oldest(own_s),
        _youngest(own_s),
        _log(len(same_s)),
        _oldest(same_s),
        _log(user.running_jobs),
        user.running_size / it.capacity,
        _known_wait(user.last_wait_s),
        _known_wait(user.usual_wait_s),
        _log(min(LONG_AGO_S, at_s - user.started_at_s)),
        _known_wait(alike_wait_s),
        _log(min(LONG_AGO_S, at_s - alike_at_s)),
        _log(min(LONG_AGO_S, at_s - user.submitted_at_s)),
        _log(user.burst_jobs),
        _per_rate(user.waiting_jobs, user.starts.at(at_s)),
        usage / max(1.0, float(usages.sum())),
        np.count_nonzero(usages < usage) / max(1, len(usages)),
    )


def _recent(it: _Moment) -> Values:
    """The last starts: of all jobs, and of those alike, weighed by likeness and age."""
    starts, alike = it.starts()
    if not starts.shape[1]:
        return (NOBODY,) * 12
    ago_s, waits = it.at_s - starts[START_AT], starts[START_WAIT]
    newest = (it.state.started_jobs - 1 - np.arange(min(20, starts.shape[1]))) % RECENT_STARTS
    alike_now = alike * np.where(starts[START_USER] == it.user.index, 3.0, 1.0) * 0.5 ** (ago_s / 21_600) + 1e-9
    alike_long = alike**2 * 0.5 ** (ago_s / 86_400) + 1e-9
    censored = it.alike * np.where(it.own, 3.0, 1.0)
    started_alike = float((alike * 0.5 ** (ago_s / 21_600)).sum())
    bigger_s = ago_s[starts[START_LOG_SIZE] >= it.log_size]
    return (
        float(alike_now @ waits / alike_now.sum()),
        float(alike_long @ waits / alike_long.sum()),
        float((alike_now @ waits + censored @ np.log(it.age_s + 10)) / (alike_now.sum() + censored.sum())),
        math.log(float(alike_now.sum())),
        float(waits[newest[:5]].mean()),
        float(waits[newest].mean()),
        float(waits[newest].max()),
        _log(float(ago_s.min())),
        _youngest(bigger_s),
        _per_rate(float(it.alike.sum()), started_alike),
        _per_rate(len(it.age_s), it.state.start_rate.at(it.at_s)),
        _per_rate(float(it.waiting[SIZE].sum()) / it.capacity, it.state.size_rate.at(it.at_s) / it.capacity),
    )


def _pace(it: _Moment) -> Values:
    return (
        _log(it.state.submit_rate.at(it.at_s)),
        _log(it.state.start_rate.at(it.at_s)),
        _log(10 * it.state.size_rate.at(it.at_s) / it.capacity),
    )


def _log(amount: float) -> float:
    return math.log1p(max(0.0, amount))


def _known_wait(wait_s: float) -> float:
    return log_wait(wait_s) if wait_s >= 0 else NOBODY


def _oldest(ages_s: Floats) -> float:
    return log_wait(float(ages_s.max())) if len(ages_s) else NOBODY


def _middle(ages_s: Floats) -> float:
    return log_wait(float(np.partition(ages_s, len(ages_s) // 2)[len(ages_s) // 2])) if len(ages_s) else NOBODY


def _youngest(ages_s: Floats) -> float:
    return log_wait(float(ages_s.min())) if len(ages_s) else NOBODY


def _per_rate(ahead: float, rate: float) -> float:
    """How long so many take at a rate, in a logarithm (Little's law)."""
    return math.log((ahead + 0.1) / (rate + 0.1))


_NAMED: tuple[tuple[Callable[[_Moment], Values], str], ...] = (
    (_shape, "size walltime area size_share run run_share hour weekday"),
    (_room, "free room room_behind_all fits_beside head_waits shadow start_alone start_alone_late start_behind_all"),
    (
        _load,
        "running running_work running_work_late waiting waiting_work work waiting_work_late waiting_size smallest"
        " waiting_not_larger work_not_larger work_not_longer work_last_hour work_poorer",
    ),
    (_ages, "oldest middle easier easier_oldest easier_middle easier_youngest share_over_hour"),
    (
        _own,
        "own_waiting own_work own_oldest own_youngest same_waiting same_oldest own_running own_size own_last own_mean"
        " own_start_ago alike_last alike_ago own_submit_ago own_burst own_line own_usage own_usage_rank",
    ),
    (
        _recent,
        "alike_now alike_long alike_with_waiting alike_weight last_5 last_20 last_20_most start_ago bigger_start_ago"
        " line_alike line_jobs line_size",
    ),
    (_pace, "submits starts starts_size"),
)

_GROUPS = tuple(describe for describe, _ in _NAMED)

FEATURES: tuple[str, ...] = tuple(name for _, names in _NAMED for name in names.split())
"""Names of the numbers, in their order."""
