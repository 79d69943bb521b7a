"""Make, copy and delete files of volumes and snapshots of pods, and measure volumes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from scheduler.model.errors import BerthError
from scheduler.model.pod_catalog import PodFilesOf, PodVolume
from scheduler.pod_files import measure, settle_snapshot, settle_volume
from scheduler.ports import Ports
from scheduler.reconcile.pod_moves import Moves
from scheduler.store.pod_files import PodSnapshotStore, PodVolumeStore

log = structlog.get_logger()

MEASURED_EVERY, CHEAPLY_EVERY = timedelta(minutes=10), timedelta(minutes=1)
"""How often what volumes hold is measured on systems, and with Berth, where that costs no network."""

Of = TypeVar("Of", bound=PodFilesOf)


class PodFiles:
    """The loop over volumes and snapshots for which something is to be done; those of one system in turn."""

    def __init__(self, ports: Ports, moves: Moves) -> None:
        self._ports, self._moves = ports, moves
        self._measured_at: dict[bool, datetime] = {}
        """When those with Berth were measured, and the others."""

    async def tick(self) -> None:
        """Do what is due. What fails is told in the log and tried again."""
        now = self._ports.clock()
        await self._moves.tick()
        async with self._ports.reading() as db:
            volumes, snapshots = await PodVolumeStore(db).unsettled(), await PodSnapshotStore(db).due(now)
        await self._each(volumes, settle_volume, "volume stays as it is")
        await self._each(snapshots, settle_snapshot, "snapshot stays as it is")
        await self._measure(now)

    async def _measure(self, now: datetime) -> None:
        every = {False: CHEAPLY_EVERY, True: MEASURED_EVERY}
        due = {away for away, rest in every.items() if now - self._measured_at.get(away, now - rest) >= rest}
        if not due:
            return
        self._measured_at |= dict.fromkeys(due, now)
        async with self._ports.reading() as db:
            volumes = [one for one in await PodVolumeStore(db).available() if (one.moved_at is not None) in due]
        await self._each(volumes, _measured, "volume is not measured")

    async def _each(self, ones: Iterable[Of], act: Callable[[Ports, Of], Awaitable[None]], failed: str) -> None:
        by_system: dict[tuple[str, str], list[Of]] = defaultdict(list)
        for one in ones:
            by_system[one.tenant, one.system_id].append(one)

        async def in_turn(group: Iterable[Of]) -> None:
            for one in group:
                try:
                    await act(self._ports, one)
                except BerthError as error:
                    log.warning(failed, files=one.id, status=one.status, system=one.system_id, error=str(error))
                except Exception:  # a mistake of ours in one keeps nobody else's waiting
                    log.exception(failed, files=one.id, status=one.status, system=one.system_id)

        await asyncio.gather(*map(in_turn, by_system.values()))


async def _measured(ports: Ports, volume: PodVolume) -> None:
    await measure(ports, volume)
