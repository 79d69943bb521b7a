"""Who brings images for whom: one bringer for what all may read, and one for each user who reads what others may not.

A workshop gives what it has to whoever names its digest. So nothing that was read by a login of one user, or that one
user pushed, lies where others' images are made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from images.bring import Bringer
from images.reference import Reference

ReadsAlone = Callable[[Reference, str, str], Awaitable[bool]]
"""Whether a user of a tenant may read an image that others may not."""


async def all_read_alike(reference: Reference, tenant: str, user: str) -> bool:
    """Where nobody has a login of their own."""
    return False


class Bringers:
    """Below ``home``: ``shared`` at its top, the others in folders that name nobody. open_at: a bringer in a folder."""

    def __init__(self, home: Path, open_at: Callable[[Path], Bringer], reads_alone: ReadsAlone) -> None:
        self._home, self._open_at, self._reads_alone = home, open_at, reads_alone
        self.shared = open_at(home)
        self._own: dict[str, Bringer] = {}

    async def of(self, reference: Reference, tenant: str, user: str) -> Bringer:
        """Who brings this image for this user."""
        if not await self._reads_alone(reference, tenant, user):
            return self.shared
        name = hashlib.sha256(f"{tenant}\0{user}".encode()).hexdigest()
        if name not in self._own:
            self._own[name] = self._open_at(self._home / "own" / name)
        return self._own[name]
