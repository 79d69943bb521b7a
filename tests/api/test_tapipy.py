"""tapipy, unmodified, takes the main path over a real socket; only its base URL is ours."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from api.context import Edge
from tests.api.world import PASSWORD, World

SCRIPT = Path(__file__).with_name("tapipy_path.py")
PODS_SCRIPT = Path(__file__).with_name("tapipy_pods.py")


@asynccontextmanager
async def served(world: World) -> AsyncIterator[str]:
    """The world's application on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(world.app, log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


async def test_tapipy_takes_the_main_path(world: World, tapipy_python: Path):
    world.clock.now = datetime.now(UTC)  # tapipy looks at the wall clock
    world.finish_every_job(output=b"hello from memory\n")
    output = await told_by(tapipy_python, SCRIPT, world, EXPECT="hello from memory")
    assert "ok   deleteSystem" in output


async def test_tapipy_looks_after_pods(world: World, tapipy_python: Path):
    world.clock.now = datetime.now(UTC)
    edge: Edge = world.app.state.edge
    world.app.state.edge = replace(edge, options=replace(edge.options, default_pod_template="neo4j"))
    assert "ok   the end" in await told_by(tapipy_python, PODS_SCRIPT, world)


async def told_by(python: Path, script: Path, world: World, **more: str) -> str:
    """What a script writes that a release of tapipy runs against the served world; every step of it must hold."""
    async with served(world) as base_url:
        environment = {"PATH": os.environ["PATH"], "BASE_URL": base_url, "BERTH_USER": "ada", "PASSWORD": PASSWORD}
        process = await asyncio.create_subprocess_exec(
            str(python),
            str(script),
            env={**environment, **more},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 240)
    assert process.returncode == 0, output.decode()
    return output.decode()
