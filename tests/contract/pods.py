"""What the contract suite of pods needs of a place beyond its interfaces: a pod that answers, and strangers beside it.

A place that keeps pods writes one PodSubject and adds one line to ``POD_HOSTS``.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from backends.base import Backend, PodHost
from backends.local.backend import LocalBackend
from backends.local.pods import LocalPodHost
from backends.local.queue import Slots
from backends.slurm.backend import SlurmBackend
from backends.slurm.pods import SlurmPodHost
from scheduler.model.ids import Marker, checked_marker
from scheduler.model.runs import Runtime, SubmitIntent
from scheduler.model.systems import System
from tests.contract.local import LocalSubject, local_system, unprivileged_directory
from tests.contract.slurm import SlurmSubject, slurm_subject
from tests.contract.subjects import INTENDED_AT, run_spec
from tests.slurm.ssh_server import USER

PORTS = (7001, 80, 7003)
"""What the pod of the suite is to have; nobody listens on the last one."""

PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3"
"""One that every account may run."""

ANSWERS = textwrap.dedent(
    """
    import signal, socketserver, sys

    class Answer(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(b"pod %s port %d\\n" % (sys.argv[1].encode(), self.server.server_address[1]))
            while data := self.request.recv(65536):
                self.request.sendall(data)
            self.request.sendall(b"END")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, allow_reuse_address, request_queue_size = True, True, 128

    import threading
    signal.signal(signal.SIGTERM, lambda *_: (print("asked to end", flush=True), sys.exit(0)))
    for port in map(int, sys.argv[2:]):
        threading.Thread(target=Server(("127.0.0.1", port), Answer).serve_forever, daemon=True).start()
    print("ready", flush=True)
    signal.pause()
    """
)
"""Says who it is, then what it hears, and ``END`` when it heard the end."""


class PodSubject(Protocol):
    """A place of pods under test."""

    backend: Backend
    host: PodHost

    def pod(self, marker: Marker) -> SubmitIntent:
        """A pod that does as ANSWERS on all PORTS but the last, and has ``sh`` and ``cat``."""
        ...

    def reopened(self) -> tuple[Backend, PodHost]:
        """Both as a new process of Berth would make them."""
        ...

    def log_path(self, marker: Marker) -> str: ...

    def cut(self) -> None:
        """No call reaches the place through ``cut_host`` until ``heal``."""
        ...

    def heal(self) -> None: ...

    def cut_host(self) -> PodHost: ...

    def as_stranger(self, program: str, *args: str) -> str:
        """What a Python program writes that another user runs on the pod's node."""
        ...

    def door_of(self, marker: Marker) -> Mapping[str, Any]:
        """Where the pod could be reached on its node: ``socket`` (a path) and ``tcp`` (host and port), where it has."""
        ...


class LocalPods(LocalSubject):
    """Pods of this machine that run a plain program, as ``nobody`` where the tests are root."""

    def __init__(self, work: Path, state_dir: Path) -> None:
        super().__init__(work, state_dir)
        self.state_dir = state_dir
        self.started: list[Marker] = []
        self.host = LocalPodHost(local_system(work), commands=self.commands)

    def pod(self, marker: Marker) -> SubmitIntent:
        self.started.append(marker)
        args = (PYTHON, "-I", "-c", ANSWERS, marker[-6:], *map(str, PORTS[:-1]))
        run = run_spec(str(self.work), marker, runtime=Runtime.NONE, args=args, ports=PORTS)
        return SubmitIntent(marker, run, INTENDED_AT)

    def reopened(self) -> tuple[Backend, PodHost]:
        slots = Slots(cores=64, memory_mib=64_000)
        system = local_system(self.work)
        return LocalBackend(system, self.state_dir, owner="ann", slots=slots), LocalPodHost(system)

    def as_stranger(self, program: str, *args: str) -> str:
        return run_as_stranger(program, *args)

    def cut_host(self) -> PodHost:
        return LocalPodHost(local_system(self.work), commands=self.commands)

    async def end_pods(self) -> None:
        """Nothing of the test may outlive it."""
        backend = LocalBackend(local_system(self.work), self.state_dir, owner="ann")
        for marker in self.started:
            remote_id = await backend.find(marker, INTENDED_AT)
            if remote_id is not None:
                await backend.cancel(remote_id, marker)
        await self.all_ended()

    def door_of(self, marker: Marker) -> Mapping[str, Any]:
        return door_file(self.marker_dir(marker))


def door_file(marker_dir: Path) -> Mapping[str, Any]:
    """What the door wrote of itself."""
    return json.loads((marker_dir / "door").read_text())


def run_as_stranger(program: str, *args: str) -> str:
    """On this machine, as an account that owns nothing of the pod's."""
    argv = ["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", "--", PYTHON, "-I", "-c"]
    done = subprocess.run([*argv, program, *args], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@asynccontextmanager
async def local(tmp_path: Path) -> AsyncIterator[PodSubject]:
    with unprivileged_directory() as work:
        subject = LocalPods(work, tmp_path / "state")
        try:
            yield subject
        finally:
            await subject.end_pods()


class SlurmPods:
    """Pods of the toy cluster, as the user who runs the tests."""

    def __init__(self, inner: SlurmSubject) -> None:
        self._inner, self.backend, self.connection = inner, inner.backend, inner.connection
        self.system = System(
            tenant="t", id="toy", uuid="u", owner="o", host="127.0.0.1", root_dir=str(inner.work), can_run_batch=True
        )
        self.hosts: list[SlurmPodHost] = []
        self.host = self.cut_host()
        self.log_path, self.cut, self.heal = inner.log_path, inner.cut, inner.heal

    def pod(self, marker: Marker) -> SubmitIntent:
        args = (PYTHON, "-I", "-c", ANSWERS, marker[-6:], *map(str, PORTS[:-1]))
        return self._inner.intent(marker, args=args, ports=PORTS)

    def reopened(self) -> tuple[Backend, PodHost]:
        return SlurmBackend(self.system, USER, self.connection), self.cut_host()

    def cut_host(self) -> PodHost:
        self.hosts.append(SlurmPodHost(self.system, USER, self.connection))
        return self.hosts[-1]

    def as_stranger(self, program: str, *args: str) -> str:
        return run_as_stranger(program, *args)

    def door_of(self, marker: Marker) -> Mapping[str, Any]:
        return door_file(self._inner.marker_dir(marker))

    async def end_pods(self) -> None:
        for job in self._inner.jobs():
            if "pid" in job and not job.keys() & {"code", "cancelled"}:
                remote_id = await self.backend.find(checked_marker(job["name"]), INTENDED_AT)
                assert remote_id is not None
                await self.backend.cancel(remote_id, checked_marker(job["name"]))


@asynccontextmanager
async def slurm(tmp_path: Path, forwards: bool = True) -> AsyncIterator[PodSubject]:
    """forwards: whether the login node's sshd opens connections to the nodes."""
    async with slurm_subject(tmp_path, forwards=forwards) as inner:
        subject = SlurmPods(inner)
        try:
            yield subject
        finally:
            subject.heal()
            await subject.end_pods()
            await asyncio.gather(*(host.aclose() for host in subject.hosts))


def slurm_without_forwarding(tmp_path: Path) -> AbstractAsyncContextManager[PodSubject]:
    return slurm(tmp_path, forwards=False)


POD_HOSTS: Mapping[str, Callable[[Path], AbstractAsyncContextManager[PodSubject]]] = {
    "local": local,
    "slurm": slurm,
    "slurm without forwarding": slurm_without_forwarding,
}
