"""The servers that ``bench.gateway`` takes for pods, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from backends.local.commands import LocalCommands
from backends.local.pods import reach
from backends.pods.host import DoorHost
from scheduler.model.ids import Marker

BODY = b"x" * 1024
RECORDS = [{"id": number, "name": f"sample {number}", "value": number / 7} for number in range(300)]
"""What the application reads and writes for each answer, about half a millisecond of work."""
PORT = 5000
"""Of each pod that has a door, in a network of its own."""


async def _file(scope: dict[str, Any], receive: Any, send: Any) -> None:
    headers = [(b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def _application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    said = json.loads(json.dumps(RECORDS))
    assert len(said) == len(RECORDS)
    await _file(scope, receive, send)


def serve_file(listener: socket.socket) -> None:
    """1 KiB at no cost, until the process ends."""
    _serve(_file, listener)


def serve_application(listener: socket.socket) -> None:
    """1 KiB at the cost of a small application, until the process ends."""
    _serve(_application, listener)


def _serve(application: Any, listener: socket.socket) -> None:
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off", access_log=False))
    server.run(sockets=[listener])


def serve_echo(listener: socket.socket) -> None:
    """Repeats what it hears, until the process ends."""

    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def serve() -> None:
        await (await asyncio.start_server(repeat, sock=listener)).serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


SERVE: Mapping[Marker, Callable[[socket.socket], None]] = {
    Marker("berth-507400d9-12fe-4bb8-a41c-6d2e7f47f833-007-1"): serve_file,
    Marker("berth-507400d9-12fe-4bb8-a41c-6d2e7f47f833-007-2"): serve_application,
}
FILE, APPLICATION = SERVE


def behind_door(root: Path, marker: Marker) -> subprocess.Popen[bytes]:
    """A pod as ``local`` keeps it, but for a container: until the door is asked to end."""
    place = root / marker
    place.mkdir(parents=True)
    program = place / "door.py"
    program.write_bytes(files("backends.pods.programs").joinpath("door.py").read_bytes())
    told = json.dumps({"ports": [PORT], "tcp": False, "shared": False, "contained": False})
    argv = [sys.executable, "-I", str(program), str(place), told, sys.executable, "-m", "bench.gateway_pods", marker]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL)


def doors(root: Path) -> DoorHost:
    """Connects to pods of ``behind_door``."""
    return DoorHost(LocalCommands(None), str(root), reach)


def wait_for(*paths: Path) -> None:
    until = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        if time.monotonic() > until:
            raise RuntimeError("pod and gateway did not start")
        time.sleep(0.05)


if __name__ == "__main__":
    SERVE[Marker(sys.argv[1])](socket.create_server(("127.0.0.1", PORT), backlog=256))
