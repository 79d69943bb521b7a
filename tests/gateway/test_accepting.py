"""Connections that nobody ends use up a share of the files that may be opened, and never those of all else."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from gateway import accepting
from gateway.accepting import FILES_OF_A_CONNECTION, MOST_CONNECTIONS, SPARE_FILES, Accepting, most_connections


@pytest.mark.parametrize("most_files", [64, 256, 1024, 4096, 20_000, 1_048_576])
def test_connections_leave_files_for_everything_else(most_files: int):
    most = most_connections(most_files)
    assert 1 <= most <= MOST_CONNECTIONS
    assert most_files - most * FILES_OF_A_CONNECTION >= min(SPARE_FILES, most_files // 2)


def test_the_limit_is_reached_where_files_allow_it():
    assert most_connections(MOST_CONNECTIONS * FILES_OF_A_CONNECTION + SPARE_FILES) == MOST_CONNECTIONS


async def test_one_more_than_are_served_is_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accepting, "most_files", lambda: 8)
    connections, held = Accepting(), asyncio.Event()

    async def hold(connection: socket.socket, _: Any) -> None:
        with connection:
            await held.wait()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(connections.accept(listener, hold))
        opened = [await asyncio.open_connection(*listener.getsockname()) for _ in range(3)]
        async with asyncio.timeout(5):
            assert await opened[2][0].read() == b""
        assert [reader.at_eof() for reader, _ in opened] == [False, False, True]
        task.cancel()
        await connections.aclose()
        for _, writer in opened:
            writer.close()
