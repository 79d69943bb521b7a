"""Nodes without machines: they register, stay ready, and let pods run and end as the pods' annotations say.

Started by the control plane as ``python -m testbed.k8s.fake_nodes STATE``. Annotations of a pod, or labels of
its node for all pods that say nothing else:

    testbed.berth/run-s: "2.5"           how long it runs (1 s by default; "forever")
    testbed.berth/exit-code: "3"         of its containers (0)
    testbed.berth/reason: OOMKilled      of their end, instead of Completed or Error
    testbed.berth/waiting: ImagePullBackOff    it never starts, and says this
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import ssl
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import httpx

from testbed.k8s.credentials import token_of
from testbed.k8s.spec import FakeNode, Spec

PREFIX = "testbed.berth/"
_LEASE_S = 10
_RETRY_S = 0.5
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_ZONE = {"topology.kubernetes.io/zone": "fake", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}

Object = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a pod's annotations ask for."""

    run_s: float = 1.0
    exit_code: int = 0
    reason: str = ""
    waiting: str = ""

    @classmethod
    def of(cls, pod: Object, node: Mapping[str, str] = MappingProxyType({})) -> Self:
        """ValueError when an annotation is no number where one must be. node: its labels."""
        annotations = {**node, **pod["metadata"].get("annotations", {})}
        notes = {key.removeprefix(PREFIX): text for key, text in annotations.items() if key.startswith(PREFIX)}
        exit_code = int(notes.get("exit-code", "0"))
        run_s = math.inf if notes.get("run-s") == "forever" else float(notes.get("run-s", "1"))
        reason = notes.get("reason", "Error" if exit_code else "Completed")
        return cls(run_s, exit_code, reason, notes.get("waiting", ""))


class Api:
    """The few calls that a node makes."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def create(self, path: str, body: Object) -> None:
        """Create an object; one that is there already is left as it is."""
        answer = await self.http.post(path, json=body)
        if answer.status_code != httpx.codes.CONFLICT:
            answer.raise_for_status()

    async def patch(self, path: str, body: Object) -> bool:
        """Merge into an object; False when there is none."""
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = await self.http.patch(path, content=json.dumps(body), headers=headers)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        answer.raise_for_status()
        return True

    async def remove(self, pod: Object) -> None:
        """Delete exactly this pod, at once; one that is gone, or replaced, is left alone."""
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        answer = await self.http.request("DELETE", _path_of(pod), json=body)
        if answer.status_code not in (httpx.codes.NOT_FOUND, httpx.codes.CONFLICT):
            answer.raise_for_status()

    async def pods(self) -> AsyncIterator[tuple[str, Object]]:
        """(ADDED, MODIFIED or DELETED, pod) of every pod that is bound to a node; ends when the history does."""
        bound = {"fieldSelector": "spec.nodeName!="}
        listed = (await self.http.get("/api/v1/pods", params=bound)).raise_for_status().json()
        for pod in listed["items"]:
            yield "ADDED", pod
        since = {**bound, "watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"]}
        timeout = httpx.Timeout(10, read=None)
        async with self.http.stream("GET", "/api/v1/pods", params=since, timeout=timeout) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event["type"], event["object"]


class Kubelets:
    """All nodes in one process; each pod that runs is one task."""

    def __init__(self, api: Api, nodes: Iterable[FakeNode]) -> None:
        self.api = api
        self.nodes = {node.name: node for node in nodes}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._addresses = 0

    async def run(self) -> None:
        """Until cancelled. An API server that is away is asked again; what it missed is then made up for."""
        async with asyncio.TaskGroup() as group:
            for node in self.nodes.values():
                group.create_task(self._stay_ready(node))
            while True:
                with contextlib.suppress(httpx.HTTPError, json.JSONDecodeError):
                    async for event, pod in self.api.pods():
                        if pod["spec"].get("nodeName") in self.nodes:
                            self._look_at(event, pod, group)
                await asyncio.sleep(_RETRY_S)

    async def _stay_ready(self, node: FakeNode) -> None:
        registered = False
        while True:
            try:
                if not registered:
                    await self._register(node)
                    registered = True
                renewed = {"spec": {"renewTime": _stamp_micro()}}
                registered = await self.api.patch(f"{_LEASES}/{node.name}", renewed)
                await asyncio.sleep(_LEASE_S if registered else 0)
            except httpx.HTTPError:
                await asyncio.sleep(_RETRY_S)

    async def _register(self, node: FakeNode) -> None:
        labels = {**_ZONE, "kubernetes.io/hostname": node.name, "testbed.berth/fake": "true", **node.labels}
        await self.api.create("/api/v1/nodes", {"metadata": {"name": node.name, "labels": labels}})
        await self.api.patch(f"/api/v1/nodes/{node.name}/status", {"status": _node_status(node)})
        lease = {"holderIdentity": node.name, "leaseDurationSeconds": 40, "renewTime": _stamp_micro()}
        await self.api.create(_LEASES, {"metadata": {"name": node.name}, "spec": lease})

    def _look_at(self, event: str, pod: Object, group: asyncio.TaskGroup) -> None:
        uid = pod["metadata"]["uid"]
        leaving = "deletionTimestamp" in pod["metadata"]
        if (event == "DELETED" or leaving) and (life := self._lives.pop(uid, None)) is not None:
            life.cancel()
        if event == "DELETED":
            return
        if leaving:
            group.create_task(_spare_others(self.api.remove(pod)))
        elif uid not in self._lives and pod["status"].get("phase") in ("Pending", "Running"):
            self._lives[uid] = group.create_task(_spare_others(self._live(pod)))

    async def _live(self, pod: Object) -> None:
        try:
            plan = Plan.of(pod, self.nodes[pod["spec"]["nodeName"]].labels)
        except ValueError as error:
            await self._say(pod, {"phase": "Failed", "reason": "BadAnnotation", "message": str(error)})
            return
        if plan.waiting:
            await self._say(pod, _status(pod, "Pending", {"waiting": {"reason": plan.waiting}}))
            return
        restarts = 0
        while True:
            began = _began(pod, restarts)
            if not await self._say(pod, self._running(pod, began, restarts)):
                return
            await _until(began, plan.run_s)
            if not _restarts(pod, plan.exit_code):
                break
            restarts += 1
        ended = {"exitCode": plan.exit_code, "reason": plan.reason}
        ended |= {"startedAt": _stamp(began), "finishedAt": _stamp()}
        phase = "Failed" if plan.exit_code else "Succeeded"
        await self._say(pod, _status(pod, phase, {"terminated": ended}, restarts))

    def _running(self, pod: Object, began: datetime, restarts: int) -> Object:
        self._addresses += 1
        address = f"10.99.{self._addresses // 250 % 250}.{self._addresses % 250 + 1}"
        status = _status(pod, "Running", {"running": {"startedAt": _stamp(began)}}, restarts)
        return {**status, "podIP": address, "podIPs": [{"ip": address}], "startTime": _stamp(began)}

    async def _say(self, pod: Object, status: Object) -> bool:
        """Report a pod's state, for as long as the API server is away; False when the pod is gone."""
        while True:
            try:
                return await self.api.patch(f"{_path_of(pod)}/status", {"status": status})
            except httpx.TransportError:
                await asyncio.sleep(_RETRY_S)
            except httpx.HTTPStatusError as error:
                if error.response.status_code < 500:
                    return False
                await asyncio.sleep(_RETRY_S)


def _path_of(pod: Object) -> str:
    about = pod["metadata"]
    return f"/api/v1/namespaces/{about['namespace']}/pods/{about['name']}"


async def _spare_others(step: Coroutine[Any, Any, None]) -> None:
    """A step in one pod's life that the API server refuses is no reason for the other pods to end."""
    with contextlib.suppress(httpx.HTTPError):
        await step


def _restarts(pod: Object, code: int) -> bool:
    policy = pod["spec"].get("restartPolicy", "Always")
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def _began(pod: Object, restarts: int) -> datetime:
    """Now, or when an earlier life of this process started the pod."""
    before = pod["status"].get("startTime")
    if pod["status"].get("phase") == "Running" and before and restarts == 0:
        return datetime.fromisoformat(before)
    return datetime.now(UTC)


async def _until(began: datetime, after_s: float) -> None:
    if math.isinf(after_s):
        await asyncio.Event().wait()
    await asyncio.sleep(max(0.0, (began + timedelta(seconds=after_s) - datetime.now(UTC)).total_seconds()))


def _status(pod: Object, phase: str, state: Object, restarts: int = 0) -> Object:
    ready = "True" if phase == "Running" else "False"
    now = _stamp()
    conditions = {"Initialized": "True", "Ready": ready, "ContainersReady": ready, "PodScheduled": "True"}
    containers = [_container(each, state, restarts) for each in pod["spec"]["containers"]]
    done = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
    before = [_container(each, done, 0) for each in pod["spec"].get("initContainers", [])]
    return {
        "phase": phase,
        "hostIP": "10.98.0.1",
        "conditions": [
            {"type": kind, "status": status, "lastTransitionTime": now} for kind, status in conditions.items()
        ],
        "containerStatuses": containers,
        **({"initContainerStatuses": before} if before and "waiting" not in state else {}),
    }


def _container(container: Object, state: Object, restarts: int) -> Object:
    runs = "running" in state
    names = {"name": container["name"], "image": container["image"], "imageID": ""}
    return {**names, "ready": runs, "started": runs, "restartCount": restarts, "state": state, "lastState": {}}


def _node_status(node: FakeNode) -> Object:
    offer = {
        "cpu": str(node.cpus),
        "memory": f"{node.memory_mib}Mi",
        "pods": str(node.pods),
        "ephemeral-storage": "100Gi",
    }
    if node.gpus:
        offer["nvidia.com/gpu"] = str(node.gpus)
    now = _stamp()
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "as ever",
             "lastHeartbeatTime": now, "lastTransitionTime": now}  # fmt: skip
    return {
        "capacity": offer,
        "allocatable": offer,
        "conditions": [ready],
        "addresses": [{"type": "Hostname", "address": node.name}, {"type": "InternalIP", "address": "10.98.0.1"}],
        "nodeInfo": dict.fromkeys(("machineID", "systemUUID", "bootID", "kernelVersion", "osImage"), "")
        | {"containerRuntimeVersion": "fake://1", "kubeletVersion": "v0.0.0-fake", "kubeProxyVersion": ""}
        | {"operatingSystem": "linux", "architecture": "amd64"},
    }


def _stamp(at: datetime | None = None) -> str:
    return (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _stamp_micro() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def main(state: Path) -> None:
    """Be the fake nodes of the control plane whose state is here."""
    spec = Spec(**json.loads((state / "spec.json").read_text()))
    keys = state / "credentials"
    context = ssl.create_default_context(cafile=str(keys / "tls.crt"))
    headers = {"Authorization": f"Bearer {token_of(keys, 'admin')}"}
    url = f"https://127.0.0.1:{spec.ports['kube-apiserver']}"
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(base_url=url, headers=headers, verify=context, limits=limits, timeout=30) as http:
        await Kubelets(Api(http), spec.nodes).run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
