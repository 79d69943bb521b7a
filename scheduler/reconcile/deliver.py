"""Images on their way: fetched and made into one file here, sent to the store of a system, and handed to its jobs.

An attempt that awaits an image is what wants a copy of it there; the copy's row says how far it is. All who await the
same copy are served by one piece of work, and all copies of one image by one fetch and one conversion. A process that
dies leaves rows that say what is owed, and stores that go on where they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import structlog

from images.bring import Bringer
from images.convert import Compressor
from images.errors import RegistryMisbehaves, TagMoved
from images.metered import Metered
from images.policy import ImagePolicy
from images.reference import parse_reference, shown
from scheduler.judge import nodes_of
from scheduler.model.errors import BerthError, CredentialRefused, FileRefused, NotFound, SpecInvalid, Stale
from scheduler.model.images import UNDER_WAY, CopyState, ImageCopy
from scheduler.model.jobs import HistoryEvent
from scheduler.model.states import LIVE_ATTEMPTS, A
from scheduler.model.systems import System
from scheduler.ports import Images, Ports
from scheduler.reconcile.handing import Handing, handed, in_words
from scheduler.reconcile.held_copy import HeldCopy
from scheduler.reconcile.image_stores import Store, StoreKey, Stores
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.sides import Sides
from scheduler.store.images import Awaited, Awaiting, ImageStore
from scheduler.store.jobs import JobStore
from scheduler.store.node_facts import NodeFactsStore

log = structlog.get_logger()

AGAIN_S, LONGEST_WAIT_S = 3.0, 120.0
"""Until what could not be done now is tried again: at first, and at most."""

FAILED_FOR = timedelta(minutes=5)
"""How long a copy that failed is not tried again: jobs that come meanwhile are told at once."""

COLLECTED_EVERY = timedelta(minutes=15)
"""How often a store lets go of what no job needs any more."""

CORRUPT_TRIES = 3
"""How often what a registry sends may be wrong before its image counts as broken."""

HANDED_AT_ONCE = 8

HOPELESS = (CredentialRefused, NotFound, SpecInvalid, Stale, FileRefused)
"""What trying again soon does not mend: an image that is private, gone or unusable, a store that is full."""

UNREAD = (CredentialRefused, NotFound)
"""What is so for one user: others may read the image. Its copy says then that nobody knows how large it is."""

READY = LIVE_ATTEMPTS - {A.PLANNED, A.INTENDED}
"""States in which the system has the attempt, and with it the directory where it looks for its image."""


class CopyKey(NamedTuple):
    """An image in the store of one login."""

    tenant: str
    system_id: str
    owner: str
    manifest_digest: str


class Deliver:
    """The loop of images. Memory holds what is in hand, and how often it failed."""

    def __init__(self, ports: Ports, *, lease_s: float, at_once: int = 16) -> None:
        self._ports, self._lease_s = ports, lease_s
        self._sides = Sides(ports)
        self._stores = Stores(ports)
        self._misses: Counter[int] = Counter()
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
            if is_free and self.crew.free > 0 and copy.id not in self.crew and _has_work(copy, groups, at):
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
        wait_s = min(LONGEST_WAIT_S, AGAIN_S * 2.0 ** min(self._misses[copy.id] - 1, 10))
        log.warning("image not brought yet", copy=copy.id, system=copy.system_id, why=str(error), again_s=wait_s)
        changes: dict[str, Any] = {}
        if isinstance(error, RegistryMisbehaves) and self._misses[copy.id] >= CORRUPT_TRIES:
            changes, wait_s = {"state": CopyState.FAILED, "message": str(error)}, 0.0
        elif copy.state in UNDER_WAY:
            changes = {"message": f"{error}; being tried again"}
        with contextlib.suppress(Stale):
            await held.write(last=True, next_look_at=self._ports.clock() + timedelta(seconds=wait_s), **changes)

    async def _work(self, images: Images, bringer: Bringer, held: HeldCopy) -> None:
        if held.copy.state is CopyState.FAILED and (asks := await self._who_tries_again(held.copy)) is not None:
            await held.write(state=CopyState.WANTED, message="", asked_by=asks)
        store = await self._brought(images, bringer, held)
        is_there = await self._hand_out(held, store)
        if is_there:
            await held.write(last=True, next_look_at=None)
        else:
            words = "it was gone from the store, and is brought again"
            await held.write(last=True, state=CopyState.WANTED, message=words, next_look_at=self._ports.clock())

    async def _brought(self, images: Images, bringer: Bringer, held: HeldCopy) -> Store | None:
        """The store that has it now; None where it does not come, for whoever awaits it, as its row says then."""
        in_vain: set[str] = set()
        while held.copy.state is not CopyState.FAILED:
            try:
                store = await self._stores.open(_store_key(held.copy), bringer.workshop)
                if held.copy.state in UNDER_WAY:
                    await self._bring(images, bringer, store, held)
                return store
            except HOPELESS as error:
                if isinstance(error, Stale) and not isinstance(error, TagMoved):
                    raise
                in_vain.add(held.copy.asked_by)
                await self._in_vain(held, error, in_vain)
        return None

    async def _in_vain(self, held: HeldCopy, error: BerthError, asked: Collection[str]) -> None:
        """What one user may not read, the next who awaits it may; it failed when all of them ``asked`` in vain."""
        log.warning("image cannot be brought", copy=held.copy.id, system=held.copy.system_id, why=str(error))
        others = [each.owner for each in await self._awaiting(held.copy) if each.owner not in asked]
        if isinstance(error, UNREAD) and others:
            await held.write(state=CopyState.WANTED, asked_by=others[0], total_bytes=None)
            return
        unread: dict[str, Any] = {"total_bytes": None} if isinstance(error, UNREAD) else {}
        await held.write(state=CopyState.FAILED, message=str(error), next_look_at=None, **unread)

    async def _who_tries_again(self, copy: ImageCopy) -> str | None:
        """By whose logins an image that failed is read now: those of somebody who awaits it. None: not yet."""
        users = [waiting.owner for waiting in await self._awaiting(copy)]
        others = [user for user in users if user != copy.asked_by]
        if copy.total_bytes is None and others:
            return others[0]
        is_over = self._ports.clock() - copy.updated_at >= FAILED_FOR
        return (users or [copy.asked_by])[0] if is_over else None

    # -- to the store ---------------------------------------------------------------------------------------------

    async def _bring(self, images: Images, bringer: Bringer, store: Store, held: HeldCopy) -> None:
        """WANTED -> PRESENT, by what is not done yet of fetching, converting and sending."""
        copy, began_s = held.copy, time.monotonic()
        meter = Metered(images.source_for(copy.tenant, copy.asked_by))
        reference = parse_reference(copy.reference)
        resolved = await meter.resolve(reference, store.policy.platform)
        if resolved.manifest_digest != copy.manifest_digest:
            raise TagMoved(f"{shown(copy.reference)} means another image now than when it was resolved; submit again")
        await held.write(state=CopyState.FETCHING, total_bytes=resolved.manifest.size_bytes, done_bytes=0, message="")
        held.follow = lambda: _fetched(meter, resolved.manifest.size_bytes)
        mountable = await _mountable(self._ports, store.side.system, store.policy)
        bringer = await images.bringer_for(reference, copy.tenant, copy.asked_by) or bringer
        brought = await bringer.bring(resolved, mountable, meter)
        made_s = time.monotonic()
        async with self._ports.transaction() as db:
            await ImageStore(db).put_needs(copy.manifest_digest, brought.needs, self._ports.clock())
        await held.write(
            state=CopyState.SENDING,
            file_digest=brought.digest,
            size_bytes=brought.size_bytes,
            done_bytes=0,
            total_bytes=brought.size_bytes,
        )

        async def progress(done_bytes: int, total_bytes: int) -> None:
            held.follow = lambda: {"done_bytes": done_bytes, "total_bytes": total_bytes}

        sent = await store.keeper.send(
            brought.path,
            brought.digest,
            record={"manifest": copy.manifest_digest, "name": shown(copy.reference)},
            progress=progress,
            live_jobs=await self._stores.live_markers(_store_key(copy)),
        )
        figures = {
            "fetched_bytes": meter.fetched_bytes,
            "fetch_s": meter.fetch_s,
            "convert_s": max(0.0, made_s - began_s - meter.fetch_s),
            "send_s": time.monotonic() - made_s,
            "sent_bytes": sent.sent_bytes,
            "reused_bytes": sent.reused_bytes,
            "took_s": time.monotonic() - began_s,
        }
        await held.write(
            state=CopyState.PRESENT,
            done_bytes=sent.size_bytes,
            total_bytes=sent.size_bytes,
            sent_bytes=sent.sent_bytes,
            reused_bytes=sent.reused_bytes,
            figures={name: round(float(value), 3) for name, value in figures.items()},
            present_at=self._ports.clock(),
        )
        await self._keep_pinned(store, held.copy)

    async def _keep_pinned(self, store: Store, copy: ImageCopy) -> None:
        """Somebody may have said that it shall stay before it was there."""
        async with self._ports.reading() as db:
            is_pinned = (await ImageStore(db).get(copy.id)).pinned
        if is_pinned and copy.file_digest is not None:
            await store.keeper.pin(copy.file_digest, f"copy-{copy.id}")

    # -- to the jobs ----------------------------------------------------------------------------------------------

    async def _hand_out(self, held: HeldCopy, store: Store | None) -> bool:
        """Tell everyone who awaits the copy where it is, or that it will not come; False: it is not there after all."""
        copy = held.copy
        mine = await self._awaiting(copy)
        turn = asyncio.Semaphore(HANDED_AT_ONCE)

        async def hand(waiting: Awaiting) -> bool:
            async with turn:
                return await self._hand_to(waiting, held.copy, store)

        answers = await asyncio.gather(*(hand(waiting) for waiting in mine), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        if mine and store is not None:
            await held.write(used_at=self._ports.clock())
        return all(answers)

    async def _awaiting(self, copy: ImageCopy) -> Sequence[Awaiting]:
        """Who awaits the copy and can be told."""
        async with self._ports.reading() as db:
            awaiting = await ImageStore(db).awaiting(copy.manifest_digest)
        return [waiting for waiting in awaiting if waiting.state in READY and await self._awaits(waiting, copy)]

    async def _awaits(self, waiting: Awaiting, copy: ImageCopy) -> bool:
        if (waiting.tenant, waiting.system_id) != (copy.tenant, copy.system_id):
            return False
        side = await self._sides.of(waiting.tenant, waiting.system_id, waiting.owner)
        return side.login.owner == copy.owner

    async def _hand_to(self, waiting: Awaiting, copy: ImageCopy, store: Store | None) -> bool:
        side = await self._sides.of(waiting.tenant, waiting.system_id, waiting.owner)
        handing = Handing(self._ports, side, copy)
        if store is None:
            await handing.give_up(waiting.marker)
        elif not await handing.give(waiting.marker, store.policy, store.keeper):
            return False
        at = self._ports.clock()
        words = handed(copy, waiting.intended_at) if store is not None else in_words(copy)
        await self._settle(waiting, HistoryEvent(event="JOB_USER_EVENT", detail="IMAGE", description=words, at=at))
        return True

    async def _settle(self, waiting: Awaiting, event: HistoryEvent) -> None:
        async with self._ports.transaction() as db:
            await ImageStore(db).settle(waiting, event)
        self._ports.wake()


def _key(copy: ImageCopy) -> CopyKey:
    return CopyKey(copy.tenant, copy.system_id, copy.owner, copy.manifest_digest)


def _store_key(copy: ImageCopy) -> StoreKey:
    return StoreKey(copy.tenant, copy.system_id, copy.owner)


def _has_work(copy: ImageCopy, groups: Mapping[CopyKey, Sequence[Awaited]], at: datetime) -> bool:
    """Whether it is due, and on its way or awaited by an attempt that can be told."""
    if copy.next_look_at is not None and copy.next_look_at > at:
        return False
    return copy.state in UNDER_WAY or any(waiting.state in READY for waiting in groups.get(_key(copy), ()))


def _fetched(meter: Metered, total_bytes: int) -> dict[str, Any]:
    """How far a fetch is; what is not fetched is converted, or waits for its turn to be."""
    if meter.is_fetching:
        return {"done_bytes": min(meter.fetched_bytes, total_bytes)}
    return {"state": CopyState.CONVERTING, "done_bytes": 0, "total_bytes": None}


async def _mountable(ports: Ports, system: System, policy: ImagePolicy) -> frozenset[Compressor]:
    """What every class of nodes there mounts, as far as it is known; all where nobody has looked.

    What is packed before the first look and after it would otherwise share no bytes.
    """
    async with ports.reading() as db:
        probed = await NodeFactsStore(db).of_system(system.tenant, system.id)
    runtimes = [one for nodes in nodes_of(system, policy, probed).values() for one in nodes.facts.runtimes or ()]
    tried = [runtime.compressors for runtime in runtimes if runtime.compressors]
    return frozenset(word for word in Compressor if all(word in compressors for compressors in tried))
