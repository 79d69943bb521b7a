"""Bodies that are too large: the client reads why, and not that its connection broke."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from api.middleware import DRAINED_BYTES, MAX_BODY_BYTES
from tests.api.test_tapipy import served
from tests.api.world import World

PIECE = b"a" * 65536
PATH = "/v3/pods/cellar"


def told(port: int, head: str, pieces: Iterator[bytes]) -> bytes:
    """What a client reads that sends all of its body first, as most do."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(f"PUT {PATH} HTTP/1.1\r\nHost: berth\r\n{head}\r\n\r\n".encode())
        for piece in pieces:
            sock.sendall(piece)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return answer


def pieces(count: int, *, chunked: bool) -> Iterator[bytes]:
    for _ in range(count):
        yield b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    if chunked:
        yield b"0\r\n\r\n"


@pytest.mark.parametrize("chunked", [False, True], ids=["length said", "chunked"])
async def test_who_sent_too_much_reads_why(world: World, chunked: bool):
    count = 2 + DRAINED_BYTES // len(PIECE) // 2
    head = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {count * len(PIECE)}"
    async with served(world) as base_url:
        port = int(base_url.rpartition(":")[2])
        answer = await asyncio.to_thread(told, port, head, pieces(count, chunked=chunked))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert f"larger than {MAX_BODY_BYTES} bytes".encode() in answer


async def test_who_asks_before_sending_is_told_at_once(world: World):
    head = f"Content-Length: {2 * MAX_BODY_BYTES}\r\nExpect: 100-continue"
    async with served(world) as base_url:
        port = int(base_url.rpartition(":")[2])
        answer = await asyncio.to_thread(told, port, head, iter(()))
    assert answer.startswith(b"HTTP/1.1 413 ")
