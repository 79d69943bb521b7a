"""The evaluator's side of the broker protocol: a world, the messages about it, and what the answers do to it.

Messages are plain dictionaries, as they travel in JSON, so that a broker may sit in this process or behind a pipe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from bench.traces import SPAN_S, WARM_UP_S, Scenario
from placement.easy import End
from placement.simulate import OURS, SimJob, World, clairvoyant_end_s

Message = Mapping[str, Any]
Broker = Callable[[Message], Message]

MOST_SUBMISSIONS = 12
MIB_PER_GB = 1000 / 1.048576
SHORT_S = 600.0
"""Floor of the run time in the bounded slowdown."""


@dataclass(frozen=True, slots=True)
class Regime:
    """What a broker is allowed: mean submissions a job, copies at once, moves; what it is told, and how late."""

    name: str
    submissions_per_job: float = 1.0
    copies: int = 1
    moves: bool = False
    overlap: bool = False
    history: str = "full"
    notice_s: float = 0.0


@dataclass(slots=True)
class Score:
    """What came of one scenario; times in seconds."""

    times_s: list[float] = field(default_factory=list)
    slowdowns: list[float] = field(default_factory=list)
    submissions_per_job: float = 0.0
    others_wait_s: float = 0.0
    lost_core_s: float = 0.0
    decision_s: list[float] = field(default_factory=list)

    @property
    def mean_s(self) -> float:
        return fmean(self.times_s)


class Arena:
    """One scenario played with one broker."""

    def __init__(self, scenario: Scenario, regime: Regime) -> None:
        self.scenario, self.regime = scenario, regime
        self.world = World(scenario.systems, scenario.truths, overlap=regime.overlap, notice_s=regime.notice_s)
        self.jobs = {job.id: job for job in scenario.jobs}
        self.sent: dict[str, int] = dict.fromkeys(self.jobs, 0)
        self.others: list[End] = []
        self.score = Score()

    def play(self, broker: Broker) -> Score:
        """Ask the broker from the first to the last job."""
        self.world.advance(WARM_UP_S)
        tick_s = float(broker(self._init()).get("tick_s") or 0)
        next_tick_s = WARM_UP_S + tick_s
        for job in self.scenario.jobs:
            next_tick_s = self._ticks(broker, next_tick_s, tick_s, job.submitted_s)
            self.world.advance(job.submitted_s)
            self._place(broker, job)
        while self.world.copies and tick_s:
            next_tick_s = self._ticks(broker, next_tick_s, tick_s, next_tick_s)
        self.world.finish()
        self.world.advance(max(self.world.now_s, WARM_UP_S + self._span_s))
        self._collect()
        return self._scored()

    @property
    def _span_s(self) -> float:
        return SPAN_S * min(1.0, len(self.jobs) / 600) + 10 * 86_400.0

    # -- messages ----------------------------------------------------------------------------------------------------

    def _init(self) -> Message:
        systems = [
            {"name": s.name, "procs": s.cores, "speed": s.speed, "bw": s.bandwidth_mb_per_s, "caps": []}
            for s in self.scenario.systems
        ]
        regime = self.regime
        limits = {
            "submissions_per_job": regime.submissions_per_job,
            "copies": regime.copies,
            "moves": regime.moves,
        }
        return {
            "type": "init",
            "now": self.world.now_s,
            "systems": systems,
            "history": regime.history,
            "overlap": regime.overlap,
            "limits": limits,
        }

    def _place(self, broker: Broker, job: SimJob) -> None:
        message = {"type": "place", "now": self.world.now_s, "job": self._job(job), **self._state()}
        answer = self._timed(broker, message)
        self._submit(job, answer["submit"] or [self.scenario.systems[0].name])

    def _ticks(self, broker: Broker, next_tick_s: float, tick_s: float, until_s: float) -> float:
        while tick_s and next_tick_s <= until_s:
            self.world.advance(next_tick_s)
            if self.world.copies:
                self._tick(broker)
            next_tick_s += tick_s
        return next_tick_s

    def _tick(self, broker: Broker) -> None:
        jobs = {job_id: self._job(self.jobs[job_id]) for job_id in self.world.copies}
        message = {"type": "tick", "now": self.world.now_s, "jobs": jobs, **self._state()}
        for action in self._timed(broker, message)["actions"]:
            job = self.jobs[action["job"]]
            self._submit(job, action.get("submit") or ())
            for name in action.get("cancel") or ():
                if self.world.copies.get(job.id, set()) - {name}:
                    self.world.withdraw(job.id, name)

    def _timed(self, broker: Broker, message: Message) -> Message:
        began = time.perf_counter()
        answer = broker(message)
        self.score.decision_s.append(time.perf_counter() - began)
        return answer

    def _submit(self, job: SimJob, names: Collection[str]) -> None:
        fresh = [name for name in names if name not in self.world.copies.get(job.id, ())]
        fresh = fresh[: MOST_SUBMISSIONS - self.sent[job.id]]
        if job.id not in self.world.outcomes and fresh:
            self.sent[job.id] += len(fresh)
            self.world.submit(job, fresh)

    def _job(self, job: SimJob) -> Message:
        options = {
            name: {"req": self.world.asked_s(job, name), "stage": self.world.staging_s(job, name)}
            for name in self.world.systems
        }
        return {
            "id": job.id,
            "submit": job.submitted_s,
            "procs": job.cores,
            "req": job.asked_s,
            "user": job.user,
            "image": job.image,
            "image_gb": job.image_mib / MIB_PER_GB,
            "data_gb": job.inputs_mib / MIB_PER_GB,
            "needs": [],
            "options": options,
        }

    def _state(self) -> Message:
        ended = self._collect()
        return {
            "systems": {name: self._system(name, ended[name]) for name in self.world.systems},
            "pending": {job_id: sorted(names) for job_id, names in self.world.copies.items()},
        }

    def _system(self, name: str, ended: Sequence[End]) -> Message:
        cluster = self.world.clusters[name]
        waiting = cluster.waiting
        if self.scenario.noise.in_submit_order:
            waiting.sort(key=lambda load: (load.submitted_s, load.id))
        own_only = self.regime.history == "own"
        return {
            "free": cluster.free,
            "running": [
                [j.id, j.cores, j.asked_s, j.submitted_s, started_s, j.user, int(j.user == OURS)]
                for j, started_s in cluster.running
            ],
            "waiting": [[j.id, j.cores, j.asked_s, j.submitted_s, j.user, int(j.user == OURS)] for j in waiting],
            "finished": [
                [
                    e.load.id,
                    e.load.cores,
                    e.load.asked_s,
                    e.load.submitted_s,
                    e.started_s,
                    e.at_s,
                    e.load.user,
                    int(e.load.user == OURS),
                ]
                for e in ended
                if e.load.user == OURS or not own_only
            ],
        }

    # -- scores ------------------------------------------------------------------------------------------------------

    def _collect(self) -> Mapping[str, Sequence[End]]:
        """What has ended since the last time, by system."""
        ended: dict[str, Sequence[End]] = {}
        for name, cluster in self.world.clusters.items():
            ended[name], cluster.ended = cluster.ended, []
            self.others += [e for e in ended[name] if e.load.user != OURS]
        return ended

    def _scored(self) -> Score:
        score = self.score
        for job in self.scenario.jobs:
            time_s = self.world.outcomes[job.id].ended_s - job.submitted_s
            score.times_s.append(time_s)
            score.slowdowns.append(max(1.0, time_s / max(job.run_s, SHORT_S)))
        score.submissions_per_job = fmean(self.sent.values())
        score.lost_core_s = self.world.lost_core_s
        until_s = WARM_UP_S + self._span_s - 5 * 86_400.0
        score.others_wait_s = fmean(
            e.started_s - e.load.submitted_s for e in self.others if WARM_UP_S <= e.load.submitted_s < until_s
        )
        return score


def oracle(scenario: Scenario, *, overlap: bool = False) -> Score:
    """The greedy clairvoyant: every job is tried in a copy of each system, run times known, and the best is taken."""
    arena = Arena(scenario, Regime("oracle", overlap=overlap))
    arena.world.advance(WARM_UP_S)
    for job in scenario.jobs:
        arena.world.advance(job.submitted_s)
        best = min(arena.world.systems, key=lambda name: (clairvoyant_end_s(arena.world, job, name), name))
        arena._submit(job, [best])
    arena.world.finish()
    arena.world.advance(max(arena.world.now_s, WARM_UP_S + arena._span_s))
    arena._collect()
    return arena._scored()


def ratio(score: Score, beside: Score) -> float:
    """Mean time to solution as a multiple of another's."""
    return score.mean_s / beside.mean_s
