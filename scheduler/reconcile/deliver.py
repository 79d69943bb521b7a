"""Images on their way: fetched and made into one file here, sent to the store of a system, and handed to its jobs.

An attempt that awaits an image is what wants a copy of it there; the copy's row says how far it is. All who await the
same copy are served by one piece of work, and all copies of one image by one fetch and one conversion. A process that
dies leaves rows that say what is owed, and stores that go on where they were.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import structlog

from images.bring import Bringer
from images.errors import RegistryMisbehaves
from images.reference import shown
from images.store import StoreFull
from scheduler.model.errors import BerthError, NotFound, Stale
from scheduler.model.images import UNDER_WAY, CopyState, ImageCopy
from scheduler.model.states import LIVE_ATTEMPTS, A
from scheduler.ports import Images, Ports
from scheduler.reconcile.held_copy import HeldCopy
from scheduler.reconcile.image_stores import Stores
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.sides import Sides
from scheduler.reconcile.to_jobs import READY, ToJobs
from scheduler.reconcile.to_store import ToStore
from scheduler.store.images import Awaited, ImageStore
from scheduler.store.jobs import JobStore

log = structlog.get_logger()

AGAIN_S, LONGEST_WAIT_S = 3.0, 120.0
"""Until what could not be done now is tried again: at first, and at most."""

FULL_WAIT_S = 30.0
"""The same at most where a store has no room: a job that began meanwhile waits on its nodes."""

COLLECTED_EVERY = timedelta(minutes=15)
"""How often a store lets go of what no job needs any more."""

CORRUPT_TRIES = 3
"""How often what a registry sends may be wrong before its image counts as broken."""


class CopyKey(NamedTuple):
    """An image in the store of one login."""

    tenant: str
    system_id: str
    owner: str
    manifest_digest: str


class Deliver:
    """The loop of images. Memory holds what is in hand, how often it failed, and for whom it was tried."""

    def __init__(self, ports: Ports, *, lease_s: float, at_once: int = 32) -> None:
        self._ports, self._lease_s = ports, lease_s
        self._sides = Sides(ports)
        self._stores = Stores(ports)
        self._to_jobs = ToJobs(ports, self._sides)
        self._to_store = ToStore(ports, self._stores, self._to_jobs)
        self._misses: Counter[int] = Counter()
        self._tried: dict[int, int] = {}
        self._in_hand: set[HeldCopy] = set()
        self._collect_at = ports.clock() + COLLECTED_EVERY
        self.crew = Crew(at_once)

    async def tick(self) -> None:
        """Report on what is in hand; claim what is due or awaited, as much as there are hands."""
        for held in list(self._in_hand):
            with contextlib.suppress(Stale):  # the work learns of it at its next write
                await held.report()
        images = self._ports.images
        if images is None or images.bringer is None:
            return
        at = self._ports.clock()
        if at >= self._collect_at:
            self._collect_at = at + COLLECTED_EVERY
            for which in await self._stores.all():
                if self.crew.free > 0 and which not in self.crew:
                    work = self._stores.collect(which, images.bringer.workshop)
                    self.crew.start(which, work, system=which.system_id)
        async with self._ports.reading() as db:
            awaited = await ImageStore(db).awaited()
            known = await ImageStore(db).of_interest(at)
        groups = await self._groups(awaited)
        for key in groups.keys() - {_key(copy) for copy, _ in known}:
            await self._want(key, groups[key][0], at)
        for copy, is_free in known:
            waiting = [each for each in groups.get(_key(copy), ()) if each.state in READY]
            if is_free and self.crew.free > 0 and copy.id not in self.crew and self._has_work(copy, waiting, at):
                self._tried[copy.id] = _newest(waiting)
                await self._start(images, images.bringer, copy, at)

    async def _groups(self, awaited: Sequence[Awaited]) -> Mapping[CopyKey, Sequence[Awaited]]:
        """Who awaits which copy. What is over awaits nothing any more."""
        groups: dict[CopyKey, list[Awaited]] = {}
        live = [waiting for waiting in awaited if waiting.state in LIVE_ATTEMPTS]
        if len(live) < len(awaited):
            async with self._ports.transaction() as db:
                await ImageStore(db).settle_ended()
        for waiting in live:
            try:
                side = await self._sides.of(waiting.tenant, waiting.system_id, waiting.owner)
            except NotFound:
                continue
            key = CopyKey(waiting.tenant, waiting.system_id, side.login.owner, waiting.awaits_image)
            groups.setdefault(key, []).append(waiting)
        return groups

    def _has_work(self, copy: ImageCopy, waiting: Sequence[Awaited], at: datetime) -> bool:
        """Whether it is on its way or awaited by attempts that can be told, and due.

        Of an image that is there an attempt that came since the last try waits for no next one: what went wrong then
        was about others.
        """
        if copy.next_look_at is None or copy.next_look_at <= at:
            return copy.state in UNDER_WAY or bool(waiting)
        if copy.state is CopyState.WANTED and not self._misses[copy.id]:  # it gave way to others
            return any(each.state is A.CLAIMED for each in waiting)
        return copy.state is CopyState.PRESENT and _newest(waiting) > self._tried.get(copy.id, sys.maxsize)

    async def _want(self, key: CopyKey, first: Awaited, at: datetime) -> None:
        async with self._ports.transaction() as db:
            job = await JobStore(db).find(first.job_id)
            if job.image is not None and job.image.manifest_digest == key.manifest_digest:
                await ImageStore(db).want(*key, reference=job.image.reference, asked_by=job.owner, at=at)
            else:
                log.error("an attempt awaits an image that is not its job's", job=job.uuid)

    async def _start(self, images: Images, bringer: Bringer, copy: ImageCopy, at: datetime) -> None:
        async with self._ports.transaction() as db:
            claimed = await ImageStore(db).claim(copy, self._ports.process_id, self._lease_s, at)
        if claimed is not None:
            held = HeldCopy(claimed, self._ports, self._lease_s)
            image = shown(copy.reference)
            self.crew.start(copy.id, self._look(images, bringer, held), image=image, system=copy.system_id)

    async def _look(self, images: Images, bringer: Bringer, held: HeldCopy) -> None:
        """Bring the copy as far as it goes now, hand it to who awaits it, and give it back."""
        self._in_hand.add(held)
        try:
            await self._work(images, bringer, held)
            self._misses.pop(held.copy.id, None)
            self._tried.pop(held.copy.id, None)
        except Stale as stale:
            log.info("someone else has the copy", copy=held.copy.id, why=str(stale))
        except BerthError as error:
            await self._later(held, error)
        finally:
            self._in_hand.discard(held)

    async def _later(self, held: HeldCopy, error: BerthError) -> None:
        """What is known stays; it is tried again after a while, and people are told why."""
        copy = held.copy
        self._misses[copy.id] += 1
        most_s = FULL_WAIT_S if isinstance(error, StoreFull) else LONGEST_WAIT_S
        wait_s = min(most_s, AGAIN_S * 2.0 ** min(self._misses[copy.id] - 1, 10))
        log.warning("image not brought yet", copy=copy.id, system=copy.system_id, why=str(error), again_s=wait_s)
        changes: dict[str, Any] = {}
        if isinstance(error, RegistryMisbehaves) and self._misses[copy.id] >= CORRUPT_TRIES:
            changes, wait_s = {"state": CopyState.FAILED, "message": str(error)}, 0.0
        elif copy.state in UNDER_WAY:
            changes = {"message": f"{error}; being tried again"}
        with contextlib.suppress(Stale):
            await held.write(last=True, next_look_at=self._ports.clock() + timedelta(seconds=wait_s), **changes)

    async def _work(self, images: Images, bringer: Bringer, held: HeldCopy) -> None:
        store = await self._to_store.brought(images, bringer, held)
        is_there = await self._to_jobs.hand_out(held, store)
        if is_there:
            await held.write(last=True, next_look_at=None)
        else:
            words = "it was gone from the store, and is brought again"
            await held.write(last=True, state=CopyState.WANTED, message=words, next_look_at=self._ports.clock())


def _key(copy: ImageCopy) -> CopyKey:
    return CopyKey(copy.tenant, copy.system_id, copy.owner, copy.manifest_digest)


def _newest(waiting: Sequence[Awaited]) -> int:
    return max((each.newest_id for each in waiting), default=0)
