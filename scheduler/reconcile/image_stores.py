"""The stores of images that the logins of systems have: opened as their owners want them used, and looked after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from images.keeper import Keeper
from images.line import Line
from images.policy import ImagePolicy
from images.store import StoreOf
from images.workshop import Workshop
from scheduler.judge import policy_there
from scheduler.model.errors import BerthError, SpecInvalid
from scheduler.model.ids import Marker
from scheduler.ports import Ports
from scheduler.reconcile.sides import Side, Sides
from scheduler.store.images import ImageStore

log = structlog.get_logger()


class StoreKey(NamedTuple):
    """The store of one login on one system."""

    tenant: str
    system_id: str
    owner: str


class Store(NamedTuple):
    """A login's store of images, as the system's owner wants it used."""

    side: Side
    policy: ImagePolicy
    keeper: Keeper


class Stores:
    """All of them. Memory holds one keeper for each, who takes turns with itself, and one line for each system."""

    def __init__(self, ports: Ports) -> None:
        self._ports, self._sides = ports, Sides(ports)
        self._keepers: dict[tuple[StoreKey, StoreOf], Keeper] = {}
        self._lines: defaultdict[tuple[str, str], Line] = defaultdict(Line)

    async def open(self, which: StoreKey, workshop: Workshop) -> Store:
        """The store, asked by its login. SpecInvalid when the system keeps no images any more."""
        side = await self._sides.of(*which)
        policy = policy_there(side.system)
        if policy is None or side.system.deleted:
            raise SpecInvalid.of("image", f"the system '{which.system_id}' keeps no images any more", "ask its owner")
        of = policy.store.of(which.owner)
        if (which, of) not in self._keepers:

            async def run(program: bytes, stdin: bytes) -> bytes:
                return await (await side.storage(self._ports)).run_beside(program, stdin)

            line = self._lines[which.tenant, which.system_id]
            self._keepers[which, of] = Keeper(of, run, chunks_of=workshop.chunks_of, line=line)
        return Store(side, policy, self._keepers[which, of])

    async def live_markers(self, which: StoreKey) -> Sequence[Marker]:
        """Of all attempts under this login that may still read an image there."""
        async with self._ports.reading() as db:
            live = await ImageStore(db).live_markers(which.tenant, which.system_id)
        system = (await self._sides.of(*which)).system
        return [marker for owner, marker in live if system.credential_user(owner) == which.owner]

    async def all(self) -> Sequence[StoreKey]:
        """Those that hold an image."""
        async with self._ports.reading() as db:
            return [StoreKey(*which) for which in await ImageStore(db).stores()]

    async def collect(self, which: StoreKey, workshop: Workshop) -> None:
        """Leases of attempts that are over go; so do images that none needs, where the store is fuller than it should
        be."""
        try:
            store = await self.open(which, workshop)
            done = await store.keeper.collect(await self.live_markers(which))
        except BerthError as error:
            log.warning("store not looked after", system=which.system_id, why=str(error))
            return
        async with self._ports.transaction() as db:
            await ImageStore(db).gone(*which, done.trashed, self._ports.clock())
        if done.trashed:
            log.info("images let go", system=which.system_id, images=len(done.trashed))
