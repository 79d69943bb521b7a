"""Bring the files of volumes and snapshots from Berth to the system that is their home; whole before a pod starts."""

from __future__ import annotations

import asyncio
import posixpath
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from backends.base import Storage
from scheduler.model.errors import BerthError, FileMissing, NotFound, NothingLearnt, Stale
from scheduler.model.ids import LoginKey
from scheduler.model.pod_catalog import FilesStatus, PodFilesOf, files_name
from scheduler.model.runs import FileKind
from scheduler.pod_files import coming, delete_with_berth, on_system, place_of, with_berth
from scheduler.ports import Ports
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.transfer import Progress, copy_tree, counted
from scheduler.store.pod_files import PodSnapshotStore, PodVolumeStore, store_of
from scheduler.trees import walk

log = structlog.get_logger()

AT_ONCE = 4
"""Volumes and snapshots that one process brings at the same time."""

PATIENCE_S = 2.0
"""How long a pod waits for its files before it says that it does."""


@dataclass
class Move:
    """One that is under way in this process, or was, and whose end nobody has heard of yet."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    error: BerthError | None = None


class Moves:
    """What this process brings. A lease keeps it the only one; an end that nobody noted is found again."""

    def __init__(self, ports: Ports, *, lease_s: float) -> None:
        self._ports, self._lease_s = ports, lease_s
        self._moves: dict[str, Move] = {}
        self.crew = Crew(AT_ONCE)

    def start(self, one: PodFilesOf) -> Move | None:
        """Bring its files, unless that is under way; None: no hand is free."""
        if one.uuid not in self._moves and self.crew.free > 0:
            self._moves[one.uuid] = Move()
            self.crew.start(one.uuid, self._bring(one, self._moves[one.uuid]), files=one.id)
        return self._moves.get(one.uuid)

    async def there(self, one: PodFilesOf) -> bool:
        """Whether it has been brought, or nobody need any more; waits a little for it. Raises what keeps it."""
        move = self.start(one)
        if move is None:
            return False
        try:
            await asyncio.wait_for(move.over.wait(), PATIENCE_S)
        except TimeoutError:
            return False
        if self._moves.get(one.uuid) is move:
            del self._moves[one.uuid]
        if move.error is not None:
            raise move.error
        return True

    async def tick(self) -> None:
        """Go on with those that no pod waits for any more."""
        async with self._ports.reading() as db:
            found: list[PodFilesOf] = [*await PodVolumeStore(db).on_their_way()]
            found += await PodSnapshotStore(db).on_their_way()
        for uuid in [uuid for uuid, move in self._moves.items() if move.over.is_set()]:
            del self._moves[uuid]
        for one in found:
            self.start(one)

    # -- one of them -------------------------------------------------------------------------------------------------

    async def _bring(self, one: PodFilesOf, move: Move) -> None:
        try:
            if await self._lease(one):
                try:
                    await self._brought(one)
                finally:
                    await self._release(one)
        except BerthError as error:
            log.warning("files are not brought", files=one.id, system=one.system_id, why=str(error))
            move.error = error
        finally:
            move.over.set()
            self._ports.wake()

    async def _brought(self, one: PodFilesOf) -> None:
        async def hold(said: str) -> None:
            log.info("files are brought", files=one.id, system=one.system_id, said=said)
            if not await self._lease(one):
                raise NothingLearnt(f"another process brings {files_name(one)} now")

        folder, _, name = one.directory.rpartition("/")
        async with with_berth(self._ports, place_of(one)) as here:
            if not await _is_empty(here) and not await self._adopted(one):
                progress = Progress(f"bringing {files_name(one)}", hold, self._ports.clock)
                async with on_system(self._ports, one, "") as whole:
                    await whole.make_directory(folder)
                async with on_system(self._ports, one, folder) as there:
                    await bring(here, there, name, progress)
        await self._note(one)
        await delete_with_berth(self._ports, one)

    async def _adopted(self, one: PodFilesOf) -> bool:
        """Whether a rename was enough."""
        login = LoginKey(one.tenant, one.system_id, one.login_owner)
        return self._ports.adopt is not None and await self._ports.adopt(place_of(one), login, one.directory)

    async def _note(self, one: PodFilesOf) -> None:
        """Write down that its files are there. What was changed of it meanwhile stays."""
        async with self._ports.transaction() as db:
            store = store_of(db, one)
            try:
                now = await store.get(one.tenant, one.id)
                if (now.uuid, now.status) != (one.uuid, FilesStatus.AVAILABLE):
                    raise NothingLearnt(f"{files_name(one)} is {now.status}")
                await store.change(now, self._ports.clock(), moved_at=self._ports.clock())
            except (NotFound, Stale) as changed:
                raise NothingLearnt(str(changed)) from None

    async def _lease(self, one: PodFilesOf) -> bool:
        at = self._ports.clock()
        async with self._ports.transaction() as db:
            until = at + timedelta(seconds=self._lease_s)
            return await store_of(db, one).lease(one, self._ports.process_id, at, until)

    async def _release(self, one: PodFilesOf) -> None:
        async with self._ports.transaction() as db:
            await store_of(db, one).release(one, self._ports.process_id)


async def bring(here: Storage, there: Storage, name: str, progress: Progress) -> None:
    """Copy all files to the directory ``name``, which appears when it is whole. What is there already stays."""
    if await _is_there(there, name):  # we were here before and could not note it, or a pod was before files had homes
        await _add_missing(here, there, name, progress)
        return
    await copy_tree(here, "", there, coming(name), progress)
    await there.move(coming(name), name)


async def _add_missing(here: Storage, there: Storage, name: str, progress: Progress) -> None:
    async for entry in walk(here, ""):
        to = posixpath.join(name, entry.relative)
        if entry.info.kind is FileKind.FILE and not await _is_there(there, to):
            await there.write(to, counted(here.read(entry.relative), progress))


async def _is_there(storage: Storage, path: str) -> bool:
    try:
        await storage.stat(path)
    except FileMissing:
        return False
    return True


async def _is_empty(storage: Storage) -> bool:
    try:
        return not await storage.list("", 1)
    except FileMissing:
        return True
