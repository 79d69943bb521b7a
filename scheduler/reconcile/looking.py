"""Looks into images whose jobs run with them on some nodes and not on others, before those jobs are placed.

A look fetches and unpacks, which takes minutes: few are under way at once, and no name waits for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import structlog

from images.bring import Bringer
from images.reference import shown
from images.sources import Resolved, Source
from scheduler.model.errors import BerthError
from scheduler.model.images import PinnedImage
from scheduler.model.jobs import JobSpec
from scheduler.model.units import format_size
from scheduler.model.verdicts import ImageAsk
from scheduler.ports import Images, Ports
from scheduler.reconcile.groups import Groups
from scheduler.reconcile.hands import NOT_SO_SOON_S, Hands
from scheduler.reconcile.held import Held
from scheduler.store.images import ImageStore

log = structlog.get_logger()

AT_ONCE = 4

LEARN_S = 900.0
"""How long a job waits at most for what its image needs, its turn included; then it is placed without."""

UNDER_WAY = "its image is being looked into for jobs that came before, to see where it runs"
NO_HAND_FREE = "its image waits for its turn to be looked into, to see where it runs"


class Look(NamedTuple):
    """Who looks into which image, as it is read from where."""

    bringer: Bringer
    source: Source[Any]
    resolved: Resolved[Any]


class Looks:
    """Finds out what images need. Memory holds since when looks are put off because all hands are busy."""

    def __init__(self, ports: Ports) -> None:
        self._ports, self._groups = ports, Groups(ports)
        self._hands = Hands(AT_ONCE, ports.clock)
        self._put_off: dict[Hashable, datetime] = {}
        self.crew, self.held = self._hands.crew, self._hands.held

    async def without_late(self, key: Hashable, group: Sequence[Held]) -> Sequence[Held]:
        """Put those back that came while their image is being looked into; the others."""
        late = [held for held in group if key in self._hands and _is_particular(held.job.spec)]
        await self._groups.put_back(late, UNDER_WAY, self._hands.turn_s(key))
        return [held for held in group if held not in late]

    async def wanted(
        self, images: Images, tenant: str, user: str, resolved: Resolved[Any], group: Sequence[Held]
    ) -> Look | None:
        """The look that some of these jobs need; None where what there is to know is known already."""
        if not any(_is_particular(held.job.spec) for held in group):
            return None
        async with self._ports.reading() as db:
            if await ImageStore(db).needs_of([resolved.manifest_digest]):
                return None
        bringer = await images.bringer_for(resolved.reference, tenant, user)
        return None if bringer is None else Look(bringer, images.source_for(tenant, user), resolved)

    async def pin(self, key: Hashable, group: Sequence[Held], pinned: PinnedImage, look: Look | None) -> None:
        """The jobs run this content from now on: those that need the look once it is over, or waited too long."""
        waits = [held for held in group if look is not None and _is_particular(held.job.spec)]
        await self._groups.pin([held for held in group if held not in waits], pinned)
        if look is None or not waits:
            return
        left_s = self._left_s(key)
        if left_s > 0 and not self._hands.may_start(key):
            await self._groups.put_back(waits, NO_HAND_FREE, NOT_SO_SOON_S)
            return
        self._put_off.pop(key, None)
        if left_s > 0:
            self._hands.start(key, waits, partial(self._look, look, left_s, pinned, waits), shown(pinned.name))
        else:
            await self._groups.pin(waits, pinned)

    async def _look(self, look: Look, most_s: float, pinned: PinnedImage, group: Sequence[Held]) -> None:
        """What goes wrong is told when the image is brought."""
        size = format_size(pinned.download_bytes)
        await self._groups.tell(group, f"looking into its image ({size} to fetch), to see where it runs")
        try:
            async with asyncio.timeout(most_s):
                needs = await look.bringer.learn(look.resolved, look.source)
        except (BerthError, TimeoutError) as error:
            log.warning("image not looked into", image=shown(pinned.name), why=str(error) or "it takes too long")
        else:
            async with self._ports.transaction() as db:
                await ImageStore(db).put_needs(pinned.manifest_digest, needs, self._ports.clock())
        await self._groups.pin(group, pinned)

    def _left_s(self, key: Hashable) -> float:
        """How much longer jobs wait for a look; what was put off longer ago than anybody waits is forgotten."""
        at = self._ports.clock()
        since = at - 2 * timedelta(seconds=LEARN_S)
        self._put_off = {each: put_off_at for each, put_off_at in self._put_off.items() if put_off_at > since}
        return LEARN_S - (at - self._put_off.setdefault(key, at)).total_seconds()


def _is_particular(spec: JobSpec) -> bool:
    """Whether more than the processor decides on which nodes its image runs."""
    ask = ImageAsk.of(spec)
    return ask is not None and (ask.mpi or ask.gpus)
