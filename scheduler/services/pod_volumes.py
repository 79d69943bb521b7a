"""Volumes of pods and their snapshots: made, shown, filled, read and deleted."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scheduler.model.errors import FileMissing, FileRefused, IllegalMove, NothingLearnt, SpecInvalid, Stale
from scheduler.model.macros import PathRefused, relative_path
from scheduler.model.pages import WHOLE_LIST
from scheduler.model.pod_catalog import FilesStatus, PodKind, PodLevel, PodSnapshot, PodVolume
from scheduler.model.pods import AT_REST, VolumeKind
from scheduler.model.runs import FileInfo, FileKind
from scheduler.model.users import Principal
from scheduler.pod_files import (
    MIB,
    TooLarge,
    files_of,
    limited,
    measure,
    settle_snapshot,
    settle_volume,
    size_bytes,
)
from scheduler.pod_schedules import check_schedule, next_at, parse_retention
from scheduler.ports import Ports
from scheduler.services import pod_grants
from scheduler.services.pod_names import check_pod_id
from scheduler.store.pod_files import PodSnapshotStore, PodVolumeStore
from scheduler.store.pods import PodStore
from scheduler.store.requests import AuditStore
from scheduler.trees import files_below

VOLUME, SNAPSHOT = PodKind.VOLUME, PodKind.SNAPSHOT
MOUNTED: Mapping[VolumeKind, PodKind] = {VolumeKind.VOLUME: VOLUME, VolumeKind.SNAPSHOT: SNAPSHOT}
"""What of a pod's mounts is ours."""

LISTED = 10_000
"""Entries of a directory that are shown."""


@dataclass(frozen=True, slots=True)
class Contents:
    """A file or directory that is about to be read."""

    owner: PodVolume | PodSnapshot
    path: str
    info: FileInfo


# -- volumes -----------------------------------------------------------------------------------------------------


async def create_volume(
    ports: Ports, caller: Principal, name: str, *, description: str, size_limit_mib: int
) -> PodVolume:
    """Make a volume; its creator gets ADMIN. It is REQUESTED until its directory is made, mostly at once."""
    check_pod_id(name, "volume_id")
    now = ports.clock()
    volume = PodVolume(
        tenant=caller.tenant,
        id=name,
        uuid=str(uuid.uuid4()),
        owner=caller.username,
        description=description,
        size_limit_mib=size_limit_mib,
        created_at=now,
        updated_at=now,
    )
    async with ports.transaction() as db:
        await PodVolumeStore(db).add(volume)
        await pod_grants.begin(db, caller.tenant, VOLUME, name, caller.username)
        await AuditStore(db).add(caller.tenant, caller.username, "volume.create", name, {}, now)
    with suppress(NothingLearnt, FileRefused):
        await settle_volume(ports, volume)
    return await get_volume(ports, caller, name)


async def list_volumes(ports: Ports, caller: Principal) -> Sequence[PodVolume]:
    """The volumes that the caller may READ."""
    async with ports.reading() as db:
        return await PodVolumeStore(db).list(caller.tenant, await pod_grants.visible(db, caller, VOLUME))


async def get_volume(ports: Ports, caller: Principal, name: str, level: PodLevel = PodLevel.READ) -> PodVolume:
    """A volume on which the caller has this level."""
    async with ports.reading() as db:
        await pod_grants.demand(db, caller, VOLUME, name, level)
        return await PodVolumeStore(db).get(caller.tenant, name)


async def update_volume(ports: Ports, caller: Principal, name: str, changes: Mapping[str, Any]) -> PodVolume:
    """Change ``description`` or ``size_limit_mib``. IllegalMove while it is being deleted."""
    async with ports.transaction() as db:
        await pod_grants.demand(db, caller, VOLUME, name, PodLevel.USER)
        volume = _present(await PodVolumeStore(db).get(caller.tenant, name), "volume")
        return await PodVolumeStore(db).change(volume, ports.clock(), **changes)


async def remove_volume(ports: Ports, caller: Principal, name: str) -> None:
    """Delete a volume and its files. IllegalMove while a pod that is not at rest has it, or a snapshot copies it."""
    now = ports.clock()
    async with ports.transaction() as db:
        await pod_grants.demand(db, caller, VOLUME, name, PodLevel.ADMIN)
        store = PodVolumeStore(db)
        volume = await store.get(caller.tenant, name)
        await _check_unused(db, caller.tenant, VOLUME, name)
        scheduled = [each.id for each in await PodSnapshotStore(db).of_volume(caller.tenant, name) if each.next_at]
        if scheduled:
            raise IllegalMove(f"snapshot '{scheduled[0]}' copies volume '{name}' by its schedule; delete it first")
        volume = await store.change(volume, now, status=FilesStatus.DELETING)
        await AuditStore(db).add(caller.tenant, caller.username, "volume.delete", name, {}, now)
    with suppress(NothingLearnt, FileRefused):
        await settle_volume(ports, volume)


async def upload(
    ports: Ports, caller: Principal, name: str, path: str, pieces: AsyncIterator[bytes], said_bytes: int | None
) -> int:
    """Write a file into a volume, seen only when complete; its bytes. SpecInvalid when there is no room for it."""
    below = _relative(path)
    volume = _present(await get_volume(ports, caller, name, PodLevel.USER), "volume")
    if not below:
        raise SpecInvalid.of("path", "names no file", "write the file's path in the volume")
    if volume.is_on_its_way:
        raise IllegalMove(f"volume '{name}' is being brought to '{volume.system_id}'; send the file again in a moment")
    async with files_of(ports, volume) as storage:
        left_bytes = volume.size_limit_mib * MIB - await size_bytes(storage)
        try:
            if said_bytes is not None and said_bytes > left_bytes:
                raise TooLarge
            written_bytes = await storage.write(below, limited(pieces, left_bytes))
        except FileMissing:  # its directory went away under it
            await _check_stayed(ports, caller, volume)
            raise
        except TooLarge:
            wrong = f"does not fit: {max(left_bytes, 0)} bytes are left of volume '{name}'"
            raise SpecInvalid.of("file", wrong, "delete files or let size_limit grow") from None
    await measure(ports, await _check_stayed(ports, caller, volume))
    return written_bytes


# -- snapshots ---------------------------------------------------------------------------------------------------


def new_snapshot(ports: Ports, caller: Principal, name: str, volume_id: str, **asked: Any) -> PodSnapshot:
    """A snapshot that is asked for now."""
    now = ports.clock()
    return PodSnapshot(
        tenant=caller.tenant,
        id=name,
        uuid=str(uuid.uuid4()),
        owner=caller.username,
        source_volume_id=volume_id,
        created_at=now,
        updated_at=now,
        **asked,
    )


async def create_snapshot(ports: Ports, caller: Principal, asked: PodSnapshot) -> PodSnapshot:
    """Ask for a snapshot of a path of a volume on which the caller has USER; taken soon, or by its schedule."""
    check_pod_id(asked.id, "snapshot_id")
    now = ports.clock()
    parse_retention(asked.retention_policy)
    if asked.cron:
        check_schedule(asked.cron, now)
    for path in (asked.source_path, asked.destination_path):
        _relative(path)
    async with ports.transaction() as db:
        await pod_grants.demand(db, caller, VOLUME, asked.source_volume_id, PodLevel.USER)
        _present(await PodVolumeStore(db).get(caller.tenant, asked.source_volume_id), "volume")
        await PodSnapshotStore(db).add(asked)
        await pod_grants.begin(db, caller.tenant, SNAPSHOT, asked.id, caller.username)
        await AuditStore(db).add(caller.tenant, caller.username, "snapshot.create", asked.id, {}, now)
    ports.wake()
    return asked


async def list_snapshots(ports: Ports, caller: Principal) -> Sequence[PodSnapshot]:
    """The snapshots that the caller may READ."""
    async with ports.reading() as db:
        return await PodSnapshotStore(db).list(caller.tenant, await pod_grants.visible(db, caller, SNAPSHOT))


async def get_snapshot(ports: Ports, caller: Principal, name: str, level: PodLevel = PodLevel.READ) -> PodSnapshot:
    """A snapshot on which the caller has this level."""
    async with ports.reading() as db:
        await pod_grants.demand(db, caller, SNAPSHOT, name, level)
        return await PodSnapshotStore(db).get(caller.tenant, name)


async def update_snapshot(ports: Ports, caller: Principal, name: str, changes: Mapping[str, Any]) -> PodSnapshot:
    """Change ``description``, ``size_limit_mib``, ``cron`` or ``retention_policy``."""
    now: datetime = ports.clock()
    parse_retention(changes.get("retention_policy") or "")
    async with ports.transaction() as db:
        await pod_grants.demand(db, caller, SNAPSHOT, name, PodLevel.USER)
        snapshot = _present(await PodSnapshotStore(db).get(caller.tenant, name), "snapshot")
        due: dict[str, Any] = {}
        if "cron" in changes and changes["cron"] != snapshot.cron:
            if bool(changes["cron"]) != bool(snapshot.cron):
                raise SpecInvalid.of("cron", "cannot be given or taken away", "make another snapshot")
            check_schedule(changes["cron"], now)
            due = {"next_at": next_at(changes["cron"], now)}
        return await PodSnapshotStore(db).change(snapshot, now, **changes, **due)


async def remove_snapshot(ports: Ports, caller: Principal, name: str) -> None:
    """Delete a snapshot and its copies. IllegalMove while a pod that is not at rest has it."""
    now = ports.clock()
    async with ports.transaction() as db:
        await pod_grants.demand(db, caller, SNAPSHOT, name, PodLevel.ADMIN)
        store = PodSnapshotStore(db)
        snapshot = await store.get(caller.tenant, name)
        await _check_unused(db, caller.tenant, SNAPSHOT, name)
        snapshot = await store.change(snapshot, now, status=FilesStatus.DELETING, next_at=None)
        await AuditStore(db).add(caller.tenant, caller.username, "snapshot.delete", name, {}, now)
    with suppress(NothingLearnt, FileRefused):
        await settle_snapshot(ports, snapshot)


# -- files of both -----------------------------------------------------------------------------------------------


async def files(ports: Ports, one: PodVolume | PodSnapshot) -> Sequence[tuple[str, FileInfo]]:
    """Every file of it with its path, at most LISTED."""
    found: list[tuple[str, FileInfo]] = []
    if one.status is not FilesStatus.AVAILABLE:
        return found
    async with files_of(ports, one) as storage:
        with suppress(FileMissing):  # of what was never written to
            async for entry in files_below(storage):
                found.append(entry)
                if len(found) == LISTED:
                    break
    return sorted(found, key=lambda entry: entry[0])


async def find(ports: Ports, one: PodVolume | PodSnapshot, path: str) -> Contents:
    """A file or directory of it; FileMissing when there is none."""
    below = _relative(path)
    async with files_of(ports, _present(one, "volume" if isinstance(one, PodVolume) else "snapshot")) as storage:
        return Contents(one, below, await storage.stat(below))


async def read(ports: Ports, found: Contents, path: str | None = None) -> AsyncIterator[bytes]:
    """The bytes of what was found, or of a file in it."""
    async with files_of(ports, found.owner) as storage:
        async for piece in storage.read(found.path if path is None else path):
            yield piece


async def members(ports: Ports, found: Contents) -> AsyncIterator[tuple[str, str, FileInfo]]:
    """Name, path and facts of every file in what was found."""
    if found.info.kind is FileKind.FILE:
        yield found.info.name, found.path, found.info
        return
    async with files_of(ports, found.owner) as storage:
        async for name, info in files_below(storage, found.path):
            yield name, f"{found.path}/{name}".lstrip("/"), info


# -- below -------------------------------------------------------------------------------------------------------


def _present(one: Any, kind: str) -> Any:
    if one.status is not FilesStatus.AVAILABLE:
        raise IllegalMove(f"{kind} '{one.id}' is {one.status}" + (f": {one.message}" if one.message else ""))
    return one


async def _check_stayed(ports: Ports, caller: Principal, volume: PodVolume) -> PodVolume:
    """The volume as it is now; Stale when it got a home meanwhile, and what was written may not have gone along."""
    newer = await get_volume(ports, caller, volume.id, PodLevel.USER)
    if newer.system_id != volume.system_id:
        raise Stale(f"volume '{volume.id}' was placed on '{newer.system_id}' meanwhile; send the file again")
    return newer


async def _check_unused(db: Any, tenant: str, kind: PodKind, name: str) -> None:
    """IllegalMove when a pod that may run has it mounted."""
    for pod in await PodStore(db).list(tenant, WHOLE_LIST):
        mounted = any(MOUNTED.get(mount.kind) is kind and mount.source == name for mount in pod.definition.mounts)
        if mounted and pod.status not in AT_REST:
            raise IllegalMove(f"pod '{pod.id}' has {kind} '{name}' mounted; stop it first")


def _relative(path: str) -> str:
    try:
        return relative_path(path)
    except PathRefused as refused:
        raise SpecInvalid.of("path", str(refused), "name a path in the volume") from None
