"""tapipy, unmodified, takes the main path over a real socket; only its base URL is ours."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvicorn

from tests.api.world import PASSWORD, World

REPOSITORY = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("tapipy_path.py")

RELEASES = ("25.4.0", "1.6.0")
"""The newest, and the last one that sends every field of old."""


@pytest.fixture(params=RELEASES)
def tapipy_python(request: pytest.FixtureRequest) -> Path:
    """The Python of an environment that holds one release of tapipy; made once, then used again."""
    home = REPOSITORY / ".cache" / f"tapipy-{request.param}"
    python = home / "bin" / "python"
    known = [str(python), "-c", f"import importlib.metadata as m; assert m.version('tapipy') == '{request.param}'"]
    if not python.exists() or subprocess.run(known, check=False, timeout=60).returncode != 0:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=300)
        install = [str(python), "-m", "pip", "install", "--quiet", f"tapipy=={request.param}"]
        subprocess.run(install, check=True, timeout=900)
    return python


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
    async with served(world) as base_url:
        environment = {
            "PATH": os.environ["PATH"],
            "BASE_URL": base_url,
            "BERTH_USER": "ada",
            "PASSWORD": PASSWORD,
            "EXPECT": "hello from memory",
        }
        process = await asyncio.create_subprocess_exec(
            str(tapipy_python),
            str(SCRIPT),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 240)
    assert process.returncode == 0, output.decode()
    assert b"ok   deleteSystem" in output
