"""A copy of an image in the hand of this process: the lease, and every write to the copy while it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from scheduler.model.images import ImageCopy
from scheduler.ports import Ports
from scheduler.store.images import ImageStore


class HeldCopy:
    """A claimed copy. ``copy`` is what the store holds now; a write raises Stale when someone else took it over.

    ``follow`` says how far the work is; that is written now and then, since nobody waits for it.
    """

    def __init__(self, copy: ImageCopy, ports: Ports, lease_s: float) -> None:
        self.copy = copy
        self.follow: Callable[[], Mapping[str, Any]] = dict
        self._ports, self._lease_s = ports, lease_s
        self._kept_at = ports.clock()
        self._turn = asyncio.Lock()
        self._is_over = False

    async def report(self) -> None:
        """Write how far it is, if that is news, and make the lease last."""
        async with self._turn:
            at = self._ports.clock()
            news = {name: value for name, value in self.follow().items() if getattr(self.copy, name) != value}
            due = at - self._kept_at >= timedelta(seconds=self._lease_s / 3)
            if self._is_over or not (news or due):
                return
            async with self._ports.transaction() as db:
                store = ImageStore(db)
                noted = await store.note(self.copy, at, keep=True, **news) if news else self.copy
                await store.extend(noted, self._lease_s, at)
            self.copy, self._kept_at = noted, at

    async def write(self, *, last: bool = False, **changes: Any) -> None:
        """Commit what happened; ``last`` also gives the copy back."""
        async with self._turn:
            self.follow = dict
            async with self._ports.transaction() as db:
                self.copy = await ImageStore(db).note(self.copy, self._ports.clock(), keep=not last, **changes)
            self._is_over = last
