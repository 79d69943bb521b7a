"""Many active jobs on a real cluster: what Berth costs while nothing changes, and how soon it notices what does.

    python -m bench.scale [--jobs 100 10000]      (root; brings a cluster up and takes it down)

All jobs go through Berth's API and wait in the real queue (``--begin``). Then, beside them, short jobs start and end:
noticed is when Berth's history has it, against Slurm's word for the start and a file that the job writes at its end.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.report import Row, show, spread
from bench.world import World, instant, wait_for, world

BATCH = 1000
TICKS_PER_S = 100.0
BY_HAND = 200
ENTER_S = 3600
"""How long jobs may take to reach the queue."""

AFTER_RESTART_S = 10

SHORT = "sleep {seconds}; touch ended"
SECONDS = 7
"""How long a short job runs: longer than one look takes, so that its start is seen as one."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 10_000], help="how many wait, in steps")
    parser.add_argument("--idle-s", type=float, default=60, help="how long nothing changes")
    parser.add_argument("--probes", type=int, default=5, help="short jobs at each step")
    parser.add_argument("--ssh-port", type=int, default=12420)
    chosen = parser.parse_args(argv)
    with world("benchscale", chosen.ssh_port) as here:
        waiting = 0
        for goal in sorted(chosen.jobs):
            rows = [enter(here, waiting, goal), *idle(here, chosen.idle_s), *noticed(here, goal, chosen.probes)]
            rows.append(restarted(here, chosen.idle_s))
            show(f"{goal} jobs queued on the cluster", rows)
            waiting = goal


def enter(here: World, waiting: int, goal: int) -> Row:
    """Submit until ``goal`` jobs wait in the cluster's queue; how fast they came there."""
    held = here.job("true", parameterSet={"schedulerOptions": [{"arg": "--begin now+1day"}]})
    began = time.monotonic()
    for start in range(waiting, goal, BATCH):
        here.post("/v3/jobs/submit/batch", {"jobs": [held] * min(BATCH, goal - start)})
    accepted_s = time.monotonic() - began
    wait_for(lambda: queued(here) >= goal, ENTER_S, f"{goal} jobs in the queue", every_s=1)
    entered_s = time.monotonic() - began
    count, loop_per_s = goal - waiting, plain_loop(here)
    return Row(
        f"{count} jobs into the queue (answered in {accepted_s:.1f} s)",
        f"{entered_s:.0f} s, {count / entered_s:.0f}/s",
        f"a loop of sbatch beside them: {loop_per_s:.0f}/s",
    )


def plain_loop(here: World) -> float:
    """Submissions a second of a plain loop in one ssh session, right after ours; its jobs are taken back."""
    sbatch = "sbatch --parsable --job-name=by-hand --begin=now+1day --mem=100 --output=/dev/null --wrap=true"
    loop = f"date +%s.%N; for i in $(seq {BY_HAND}); do {sbatch}; done >/dev/null; date +%s.%N; scancel --name=by-hand"
    shell = ["ssh", "-F", here.cluster.info()["ssh"]["config"], "testbed", loop]
    began, ended = subprocess.run(shell, check=True, capture_output=True, text=True).stdout.split()
    return BY_HAND / (float(ended) - float(began))


def queued(here: World) -> int:
    """How many jobs wait, by Berth's own account."""
    answer = here.http.get("/v3/jobs/list", params={"search": "(status.eq.QUEUED)", "computeTotal": "true", "limit": 1})
    return int(answer.raise_for_status().json()["metadata"]["totalCount"])


def idle(here: World, seconds: float) -> list[Row]:
    """Memory, and the share of a core, while nothing changes."""
    time.sleep(20)  # the newest jobs are looked at more often for a while
    began, used = time.monotonic(), cpu_s(here.server.pid)
    time.sleep(seconds)
    share = (cpu_s(here.server.pid) - used) / (time.monotonic() - began)
    return [
        Row(f"core used over {seconds:.0f} s", f"{share:.1%}", "", "< 10 %"),
        Row("resident; at most so far", "{} MiB; {} MiB".format(*memory_mib(here.server.pid)), "", "< 400 MiB"),
    ]


def restarted(here: World, seconds: float) -> Row:
    """The share of a core from some seconds after a restart on: the start of the program itself is not counted."""
    here.server.stop()
    here.server.start()
    time.sleep(AFTER_RESTART_S)
    began, used = time.monotonic(), cpu_s(here.server.pid)
    time.sleep(seconds)
    share = (cpu_s(here.server.pid) - used) / (time.monotonic() - began)
    return Row(f"core used, {AFTER_RESTART_S} s after a restart", f"{share:.1%}", "", "< 10 %")


def noticed(here: World, waiting: int, probes: int) -> list[Row]:
    """How late Berth writes that a job started, and that it ended."""
    starts, ends = [], []
    for _ in range(probes):
        uuid = here.submit(here.job(SHORT.format(seconds=SECONDS)))
        job, moved = here.finish(uuid), here.moved_at(uuid)
        output = here.seen_here(job["execSystemOutputDir"])
        starts.append(moved["RUNNING"] - instant(job["remoteStarted"]))  # Slurm's word, in whole seconds
        ends.append(moved["ARCHIVING"] - (output / "ended").stat().st_mtime)
    goal = "< 5 s" if waiting < 10_000 else "< 15 s"
    return [Row("a start is noticed after", spread(starts, "s"), "", goal), Row("an end", spread(ends, "s"), "", goal)]


def cpu_s(pid: int) -> float:
    """Seconds of processor that a process and its ended children used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def memory_mib(pid: int) -> tuple[int, int]:
    """Resident now, and at most since its start."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) // 1024, int(status["VmHWM"].split()[0]) // 1024


if __name__ == "__main__":
    main()
