"""Suites of the gateway run on the event loop of production, and on asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvloop

from tests.gateway.world import World, gateway, proxies


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def pytest_collection_modifyitems(items):
    """What HAProxy does is the same on each loop."""
    items[:] = [item for item in items if "asyncio-haproxy" not in item.name]


@pytest.fixture(params=proxies())
def proxy(request: pytest.FixtureRequest) -> str:
    """Each proxy that clients may meet; all suites hold for all."""
    return str(request.param)


@pytest.fixture
async def world(proxy: str) -> AsyncIterator[World]:
    async with gateway(proxy) as running:
        yield running
