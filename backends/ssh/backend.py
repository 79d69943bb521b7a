"""FORK jobs on a LINUX host over SSH: they start at once, under the runner's watchdog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from backends.base import Capabilities
from backends.beside import Commands
from backends.container import LaunchFiles, launch_files
from backends.launchers.words import Claim
from backends.paths import marker_root
from backends.runner.calls import Runner
from scheduler.model.errors import SpecInvalid, SubmitError, SubmitRejected
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.runs import LogChunk, Observation, StagePlan, StageStatus, SubmitIntent
from scheduler.model.snapshots import NodeKind, PartitionState, StartProbe, SystemSnapshot
from scheduler.model.systems import System
from scheduler.model.units import utc

PARTITION = "fork"
"""A host without a batch system shows itself as one node in one partition of this name."""


class SshBackend:
    """One LINUX host as one login. ``connection`` is a ``backends.ssh.connection.SshConnection``."""

    capabilities = Capabilities(start_estimates=True)

    def __init__(self, system: System, login_user: str, connection: Commands) -> None:
        self._runner = Runner(connection, marker_root(system, login_user))

    async def snapshot(self, probes: Sequence[StartProbe] = ()) -> SystemSnapshot:
        """The host as one node. Nothing waits here: what fits starts now, however busy the host is."""
        host = await self._runner.snapshot()
        cores, now = host["cores"], utc(host["at"])
        idle = max(0, cores - round(host["load"]))
        return SystemSnapshot(
            taken_at=now,
            partitions=(PartitionState(name=PARTITION, up=True, is_default=True, max_nodes=1),),
            nodes=(
                NodeKind(
                    partition=PARTITION,
                    cores=cores,
                    memory_mib=host["memory_mib"],
                    total=1,
                    free=int(idle == cores),
                    free_cores=idle,
                ),
            ),
            starts=tuple(
                (probe, now)
                for probe in probes
                if probe.resources.nodes == 1
                and probe.resources.cores_per_node <= cores
                and probe.resources.memory_mib <= host["memory_mib"]
            ),
        )

    async def stage(self, plan: StagePlan) -> StageStatus:
        """Small files only, so it is done when it returns."""
        await self._runner.stage(plan)
        return StageStatus(done=True)

    async def submit(self, intents: Sequence[SubmitIntent]) -> Mapping[Marker, RemoteId | SubmitError]:
        """Start every run now, in one remote call."""
        answers: dict[Marker, RemoteId | SubmitError] = {}
        startable: list[tuple[SubmitIntent, LaunchFiles]] = []
        for intent in intents:
            try:
                startable.append((intent, self._launch_files(intent)))
            except SpecInvalid as error:
                answers[intent.marker] = SubmitRejected(str(error))
        return {**answers, **await self._runner.submit(startable)}

    async def find(self, marker: Marker, intended_at: datetime) -> RemoteId | None:
        return await self._runner.find(marker)

    async def observe(self, ids: Mapping[RemoteId, Marker]) -> Mapping[RemoteId, Observation]:
        return await self._runner.observe(ids)

    async def unended(self) -> Mapping[Marker, RemoteId]:
        return await self._runner.unended()

    async def cancel(self, remote_id: RemoteId, marker: Marker) -> bool:
        """What has an id here has begun."""
        await self._runner.cancel(marker, remote_id)
        return True

    async def withdraw(self, remote_id: RemoteId, marker: Marker) -> bool:
        """Nothing waits here."""
        return False

    async def read_log(self, remote_id: RemoteId, path: str, offset_bytes: int) -> LogChunk:
        return await self._runner.read_log(path, offset_bytes)

    async def aclose(self) -> None:
        """The connection is closed by whoever opened it; running jobs stay."""

    def _launch_files(self, intent: SubmitIntent) -> LaunchFiles:
        run = intent.run
        if run.resources.nodes > 1:
            raise SpecInvalid.of("nodeCount", f"is {run.resources.nodes}, but a FORK job runs on one host", "ask for 1")
        if run.ports:
            raise SpecInvalid.of("systemId", "is a LINUX host, which keeps no pods", "use a system that does")
        if run.array is not None:
            raise SpecInvalid.of("notes.berth.array", "needs a batch system", "submit the tasks as jobs of their own")
        return launch_files(run, marker_dir=self._runner.marker_dir(intent.marker), claim=Claim.FORK)
