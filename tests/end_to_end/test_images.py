"""A job with an image that was never seen: brought by Berth behind the wait, to many nodes, and only once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from testbed.cluster import Cluster
from testbed.host import TestbedError, require_root
from testbed.pytest_plugin import cannot_run, shared_cluster
from testbed.server import running
from testbed.slurm_conf import CPUS_PER_NODE
from tests.end_to_end.large_image import push_small, push_versions
from tests.end_to_end.wire import Wire

pytestmark = [pytest.mark.testbed, pytest.mark.slow]

NODES = 8
NAME = "demo/large"
SMALL = ("demo/first:1", "demo/second:1")
"""Each fills the store of the second system."""
SCRIPT = 'echo "$(hostname) $(cat /opt/data/* | sha256sum | cut -c1-64)"'


@dataclass(frozen=True)
class Stage:
    """A cluster whose images Berth keeps, with a large image in its registry. added_bytes: of version 2, packed."""

    cluster: Cluster
    wire: Wire
    registry: str
    size_bytes: int
    added_bytes: int

    def submit(self, version: int) -> str:
        """Ask for the image on all nodes; the job's uuid."""
        image = f"docker://{self.registry}/{NAME}:{version}"
        job = self.wire.submit(SCRIPT, image=image, execSystemId="alder", nodeCount=NODES, maxMinutes=10)
        return str(job["uuid"])

    def submit_small(self, name: str, script: str) -> str:
        """Ask for a whole node of the system whose store has room for one image; the job's uuid."""
        asked = {"execSystemId": "birch", "nodeCount": 1, "coresPerNode": CPUS_PER_NODE}
        return str(self.wire.submit(script, image=f"docker://{self.registry}/{name}", maxMinutes=10, **asked)["uuid"])

    def await_stored(self, name: str, timeout_s: float = 200) -> None:
        """Until this image, and as there is no room for two no other, lies in the store with little room."""
        until = time.monotonic() + timeout_s
        while True:
            copies = self.wire.get("/v3/images")
            there = [copy["reference"] for copy in copies if (copy["systemId"], copy["state"]) == ("birch", "PRESENT")]
            if len(there) == 1 and name.partition(":")[0] in there[0]:
                return
            assert time.monotonic() < until, copies
            time.sleep(0.5)

    def finish(self, uuid: str) -> tuple[dict[str, Any], Mapping[str, Any], Mapping[str, Any]]:
        """The ended job, and what its history says of how the image came to the system, and to the nodes."""
        ended = self.wire.finish(uuid, timeout_s=400)
        assert ended["status"] == "FINISHED", ended["lastMessage"]
        history = self.wire.get(f"/v3/jobs/{uuid}/history")
        told = {entry["eventDetail"]: entry["description"] for entry in history if "IMAGE" in entry["eventDetail"]}
        print(told)
        return ended, json.loads(told["IMAGE"]), json.loads(told["IMAGE_ON_NODES"])

    @contextmanager
    def others_on_nodes(self, nodes: int = NODES) -> Iterator[None]:
        """So many nodes are another user's; where they are all that are free, every new job of ours waits."""
        asked = f"--nodes={nodes} --exclusive --time=60 --output=/dev/null --wrap='sleep 3600'"
        sent = self.cluster.sh("login", f"runuser -u bob -- sbatch --parsable --chdir=/tmp {asked}")
        try:
            yield
        finally:
            self.cluster.sh("login", f"scancel {int(sent)}")

    def await_copy(self, timeout_s: float = 400) -> None:
        """Until the first image is in the store, and every job that waits for it was told."""
        until = time.monotonic() + timeout_s
        while True:
            copies = self.wire.get("/v3/images")
            if copies and all(copy["state"] == "PRESENT" and not copy["waitingJobs"] for copy in copies):
                return
            assert time.monotonic() < until, copies
            time.sleep(0.5)

    def seen_by_all(self, job: Mapping[str, Any]) -> str:
        """The digest that every node found; empty where they differ or one is missing."""
        lines = dict(line.split() for line in self.wire.output(job["uuid"]).splitlines())
        return lines["n1"] if len(lines) == NODES and len(set(lines.values())) == 1 else ""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    try:
        require_root()
    except TestbedError as error:
        cannot_run(str(error))
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="berth-images-", dir="/var/tmp")))
        cluster = stack.enter_context(shared_cluster(f"{home} images", nodes=NODES))
        registry = cluster.info()["registry"]["address"]
        size_bytes, added_bytes = push_versions(cluster, NAME)
        server = stack.enter_context(running(home / "berth", plain_http_registries=registry))
        wire = Wire(server.url)
        small_bytes = [push_small(cluster, name) for name in SMALL]
        images = {"store": "/shared/images", "delivery": "local", "localDir": "/tmp"}
        wire.register(cluster.info(), "alder", plain_http=(registry,), notes={"berth": {"images": images}})
        images |= {"store": "/shared/full", "quotaBytes": max(small_bytes) + 4_000_000}
        wire.register(cluster.info(), "birch", plain_http=(registry,), notes={"berth": {"images": images}})
        yield Stage(cluster, wire, registry, size_bytes, added_bytes)


def test_a_new_image_comes_to_many_nodes_behind_the_wait_and_only_once(stage: Stage):
    with stage.others_on_nodes():
        uuid = stage.submit(version=1)
        stage.wire.await_state(uuid, {"QUEUED"})
        stage.await_copy()
    first, brought, relayed = stage.finish(uuid)
    assert brought["fetched_bytes"] >= stage.size_bytes * 0.99
    assert brought["sent_bytes"] > stage.size_bytes / 2
    assert brought["convert_s"] > 0
    assert (relayed["read_from"], relayed["nodes"]) == ("copies", NODES)
    assert relayed["moved_bytes"] >= NODES * brought["sent_bytes"] * 0.99
    assert stage.seen_by_all(first), "all nodes read the same files"
    said = stage.wire.output(uuid, "tapisjob.err").splitlines()
    ours = [line for line in said if not line.startswith("srun: ")]  # a busy Slurm tells of steps that it tries again
    assert ours == [], "the job waited for its image while it held the nodes"

    second, there, relayed = stage.finish(stage.submit(version=1))
    assert (there["fetched_bytes"], there["sent_bytes"], relayed["moved_bytes"]) == (0, 0, 0)
    assert stage.seen_by_all(second) == stage.seen_by_all(first)

    third, changed, _ = stage.finish(stage.submit(version=2))
    assert changed["fetched_bytes"] <= 1.1 * stage.added_bytes + 20_000
    assert changed["sent_bytes"] <= 1.3 * stage.added_bytes + 0.01 * stage.size_bytes
    assert stage.seen_by_all(third) == stage.seen_by_all(first)


def test_a_full_store_takes_an_image_back_from_a_job_that_runs_with_copies_for_one_that_waits(stage: Stage):
    go = "/tmp/go"
    first = stage.submit_small(SMALL[0], f"while ! test -e {go}; do sleep 0.2; done; {SCRIPT}")
    stage.wire.await_state(first, {"RUNNING"})
    stage.await_stored(SMALL[0])
    with stage.others_on_nodes(NODES - 1):
        second = stage.submit_small(SMALL[1], SCRIPT)
        stage.wire.await_state(second, {"QUEUED"})
        stage.await_stored(SMALL[1])
        assert stage.wire.get(f"/v3/jobs/{first}")["status"] == "RUNNING"
    seen = []
    for node in stage.cluster.spec.compute_nodes:
        stage.cluster.sh(node, f"touch {go}")
    for uuid in (first, second):
        ended = stage.wire.finish(uuid, timeout_s=200)
        assert ended["status"] == "FINISHED", ended["lastMessage"]
        seen.append(stage.wire.output(uuid).split()[1])
    assert seen[0] != seen[1], "each read its own image to the end"
