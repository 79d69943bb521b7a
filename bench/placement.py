"""How long placement takes: ``python -m bench.placement``. Screening is on the submit path, placing is not.

A decision is ``kept`` when the forecasts of all queues are at hand, played as a server does when it has learnt from a
look, and ``cold`` when none is.
"""

from __future__ import annotations

import random
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from statistics import fmean

from placement.assign import cost
from placement.engine import answer, explained, place
from placement.estimate import estimates
from placement.evidence import Evidence, foresee
from placement.filters import screen
from placement.forecasts import Forecasts, depth_for
from placement.futures import Copy, Futures
from placement.greedy import greedy
from placement.kept import Kept
from placement.looks import Look, SeenJob
from placement.order import Order
from placement.pose import pose, read
from placement.predict import Predictor, RunTimes
from placement.problem import Ask, Problem, SolveLimits, SystemView
from scheduler.collector import spare_the_collector
from scheduler.model.jobs import FinishedRun, JobSpec
from scheduler.model.runs import Resources, Runtime
from scheduler.model.snapshots import NodeKind, PartitionState, SystemSnapshot, VisibleJob
from scheduler.model.systems import LogicalQueue, System, SystemRuntime

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PARTITIONS = ("cpu", "gpu", "debug")


def cluster(number: int, visible_jobs: int, dice: random.Random) -> SystemView:
    """A cluster of three queues: each with 64 nodes of 32 cores, of which 60 are busy, and a visible queue."""
    name = f"cluster{number}"
    queues = tuple(LogicalQueue(name=each, partition=each, max_walltime_s=86_400) for each in PARTITIONS)
    jobs = tuple(
        VisibleJob(
            remote_id=str(n),
            partition=PARTITIONS[n % 3],
            running=n < 180,
            nodes=1,
            cores=32,
            walltime_s=dice.randrange(600, 86_400),
            submitted_at=NOW - timedelta(hours=9),
            started_at=NOW - timedelta(minutes=dice.randrange(1, 400)) if n < 180 else None,
            priority=dice.random(),
        )
        for n in range(visible_jobs)
    )
    kinds = [NodeKind(partition=each, cores=32, memory_mib=128_000, total=64, free=4, gpus=4) for each in PARTITIONS]
    look = SystemSnapshot(
        taken_at=NOW - timedelta(seconds=30),
        partitions=tuple(PartitionState(name=each, up=True) for each in PARTITIONS),
        nodes=tuple(kinds),
        jobs=jobs,
    )
    system = System(
        tenant="dev",
        id=name,
        uuid=name,
        owner="admin",
        host=f"{name}.example.org",
        can_exec=True,
        can_run_batch=True,
        runtimes=(SystemRuntime(Runtime.SINGULARITY),),
        queues=queues,
        default_queue="cpu",
    )
    return SystemView(system=system, snapshot=look)


def problem(jobs: int, systems: int, visible_jobs: int = 400, seed: int = 1) -> Problem:
    """Jobs of many shapes and users on alike clusters with a thousand finished runs."""
    dice = random.Random(seed)
    asks = tuple(
        Ask(
            job_uuid=f"job-{n:05}",
            owner=f"user{dice.randrange(20)}",
            spec=JobSpec(
                name="bench",
                app_id="bench",
                app_version="1",
                image=f"docker://registry.example.org/image{dice.randrange(40)}",
                runtime=Runtime.SINGULARITY,
                dynamic=True,
                constraints=("canRunBatch = true AND maxMinutes >= 10",),
                resources=Resources(
                    nodes=dice.choice((1, 1, 2, 8)),
                    cores_per_node=dice.choice((1, 8, 32)),
                    memory_mib=4000,
                    walltime_s=dice.choice((600, 3600, 4 * 3600, 24 * 3600)),
                ),
            ),
            waiting_since=NOW - timedelta(seconds=dice.randrange(600)),
        )
        for n in range(jobs)
    )
    history = tuple(_finished(dice, systems) for _ in range(1000))
    views = tuple(cluster(n, visible_jobs, dice) for n in range(systems))
    return Problem(now=NOW, asks=asks, systems=views, history=history)


def _finished(dice: random.Random, systems: int) -> FinishedRun:
    ended_at = NOW - timedelta(minutes=dice.randrange(1, 9999))
    started_at = ended_at - timedelta(seconds=dice.randrange(30, 9000))
    return FinishedRun(
        tenant="dev",
        owner=f"user{dice.randrange(20)}",
        app_id="bench",
        image=f"docker://registry.example.org/image{dice.randrange(40)}",
        system_id=f"cluster{dice.randrange(systems)}",
        queue=dice.choice(PARTITIONS),
        resources=Resources(walltime_s=10_000),
        submitted_at=started_at - timedelta(seconds=dice.randrange(1, 9000)),
        started_at=started_at,
        ended_at=ended_at,
        completed=True,
    )


def fresh(asked: Problem) -> Problem:
    """The same problem as it comes from the store: nothing worked out yet."""
    views = tuple(replace(view, snapshot=view.snapshot and replace(view.snapshot)) for view in asked.systems)
    return replace(asked, systems=views, forecasts=Forecasts(), own_runs=Kept())


def kept(asked: Problem) -> Problem:
    """The same problem at the next plan: the looks at the systems are the same, and so are their forecasts."""
    return replace(asked, systems=tuple(replace(view) for view in asked.systems))


def decisions(systems: int, visible_jobs: int, kept_times: int = 60, cold_times: int = 3) -> None:
    """Print what one new job costs, of another shape each time: processor time, the shares of its steps, and memory."""
    several = problem(kept_times, systems, visible_jobs)
    asked = [replace(several, asks=(_reshaped(ask, n),)) for n, ask in enumerate(several.asks)]
    place(asked[0])  # makes the forecasts that are kept
    for view in several.systems:
        for each in view.queue_places:
            if (forecast := foresee(each, several.experience, several.forecasts)) is not None:
                forecast.play()
    age_s = max((several.now - view.snapshot.taken_at).total_seconds() for view in several.systems if view.snapshot)
    print(f"decide 1 job x {systems} systems of {visible_jobs} visible jobs each (forecasts {age_s:.0f} s old)")
    print(f"{'':>6}{'':<6}{'times':>7}{'p50 cpu ms':>12}{'p99':>10}{'screening':>12}{'estimates':>12}{'the rest':>12}")
    for name, as_it_comes, some in (("cold", fresh, asked[:cold_times]), ("kept", kept, asked)):
        runs = [_steps_ms(each, as_it_comes) for each in some]
        whole = sorted(each[0] for each in runs)
        screening, estimating = (sum(each[step] for each in runs) / sum(whole) for step in (1, 2))
        print(
            f"{'':>6}{name:<6}{len(whole):>7}{statistics.median(whole):>12.1f}{whole[int(len(whole) * 0.99)]:>10.1f}"
            f"{screening:>12.0%}{estimating:>12.0%}{1 - screening - estimating:>12.0%}"
        )
    print(f"{'':>6}peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def _reshaped(ask: Ask, number: int) -> Ask:
    """The same job with a walltime that no other one asks for."""
    own = replace(ask.spec.resources, walltime_s=ask.spec.resources.walltime_s - number)
    return replace(ask, spec=replace(ask.spec, resources=own))


def _steps_ms(asked: Problem, as_it_comes: Callable[[Problem], Problem]) -> tuple[float, float, float]:
    """The whole decision, and its first two steps, which are done once more to be timed alone."""
    one = as_it_comes(asked)
    began_s = time.process_time()
    place(one)
    whole_s = time.process_time() - began_s
    one = as_it_comes(asked)
    at_s = [time.process_time()]
    screenings = screen(one)
    at_s.append(time.process_time())
    estimates(one, screenings, Evidence.of(one))
    at_s.append(time.process_time())
    return 1000 * whole_s, 1000 * (at_s[1] - at_s[0]), 1000 * (at_s[2] - at_s[1])


def shortcut(visible_jobs: int, sets: int = 4, places: int = 5, jobs: int = 60) -> None:
    """Print how often the place chosen is another when queues are played to their end, and what that costs.

    Means over some sets of places, for one set tells little; beside it what any place would cost in the mean.
    """
    dice = random.Random(visible_jobs)
    same, lost, by_chance, errors, bests = 0, [], [], [], []
    for _ in range(sets):
        looks = [_look(visible_jobs, dice) for _ in range(places)]
        short, whole = (
            [Futures(look, Predictor(RunTimes()), Order(), depth=depth) for look in looks]
            for depth in (depth_for(visible_jobs), 10**9)
        )
        for n in range(jobs):
            asked_s, cores = dice.choice((600.0, 3600.0, 14_400.0, 86_400.0)), 2 ** dice.randrange(9)
            copy = Copy(f"ours{n}", "", cores, asked_s, 0.0, "us", "us")
            told, right = ([fmean(each.starts_s(copy, 1e9)) for each in futures] for futures in (short, whole))
            chosen, best = told.index(min(told)), right.index(min(right))
            same += chosen == best
            lost.append(right[chosen] - right[best])
            by_chance.append(fmean(right) - right[best])
            errors.append(abs(told[best] - right[best]))
            bests.append(right[best])
    print(f"play {depth_for(visible_jobs)} starts a draw, not all, of {places} queues of {visible_jobs} jobs:", end=" ")
    print(f"{same / len(lost):.0%} of {sets} x {jobs} jobs to the same place,", end=" ")
    print(f"{fmean(lost) / 60:.0f} min lost in the mean ({fmean(by_chance) / 60:.0f} by chance);", end=" ")
    print(f"the start of the best place {fmean(errors) / 60:.0f} min off of {fmean(bests) / 3600:.0f} h")


def _look(visible_jobs: int, dice: random.Random, cores: int = 2048) -> Look:
    """A queue of all shapes and its machine, which is full."""
    running: list[SeenJob] = []
    waiting: list[SeenJob] = []
    free = cores
    for n in range(visible_jobs):
        size, asked_s = 2 ** dice.randrange(9), dice.choice((1800.0, 14_400.0, 43_200.0, 86_400.0))
        started_s = -asked_s * dice.random() if size <= free and not waiting else None
        job = SeenJob(str(n), size, asked_s, n - 90_000.0, f"user{n % 40}", f"user{n % 40}", started_s)
        free -= size if started_s is not None else 0
        (waiting if started_s is None else running).append(job)
    return Look(0.0, cores, running, waiting)


def measure(name: str, run: Callable[[], object], times: int) -> None:
    """Print the processor time that a run costs, and how long it took on the clock."""
    cpu_ms, wall_ms = [], []
    for _ in range(times):
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        cpu_ms.append((time.process_time() - cpu) * 1000)
        wall_ms.append((time.perf_counter() - wall) * 1000)
    cpu, wall = statistics.median(cpu_ms), statistics.median(wall_ms)
    print(f"{name:<56} cpu {cpu:9.2f} ms   clock {wall:9.2f} ms   (median of {times})")


def unlike(asked: Problem) -> Problem:
    """The same number of jobs for one queue of each system, which all of them fit, no two alike."""
    return replace(asked, asks=tuple(_unlike(ask, n) for n, ask in enumerate(asked.asks)))


def _unlike(ask: Ask, number: int) -> Ask:
    own = replace(ask.spec.resources, walltime_s=_within_a_day_s(ask, number), memory_mib=4000 + number)
    return replace(ask, spec=replace(ask.spec, queue="cpu", image=f"{ask.spec.image}-{number}", resources=own))


def _within_a_day_s(ask: Ask, number: int) -> int:
    return min(86_400, ask.spec.resources.walltime_s + 5000) - number


def campaigns(asked: Problem, kinds: int) -> Problem:
    """As many jobs, of few kinds."""
    models = [(ask.owner, ask.spec) for ask in asked.asks[:kinds]]
    pairs = zip(asked.asks, cycle(models), strict=False)
    return replace(asked, asks=tuple(replace(ask, owner=owner, spec=spec) for ask, (owner, spec) in pairs))


def replanned(name: str, asked: Problem) -> None:
    """Print what planning all of it anew costs, step by step, and what greedy and solver come to.

    Apart from that, what it costs to say of every job why it goes where it goes.
    """
    limits, took_s = SolveLimits(), [time.process_time()]
    screenings = screen(asked)
    took_s.append(time.process_time())
    evidence = Evidence.of(asked)
    expected = estimates(asked, screenings, evidence)
    took_s.append(time.process_time())
    assignment = pose(asked, screenings, expected, evidence.history)
    took_s.append(time.process_time())
    first = greedy(assignment)
    took_s.append(time.process_time())
    found = answer(assignment, first, limits, asked.seed)
    took_s.append(time.process_time())
    explained(screenings, expected, read(assignment, found.counts), found.proven_optimal, evidence)
    explaining_s = time.process_time() - took_s[-1]
    steps = ("screen", "estimate", "pose", "greedy", "solver")
    shown = "  ".join(f"{step} {late - soon:.2f}" for step, soon, late in zip(steps, took_s, took_s[1:], strict=False))
    gaps = [cost(assignment, counts) / max(1, assignment.lower_bound) - 1 for counts in (first, found.counts)]
    print(f"replan {name}: {took_s[-1] - took_s[0]:.2f} s of a core ({shown}); explaining it {explaining_s:.2f} s")
    print(f"{'':>6}{len(assignment.kinds)} kinds, solver looked at {found.solved_share:.1%} of them", end="; ")
    print(f"above the bound: greedy {gaps[0]:.2%}, plan {gaps[1]:.2%}")


def main() -> None:
    spare_the_collector()  # as a server does
    decisions(20, 5000)
    for visible_jobs in (400, 1500):
        shortcut(visible_jobs)
    one = problem(1, 10)
    screen(one)
    measure("screen   1 job  x 10 systems (30 queues), submit path", lambda: screen(fresh(one)), 200)
    measure("place    1 job  x 10 systems of 400 visible jobs", lambda: place(fresh(one)), 5)
    for jobs in (100, 1000):
        several = problem(jobs, 10)
        plan = place(several)
        measure(f"place {jobs:4} jobs x 10 systems of 400 visible jobs", lambda asked=several: place(fresh(asked)), 2)
        print(f"{'':>6}proven optimal: {plan.proven_optimal}, {plan.gap_share:.1%} above the bound")
    many = problem(5000, 20)
    few = campaigns(many, 100)
    replanned("5,000 jobs of 100 kinds x 20 systems, queues foreseen anew", few)
    replanned("the same, on forecasts kept", kept(few))
    replanned("5,000 jobs, no two alike, x 20 systems, on forecasts kept", kept(unlike(many)))


if __name__ == "__main__":
    main()
