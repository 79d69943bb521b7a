"""An image on its way to the store of a login: fetched, made into one file here, and sent, as far as that is not done.

What one user may not read, the next who awaits it may.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import structlog

from images.bring import Bringer
from images.convert import Compressor
from images.errors import TagMoved
from images.metered import Metered
from images.policy import ImagePolicy
from images.reference import parse_reference, shown
from images.store import StoreFull
from scheduler.judge import nodes_of
from scheduler.model.errors import BerthError, CredentialRefused, FileRefused, NotFound, SpecInvalid, Stale
from scheduler.model.images import UNDER_WAY, CopyState, ImageCopy
from scheduler.model.states import LIVE_ATTEMPTS, A
from scheduler.model.systems import System
from scheduler.ports import Images, Ports
from scheduler.reconcile.claimants import pressing
from scheduler.reconcile.held_copy import HeldCopy
from scheduler.reconcile.image_stores import Store, StoreKey, Stores
from scheduler.reconcile.room import Room
from scheduler.reconcile.to_jobs import ToJobs
from scheduler.store.images import ImageStore
from scheduler.store.node_facts import NodeFactsStore

log = structlog.get_logger()

FAILED_FOR = timedelta(minutes=5)
"""How long a copy that failed is not tried again: jobs that come meanwhile are told at once."""

HOPELESS = (CredentialRefused, NotFound, SpecInvalid, Stale, FileRefused)
"""What trying again soon does not mend: an image that is private, gone or unusable, or too large for its store."""

UNREAD = (CredentialRefused, NotFound)
"""What is so for one user: others may read the image. Its copy says then that nobody knows how large it is."""


class ToStore:
    """Brings copies to their stores. ``jobs``: knows who awaits them."""

    def __init__(self, ports: Ports, stores: Stores, jobs: ToJobs) -> None:
        self._ports, self._stores, self._jobs = ports, stores, jobs
        self._room = Room(ports, stores)

    async def brought(self, images: Images, bringer: Bringer, held: HeldCopy) -> Store | None:
        """The store that has it now; None where it does not come, for whoever awaits it, as its row says then."""
        if held.copy.state is CopyState.FAILED and (asks := await self._who_tries_again(held.copy)) is not None:
            await held.write(state=CopyState.WANTED, message="", asked_by=asks)
        in_vain: set[str] = set()
        while held.copy.state is not CopyState.FAILED:
            try:
                store = await self._stores.open(store_key(held.copy), bringer.workshop)
                if held.copy.state in UNDER_WAY:
                    await self._bring(images, bringer, store, held)
                return store
            except HOPELESS as error:
                if isinstance(error, Stale) and not isinstance(error, TagMoved):
                    raise
                if isinstance(error, StoreFull) and await self._waits_for_room(held.copy, store.policy):
                    if await self._room.made(held.copy, store):
                        continue
                    raise
                in_vain.add(held.copy.asked_by)
                await self._in_vain(held, error, in_vain)
        return None

    async def _waits_for_room(self, copy: ImageCopy, policy: ImagePolicy) -> bool:
        """Whether others may make room in time: it would fit alone, and of the jobs that await it none has begun."""
        quota_bytes = policy.store.quota_bytes
        fits = quota_bytes is None or (copy.size_bytes or 0) < quota_bytes
        waiting = await self._jobs.awaiting(copy, LIVE_ATTEMPTS)
        return fits and bool(waiting) and not any(each.state is A.CLAIMED for each in waiting)

    async def _in_vain(self, held: HeldCopy, error: BerthError, asked: Collection[str]) -> None:
        """What one user may not read, the next who awaits it may; it failed when all of them ``asked`` in vain."""
        log.warning("image cannot be brought", copy=held.copy.id, system=held.copy.system_id, why=str(error))
        others = [each.owner for each in await self._jobs.awaiting(held.copy) if each.owner not in asked]
        if isinstance(error, UNREAD) and others:
            await held.write(state=CopyState.WANTED, asked_by=others[0], total_bytes=None)
            return
        unread: dict[str, Any] = {"total_bytes": None} if isinstance(error, UNREAD) else {}
        await held.write(state=CopyState.FAILED, message=str(error), next_look_at=None, **unread)

    async def _who_tries_again(self, copy: ImageCopy) -> str | None:
        """By whose logins an image that failed is read now: those of somebody who awaits it. None: not yet."""
        users = [waiting.owner for waiting in await self._jobs.awaiting(copy)]
        others = [user for user in users if user != copy.asked_by]
        if copy.total_bytes is None and others:
            return others[0]
        is_over = self._ports.clock() - copy.updated_at >= FAILED_FOR
        return (users or [copy.asked_by])[0] if is_over else None

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
            pressing=pressing(self._ports, held.copy, store.side.system),
            live_jobs=await self._stores.live_markers(store_key(copy)),
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


def store_key(copy: ImageCopy) -> StoreKey:
    """The store in which a copy lies, or shall."""
    return StoreKey(copy.tenant, copy.system_id, copy.owner)


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
