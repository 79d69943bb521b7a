"""Job logs in the Standard Workload Format, and the scenarios made of them: several systems, their load, our jobs."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType

from bench.logs import name_of, read_log
from placement.easy import Load
from placement.simulate import SimJob, SimSystem, Truths

DAY_S = 86_400.0
WARM_UP_S, SPAN_S = 21 * DAY_S, 28 * DAY_S
OUR_JOBS = 600
OUR_SHARE = 0.045
"""Of all systems' capacity while our jobs come."""
IMAGES = 12


@dataclass(frozen=True, slots=True)
class Record:
    """One job of a log."""

    submitted_s: float
    cores: int
    asked_s: float
    run_s: float
    user: str


@dataclass(frozen=True, slots=True)
class Trace:
    """A log's usable records in order of submission, and the size of its machine."""

    name: str
    cores: int
    records: tuple[Record, ...]


def read_swf(path: Path) -> Trace:
    """A log from a ``.swf`` or ``.swf.gz`` file.

    Records without run time, cores or request are dropped; run times are cut at the request, as the site did.
    """
    jobs = read_log(path).jobs
    usable = (job for job in jobs if min(job.run_s, job.cores, job.asked_s) > 0 and job.submit_s >= 0)
    records = [
        Record(job.submit_s, job.cores, job.asked_s, min(job.run_s, job.asked_s), str(job.user)) for job in usable
    ]
    records.sort(key=lambda record: record.submitted_s)
    return Trace(name_of(path), max((record.cores for record in records), default=1), tuple(records))


def generated(seed: int, cores: int = 128, days: float = 200.0) -> Trace:
    """A log out of nothing, for where none is given: users who come in sessions, by day, and repeat themselves."""
    dice = random.Random(seed)
    records: list[Record] = []
    for user in range(24):
        busy = dice.paretovariate(1.1)
        width = min(cores // 2, 2 ** dice.randrange(0, 6))
        asked_s = dice.choice((1800.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 24 * 3600.0))
        at_s, share = dice.random() * DAY_S, dice.betavariate(0.8, 1.6)
        while at_s < days * DAY_S:
            if dice.random() < 0.3:
                share = dice.betavariate(0.8, 1.6)
            night = 3.0 if (at_s % DAY_S) < 8 * 3600 else 1.0
            run_s = asked_s * min(1.0, max(0.001, share * dice.lognormvariate(0.0, 0.3)))
            records.append(Record(at_s, width, asked_s, max(1.0, run_s), f"g{user}"))
            gap_s = 300.0 if dice.random() < 0.6 else night * DAY_S / min(20.0, 2 * busy)
            at_s += dice.expovariate(1 / gap_s)
    return Trace(f"generated-{seed}", cores, tuple(sorted(records, key=lambda r: r.submitted_s)))


# -- scenarios ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Noise:
    """What is hidden: spreads of ranks by user and by job, of how images suit systems; and the order that is shown."""

    user_rank_s: float = 0.0
    job_rank_s: float = 0.0
    affinity_sigma: float = 0.0
    in_submit_order: bool = False


NOISES: Mapping[str, Noise] = MappingProxyType(
    {
        "clean": Noise(),
        "noisy": Noise(6 * 3600.0, 3 * 3600.0, 0.15),
        "blind": Noise(24 * 3600.0, 6 * 3600.0, 0.25, in_submit_order=True),
    }
)


@dataclass(frozen=True, slots=True)
class Site:
    """A system of a scenario: which log loads it (by its place in the list), its size, its speed, the offered load."""

    log: int
    cores: int
    speed: float
    load: float


SETS: Mapping[str, tuple[Site, ...]] = MappingProxyType(
    {
        "mid": (Site(0, 100, 1.0, 0.86), Site(1, 338, 0.8, 0.90), Site(2, 240, 1.25, 0.85), Site(0, 144, 1.1, 0.88)),
        "twins": (Site(0, 144, 0.9, 0.93), Site(1, 144, 1.0, 0.93), Site(2, 144, 1.1, 0.93), Site(1, 144, 1.0, 0.93)),
        "large": (
            Site(1, 1152, 1.0, 0.90),
            Site(2, 5832, 0.6, 0.80),
            Site(0, 144, 1.5, 0.85),
            Site(1, 512, 1.2, 0.92),
            Site(2, 240, 0.9, 0.88),
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A world that is about to begin, and what will be asked of it."""

    name: str
    systems: tuple[SimSystem, ...]
    jobs: tuple[SimJob, ...]
    truths: Truths
    noise: Noise


def scenario(traces: Sequence[Trace], kind: str, noise_name: str, seed: int, *, jobs: int = OUR_JOBS) -> Scenario:
    """One scenario. Which parts of the logs it is cut from follows from the seed (see ``part``)."""
    noise, dice = NOISES[noise_name], random.Random(f"{kind}-{seed}")
    sites = [(site, f"{kind}{n}") for n, site in enumerate(SETS[kind])]
    share = jobs / OUR_JOBS
    systems = tuple(
        SimSystem(
            name,
            site.cores,
            site.speed,
            math.exp(dice.uniform(math.log(60), math.log(500))),
            _background(
                traces[site.log % len(traces)], site, name, noise, dice, WARM_UP_S + (SPAN_S + 14 * DAY_S) * share
            ),
        )
        for site, name in sites
    )
    ours = _our_jobs(traces[seed % len(traces)], systems, jobs, dice)
    hidden = random.Random(f"{kind}-{seed}-{noise_name}")
    affinity = {
        (f"image{n}", system.name): math.exp(hidden.gauss(0.0, noise.affinity_sigma))
        for n in range(IMAGES)
        for system in systems
        if noise.affinity_sigma
    }
    us = {system.name: hidden.gauss(0.0, noise.user_rank_s) for system in systems}
    offsets = {
        (job.id, system.name): us[system.name] + hidden.gauss(0.0, noise.job_rank_s)
        for job in ours
        for system in systems
        if noise.job_rank_s
    }
    return Scenario(f"{kind}-{noise_name}-{seed}", systems, ours, Truths(affinity, offsets), noise)


def _background(
    trace: Trace, site: Site, name: str, noise: Noise, dice: random.Random, span_s: float
) -> tuple[Load, ...]:
    """A part of a log, scaled to the site's size and squeezed until it offers the load; from a random day on."""
    scale = site.cores / trace.cores
    records = [replace(r, cores=max(1, min(site.cores, round(r.cores * scale)))) for r in trace.records]
    work = list(accumulate((r.cores * r.run_s for r in records), initial=0.0))
    wanted = site.load * site.cores * span_s
    if work[-1] < wanted:
        records, work = list(_repeated(records, math.ceil(wanted / work[-1]))), []
        work = list(accumulate((r.cores * r.run_s for r in records), initial=0.0))
    last = bisect_left(work, work[-1] - wanted)
    first = dice.randrange(last) if last > 0 else 0
    until = min(len(records), bisect_left(work, work[first] + wanted))
    part = records[first:until]
    began_s, squeeze = part[0].submitted_s, span_s / max(1.0, part[-1].submitted_s - part[0].submitted_s)
    rank = random.Random(f"{name}-{first}-ranks")
    user_s = {user: rank.gauss(0.0, noise.user_rank_s) for user in sorted({r.user for r in part})}
    loads = []
    for n, r in enumerate(part):
        at_s = float(round((r.submitted_s - began_s) * squeeze))
        rank_s = at_s + user_s[r.user] + rank.gauss(0.0, noise.job_rank_s)
        loads.append(Load(f"{name}.{n}", r.cores, r.asked_s, r.run_s, at_s, rank_s, r.user))
    return tuple(loads)


def _repeated(records: Sequence[Record], times: int) -> Iterator[Record]:
    span_s = records[-1].submitted_s - records[0].submitted_s + 60.0
    for n in range(times):
        for r in records:
            yield replace(r, submitted_s=r.submitted_s + n * span_s)


def _our_jobs(trace: Trace, systems: Sequence[SimSystem], jobs: int, dice: random.Random) -> tuple[SimJob, ...]:
    """A run of jobs from a log, squeezed into the span and scaled to our share of all systems."""
    span_s = SPAN_S * jobs / OUR_JOBS
    first = dice.randrange(max(1, len(trace.records) - jobs))
    part = trace.records[first : first + jobs]
    began_s, squeeze = part[0].submitted_s, span_s / max(1.0, part[-1].submitted_s - part[0].submitted_s)
    most_cores = min(system.cores for system in systems) // 2
    capacity = sum(system.cores for system in systems) * span_s
    cores = _scaled([r.cores for r in part], [r.run_s for r in part], OUR_SHARE * capacity, most_cores)
    image_mib = [dice.lognormvariate(math.log(2000), 0.6) for _ in range(IMAGES)]
    favourites = {user: dice.sample(range(IMAGES), 2) for user in sorted({r.user for r in part})}
    made = []
    for n, r in enumerate(part):
        image = favourites[r.user][dice.random() < 0.25]
        made.append(
            SimJob(
                id=f"ours{n}",
                cores=cores[n],
                asked_s=r.asked_s,
                run_s=r.run_s,
                submitted_s=WARM_UP_S + float(round((r.submitted_s - began_s) * squeeze)),
                user=r.user,
                image=f"image{image}",
                image_mib=image_mib[image],
                inputs_mib=dice.lognormvariate(math.log(200), 1.5),
            )
        )
    return tuple(made)


def _scaled(cores: Sequence[int], runs_s: Sequence[float], work: float, most: int) -> list[int]:
    """The cores of each job, scaled alike so that all together do as near to the work as the limit allows."""

    def sized(scale: float) -> list[int]:
        return [max(1, min(most, round(each * scale))) for each in cores]

    low, high = 0.0, 1e4
    for _ in range(50):
        middle = (low + high) / 2
        done = sum(c * r for c, r in zip(sized(middle), runs_s, strict=True))
        low, high = (middle, high) if done < work else (low, middle)
    return sized(high)
