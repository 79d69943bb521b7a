"""A directory of a job on a system, for archiving, listing and download."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backends.base import Storage
from scheduler.model.ids import LoginKey
from scheduler.model.systems import System
from scheduler.ports import Ports


@asynccontextmanager
async def written(
    ports: Ports, system: System, login: LoginKey, directory: str, *, within: str = ""
) -> AsyncIterator[tuple[Storage, str]]:
    """A directory that a job wrote, and its path in the storage that is yielded.

    Where users share an account no link leads out of it: a job can make links to what it cannot read itself.
    within: the job's own directory; links from ``directory`` into it are followed where it holds both.
    """
    if not system.is_shared_account:
        yield await ports.connections.storage(login), directory
        return
    below = posixpath.relpath(directory, within) if within else ".."
    own, below = (directory, "") if below.startswith("..") else (within, below.removeprefix("."))
    storage = await ports.connections.storage_below(login, own)
    try:
        yield storage, below
    finally:
        await storage.aclose()
