"""The files of volumes and snapshots of pods: where they lie, how they are measured, made, copied and deleted.

They lie with Berth until a pod is placed that mounts them; then on its system. Each volume and each snapshot is a root
of its own, so that no link in one leads into another.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from backends.base import Storage
from scheduler.model.errors import (
    BackendUnavailable,
    BerthError,
    FileMissing,
    Forbidden,
    NotFound,
    NothingLearnt,
    SpecInvalid,
    Stale,
)
from scheduler.model.ids import LoginKey
from scheduler.model.macros import relative_path
from scheduler.model.pod_catalog import FilesStatus, PodFilesOf, PodKind, PodLevel, PodSnapshot, PodVolume, files_name
from scheduler.model.runs import FileKind
from scheduler.pod_schedules import next_at, parse_retention
from scheduler.ports import Ports
from scheduler.store.pod_files import PodSnapshotStore, PodVolumeStore, store_of
from scheduler.store.pod_grants import PodGrantStore
from scheduler.store.users import UserStore
from scheduler.trees import files_below

MIB = 1024 * 1024
PAGE = 1_000

STAMP = "%Y-%m-%dT%H-%M-%SZ"
"""Each copy of a snapshot with a schedule lies in a directory named by its instant."""


class TooLarge(Exception):
    """More than the limit."""


def place_of(one: PodFilesOf) -> str:
    """Where the files lie with Berth, below the directory of all volumes."""
    return f"{one.tenant}/{'volumes' if isinstance(one, PodVolume) else 'snapshots'}/{one.uuid}"


@asynccontextmanager
async def files_of(ports: Ports, one: PodFilesOf) -> AsyncIterator[Storage]:
    """The files of one volume or snapshot, and nothing else, wherever they are.

    SpecInvalid where this server keeps none; BackendUnavailable, with the system's name, where that is not reached.
    """
    opened = with_berth(ports, place_of(one)) if one.moved_at is None else on_system(ports, one, one.directory)
    async with opened as storage:
        yield storage


async def size_bytes(storage: Storage, path: str = "") -> int:
    """What the files below a directory hold together; nothing where it was never made."""
    try:
        return sum([info.size_bytes async for _, info in files_below(storage, path)])
    except FileMissing:
        return 0


# -- what is to be done ------------------------------------------------------------------------------------------


async def settle_volume(ports: Ports, volume: PodVolume) -> None:
    """REQUESTED: make its directory; DELETING: delete its files, then the row. May be done again after a crash."""
    if volume.status is FilesStatus.REQUESTED:
        async with files_of(ports, volume) as storage:
            await storage.make_directory("")
        await _write(ports, volume, status=FilesStatus.AVAILABLE)
    elif volume.status is FilesStatus.DELETING:
        await _delete(ports, volume)
        async with ports.transaction() as db:
            await PodVolumeStore(db).remove(volume)
            await PodGrantStore(db, PodKind.VOLUME).remove_all(volume.tenant, volume.id)


async def settle_snapshot(ports: Ports, snapshot: PodSnapshot) -> None:
    """Take the copy that is due and drop those that are not kept; DELETING: delete all, then the row."""
    if snapshot.status is FilesStatus.DELETING:
        await _delete(ports, snapshot)
        async with ports.transaction() as db:
            await PodSnapshotStore(db).remove(snapshot)
            await PodGrantStore(db, PodKind.SNAPSHOT).remove_all(snapshot.tenant, snapshot.id)
        return
    now = ports.clock()
    due_at = snapshot.next_at or snapshot.created_at
    following = next_at(snapshot.cron, now) if snapshot.cron else None
    try:
        snapshot, volume = await _beside_its_volume(ports, snapshot)
        taken_bytes = await _take(ports, snapshot, volume, due_at, now)
    except (NothingLearnt, Stale):
        raise
    except (BerthError, TooLarge) as error:
        message = f"the copy of {due_at:%Y-%m-%d %H:%M} was not taken: {str(error) or 'it is larger than size_limit'}"
        status = FilesStatus.AVAILABLE if snapshot.cron else FilesStatus.ERROR
        await _write(ports, snapshot, status=status, message=message[:2000], next_at=following)
        return
    await _write(ports, snapshot, status=FilesStatus.AVAILABLE, message="", size_bytes=taken_bytes, next_at=following)


async def measure(ports: Ports, volume: PodVolume) -> None:
    """Note how much a volume holds, and whether that is more than it should."""
    async with files_of(ports, volume) as storage:
        held_bytes = await size_bytes(storage)
    full = held_bytes > volume.size_limit_mib * MIB
    message = f"it holds more than its size_limit of {volume.size_limit_mib} MB" if full else ""
    if (held_bytes, message) != (volume.size_bytes, volume.message):
        await _write(ports, volume, size_bytes=held_bytes, message=message)


async def _beside_its_volume(ports: Ports, snapshot: PodSnapshot) -> tuple[PodSnapshot, PodVolume]:
    """The snapshot, its first copy about to lie where the files of its volume are; and the volume.

    BackendUnavailable while files of either are on their way. Forbidden where the snapshot's owner may not have the
    volume's any more.
    """
    async with ports.transaction() as db:
        volume = await PodVolumeStore(db).get(snapshot.tenant, snapshot.source_volume_id)
        if not await _may_copy(db, snapshot):
            raise Forbidden(f"{snapshot.owner} needs USER on volume '{volume.id}'; ask one who has ADMIN on it")
        for one in (volume, snapshot):
            if one.is_on_its_way:
                raise BackendUnavailable(f"{files_name(one)} is being brought to '{one.system_id}'")
        if snapshot.status is FilesStatus.REQUESTED and volume.moved_at is not None and not snapshot.system_id:
            at = ports.clock()
            directory = posixpath.join(posixpath.dirname(volume.directory), "snapshots", snapshot.uuid)
            home = {"system_id": volume.system_id, "login_owner": volume.login_owner, "directory": directory}
            snapshot = await PodSnapshotStore(db).change(snapshot, at, **home, moved_at=at)
    return snapshot, volume


async def _may_copy(db: Any, snapshot: PodSnapshot) -> bool:
    """Whether its owner may have the files of its volume, as when it was made."""
    grants = PodGrantStore(db, PodKind.VOLUME)
    level = await grants.level_of(snapshot.tenant, snapshot.source_volume_id, snapshot.owner)
    if level is not None and level >= PodLevel.USER:
        return True
    with suppress(NotFound):
        return (await UserStore(db).get(snapshot.tenant, snapshot.owner)).is_admin
    return False


async def _take(ports: Ports, snapshot: PodSnapshot, volume: PodVolume, due_at: datetime, now: datetime) -> int:
    """Copy what is due, seen under its name only when complete, then drop what is not kept; bytes of all copies."""
    limit_bytes = snapshot.size_limit_mib * MIB
    name = due_at.astimezone(UTC).strftime(STAMP) if snapshot.cron else "copy"
    async with files_of(ports, volume) as source, files_of(ports, snapshot) as target:
        await target.make_directory("")
        for unfinished in [entry for entry in await target.list("", PAGE) if entry.name.startswith(".")]:
            await target.delete(unfinished.name)
        kept = await _kept(target, snapshot, now)
        if name not in kept:
            held_bytes = sum([await size_bytes(target, each) for each in kept])
            fresh = f".{name}"
            into = posixpath.join(fresh, relative_path(snapshot.destination_path))
            await target.make_directory(into)
            try:
                await _copy(source, relative_path(snapshot.source_path), target, into, limit_bytes - held_bytes)
                await target.move(fresh, name)
            except (BerthError, TooLarge):
                await target.delete(fresh)
                await _check_where(ports, volume)
                raise
        await _kept(target, snapshot, now)
        return await size_bytes(target)


async def _check_where(ports: Ports, volume: PodVolume) -> None:
    """BackendUnavailable when its files were brought elsewhere while they were read."""
    async with ports.reading() as db:
        now = await PodVolumeStore(db).get(volume.tenant, volume.id)
    if now.moved_at != volume.moved_at:
        raise BackendUnavailable(f"{files_name(volume)} was brought to '{now.system_id}' meanwhile")


async def _kept(target: Storage, snapshot: PodSnapshot, now: datetime) -> list[str]:
    """The copies that stay; the others are deleted, and what is no copy is left alone."""
    names = [entry.name for entry in await target.list("", PAGE) if entry.kind is FileKind.DIRECTORY]
    if not snapshot.cron:
        return names
    taken = {at: name for name in names if (at := _taken_at(name)) is not None}
    for at in parse_retention(snapshot.retention_policy).dropped(list(taken), now):
        await target.delete(taken.pop(at))
    return list(taken.values())


def _taken_at(name: str) -> datetime | None:
    """When the copy of this name was taken; None for a directory that is none."""
    try:
        return datetime.strptime(name, STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


async def _copy(source: Storage, path: str, target: Storage, into: str, most_bytes: int) -> None:
    info = await source.stat(path)
    if info.kind is FileKind.FILE:
        if info.size_bytes > most_bytes:
            raise TooLarge
        await target.write(posixpath.join(into, info.name), limited(source.read(path), most_bytes))
        return
    async for name, _ in files_below(source, path):
        pieces = limited(source.read(posixpath.join(path, name)), most_bytes)
        most_bytes -= await target.write(posixpath.join(into, name), pieces)


async def limited(pieces: AsyncIterator[bytes], most_bytes: int) -> AsyncIterator[bytes]:
    """The same pieces; TooLarge as soon as they are more."""
    async for piece in pieces:
        most_bytes -= len(piece)
        if most_bytes < 0:
            raise TooLarge
        yield piece


# -- below -------------------------------------------------------------------------------------------------------


async def _write(ports: Ports, one: PodFilesOf, **changes: object) -> None:
    """Stale is fine: somebody else wrote, and what is to be done then is looked at again."""
    with suppress(Stale, NotFound):
        async with ports.transaction() as db:
            if isinstance(one, PodVolume):
                await PodVolumeStore(db).change(one, ports.clock(), **changes)
            else:
                await PodSnapshotStore(db).change(one, ports.clock(), **changes)


async def _delete(ports: Ports, one: PodFilesOf) -> None:
    """Delete its files wherever they may be, what was half brought too.

    NothingLearnt while they are still being brought: the lease of that is given to nobody, and grows no longer, since
    it is DELETING.
    """
    async with ports.reading() as db:
        if await store_of(db, one).is_leased(one, ports.clock()):
            raise NothingLearnt(f"{files_name(one)} is still being brought to '{one.system_id}'")
    if one.system_id:
        folder, _, name = one.directory.rpartition("/")
        async with on_system(ports, one, folder) as storage:
            for each in (name, coming(name)):
                with suppress(FileMissing):
                    await storage.delete(each)
    await delete_with_berth(ports, one)


async def delete_with_berth(ports: Ports, one: PodFilesOf) -> None:
    """Delete what of its files is with Berth."""
    folder, _, name = place_of(one).rpartition("/")
    async with with_berth(ports, folder) as storage:
        with suppress(FileMissing):
            await storage.delete(name)


def coming(name: str) -> str:
    """Where files lie on a system while they are brought there, beside the directory of this name."""
    return f".{name}.coming"


@asynccontextmanager
async def on_system(ports: Ports, one: PodFilesOf, directory: str) -> AsyncIterator[Storage]:
    """A directory of the system where its files lie, as the login that brought them."""
    where = f"the files of {files_name(one)} are on system '{one.system_id}'"
    try:
        login = LoginKey(one.tenant, one.system_id, one.login_owner)
        storage = await ports.connections.storage_below(login, directory)
        try:
            yield storage
        finally:
            await storage.aclose()
    except NotFound as gone:
        raise BackendUnavailable(f"{where}, which is gone: {gone}") from None
    except NothingLearnt as error:
        raise BackendUnavailable(f"{where}, which is not reached: {error}") from None


@asynccontextmanager
async def with_berth(ports: Ports, place: str) -> AsyncIterator[Storage]:
    """A directory below that of all volumes."""
    if ports.volumes is None:
        raise SpecInvalid.of("volume", "is not possible: this server keeps no files of pods", "ask the operator")
    storage = ports.volumes(place)
    try:
        yield storage
    finally:
        await storage.aclose()
