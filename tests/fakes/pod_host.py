"""FakePodHost: what stands beside a FakeSystem's jobs for those that have ports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scheduler.model.errors import BackendUnavailable, PortClosed
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.pods import Executed, PodSeen
from scheduler.model.runs import RemoteState

if TYPE_CHECKING:
    from tests.fakes.system import FakeJob, FakeSystem


def echoes(marker: Marker, argv: Sequence[str], stdin: bytes) -> Executed:
    """What a command inside writes unless a test says otherwise."""
    return Executed(exit_code=0, stdout=stdin or " ".join(argv).encode(), stderr=b"")


@dataclass
class FakePods:
    """What tests say of the pods of a system.

    closed: ports on which nothing listens, by marker; None for all of an instance's. waits_for: why an instance does
    not run. restarts: of its containers. most_at_once: connections that were being made at one time, at most.
    """

    closed: dict[Marker, set[int]] = field(default_factory=dict)
    waits_for: dict[Marker, str] = field(default_factory=dict)
    runs_command: Callable[[Marker, Sequence[str], bytes], Executed] = echoes
    connect_takes: Callable[[], int] = lambda: 0
    """How many turns of the event loop a connection takes."""
    at_once: int = 0
    most_at_once: int = 0


class FakeChannel:
    """Gives back what was written."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.is_closed = False

    async def read(self, most_bytes: int) -> bytes:
        data = bytes(self._data[:most_bytes])
        del self._data[:most_bytes]
        return data

    async def write(self, data: bytes) -> None:
        self._data += data

    async def end(self) -> None:
        """Nothing follows."""

    async def aclose(self) -> None:
        self.is_closed = True


class FakePodHost:
    """The PodHost of a FakeSystem, as one login."""

    def __init__(self, system: FakeSystem) -> None:
        self._system = system

    async def look(self, ids: Mapping[RemoteId, Marker]) -> Mapping[RemoteId, PodSeen]:
        await self._system.meet("look")
        return {
            remote_id: self._seen(job) for remote_id, marker in ids.items() if (job := self._job(remote_id, marker))
        }

    async def connect(self, remote_id: RemoteId, marker: Marker, port: int) -> FakeChannel:
        pods = self._system.pods
        pods.at_once += 1
        pods.most_at_once = max(pods.most_at_once, pods.at_once)
        try:
            await self._system.meet("connect")
            for _ in range(pods.connect_takes()):
                await asyncio.sleep(0)
        finally:
            pods.at_once -= 1
        job = self._job(remote_id, marker)
        if job is None:
            raise BackendUnavailable(f"fake: no such pod {marker}")
        runs = job.state is RemoteState.RUNNING and job.begun
        if not runs or port not in job.intent.run.ports or port in pods.closed.get(marker, ()):
            raise PortClosed(f"fake: nobody listens on {port}")
        return FakeChannel()

    async def execute(
        self, remote_id: RemoteId, marker: Marker, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float
    ) -> Executed:
        await self._system.meet("execute")
        job = self._job(remote_id, marker)
        if job is None or job.state is not RemoteState.RUNNING:
            raise BackendUnavailable(f"fake: no such pod {marker}")
        return self._system.pods.runs_command(marker, argv, stdin)

    async def aclose(self) -> None:
        """Nothing is held."""

    def _job(self, remote_id: RemoteId, marker: Marker) -> FakeJob | None:
        job = self._system.jobs.get(marker)
        return job if job is not None and job.id == remote_id and job.visible else None

    def _seen(self, job: FakeJob) -> PodSeen:
        return PodSeen(
            phase=job.state.value.title(),
            waits_for=self._system.pods.waits_for.get(job.marker, ""),
            is_ready=job.state is RemoteState.RUNNING,
            restarts=job.restarts,
            node="fake1" if job.started_at else "",
        )
