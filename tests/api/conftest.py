"""A whole Berth at its HTTP edge: the real store on SQLite, real tokens, and systems in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scheduler.services.credentials import new_key_pair
from tests.api.world import World, open_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """One tenant ``dev`` with an admin, two users, and the systems ``alder`` (Slurm) and ``birch`` (a host)."""
    async with open_world(f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite") as world:
        yield world
        await asyncio.sleep(0)


@pytest.fixture(scope="session")
def ssh_key() -> str:
    """A private key that no host knows."""
    return new_key_pair("test")[0]
