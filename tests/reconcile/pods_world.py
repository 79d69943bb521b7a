"""A small world with pods in it: the loops of pods called by hand, and people who want things of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from placement.engine import place
from placement.problem import SolveLimits
from scheduler.model.pod_catalog import FilesStatus, PodKind, PodVolume
from scheduler.model.pods import (
    Desired,
    NetProtocol,
    OpenNet,
    Pod,
    PodDefinition,
    PodInstance,
    PodMount,
    PodNet,
    PodRequest,
    PodStatus,
    VolumeKind,
)
from scheduler.model.runs import RemoteState
from scheduler.model.users import Principal
from scheduler.pod_files import place_of
from scheduler.ports import Ports
from scheduler.reconcile.pod_moves import Moves
from scheduler.reconcile.pod_watch import PodWatch
from scheduler.reconcile.pods import Pods
from scheduler.services import pod_grants
from scheduler.services import pods as services
from scheduler.store.pod_files import PodVolumeStore
from scheduler.store.pod_grants import PodGrantStore
from scheduler.store.pods import PodStore
from tests.fakes.files import FakeFiles, FakeStorage
from tests.fakes.system import FakeJob
from tests.reconcile.world import CLUSTER, LEASE_S, LOST_AFTER_S, World

ANN = Principal(tenant="dev", username="ann")
KEEPER = replace(CLUSTER, notes={"berth": {"pods": True}})

WEB = PodDefinition(
    image="nginx",
    nets=(PodNet(name="default", protocol=NetProtocol.HTTP, port=5000),),
    time_to_stop_s=-1,
)
"""A stateful pod that never stops by itself."""

WITH_DATA = replace(WEB, mounts=(PodMount(kind=VolumeKind.VOLUME, target="/data", source="data"),))
"""It mounts the volume ``data``."""

STATELESS = replace(WEB, is_stateful=False)


class PodProcess:
    """The loops of pods of one process."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self.moves = Moves(ports, lease_s=LEASE_S)
        self.pods = Pods(ports, place, SolveLimits(), self.moves, lease_s=LEASE_S)
        self.watch = PodWatch(ports, lost_after_s=LOST_AFTER_S)

    async def tick(self) -> None:
        for _ in range(3):  # what the watch saw is decided on at once, as the bell does it
            await self.pods.tick()
            await self.pods.crew.settle()
        await self.watch.tick()
        await self.watch.crew.settle()
        await self.pods.tick()
        await self.pods.crew.settle()
        await self.moves.crew.settle()


class PodWorld(World):
    """As World, with a process that keeps pods."""

    def __post_init__(self) -> None:
        self.with_berth = FakeFiles()
        super().__post_init__()
        self.process = PodProcess(self.ports())

    def ports(self, **changes: Any) -> Ports:
        return super().ports(**{"volumes": lambda place: FakeStorage(self.with_berth, f"/{place}"), **changes})

    def restart(self) -> None:
        self.process = PodProcess(self.ports())

    async def create(self, name: str = "web", definition: PodDefinition = WEB, **changes: Any) -> Pod:
        request = PodRequest(pod_id=name, asked={}, definition=definition, **changes)
        return await services.create(self.ports(), ANN, request)

    async def volume(self, files: Mapping[str, bytes], uuid: str = "of-data") -> PodVolume:
        """A volume ``data`` with these files, with Berth."""
        at = self.clock()
        volume = PodVolume(
            tenant=ANN.tenant,
            id="data",
            uuid=uuid,
            owner=ANN.username,
            status=FilesStatus.AVAILABLE,
            created_at=at,
            updated_at=at,
        )
        async with self.database.transaction() as db:
            await PodVolumeStore(db).add(volume)
            await PodGrantStore(db, PodKind.VOLUME).remove_all(ANN.tenant, volume.id)
            await pod_grants.begin(db, ANN.tenant, PodKind.VOLUME, volume.id, ANN.username)
        for path, content in files.items():
            self.with_berth.put(f"/{place_of(volume)}/{path}", content)
        return volume

    async def kept(self) -> PodVolume:
        """That volume as it is now."""
        async with self.database.reading() as db:
            return await PodVolumeStore(db).get(ANN.tenant, "data")

    async def want(self, desired: Desired, name: str = "web", **changes: Any) -> Pod:
        return await services.want(self.ports(), ANN, name, desired, **changes)

    async def pod(self, name: str = "web") -> Pod:
        return await services.get(self.ports(), ANN, name)

    async def actions(self, name: str = "web") -> Sequence[str]:
        return (await services.logs(self.ports(), ANN, name))[1]

    async def instances(self, name: str = "web") -> Sequence[PodInstance]:
        async with self.database.reading() as db:
            return await PodStore(db).instances((await PodStore(db).get("dev", name)).uuid)

    async def nets(self) -> Sequence[OpenNet]:
        async with self.database.reading() as db:
            return await PodStore(db).open_nets(self.now)

    async def process_has_work(self) -> bool:
        """Whether something is due for any pod."""
        async with self.database.reading() as db:
            return await PodStore(db).is_any_due(self.now)

    async def tick(self, ticks: int = 1, step_s: float = 2.0) -> None:
        for _ in range(ticks):
            await self.process.tick()
            self.later(step_s)

    async def until(self, status: PodStatus, name: str = "web", ticks: int = 40, step_s: float = 2.0) -> Pod:
        """Time passes until the pod stands there; the site starts what waits."""
        for _ in range(ticks):
            pod = await self.pod(name)
            if pod.status is status:
                return pod
            self.site_starts()
            await self.tick(step_s=step_s)
        raise AssertionError(f"pod is {pod.status} ({pod.message}), not {status}")

    def site_starts(self) -> None:
        for job in self.system.jobs.values():
            if job.state is RemoteState.QUEUED and job.marker not in self.system.pods.waits_for:
                self.system.start(job.marker)

    @property
    def jobs(self) -> list[FakeJob]:
        """Everything that the system ever took, in order."""
        return list(self.system.jobs.values())

    @property
    def running(self) -> list[FakeJob]:
        return [job for job in self.jobs if job.state is RemoteState.RUNNING]
