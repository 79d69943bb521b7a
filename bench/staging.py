"""How many jobs wait for their image: ``python -m bench.staging [--traces FOLDER] [--forecasts model] [--quick]``.

Each recorded queue is one system with a link and a store of its own. Its jobs get images by Zipf's law; every image is
rebuilt now and then, and then all of it must be sent again: what chunks of the last build would spare is not counted.
Some placements stage an image for a job that runs elsewhere in the end; their bytes and their room count. The peer
stages when a job begins. When a job is to begin is foreseen as its class of jobs waited of late, or with
``--forecasts model`` by the model that placement asks, which takes minutes for each record. Beside a small store
stands what is hidden where waits are known exactly, what would be by one who knows all starts and all jobs beforehand,
how many jobs begin while the images in use do not fit into it, and what is hidden where nodes have room for copies of
their own. Without a folder a short generated trace shows that it works, not what it is worth.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from math import inf, isnan, log, log2
from pathlib import Path

import numpy as np

from bench.report import Row, show
from bench.staging_bound import crowded, foreseen
from bench.staging_model import Rules, Told, Use, simulate
from bench.waits import REFIT_S
from bench.waits_replay import days, seen
from bench.waits_replay import told as played
from bench.waits_traces import Job, Trace, generated, swf_traces
from images.claims import UNTOLD, Foreseen
from images.staging import SiteFacts
from placement.waits import WaitModel

DAY_S = 86_400.0
GB = 1e9
IMAGES = 500
MEDIAN_BYTES, SIGMA = 2 * GB, 1.0
"""Of a log-normal distribution of sizes: one image in a hundred has more than 20 GB."""
NEW_SHARE = 0.2
"""Of the images that get a new digest on a day."""
LINK_BYTES_PER_S = 125e6
NODES = SiteFacts(link_bytes_per_s=125e6)
"""Of the cluster: what its nodes send each other when they copy an image to their own disks."""
UNUSED_SHARE = 0.25
"""Placements beside those of the record whose job runs elsewhere in the end: jobs that were moved or hedged."""
ZIPFS = (0.8, 1.2)
STORES = (("10 %", 0.1), ("50 %", 0.5), ("all", inf))
"""Room in the store, in shares of all images together in one build each."""
RECENT, ENOUGH = 200, 10
"""Waits of a class of jobs that count for what is foreseen: the last of them, and at least so many."""
NEVER_S = 1e9


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.staging", description=__doc__)
    parser.add_argument("--traces", type=Path, help="folder of job traces in the Standard Workload Format, with waits")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--forecasts", choices=FORECASTS, default="class", help="how it is foreseen when jobs begin")
    parser.add_argument("--quick", action="store_true", help="the generated trace only")
    chosen = parser.parse_args(argv)
    traces = swf_traces(chosen.traces) if chosen.traces and not chosen.quick else [generated(jobs=1500)]
    shares: list[float] = []
    for trace in traces:
        began = time.monotonic()
        rows, hidden = table(trace, chosen.seed, FORECASTS[chosen.forecasts](trace))
        shares += hidden
        show(f"{trace.name}: {len(trace.jobs)} jobs in {trace.span_s / DAY_S:.0f} days", rows)
        print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"\nwithout delay where the wait is longer than staging: {100 * min(shares):.2f} % at least (goal 95 %)")


def table(trace: Trace, seed: int, told: Sequence[Foreseen]) -> tuple[list[Row], list[float]]:
    """A row for each law and store; and the share without delay of those whose wait is long enough.

    told: of each job, its wait as it is foreseen when it is placed.
    """
    rows, shares = [], []
    for zipf in ZIPFS:
        uses, all_bytes = uses_of(trace, zipf, seed, told)
        late = [use for use in (at_start(use) for use in uses) if use is not None]
        for name, store in STORES:
            rules = Rules(link_bytes_per_s=LINK_BYTES_PER_S, store_bytes=store * all_bytes)
            came = simulate(uses, rules)
            shares.append(hidden_share(uses, came))
            rows.append(
                Row(
                    f"Zipf {zipf}, store {name}",
                    f"{100 * shares[-1]:6.2f} %; of all {figures(uses, came)}",
                    figures(uses, simulate(late, rules)),
                    "95 %" + ("" if store == inf else f"; {at_best(uses, rules)}"),
                )
            )
    return rows, shares


def uses_of(trace: Trace, zipf: float, seed: int, told: Sequence[Foreseen]) -> tuple[list[Use], float]:
    """Images for the jobs of a record, by their time of placement; bytes of all images, each once."""
    dice = np.random.default_rng([seed, round(100 * zipf)])
    sizes = np.exp(dice.normal(log(MEDIAN_BYTES), SIGMA, IMAGES))
    days = int(trace.span_s / DAY_S) + 1
    builds = np.cumsum(dice.random((days, IMAGES)) < NEW_SHARE, axis=0)
    weights = 1 / np.arange(1, IMAGES + 1) ** zipf
    drawn = dice.choice(IMAGES, size=(2, len(trace.jobs)), p=weights / weights.sum())
    is_doubled = dice.random(len(trace.jobs)) < UNUSED_SHARE
    uses = []
    for number, job in enumerate(trace.jobs):
        day = int((job.submit_at_s - trace.begins_at_s) / DAY_S)
        for image, runs in ((int(drawn[0, number]), True), (int(drawn[1, number]), False)):
            if runs or is_doubled[number]:
                uses.append(
                    Use(
                        digest=(image, int(builds[day, image])),
                        size_bytes=float(sizes[image]),
                        nodes=job.shape.size,
                        placed_at_s=job.submit_at_s,
                        starts_at_s=job.start_at_s if runs else None,
                        ends_at_s=job.end_at_s if runs else job.start_at_s,
                        foreseen=told[number],
                    )
                )
    return uses, float(sizes.sum())


def by_class(trace: Trace) -> Sequence[Foreseen]:
    """The wait of each job as its class of jobs waited before it came: of about its size and walltime, or all jobs."""
    begun = deque(sorted(trace.jobs, key=lambda job: job.start_at_s))
    recent: dict[Hashable, deque[float]] = {None: deque(maxlen=RECENT)}
    known: dict[Hashable, Foreseen] = {}
    told = []
    for job in trace.jobs:
        while begun and begun[0].start_at_s <= job.submit_at_s:
            past = begun.popleft()
            for each in (None, _class_of(past)):
                recent.setdefault(each, deque(maxlen=RECENT)).append(past.wait_s)
                known.pop(each, None)
        mine = _class_of(job) if len(recent.get(_class_of(job), ())) >= ENOUGH else None
        if mine not in known and recent[mine]:
            known[mine] = Foreseen(*(float(at) for at in np.quantile(recent[mine], (0.5, 0.9))))
        told.append(known.get(mine, UNTOLD))
    return told


def by_model(trace: Trace) -> Sequence[Foreseen]:
    """The same as Berth's own model of waits says it, which learns as the record goes on."""
    always = days((-inf, inf))
    said = played(WaitModel(refit_s=REFIT_S), trace, seen(trace, always), always, always)
    pairs = zip(said.p50_s["berth"].tolist(), said.p90_s["berth"].tolist(), strict=True)
    return [UNTOLD if isnan(p50_s) else Foreseen(p50_s, max(p50_s, p90_s)) for p50_s, p90_s in pairs]


FORECASTS: Mapping[str, Callable[[Trace], Sequence[Foreseen]]] = {"class": by_class, "model": by_model}


def _class_of(job: Job) -> Hashable:
    return int(log2(max(1.0, job.shape.size))), int(log2(max(1.0, job.shape.walltime_s / 60)))


def exactly(use: Use) -> Use:
    """The same placement where it is known when its job begins, or that it begins elsewhere."""
    wait_s = NEVER_S if use.starts_at_s is None else use.starts_at_s - use.placed_at_s
    return replace(use, foreseen=Foreseen(wait_s, wait_s))


def at_start(use: Use) -> Use | None:
    """The same job where nothing is staged before it begins."""
    return None if use.starts_at_s is None else replace(use, placed_at_s=use.starts_at_s)


# -- figures ---------------------------------------------------------------------------------------------------------


def hidden_share(uses: Sequence[Use], told: Told) -> float:
    """Of the jobs that wait longer than their image takes over an idle link, those that begin without delay."""
    return float(
        np.mean([delay == 0 for delay, is_long in zip(told.delays_s, waits_long(uses), strict=True) if is_long])
    )


def waits_long(uses: Sequence[Use]) -> list[bool]:
    """Of each use that runs, whether it waits longer than its image takes over an idle link."""
    ran = ((use.starts_at_s - use.placed_at_s, use) for use in uses if use.starts_at_s is not None)
    return [wait_s > use.size_bytes / LINK_BYTES_PER_S for wait_s, use in ran]


def at_best(uses: Sequence[Use], rules: Rules) -> str:
    """Of the same jobs: what is hidden by who knows all starts, and who begin while the images in use do not fit."""
    pairs = zip(crowded(uses, rules.store_bytes), waits_long(uses), strict=True)
    full = float(np.mean([is_crowded for is_crowded, is_long in pairs if is_long]))
    waits = hidden_share(uses, simulate([exactly(use) for use in uses], rules))
    known = hidden_share(uses, foreseen(uses, rules))
    copied = hidden_share(uses, simulate(uses, replace(rules, copied_by=NODES)))
    return (
        f"copies on nodes {100 * copied:.2f} %, waits known {100 * waits:.2f} %, "
        f"all jobs known {100 * known:.2f} %, begin in a crowd {100 * full:.2f} %"
    )


def figures(uses: Sequence[Use], told: Told) -> str:
    """Of all jobs."""
    delays_s = np.array(told.delays_s)
    share, p99_s = 100 * (delays_s == 0).mean(), np.quantile(delays_s, 0.99)
    lost, no_room = idle_node_hours(uses, told), told.without_room
    return f"{share:5.1f} % at once, p99 {p99_s:5.0f} s, {lost:6.0f} node-h idle, no room {no_room}"


def idle_node_hours(uses: Sequence[Use], told: Told) -> float:
    """What nodes lost while they waited for an image."""
    ran = (use for use in uses if use.starts_at_s is not None)
    return sum(use.nodes * delay_s for use, delay_s in zip(ran, told.delays_s, strict=True)) / 3600


if __name__ == "__main__":
    main()
