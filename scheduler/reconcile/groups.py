"""What becomes of jobs that waited for the same; each write shares a transaction with those of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import structlog

from images.reference import shown
from scheduler.model.errors import StaleJob
from scheduler.model.images import PinnedImage
from scheduler.model.jobs import Fact, HistoryEvent
from scheduler.model.units import format_size
from scheduler.ports import Ports
from scheduler.reconcile.held import Held

log = structlog.get_logger()


class Groups:
    """Writes for groups of held jobs. A job that someone else moved meanwhile is let go, whatever was to be said."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def pin(self, group: Sequence[Held], pinned: PinnedImage) -> None:
        """The jobs run this content from now on; they may be placed at once."""
        event = self._event(pinned)
        await self._all(group, [held.note({"image": pinned}, after_s=0, event=event) for held in group])
        self._ports.wake()

    async def end(self, group: Sequence[Held], fact: Fact) -> None:
        """That is the end of them."""
        await self._all(group, [held.record(fact, last=True) for held in group])
        self._ports.wake()

    async def put_back(self, group: Sequence[Held], words: str, again_s: float) -> None:
        """They wait, and say why."""
        news = [{"last_message": words} if words != held.job.last_message else {} for held in group]
        await self._all(group, [held.note(new, after_s=again_s) for held, new in zip(group, news, strict=True)])

    async def tell(self, group: Sequence[Held], words: str) -> None:
        """They stay in hand, and say what is done; who has lost one learns of it by the write with the answer."""
        for told in await asyncio.gather(*(held.say(words) for held in group), return_exceptions=True):
            if isinstance(told, BaseException) and not isinstance(told, StaleJob):
                raise told

    async def _all(self, group: Sequence[Held], writes: Sequence[Awaitable[None]]) -> None:
        await asyncio.gather(*(_guarded(held, write) for held, write in zip(group, writes, strict=True)))

    def _event(self, pinned: PinnedImage) -> HistoryEvent:
        words = f"{shown(pinned.name)} means {pinned.manifest_digest}, {format_size(pinned.download_bytes)} to fetch"
        return HistoryEvent(
            event="JOB_USER_EVENT",
            detail="IMAGE_RESOLVED",
            description=words + (", private" if pinned.is_private else ""),
            at=self._ports.clock(),
        )


async def _guarded(held: Held, write: Awaitable[None]) -> None:
    try:
        await write
    except StaleJob as stale:
        log.info("someone else moved the job", job=held.job.uuid, why=str(stale))
        await held.let_go()
