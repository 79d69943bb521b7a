"""In which order a site really takes its queue: what is learned from who started before whom.

Under backfilling a job that starts while another stays, which came before it and asks for no more cores and no more
time, has the better rank: the other would have fitted wherever it did. Such pairs are facts, whatever order the site
shows. They tell whether that order can be believed, and by how much each user's jobs are ranked before or behind their
submission (fair-share, QOS): the smallest offsets with which the pairs agree. A site that serves by submission never
contradicts itself, and its offsets stay zero. Where the order shown is not believed, ``ranks`` says how each job
stands. That nobody in line has started tells who may be the first of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import sqrt

from placement import ranks
from placement.looks import Look, SeenJob
from placement.ranks import Ranks, Scale

KEPT = 12
"""Pairs of the same two users that are remembered, the latest."""

FIRMNESS = 16.0
"""What one pair counts beside the belief that offsets are small: the square of 24 h, by which users are commonly
apart, over 6 h, by which jobs of one user are."""

FIRST_SWEEPS, SWEEPS = 30, 3
"""How often offsets are gone through when weeks are learned at once, and when one look is."""

DOUBTED = 0.1
"""Share of contradicted pairs from which on the order that a site shows is not believed."""

FEWEST = 20
"""Pairs that are needed to doubt."""

TELLING = 6
"""Pairs after which a user's offset is half known (in variance)."""

JOBS_APART = 0.25
"""How far the ranks of one user's jobs are apart, beside how far users are; where the order shown is believed."""

Lags = Mapping[tuple[str, str], tuple[float, ...]]
"""By (user who went first, user who was passed): how much later the first had come, in seconds."""


@dataclass(frozen=True)
class Order:
    """What is known of a queue's order. offset_s: how much later than submitted a user's jobs are ranked; told: pairs
    that spoke of a user; pairs, contradicted: those that the shown order spoke of, and those that it had wrong.

    ranks: what counts in place of the offsets where the order shown is not believed.
    """

    offset_s: Mapping[str, float] = field(default_factory=dict)
    lags_s: Lags = field(default_factory=dict)
    told: Mapping[str, int] = field(default_factory=dict)
    pairs: int = 0
    contradicted: int = 0
    ranks: Ranks = ranks.UNKNOWN

    @cached_property
    def unshown(self) -> Scale:
        """What counts where the order shown is not the order served."""
        return ranks.believed(self.ranks)

    @cached_property
    def apart_s(self) -> float:
        """How far users' jobs are commonly ranked from their submission; zero where nothing contradicts that order."""
        weights = sum(self.told.get(user, 0) for user in self.offset_s)
        squares = sum(offset_s**2 * self.told.get(user, 0) for user, offset_s in self.offset_s.items())
        return sqrt(squares / weights) if weights else 0.0

    def unsure_s(self, user: str) -> float:
        """How far a user's offset may be from what is known of it (one sigma)."""
        if not self.believed:
            return sqrt(self.unshown.user(user).variance)
        return self.apart_s / sqrt(1 + self.told.get(user, 0) / TELLING)

    def unsure_of_job_s(self, job_id: str) -> float:
        """How far the rank of one job may be from that of its user's others (one sigma)."""
        return JOBS_APART * self.apart_s if self.believed else sqrt(self.unshown.job(job_id).variance)

    @property
    def believed(self) -> bool:
        """Whether the order shown is the order served."""
        return self.contradicted <= DOUBTED * max(self.pairs, FEWEST)

    def later_s(self, user: str, job_id: str = "") -> float:
        """How much later than submitted a job is ranked by what is known of its user, and of itself."""
        return self.offset_s.get(user, 0.0) if self.believed else self.unshown.later_s(user, job_id)

    def rank_s(self, job: SeenJob) -> float:
        """Where a job stands in line by what is known."""
        return job.submitted_s + self.later_s(job.user, job.id)

    def ranks_s(self, waiting: Sequence[SeenJob]) -> list[float]:
        """Ranks of the jobs in line; where the order shown is believed, they rise along it."""
        ranks_s = [self.rank_s(job) for job in waiting]
        return rising(ranks_s) if self.believed else ranks_s


def learn(known: Order, before: Look | None, now: Look) -> Order:
    """What is known after one more look; the first one may bring the starts of weeks."""
    shown = {job.id: n for n, job in enumerate(before.waiting)} if before else {}
    pairs, contradicted = known.pairs, known.contradicted
    news: dict[tuple[str, str], list[float]] = defaultdict(list)
    passings = list(_overtakings(before, now))
    learnt = ranks.learn(known.ranks, passings, {job.id for job in now.waiting}) if passings else known.ranks
    for first, passed in passings:
        for second in passed:
            if first.id in shown and second.id in shown:
                pairs += 1
                contradicted += shown[first.id] > shown[second.id]
        _note(news, first, passed)
    if known.believed:
        for first, second in zip(now.waiting, now.waiting[1:], strict=False):
            _note(news, first, (second,))
    if not news:
        return replace(known, pairs=pairs, contradicted=contradicted, ranks=learnt) if passings else known
    lags_s = {**known.lags_s, **{key: (*known.lags_s.get(key, ()), *lags)[-KEPT:] for key, lags in news.items()}}
    users = {user for key in news for user in key}
    offsets = _agreeing(known.offset_s, lags_s, users, SWEEPS if before else FIRST_SWEEPS)
    told = dict(known.told)
    for key, lags in news.items():
        for user in key:
            told[user] = told.get(user, 0) + len(lags)
    return Order(offsets, lags_s, told, pairs, contradicted, learnt)


def rising(values: Iterable[float]) -> list[float]:
    """The nearest values that never fall (pooling neighbours that do), by a hair rising."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, size = value, 1
        while pools and pools[-1][0] >= mean:
            other, others = pools.pop()
            mean, size = (other * others + mean * size) / (others + size), others + size
        pools.append((mean, size))
    means = [mean for mean, size in pools for _ in range(size)]
    return [mean + 0.001 * n for n, mean in enumerate(means)]


# -- who is first ------------------------------------------------------------------------------------------------


def first_sizes(look: Look) -> Collection[int]:
    """Cores of which the first in line must ask for some, for nobody in line has started.

    It is too large for what is free, and whoever is not would delay it. Empty where nobody would explain that.
    """
    free = look.cores - sum(job.cores for job in look.running)
    claims = sorted(((job.started_s or look.now_s) + job.asked_s, job.cores) for job in look.running)
    fitting = {(job.cores, job.asked_s) for job in look.waiting if job.cores <= free}
    sizes = {job.cores for job in look.waiting if free < job.cores <= look.cores}
    return {cores for cores in sizes if _bars(cores, free, claims, look.now_s, fitting)}


def headed(ranks_s: Sequence[float], waiting: Sequence[SeenJob], sizes: Collection[int]) -> Sequence[float]:
    """The ranks, with the foremost job of one of these sizes before all others."""
    able = [(rank_s, n) for n, (rank_s, job) in enumerate(zip(ranks_s, waiting, strict=True)) if job.cores in sizes]
    if not able:
        return ranks_s
    _, first = min(able)
    return [*ranks_s[:first], min(ranks_s) - 1.0, *ranks_s[first + 1 :]]


def _bars(
    cores: int, free: int, claims: Sequence[tuple[float, int]], now_s: float, others: Iterable[tuple[int, float]]
) -> bool:
    """Whether the first in line, if it asks for so many cores, keeps these from starting (cores, seconds asked)."""
    at_s = now_s
    for claim_s, claimed in claims:
        if free >= cores and claim_s > at_s:
            break
        free, at_s = free + claimed, max(at_s, claim_s)
    return all(other > free - cores and now_s + asked_s > at_s for other, asked_s in others)


# -- pairs -------------------------------------------------------------------------------------------------------


def _overtakings(before: Look | None, now: Look) -> Iterable[tuple[SeenJob, Sequence[SeenJob]]]:
    """Every start since the look before, with the jobs that came sooner, would have fitted as well, and stayed."""
    since_s = before.now_s if before else float("-inf")
    jobs = [job for job in (*now.ended, *now.running, *now.waiting) if _start_s(job) > since_s]
    came = sorted(jobs, key=lambda job: (job.submitted_s, job.id))
    began = sorted((job for job in jobs if job.started_s is not None), key=lambda job: (_start_s(job), job.id))
    in_line: dict[int, dict[str, tuple[int, float, float, SeenJob]]] = defaultdict(dict)  # by cores and id
    entered = 0
    for first in began:
        at_s, longest_s = _start_s(first), first.asked_s
        while entered < len(came) and came[entered].submitted_s < at_s:
            job = came[entered]
            in_line[job.cores][job.id] = entered, job.asked_s, _start_s(job), job
            entered += 1
        in_line[first.cores].pop(first.id, None)
        passed = [
            (number, job)
            for cores, alike in in_line.items()
            if cores <= first.cores
            for number, asked_s, start_s, job in alike.values()
            if asked_s <= longest_s and start_s > at_s
        ]
        if passed:
            yield first, [job for _, job in sorted(passed)]


def _start_s(job: SeenJob) -> float:
    return float("inf") if job.started_s is None else job.started_s


def _note(news: dict[tuple[str, str], list[float]], first: SeenJob, passed: Iterable[SeenJob]) -> None:
    """Of each user that was passed, the pair that says most."""
    lags: dict[str, float] = {}
    for second in passed:
        if second.user != first.user:
            lag_s = first.submitted_s - second.submitted_s
            lags[second.user] = max(lag_s, lags.get(second.user, lag_s))
    for user, lag_s in lags.items():
        news[first.user, user].append(lag_s)


# -- offsets -----------------------------------------------------------------------------------------------------


def _agreeing(offsets_s: Mapping[str, float], lags_s: Lags, users: Collection[str], sweeps: int) -> Mapping[str, float]:
    """Offsets that the pairs contradict least, small where they leave a choice; only those of ``users`` move."""
    beside: dict[str, list[tuple[str, float, float, float]]] = {user: [] for user in sorted(users)}
    for (first, second), lags in lags_s.items():
        lag_s, weight = max(lags), FIRMNESS * len(lags)
        if first in beside:
            beside[first].append((second, lag_s, weight, -1.0))
        if second in beside:
            beside[second].append((first, lag_s, weight, 1.0))
    found = dict(offsets_s)
    for _ in range(sweeps):
        found |= {user: _moved(user, pairs, found) for user, pairs in beside.items()}
    return found


def _moved(user: str, pairs: Sequence[tuple[str, float, float, float]], offsets_s: Mapping[str, float]) -> float:
    """Half the way to the offset with which a user's pairs agree; the other half is left to the others' users."""
    offset_s = offsets_s.get(user, 0.0)
    slope, stiffness = -offset_s, 1.0
    for other, lag_s, weight, sign in pairs:
        lack_s = lag_s - sign * (offset_s - offsets_s.get(other, 0.0))
        if lack_s > 0:
            slope += weight * lack_s * sign
            stiffness += weight
    return offset_s + slope / stiffness / 2
