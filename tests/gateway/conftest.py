"""Suites of the gateway run on the event loop of production, and on asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvloop

from tests.gateway.world import World, gateway


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with gateway() as running:
        yield running
