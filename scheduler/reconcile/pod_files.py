"""Make, copy and delete files of volumes and snapshots of pods, and measure volumes."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from scheduler.model.errors import BerthError
from scheduler.pod_files import measure, settle_snapshot, settle_volume
from scheduler.ports import Ports
from scheduler.store.pod_files import PodSnapshotStore, PodVolumeStore

log = structlog.get_logger()

MEASURED_EVERY = timedelta(minutes=10)


class PodFiles:
    """The loop over volumes and snapshots for which something is to be done, one after the other."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._measured_at: datetime | None = None

    async def tick(self) -> None:
        """Do what is due. What fails is told in the log and tried again."""
        now = self._ports.clock()
        async with self._ports.reading() as db:
            volumes, snapshots = await PodVolumeStore(db).unsettled(), await PodSnapshotStore(db).due(now)
        for volume in volumes:
            try:
                await settle_volume(self._ports, volume)
            except BerthError as error:
                log.warning("volume stays as it is", volume=volume.id, status=volume.status, error=str(error))
        for snapshot in snapshots:
            try:
                await settle_snapshot(self._ports, snapshot)
            except BerthError as error:
                log.warning("snapshot stays as it is", snapshot=snapshot.id, status=snapshot.status, error=str(error))
        if self._measured_at is None or now - self._measured_at >= MEASURED_EVERY:
            self._measured_at = now
            await self._measure()

    async def _measure(self) -> None:
        async with self._ports.reading() as db:
            volumes = await PodVolumeStore(db).available()
        for volume in volumes:
            try:
                await measure(self._ports, volume)
            except BerthError as error:
                log.warning("volume is not measured", volume=volume.id, error=str(error))
