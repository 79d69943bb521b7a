"""Submissions a second into a real Slurm: through the backend, beside plain loops of sbatch in one ssh session.

    python -m bench.dispatch [--jobs 200] [--rounds 3]        (root; brings a cluster up and takes it down)

The three ways take turns in the same run: ``loop`` is ``for ...; do sbatch; done`` in one ssh session, ``four at a
time`` is the same with ``xargs -P 4``, ``backend`` is ``SlurmBackend.submit`` with scripts, environments, markers.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from backends.slurm.backend import SlurmBackend
from backends.ssh.connection import SshConnection
from scheduler.model.errors import SubmitError
from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.runs import ArraySpec, RunSpec, Runtime, SchedulerOption, SubmitIntent
from scheduler.model.systems import System
from testbed.cluster import Cluster
from testbed.spec import Spec

SBATCH = "sbatch --parsable --begin=now+1hour --mem=100M --output=/dev/null /tmp/bench.sh"


def intent(array: ArraySpec | None = None) -> SubmitIntent:
    job_uuid = new_job_uuid()
    base = f"/home/alice/bench/jobs/{job_uuid}"
    run = RunSpec(
        job_uuid=job_uuid,
        name="bench",
        image="none",
        runtime=Runtime.NONE,
        args=("true",),
        env={f"VARIABLE_{index}": "value" for index in range(20)},
        exec_dir=base,
        input_dir=base,
        output_dir=f"{base}/output",
        partition="cpu",
        array=array,
        scheduler_options=(SchedulerOption("--begin", "now+1hour"),),
    )
    return SubmitIntent(marker_for(job_uuid, 1), run, datetime.now(UTC), 1)


async def measure(jobs: int, rounds: int, ssh: dict, key: str) -> None:
    connection = SshConnection(ssh["host"], ssh["port"], "alice", private_key=key, host_key=ssh["host_key"])
    system = System(
        tenant="t", id="bench", uuid="u", owner="o", host=ssh["host"], root_dir="/home/alice", job_working_dir="bench"
    )
    backend = SlurmBackend(system, "alice", connection)
    await connection.run(["sh", "-c", "printf '#!/bin/sh\\ntrue\\n' >/tmp/bench.sh"])

    async def loop() -> None:
        done = await connection.run(["bash", "-c", f"for i in $(seq {jobs}); do {SBATCH}; done"], timeout_s=300)
        assert len(done.text.split()) == jobs

    async def four_at_a_time() -> None:
        done = await connection.run(["bash", "-c", f"seq {jobs} | xargs -P 4 -I{{}} {SBATCH}"], timeout_s=300)
        assert len(done.text.split()) == jobs

    async def through_backend() -> None:
        answers = await backend.submit([intent() for _ in range(jobs)])
        assert not [answer for answer in answers.values() if isinstance(answer, SubmitError)]

    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "loop": loop,
        "four at a time": four_at_a_time,
        "backend": through_backend,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            await way()
            rates[name].append(jobs / (time.perf_counter() - began))
            await connection.run(["scancel", "--me"])
    plain = statistics.median(rates["loop"])
    print(f"{'way':<16}{'jobs/s (median)':>18}{'of the loop':>14}   of {rounds} rounds of {jobs}")
    for name, seen in rates.items():
        rate = statistics.median(seen)
        print(f"{name:<16}{rate:>18.0f}{rate / plain:>13.0%}    {', '.join(f'{one:.0f}' for one in seen)}")
    began = time.perf_counter()
    answers = await backend.submit([intent(ArraySpec(tuple(range(1000))))])
    assert not isinstance(next(iter(answers.values())), SubmitError), answers
    print(f"1,000 tasks as one array in one call: {1000 * (time.perf_counter() - began):.0f} ms")
    await connection.run(["scancel", "--me"])
    await connection.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ssh-port", type=int, default=12240)
    arguments = parser.parse_args()
    cluster = Cluster(Spec(1, "benchdispatch", ssh_port=arguments.ssh_port))
    try:
        cluster.up()
        ssh = cluster.info()["ssh"]
        key = Path(ssh["users"]["alice"]["key"]).read_text()
        asyncio.run(measure(arguments.jobs, arguments.rounds, ssh, key))
    finally:
        cluster.down()


if __name__ == "__main__":
    main()
