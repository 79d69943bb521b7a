"""Ten contrived situations on two clusters and this machine, and how jobs are sent there: for ``test_places``."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.cluster import Cluster
from testbed.oci import layer_tar, write_layout
from testbed.server import ADMIN_PASSWORD, Server
from tests.end_to_end.tapipy_jobs import tapipy_jobs
from tests.end_to_end.wire import Wire

NODES = 15
HERE = "here"
SCRIPT = "date +%s > begun"
DEMO_IMAGE = "docker://login:5000/demo/busybox:1"
LARGE_IMAGE = "demo/large:1"
SLOW_LINK = "1mbit"
BALLAST_BYTES = 6 * 2**20
"""Over the slow link these take most of a minute."""

PARTITIONS = {
    "idle": "n1",
    "walltime": "n[2-3]",
    "image": "n4",
    "gpu": "n5",
    "upkeep": "n6",
    "memory": "n7",
    "nodes": "n[8-9]",
    "licence": "n10",
    "drained": "n11",
    "feature": "n12",
    "local": "n13",
    "hole": "n[14-15]",
}
"""In both clusters, so that what happens in one situation does not touch another."""


@dataclass(frozen=True)
class Situation:
    """One job, and what was made of each cluster for it, as a script for root on its login machine."""

    name: str
    queue: str
    scenes: Mapping[str, str] = field(default_factory=dict)
    nodes: int = 1
    cores: int = 4
    memory_mib: int = 200
    minutes: int = 5
    gpus: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    image: str = DEMO_IMAGE


def taken(queue: str, minutes: int, seconds: int = 3600, what: str = "--exclusive --mem=100M") -> str:
    """A job of somebody else that says so many minutes and runs for so many seconds, if it is let."""
    job = f"--partition={queue} --time={minutes} {what} --output=/dev/null --wrap='sleep {seconds}'"
    return f"runuser -u bob -- sbatch --quiet --chdir=/tmp {job}\n"


def maintenance(name: str, nodes: str, minutes: int) -> str:
    """Nodes that are kept free for an hour of maintenance in so many minutes."""
    return (
        f"scontrol --quiet create reservation ReservationName={name} Users=root Flags=MAINT,IGNORE_JOBS "
        f"Nodes={nodes} StartTime=now+{minutes}minutes Duration=60\n"
    )


BOTH = "--nodes=2 --exclusive --mem=100M"
MILAN = "scontrol update NodeName=n12 AvailableFeatures=milan ActiveFeatures=milan\n"

SITUATIONS = (
    Situation(
        "a short walltime fits between a known end and what comes then",
        "walltime",
        {
            "alder": taken("walltime", 3, 170, BOTH),
            "birch": taken("walltime", 1, 55, BOTH) + maintenance("short", "n[2-3]", 12),
        },
    ),
    Situation("a long walltime does not", "walltime", minutes=20),
    Situation(
        "it ends before the next in line starts, which needs more",
        "hole",
        {
            "alder": taken("hole", 10, what="--nodes=1 --exclusive --mem=100M")
            + "sleep 2\n"
            + taken("hole", 10, what=BOTH),
            "birch": taken("hole", 3, 170, BOTH),
        },
    ),
    Situation(
        "one is idle and one is busy",
        "idle",
        {"birch": taken("idle", 60, what="--exclusive --mem=100M --licenses=matlab:1")},
    ),
    Situation("the image is in one place only", "image", image=f"docker://login:5000/{LARGE_IMAGE}"),
    Situation("GPUs are needed", "gpu", {"birch": taken("gpu", 1, 55)}, gpus=1),
    Situation(
        "maintenance is ahead",
        "upkeep",
        {"alder": maintenance("upgrade", "n6", 10), "birch": taken("upkeep", 1, 55)},
        minutes=30,
    ),
    Situation(
        "memory is needed",
        "memory",
        {"birch": taken("memory", 60, what="--ntasks=1 --mem=3000M")},
        cores=3,
        memory_mib=2000,
    ),
    Situation("two nodes are needed", "nodes", {"alder": taken("nodes", 60)}, nodes=2),
    Situation("the licence is taken", "licence", options={"licenses": "matlab:1"}),
    Situation("nodes are drained", "drained", {"birch": "scontrol update NodeName=n11 State=DRAIN Reason=test\n"}),
    Situation(
        "a feature is needed", "feature", {"alder": MILAN + taken("feature", 1, 55)}, options={"constraint": "milan"}
    ),
)
"""The walltimes are one situation of two jobs."""

LOCAL = Situation(
    "only this machine is idle", "local", {name: taken("local", 60) for name in ("alder", "birch")}, cores=1
)


# -- the clusters ----------------------------------------------------------------------------------------------------


def add_partitions(cluster: Cluster) -> None:
    lines = [f"PartitionName={name} Nodes={nodes} MaxTime=1-0 DefMemPerCPU=100" for name, nodes in PARTITIONS.items()]
    text = "\n".join(["Licenses=matlab:1", *lines])
    for machine in cluster.spec.machines:
        cluster.sh(machine, f"cat >> /etc/slurm/slurm.conf <<'END'\n{text}\nEND\n")
    cluster.sh("login", "scontrol reconfigure")


def push_large_image(cluster: Cluster, folder: Path) -> None:
    """A small image with ballast that does not compress."""
    buffer = io.BytesIO(
        layer_tar((cluster.machine("login").layers[-1] / "usr/bin/busybox").read_bytes(), ["sh", "date"])
    )
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        ballast = tarfile.TarInfo("ballast")
        ballast.size = BALLAST_BYTES
        tar.addfile(ballast, io.BytesIO(random.Random(cluster.spec.name).randbytes(BALLAST_BYTES)))
    write_layout(folder, [buffer.getvalue()], {"Env": ["PATH=/bin"], "Cmd": ["sh"]})
    cluster.push_image(folder, LARGE_IMAGE)


def share_folder(cluster: Cluster, folder: Path) -> None:
    """Make a folder of this machine visible on all machines of a cluster, under the same path."""
    inside = f"/shared/{folder.name}"
    subprocess.run(["cp", "-r", folder, Path(cluster.info()["state_dir"]) / "shared" / "shared"], check=True)
    for machine in cluster.spec.machines:
        cluster.sh(machine, f"mkdir -p {folder.parent} && chmod -R a+rX {inside} && ln -sfn {inside} {folder}")


# -- sending jobs ----------------------------------------------------------------------------------------------------


def request_of(situation: Situation, **place: str) -> dict[str, Any]:
    """The request as the API takes it; ``place`` names a system."""
    options = [f"--{name}={value}" for name, value in situation.options.items()]
    options += [f"--gpus-per-node={situation.gpus}"] if situation.gpus else []
    return {
        "name": "place",
        "appId": "berth.image",
        "appVersion": "1",
        "nodeCount": situation.nodes,
        "coresPerNode": situation.cores,
        "memoryMB": situation.memory_mib,
        "maxMinutes": situation.minutes,
        "execSystemLogicalQueue": situation.queue,
        "parameterSet": {"schedulerOptions": [{"name": text, "arg": text} for text in options]},
        "notes": {"berth": {"image": situation.image, "command": ["sh", "-c", SCRIPT]}},
        **place,
    }


@contextmanager
def tapipy_process(server: Server) -> Iterator[Callable[[Situation], str]]:
    """Send jobs through an unmodified tapipy; gives their uuids."""
    with tapipy_jobs(server) as send:
        yield lambda situation: send(request_of(situation, dynamicExecSystem=True))


class BerthCommand:
    """The ``berth`` command with a login of its own."""

    def __init__(self, server: Server, home: Path) -> None:
        self.environment = {**server.environment(), "XDG_CONFIG_HOME": str(home / "config")}
        self("login", server.url, "--user", "admin", "--password-stdin", given=ADMIN_PASSWORD)

    def __call__(self, *words: str, given: str | None = None) -> str:
        argv = [sys.executable, "-m", "berth", *words]
        done = subprocess.run(
            argv, env=self.environment, input=given, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def send(self, situation: Situation) -> str:
        """``berth run``; the job's uuid."""
        asked = ["--nodes", situation.nodes, "--cores", situation.cores, "--mem", f"{situation.memory_mib}M"]
        asked += ["--time", situation.minutes, "--queue", situation.queue]
        asked += ["--gpus", situation.gpus] if situation.gpus else []
        for name, value in situation.options.items():
            asked += ["--option", f"{name}={value}"]
        return self(
            "run", "--detach", "-o", "id", *map(str, asked), "--exec", situation.image, "--", "sh", "-c", SCRIPT
        )


def begun(clusters: Mapping[str, Cluster], local_dir: Path) -> dict[str, int]:
    """When each job's program began, in Unix seconds by the job's uuid, as the program itself wrote it."""
    look = "cd /home/alice/berth/jobs 2>/dev/null && grep -sH . */output/begun || true"
    lines = [line for cluster in clusters.values() for line in cluster.sh("login", look).splitlines()]
    found = {uuid: int(at) for uuid, _, at in (line.partition("/output/begun:") for line in lines) if at}
    here = {path.parts[-3]: path.read_text() for path in local_dir.glob("jobs/*/output/begun")}
    return found | {uuid: int(at) for uuid, at in here.items() if at}


def named(wire: Wire, situation: Situation, system_id: str) -> str:
    """An equal job that names its place; its uuid, or nothing when it is refused at once."""
    place = {"execSystemId": system_id} | ({"execSystemLogicalQueue": None} if system_id == HERE else {})
    body = {key: value for key, value in request_of(situation, **place).items() if value is not None}
    answer = wire.http.post("/v3/jobs/submit", json=body)
    return str(answer.json()["result"]["uuid"]) if answer.is_success else ""
