"""All that looks at the systems teach: run times, the order of each queue, who comes when. ``learn`` moves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from placement import order, predict
from placement.looks import Look, SeenJob
from placement.order import Order
from placement.predict import RunTimes, Used

KEPT_S = 30 * 86_400.0
"""How long those who came are remembered; a forecast looks back four weeks at most."""

RECALLED = 5000
"""Of a past that is brought back at once, so many of the last ends tell of run times and of the order."""


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of one queue. look: the newest; newcomers: who came to it in the last weeks, by submission."""

    look: Look
    order: Order = field(default_factory=Order)
    newcomers: Sequence[SeenJob] = ()


@dataclass(frozen=True, slots=True)
class Experience:
    """What is known of all places, by name, and of run times everywhere."""

    run_times: RunTimes = field(default_factory=RunTimes)
    places: Mapping[str, Place] = field(default_factory=dict)


def learn(known: Experience, looks: Mapping[str, Look]) -> Experience:
    """What is known after one more look at some of the places."""
    used: list[tuple[float, Used]] = []
    places = dict(known.places)
    for name, look in sorted(looks.items()):
        before = known.places.get(name)
        used += [(job.ended_s or 0.0, _used(job, look.speed)) for job in look.ended]
        if before is not None and look.whole:
            used += [(look.now_s, each) for each in _vanished(before.look, look)]
        places[name] = _after(before, look)
    used.sort(key=lambda each: (each[0], each[1].user, each[1].asked_s, each[1].run_s))
    return Experience(predict.learn(known.run_times, [each for _, each in used]), places)


def recall(known: Experience, pasts: Mapping[str, Look]) -> Experience:
    """What is known once the past of some places is brought back, of each as one look that shows all of it."""
    newest = {
        name: replace(past, ended=sorted(past.ended, key=lambda job: (job.ended_s or 0.0, job.id))[-RECALLED:])
        for name, past in pasts.items()
    }
    learnt = learn(known, newest)
    came = {name: tuple(sorted((*past.ended, *past.running, *past.waiting), key=_came)) for name, past in pasts.items()}
    places = {name: replace(learnt.places[name], newcomers=jobs) for name, jobs in came.items()}
    return Experience(learnt.run_times, {**learnt.places, **places})


def _after(before: Place | None, look: Look) -> Place:
    shown = {job.id: job for job in (*look.ended, *look.running, *look.waiting)}
    if before is None:
        return Place(look, order.learn(Order(), None, look), tuple(sorted(shown.values(), key=_came)))
    came = [job for job in shown.values() if before.look.now_s < job.submitted_s <= look.now_s]
    newcomers = before.newcomers
    if came:
        newcomers = (*newcomers, *sorted(came, key=_came))
        if newcomers[0].submitted_s < look.now_s - 2 * KEPT_S:
            newcomers = tuple(job for job in newcomers if job.submitted_s >= look.now_s - KEPT_S)
    return Place(look, order.learn(before.order, before.look, look), newcomers)


def _vanished(before: Look, now: Look) -> list[Used]:
    """Jobs that ran and are gone without a word: they ended between the looks."""
    here = {job.id for job in now.running} | {job.id for job in now.ended}
    middle_s = (before.now_s + now.now_s) / 2
    return [
        _used(job._replace(ended_s=job.started_s + max(1.0, min(job.asked_s, middle_s - job.started_s))), now.speed)
        for job in before.running
        if job.id not in here and job.started_s is not None
    ]


def _used(job: SeenJob, speed: float) -> Used:
    """In seconds of a place of speed 1: who asks for less where it is faster asks for the same."""
    began_s, ended_s = job.started_s or 0.0, job.ended_s or 0.0
    return Used(job.kin, job.asked_s * speed, max(0.0, ended_s - began_s) * speed, job.cores)


def _came(job: SeenJob) -> tuple[float, str]:
    return job.submitted_s, job.id
