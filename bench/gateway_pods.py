"""The servers that ``bench.gateway`` takes for pods, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

BODY = b"x" * 1024
RECORDS = [{"id": number, "name": f"sample {number}", "value": number / 7} for number in range(300)]
"""What the application reads and writes for each answer, about half a millisecond of work."""


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


def wait_for(*paths: Path) -> None:
    until = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        if time.monotonic() > until:
            raise RuntimeError("pod and gateway did not start")
        time.sleep(0.05)
