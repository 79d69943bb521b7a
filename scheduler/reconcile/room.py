"""Room in a store that is full: images of jobs that are to begin late give way, and are brought again before they do.

``images.claims`` says which. Nothing goes that a job may be reading: what a job in the queue was told is taken away
first, then its system is asked, and only if the job still waits does it lose its lease. Who dies in between leaves
attempts that await their image, and they are told again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from images.claims import Claim, Grade, gives_way
from images.keeper import Kept
from scheduler.model.images import CopyState, ImageCopy
from scheduler.model.jobs import HistoryEvent
from scheduler.model.runs import RemoteState
from scheduler.ports import Ports
from scheduler.reconcile.claimants import claimants, starts_in_s, waits
from scheduler.reconcile.given_back import GivenBack
from scheduler.reconcile.handing import given_way, take_back
from scheduler.reconcile.held_copy import HeldCopy
from scheduler.reconcile.image_stores import Store, StoreKey, Stores
from scheduler.store.images import Claimant, ImageStore

log = structlog.get_logger()

LEASE_S = 120.0
"""Of the row of a copy that gives way: longer than its jobs' systems are asked for."""

BESIDE_SHARE, BESIDE_BYTES = 0.02, 2**16
"""For what a store keeps beside an image: its chunks, and what is known of it."""

AGAIN = timedelta(seconds=30)
"""Until an image that gave way looks for room again; that of a job that begins looks at once."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """An image in the store, its row, and the attempts in the queue that it is held for."""

    copy: ImageCopy
    claim: Claim
    holders: Sequence[Claimant]


class Room:
    """Makes room in full stores."""

    def __init__(self, ports: Ports, stores: Stores) -> None:
        self._ports, self._stores, self._given_back = ports, stores, GivenBack(ports)

    async def made(self, copy: ImageCopy, store: Store) -> bool:
        """Whether there is room now for an image that found none."""
        quota_bytes = store.policy.store.quota_bytes
        which = StoreKey(copy.tenant, copy.system_id, copy.owner)
        if quota_bytes is None or copy.size_bytes is None:
            return False
        async with self._ports.reading() as db:
            rows = await ImageStore(db).present(*which)
        mine = await claimants(self._ports, copy, store.side.system)
        stats = await self._given_back.seen(await store.keeper.stats(), mine, store)
        need_bytes = copy.size_bytes * (1 + BESIDE_SHARE) + BESIDE_BYTES
        missing_bytes = stats.held_bytes - stats.trash_bytes + need_bytes - quota_bytes
        waiting = [each for each in mine if each.manifest_digest == copy.manifest_digest and waits(each)]
        if not waiting or missing_bytes <= 0:  # room comes when the trash is emptied
            return False
        standings = self._standings(stats.images, rows, mine, store)
        wants = Claim(copy.manifest_digest, copy.size_bytes, Grade.QUEUED, starts_in_s(waiting, self._ports.clock()))
        goes = gives_way(wants, [each.claim for each in standings.values()], missing_bytes)
        for claim in goes or ():
            if not await self._let_go(standings[str(claim.digest)], store, which):
                return False
        return goes is not None

    def _standings(
        self, held: Sequence[Kept], rows: Sequence[ImageCopy], mine: Sequence[Claimant], store: Store
    ) -> Mapping[str, _Standing]:
        """What is in the store by the digest of its file, as far as it is ours to move."""
        now = self._ports.clock()
        by_file = {row.file_digest: row for row in rows}
        holders = {f"job-{each.attempt.marker}": each for each in mine}
        standings = {}
        for kept in held:
            copy = by_file.get(kept.digest)
            if copy is None:
                continue
            known = [holders[name] for name in kept.leases if name in holders]
            is_soft = len(known) == len(kept.leases) and all(waits(each) for each in known) and not copy.pinned
            grade = Grade.BEGUN if not is_soft else Grade.QUEUED if known else Grade.IDLE
            claim = Claim(kept.digest, kept.size_bytes, grade, starts_in_s(known, now), kept.used_at_s)
            standings[kept.digest] = _Standing(copy, claim, known)
        return standings

    # -- one of them gives way ---------------------------------------------------------------------------------------

    async def _let_go(self, standing: _Standing, store: Store, which: StoreKey) -> bool:
        """Whether its room is free now; where a job began at this very moment, it is told of it again."""
        at = self._ports.clock()
        async with self._ports.transaction() as db:
            claimed = await ImageStore(db).claim(standing.copy, self._ports.process_id, LEASE_S, at)
        if claimed is None or claimed.file_digest is None:
            return False
        held = HeldCopy(claimed, self._ports, LEASE_S)
        wait_still = [await self._taken_back(each, claimed, store) for each in standing.holders]
        if all(wait_still):
            for each in standing.holders:
                await store.keeper.release(claimed.file_digest, f"job-{each.attempt.marker}")
            live = await self._stores.live_markers(which)
            grace_s = store.policy.store.lease_grace_s
            if not await store.keeper.remove(claimed.file_digest, live, grace_s, at_once=True):
                words = "it gave way to images of jobs that are to begin sooner, and is brought again"
                later = self._ports.clock() + AGAIN
                await held.write(last=True, state=CopyState.WANTED, message=words, next_look_at=later)
                log.info("image gave way", copy=claimed.id, system=claimed.system_id)
                return True
        await held.write(last=True, next_look_at=self._ports.clock())
        return False

    async def _taken_back(self, claimant: Claimant, copy: ImageCopy, store: Store) -> bool:
        """Whether the attempt knows of no image any more, and had not begun by then."""
        attempt = claimant.attempt
        event = HistoryEvent(
            event="JOB_USER_EVENT", detail="IMAGE", description=given_way(copy), at=self._ports.clock()
        )
        async with self._ports.transaction() as db:
            if not await ImageStore(db).await_again(attempt, copy.manifest_digest, event):
                return False
        await take_back(self._ports, store.side, attempt.marker)
        backend = await store.side.backend(self._ports, attempt.run.job_type)
        if attempt.remote_id is None:
            return False
        seen = (await backend.observe({attempt.remote_id: attempt.marker})).get(attempt.remote_id)
        return seen is not None and seen.state is RemoteState.QUEUED
