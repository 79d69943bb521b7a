"""One world per test, on SQLite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scheduler.security.secrets import SecretBox
from scheduler.store.database import Database
from tests.fakes.system import FakeSystem
from tests.reconcile.world import World, prepared


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite", sealer=SecretBox(bytes(32)))
    await database.create_tables()
    await prepared(database)
    yield World(database, FakeSystem())
    await database.aclose()
