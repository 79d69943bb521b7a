"""A volume of a namespace on the testbed's real node: a directory of this machine, as a claim of the cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from scheduler.model.systems import System
from testbed.host import wait_until
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.node import Node
from tests.testbed.k8s_subject import kubernetes
from tests.testbed.kubernetes import made

CLAIM, USER = "files", 1000


@contextmanager
def claimed_volume(plane: ControlPlane, admin: httpx.Client, namespace: str) -> Iterator[Path]:
    """The directory behind the claim ``files`` of a namespace."""
    folder = Path(tempfile.mkdtemp(prefix="volume-", dir=plane.state / "node"))
    shutil.chown(folder, USER, USER)
    size: dict[str, Any] = {"storage": "1Gi"}
    spec = {
        "capacity": size,
        "accessModes": ["ReadWriteMany"],
        "hostPath": {"path": str(folder)},
        "storageClassName": "",
    }
    spec["claimRef"] = {"namespace": namespace, "name": CLAIM}
    about = {"name": f"{namespace}-{CLAIM}"}
    made(admin.post("/api/v1/persistentvolumes", json={"metadata": about, "spec": spec}))
    wanted = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": size}}
    wanted["volumeName"] = about["name"]
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    made(admin.post(claims, json={"metadata": {"name": CLAIM}, "spec": wanted}))
    wait_until(lambda: made(admin.get(f"{claims}/{CLAIM}"))["status"]["phase"] == "Bound", "the claim has its volume")
    try:
        yield folder
    finally:
        admin.request("DELETE", f"/api/v1/persistentvolumes/{about['name']}")
        shutil.rmtree(folder, ignore_errors=True)


def with_volume(plane: ControlPlane, namespace: str) -> System:
    """The cluster as a system whose files lie on that claim; ``/work`` is its top."""
    system = kubernetes(plane, namespace)
    notes = {**system.notes["berth"]["k8s"], "volume": CLAIM, "helperImage": f"{Node(plane).registry}/demo/busybox:1"}
    return replace(system, notes={"berth": {**system.notes["berth"], "k8s": notes}})
