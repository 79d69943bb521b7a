"""Jobs sent by an unmodified tapipy to a server that has a Slurm and a Kubernetes with a real node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster import Cluster
from testbed.k8s.control_plane import ControlPlane
from testbed.server import running
from tests.end_to_end.kubernetes_place import SYSTEM, KubernetesPlace, kubernetes_place
from tests.end_to_end.tapipy_jobs import tapipy_jobs
from tests.end_to_end.wire import Wire

pytestmark = pytest.mark.testbed

SLURM = "alder"
IMAGE = "login:5000/demo/busybox:1"
"""The Slurm's nodes fetch it under this name; the node of the Kubernetes has it as if it had fetched it before."""

HOUR_S = 3600


@dataclass(frozen=True)
class Stage:
    """Both places, the server's API, and how a request is sent."""

    slurm: Cluster
    kubernetes: KubernetesPlace
    wire: Wire
    send: Callable[[Mapping[str, Any]], str]

    @contextmanager
    def others_on_all_slurm_nodes(self) -> Iterator[None]:
        """Somebody else's jobs hold the Slurm for an hour."""
        nodes = len(self.slurm.info()["nodes"])
        held = f"--nodes={nodes} --exclusive --time=60 --output=/dev/null --wrap='sleep 3600'"
        sent = self.slurm.sh("login", f"runuser -u bob -- sbatch --parsable --chdir=/tmp {held}")
        try:
            yield
        finally:
            self.slurm.sh("login", f"scancel {int(sent)}")

    def await_plan(self, asked: Mapping[str, Any], holds: Callable[[Mapping[str, Any]], bool]) -> None:
        """Until a plan for the request shows that Berth has looked."""
        until = time.monotonic() + 90
        while not holds(plan := self.wire.post("/v3/placement/plan", asked)):
            assert time.monotonic() < until, plan["sentence"]
            time.sleep(1)

    def on_the_volume(self, uuid: str, name: str) -> str:
        """A file of a job's output directory on the claim, read on this machine."""
        return (self.kubernetes.folder / "berth" / "jobs" / uuid / "output" / name).read_text()


@pytest.fixture(scope="module")
def stage(
    rough_cluster: Cluster, real_node_cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The Slurm is theirs alone: nobody else's test waits while it is held."""
    hurry = {"watch_min_s": "1", "watch_max_s": "3", "place_interval_s": "1", "snapshot_interval_s": "1"}
    home: Path = tmp_path_factory.mktemp("berth")
    with (
        kubernetes_place(real_node_cluster) as kubernetes,
        running(home, **hurry) as server,
        tapipy_jobs(server) as send,
    ):
        kubernetes.node.import_image(kubernetes.node.disk / "images/demo", IMAGE)
        wire = Wire(server.url)
        wire.register(rough_cluster.info(), SLURM)
        kubernetes.register(wire)
        yield Stage(rough_cluster, kubernetes, wire, send)


def request(script: str, *, berth: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A job of one core; ``more`` names its place, or leaves it open."""
    notes = {"berth": {"image": f"docker://{IMAGE}", "command": ["sh", "-c", script], **(berth or {})}}
    size = {"nodeCount": 1, "coresPerNode": 1, "memoryMB": 50, "maxMinutes": 5}
    return {"name": "test", "appId": "berth.image", "appVersion": "1", "notes": notes, **size, **more}


def wait_s(told: Mapping[str, Any], system_id: str) -> float:
    """The median wait that a plan foresees at the best queue of a system that it did not choose; 0 without one."""
    waits = [each["wait"]["p50"] for each in told["losers"] if each["systemId"] == system_id]
    return float(min(waits, default=0))


def winner(told: Mapping[str, Any]) -> str | None:
    """The system that a plan chose; before both places were looked at it need not be the right one."""
    return told["winner"]["systemId"] if told["winner"] else None


def test_a_job_without_a_system_runs_on_the_kubernetes_while_the_slurm_is_busy(stage: Stage):
    asked = request("id -u > /TapisOutput/who", dynamicExecSystem=True)
    with stage.others_on_all_slurm_nodes():
        stage.await_plan(asked, lambda plan: winner(plan) == SYSTEM and wait_s(plan, SLURM) > HOUR_S / 4)
        uuid = stage.send(asked)
        ended = stage.wire.finish(uuid, timeout_s=120)
    why = stage.wire.get(f"/v3/jobs/{uuid}/why")
    assert ended["status"] == "FINISHED", ended["lastMessage"]
    assert ended["execSystemId"] == SYSTEM == why["winner"]["systemId"]
    assert "Next best is" in why["sentence"]
    assert f"of '{SLURM}', about" in why["sentence"], why["sentence"]
    assert wait_s(why, SLURM) > HOUR_S / 4
    assert stage.on_the_volume(uuid, "who") == "1000\n"


def test_an_array_of_four_runs_on_the_kubernetes_as_one_job(stage: Stage):
    uuid = stage.send(request("echo $SLURM_ARRAY_TASK_ID", execSystemId=SYSTEM, berth={"array": "0-3"}))
    ended = stage.wire.finish(uuid, timeout_s=120)
    assert ended["status"] == "FINISHED", ended["lastMessage"]
    logs = [stage.wire.output(uuid, f"tapisjob.out.{task}") for task in range(4)]
    assert logs == ["0\n", "1\n", "2\n", "3\n"]
