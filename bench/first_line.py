"""From the submission to the job's first line in its remote file, on an idle cluster, beside ``ssh host sbatch``.

    python -m bench.first_line [--runs 30]        (root; brings a cluster up and takes it down)

Three ways take turns: Berth's API; ``ssh host sbatch`` with a connection of its own; the same over a connection that
is kept open. All run one command in one image by Apptainer, and the output file's time tells when its line came.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.report import Row, show, spread
from bench.world import World, has_content, wait_for, world

SCRIPT = """#!/bin/sh
exec apptainer --quiet exec --no-https {image} sh -c 'echo first line'
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.first_line", description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--ssh-port", type=int, default=12400)
    chosen = parser.parse_args(argv)
    with world("benchfirstline", chosen.ssh_port) as here, kept_open(here) as master:
        script = SCRIPT.format(image=here.image)
        ways: dict[str, Callable[[], float]] = {
            "Berth": lambda: through_berth(here),
            "ssh sbatch": lambda: by_hand(here, script, []),
            "kept open": lambda: by_hand(here, script, master),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        pauses = random.Random(1)
        for way in ways.values():
            way()  # the image is in the cluster's cache from here on
        for _ in range(chosen.runs):
            for name, way in ways.items():
                time.sleep(pauses.random())  # so that no way is in step with a clock of Slurm's
                took[name].append(way())
    ours = took.pop("Berth")
    rows = [
        Row(
            f"beside {name}, {len(ours)} runs in turn",
            spread(ours, "s"),
            f"{spread(theirs, 's')}; {median(ours) - median(theirs):+.2f} s",
            "at most +0.5 s",
        )
        for name, theirs in took.items()
    ]
    show("From the submission to the first line in the remote file, idle cluster", rows)


def through_berth(here: World) -> float:
    """Seconds by way of Berth."""
    began = time.time()
    uuid = here.submit(here.job("echo first line"))
    job = here.finish(uuid)
    return written_at(here.seen_here(f"{job['execSystemOutputDir']}/tapisjob.out")) - began


def by_hand(here: World, script: str, options: Sequence[str]) -> float:
    """Seconds by ``ssh host sbatch``, the script on its standard input."""
    output = f"/home/alice/by-hand-{time.time_ns()}.out"
    began = time.time()
    sbatch = f"sbatch --parsable --mem=100 --output={output}"
    number = subprocess.run(
        [*ssh(here), *options, "testbed", sbatch], input=script, text=True, check=True, capture_output=True
    ).stdout.strip()
    seen = here.seen_here(output)
    wait_for(lambda: has_content(seen), 60, "the first line")
    wait_for(lambda: not here.cluster.sh("login", f"squeue -h -t all -j {number} -t R,CG,PD"), 60, "the job's end")
    return written_at(seen) - began


def written_at(path: Path) -> float:
    """When the file was last written, in seconds since the epoch: its only line came in one write."""
    if not has_content(path):
        raise RuntimeError(f"{path} holds no line")
    return path.stat().st_mtime_ns / 1e9


@contextmanager
def kept_open(here: World) -> Iterator[list[str]]:
    """The options of an ssh that goes over a connection which is open already."""
    socket = ["-o", f"ControlPath={here.server.home}/master"]
    subprocess.run([*ssh(here), *socket, "-o", "ControlMaster=yes", "-fN", "testbed"], check=True)
    try:
        yield socket
    finally:
        subprocess.run([*ssh(here), *socket, "-O", "exit", "testbed"], check=True, capture_output=True)


def ssh(here: World) -> list[str]:
    return ["ssh", "-F", here.cluster.info()["ssh"]["config"]]


if __name__ == "__main__":
    main()
