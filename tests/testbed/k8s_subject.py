"""A real control plane under contract, whose nodes are not machines: the subject says what happens on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from backends.k8s.api import JOBS, Api, Object
from backends.k8s.backend import KubernetesBackend
from backends.k8s.objects import MARKER
from backends.k8s.site import Access
from scheduler.model.errors import BackendUnavailable
from scheduler.model.ids import Marker
from scheduler.model.runs import SubmitIntent
from scheduler.model.systems import System
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.fake_nodes import PREFIX
from tests.contract.subjects import INTENDED_AT, eventually, run_spec

FOREVER = {f"{PREFIX}run-s": "forever"}


class Link:
    """A way to the API server that can be cut for good: every connection over it ends, and none comes up."""

    def __init__(self, port: int) -> None:
        self._port, self._pairs, self.is_cut = port, set[asyncio.StreamWriter](), False

    @asynccontextmanager
    async def up(self) -> AsyncIterator[int]:
        """The port of this side."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    def cut(self) -> None:
        self.is_cut = True
        for writer in self._pairs:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        pair = {writer}
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, onward = await asyncio.open_connection("127.0.0.1", self._port)
            pair.add(onward)
            self._pairs |= pair
            await asyncio.gather(_pump(reader, onward), _pump(there, writer))
        self._pairs -= pair
        for each in pair:
            each.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof() if writer.can_write_eof() else writer.close()


class LosingApi(Api):
    """The door to the API server, which loses an answer when told; pods get annotations that fake nodes read."""

    def __init__(self, access: Access, namespace: str, notes: Mapping[str, str] | None = None) -> None:
        super().__init__(access, namespace)
        self.notes, self.lose_next = dict(notes or {}), None

    async def create(self, kind: Any, manifest: Object, *, only_try: bool = False) -> Object:
        if kind is not JOBS:
            return await super().create(kind, manifest, only_try=only_try)
        template = manifest["spec"]["template"]["metadata"]
        template["annotations"] = {**template.get("annotations", {}), **self.notes}
        how, self.lose_next = self.lose_next, None
        if how == "before":
            raise BackendUnavailable("cut before the object was sent")
        made = await super().create(kind, manifest, only_try=only_try)
        if how == "after":
            raise BackendUnavailable("cut before the answer came back")
        return made


class FakeNodeApi(LosingApi):
    """Nodes without a machine keep no logs: the subject says what a container wrote."""

    def __init__(self, access: Access, namespace: str) -> None:
        super().__init__(access, namespace, FOREVER)
        self.logs: dict[str, bytes] = {}

    async def log(self, pod: str, container: str, limit_bytes: int) -> bytes:
        return self.logs.get(pod, b"")[:limit_bytes]


@dataclass
class KubernetesSubject:
    """Runs on fake nodes, which go on until the subject, as their node, says that they ended."""

    backend: KubernetesBackend
    api: FakeNodeApi
    admin: httpx.Client
    link: Link
    _runs: dict[Marker, set[str]] = field(default_factory=dict)
    _spoiled: list[str] = field(default_factory=list)

    def intent(self, marker: Marker, fence: int = 0, **changes: Any) -> SubmitIntent:
        return SubmitIntent(marker, run_spec("/work", marker, **changes), INTENDED_AT, fence)

    def gated_intent(self, marker: Marker) -> SubmitIntent:
        return self.intent(marker, gate_s=60)

    async def at_its_gate(self, marker: Marker) -> None:
        raise AssertionError("no copy is taken here")

    def open_gate(self, marker: Marker) -> None:
        raise AssertionError("no copy is taken here")

    def refused_intent(self, marker: Marker) -> SubmitIntent:
        return self.intent(marker, image="docker://busybox", env={"TOO_MUCH": "x" * (2**20 + 1)})

    async def running(self, marker: Marker) -> None:
        async def started() -> bool:
            return await self.runs_of(marker) > 0

        await eventually(started, "the user's code starts")
        await self._told(marker)

    async def finish(self, marker: Marker, exit_code: int = 0, output: bytes = b"") -> None:
        (pod,) = self._pods(marker)
        name, running = pod["metadata"]["name"], pod["status"]["containerStatuses"][0]["state"]["running"]
        ended = {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", **running}
        ended["finishedAt"] = running["startedAt"]
        container = {**pod["status"]["containerStatuses"][0], "ready": False, "state": {"terminated": ended}}
        self.api.logs[name] = output
        self._say(name, {"phase": "Failed" if exit_code else "Succeeded", "containerStatuses": [container]})

        async def known() -> bool:
            job = self.admin.get(f"/apis/batch/v1/namespaces/{self.api.namespace}/jobs/{marker}").json()
            return any(each["type"] in ("Complete", "Failed") for each in job["status"].get("conditions", []))

        await eventually(known, "the Job's controller counts the pod")

    async def runs_of(self, marker: Marker) -> int:
        begun = [pod for pod in self._pods(marker) if pod["status"].get("phase") in ("Running", "Succeeded", "Failed")]
        self._runs.setdefault(marker, set()).update(pod["metadata"]["uid"] for pod in begun)
        return len(self._runs[marker])

    def lose_the_next_answer(self, accepted: bool) -> None:
        self.api.lose_next = "after" if accepted else "before"

    def cut(self) -> None:
        self.link.cut()

    def heal(self) -> None:
        self.link.is_cut = False
        while self._spoiled:
            self._say(self._spoiled.pop(), {"phase": "Running"})

    async def speak_an_unknown_word(self, marker: Marker) -> None:
        (pod,) = self._pods(marker)
        self._say(pod["metadata"]["name"], {"phase": "Dreaming"})
        self._spoiled.append(pod["metadata"]["name"])
        await self._told(marker)

    def log_path(self, marker: Marker) -> str:
        return f"/work/jobs/{marker}/output/tapisjob.out"

    async def _told(self, marker: Marker) -> None:
        """Return when the backend's watch has heard what the server knows, if it has one open."""
        watched = self.backend._sight

        async def heard() -> bool:
            mine = {name: pod["metadata"]["resourceVersion"] for name, pod in watched.pods.items()}
            there = {pod["metadata"]["name"]: pod["metadata"]["resourceVersion"] for pod in self._pods(marker)}
            return not watched.is_live or there.items() <= mine.items()

        await eventually(heard, "the watch tells of the pods")

    def _pods(self, marker: Marker) -> list[Object]:
        query = {"labelSelector": f"{MARKER}={marker}"}
        answer = self.admin.get(f"/api/v1/namespaces/{self.api.namespace}/pods", params=query).raise_for_status()
        return list(answer.json()["items"])

    def _say(self, pod: str, status: Object) -> None:
        headers = {"Content-Type": "application/merge-patch+json"}
        path = f"/api/v1/namespaces/{self.api.namespace}/pods/{pod}/status"
        self.admin.patch(path, json={"status": status}, headers=headers).raise_for_status()


def kubernetes(plane: ControlPlane, namespace: str) -> System:
    """A control plane of the testbed as a system."""
    notes = {"backend": "k8s", "k8s": {"namespace": namespace, "caCert": plane.ca.read_text()}}
    port = plane.spec.ports["kube-apiserver"]
    return System(
        tenant="t",
        id="kube",
        uuid="u",
        owner="o",
        host="127.0.0.1",
        port=port,
        root_dir="/work",
        notes={"berth": notes},
    )


@asynccontextmanager
async def kubernetes_subject(
    plane: ControlPlane, admin: httpx.Client, namespace: str, user: str = "admin"
) -> AsyncIterator[KubernetesSubject]:
    """A namespace of the control plane under contract; what is left in it is let go at the end."""
    link = Link(plane.spec.ports["kube-apiserver"])
    async with link.up() as port:
        access = Access(f"https://127.0.0.1:{port}", plane.token(user), plane.ca.read_text())
        api = FakeNodeApi(access, namespace)
        backend = KubernetesBackend(kubernetes(plane, namespace), api)
        try:
            yield KubernetesSubject(backend, api, admin, link)
        finally:
            await backend.aclose()
            let_all_go(admin, namespace)


def let_all_go(admin: httpx.Client, namespace: str) -> None:
    """Take Berth's finalizer off everything in a namespace, so that it can be removed."""
    headers = {"Content-Type": "application/merge-patch+json"}
    for kind in (f"/apis/batch/v1/namespaces/{namespace}/jobs", f"/api/v1/namespaces/{namespace}/pods"):
        for one in admin.get(kind).raise_for_status().json()["items"]:
            path = f"{kind}/{one['metadata']['name']}"
            admin.patch(path, json={"metadata": {"finalizers": None}}, headers=headers)
            admin.request("DELETE", path, json={"propagationPolicy": "Background"})
