"""An image handed to the jobs that await it: they are told where it lies, or that it will not come."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from scheduler.model.images import ImageCopy
from scheduler.model.jobs import HistoryEvent
from scheduler.model.states import LIVE_ATTEMPTS, A, AttemptState
from scheduler.ports import Ports
from scheduler.reconcile.handing import Handing, handed, in_words
from scheduler.reconcile.held_copy import HeldCopy
from scheduler.reconcile.image_stores import Store
from scheduler.reconcile.sides import Sides
from scheduler.store.images import Awaiting, ImageStore

HANDED_AT_ONCE = 8

READY = LIVE_ATTEMPTS - {A.PLANNED, A.INTENDED}
"""States in which the system has the attempt, and with it the directory where it looks for its image."""


class ToJobs:
    """Who awaits a copy, and what they are told."""

    def __init__(self, ports: Ports, sides: Sides) -> None:
        self._ports, self._sides = ports, sides

    async def hand_out(self, held: HeldCopy, store: Store | None) -> bool:
        """Tell everyone who awaits the copy where it is, or that it will not come; False: it is not there after all."""
        copy = held.copy
        mine = await self.awaiting(copy)
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

    async def awaiting(self, copy: ImageCopy, states: Collection[AttemptState] = READY) -> Sequence[Awaiting]:
        """Who awaits the copy, in one of these states: by default those that can be told."""
        async with self._ports.reading() as db:
            awaiting = await ImageStore(db).awaiting(copy.manifest_digest)
        return [waiting for waiting in awaiting if waiting.state in states and await self._awaits(waiting, copy)]

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
