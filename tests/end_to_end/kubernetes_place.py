"""A Kubernetes whose one node is real, as a system of a server: a namespace of its own, with a volume."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from testbed.host import wait_until
from testbed.k8s.client import client
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.node import Node
from tests.end_to_end.wire import Wire
from tests.testbed.k8s_subject import let_all_go
from tests.testbed.kubernetes import made, own_namespace

SYSTEM, QUEUE, CLAIM = "kube", "all", "files"


@dataclass(frozen=True)
class KubernetesPlace:
    """One namespace of such a cluster. ``folder``: what lies on its volume, as this machine sees it."""

    node: Node
    namespace: str
    folder: Path

    def register(self, wire: Wire, *, volume: bool = True, **berth: Any) -> None:
        """Create the cluster as the system ``kube``, whose top is the volume's, and store the user's token.

        volume: whether job directories lie on the volume. berth: more of ``notes.berth``.
        """
        on_volume = {"volume": CLAIM, "helperImage": f"{self.node.registry}/demo/busybox:1"}
        register(wire, self.node.plane, self.namespace, on_volume if volume else {}, **berth)


def register(wire: Wire, plane: ControlPlane, namespace: str, k8s: Mapping[str, Any], **berth: Any) -> None:
    """Create a namespace as the system ``kube``, and store the user's token. k8s: more of its notes about it."""
    k8s = {"namespace": namespace, "caCert": plane.ca.read_text(), **k8s}
    definition = {
        "id": SYSTEM,
        "systemType": "LINUX",
        "host": "127.0.0.1",
        "port": plane.spec.ports["kube-apiserver"],
        "defaultAuthnMethod": "TOKEN",
        "rootDir": "/",
        "canExec": True,
        "canRunBatch": True,
        "jobRuntimes": [{"runtimeType": "DOCKER"}, {"runtimeType": "SINGULARITY"}],
        "jobWorkingDir": "berth",
        "batchLogicalQueues": [{"name": QUEUE, "hpcQueueName": "kubernetes"}],
        "batchDefaultLogicalQueue": QUEUE,
        "notes": {"berth": {"backend": "k8s", "k8s": k8s, **berth}},
    }
    wire.post("/v3/systems", definition)
    wire.post(f"/v3/systems/credential/{SYSTEM}/user/admin", {"accessToken": plane.token()})


@contextmanager
def kubernetes_place(plane: ControlPlane) -> Iterator[KubernetesPlace]:
    """A namespace for one module of tests; what Berth keeps in it is let go at the end."""
    with (
        client(plane) as admin,
        own_namespace(plane, admin) as namespace,
        _volume(plane, admin, namespace) as folder,
    ):
        try:
            yield KubernetesPlace(Node(plane), namespace, folder)
        finally:
            let_all_go(admin, namespace)


@contextmanager
def _volume(plane: ControlPlane, admin: httpx.Client, namespace: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="claim-", dir=plane.state / "node"))
    folder.chmod(0o777)  # the kubelet makes directories in it as root, with the same mode
    size: dict[str, Any] = {"storage": "1Gi"}
    shared = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {"capacity": size, "hostPath": {"path": str(folder)}, **shared}
    volume["claimRef"] = {"namespace": namespace, "name": CLAIM}
    name = f"{namespace}-{CLAIM}"
    made(admin.post("/api/v1/persistentvolumes", json={"metadata": {"name": name}, "spec": volume}))
    claim = {"volumeName": name, "resources": {"requests": size}, **shared}
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    made(admin.post(claims, json={"metadata": {"name": CLAIM}, "spec": claim}))
    wait_until(lambda: made(admin.get(f"{claims}/{CLAIM}"))["status"]["phase"] == "Bound", "the claim has its volume")
    try:
        yield folder
    finally:
        admin.request("DELETE", f"/api/v1/persistentvolumes/{name}")
        shutil.rmtree(folder, ignore_errors=True)
