"""How much later than submitted jobs are ranked where the order shown is not the one served, and how sure that is.

A rank is the instant of submission, plus what holds for all jobs of a user (fair-share, QOS), plus what holds for the
one job. Both are taken to be normal. That one job passed another is a fact about the sum of four of them; each takes
its share of the surprise and grows surer, as players do whose teams met (Herbrich, Minka & Graepel, TrueSkill, NIPS
2006). So a job that was passed by many is known to stand far behind, whatever its user's others do. How far users are
apart at all differs from site to site: several scales learn side by side, and the one is believed that foresaw most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from math import erfc, exp, log, pi, sqrt
from typing import NamedTuple

from placement.looks import SeenJob

SCALES_S = tuple(3600.0 * hours for hours in (24, 12, 6, 3, 48))
"""How far users may be ranked from their submission (one sigma); the first is believed before anything is known."""

JOBS_APART = 0.3
"""How far jobs of one user are apart, beside how far users are."""

TELLING = 3
"""Of the jobs that were passed by one start, so many teach: those of which it surprises most."""

CERTAIN = 4.0
"""What was foreseen by so many sigmas teaches nothing."""

LEAST_CHANCE = 1e-300
"""Nothing is less likely; its logarithm is still a number."""


class Belief(NamedTuple):
    """Seconds later than submitted, and their variance."""

    later_s: float
    variance: float


Passing = tuple[SeenJob, Sequence[SeenJob]]
"""A job that started, and those that stayed though they would have fitted as well."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What is known if users are so far apart: of them, and of the jobs in line by id; and how likely that made all
    that was seen, as a logarithm."""

    users_apart_s: float
    users: Mapping[str, Belief] = field(default_factory=dict)
    jobs: Mapping[str, Belief] = field(default_factory=dict)
    log_probability: float = 0.0

    def user(self, name: str) -> Belief:
        return self.users.get(name) or Belief(0.0, self.users_apart_s**2)

    def job(self, job_id: str) -> Belief:
        return self.jobs.get(job_id) or Belief(0.0, (JOBS_APART * self.users_apart_s) ** 2)

    def later_s(self, user: str, job_id: str = "") -> float:
        """How much later than submitted a job is ranked."""
        return self.user(user).later_s + self.job(job_id).later_s


Ranks = tuple[Scale, ...]
"""The same facts at every scale."""

UNKNOWN: Ranks = tuple(Scale(scale_s) for scale_s in SCALES_S)


def believed(known: Ranks) -> Scale:
    """The scale at which what was seen was most likely."""
    return max(known, key=lambda scale: scale.log_probability)


def learn(known: Ranks, passings: Iterable[Passing], in_line: Collection[str]) -> Ranks:
    """What is known after these starts, in their order. in_line: ids of the jobs that wait still."""
    learners = [_Learner(scale) for scale in known]
    judge = max(learners, key=lambda each: each.log_probability)
    for first, passed in passings:
        for second in judge.most_telling(passed):
            for each in learners:
                each.learn(first, second)
        for each in learners:
            each.jobs.pop(first.id, None)
    return tuple(each.learnt(in_line) for each in learners)


class _Learner:
    """One scale while it learns."""

    def __init__(self, known: Scale) -> None:
        self._known = known
        self.log_probability = known.log_probability
        self._strange, self._new = known.user(""), known.job("")
        self.users, self.jobs = dict(known.users), dict(known.jobs)

    def learnt(self, in_line: Collection[str]) -> Scale:
        jobs = {job_id: self.jobs[job_id] for job_id in in_line if job_id in self.jobs}
        return Scale(self._known.users_apart_s, self.users, jobs, self.log_probability)

    def most_telling(self, passed: Sequence[SeenJob]) -> Sequence[SeenJob]:
        """Those that should have stood farthest ahead."""
        return passed if len(passed) <= TELLING else nsmallest(TELLING, passed, key=self._rank)

    def learn(self, first: SeenJob, second: SeenJob) -> None:
        """One fact: the first is ranked before the second. What two jobs of one user share tells nothing."""
        beliefs = [(self.jobs, first.id, self._new, -1.0), (self.jobs, second.id, self._new, 1.0)]
        if first.user != second.user:
            beliefs += [(self.users, first.user, self._strange, -1.0), (self.users, second.user, self._strange, 1.0)]
        held = [(known, name, known.get(name, common), sign) for known, name, common, sign in beliefs]
        variance = sum(each.variance for _, _, each, _ in held)
        sigma_s = sqrt(variance)
        lead_s = second.submitted_s - first.submitted_s + sum(sign * each.later_s for _, _, each, sign in held)
        if lead_s > CERTAIN * sigma_s:
            return
        chance, shift, surer = _known_to_be_ahead(lead_s / sigma_s)
        self.log_probability += log(chance)
        for known, name, each, sign in held:
            share = each.variance / variance
            known[name] = Belief(each.later_s + sign * share * sigma_s * shift, each.variance * (1 - share * surer))

    def _rank(self, job: SeenJob) -> tuple[float, str]:
        user, own = self.users.get(job.user, self._strange), self.jobs.get(job.id, self._new)
        return job.submitted_s + user.later_s + own.later_s, job.id


def _known_to_be_ahead(mean: float) -> tuple[float, float, float]:
    """How likely a normal variable of this mean, in sigmas, is above zero; by how many sigmas its mean rises once that
    is known, and by what share its variance falls."""
    chance = erfc(-mean / sqrt(2.0)) / 2
    if chance <= LEAST_CHANCE:
        return LEAST_CHANCE, -mean, 1.0
    shift = exp(-mean * mean / 2) / sqrt(2 * pi) / chance
    return chance, shift, min(1.0, max(0.0, shift * (shift + mean)))
