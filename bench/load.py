"""A small HTTP load generator: keep-alive connections that send one request after another, and what they saw.

It stands in a process of its own, so that its work is not counted as the server's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run of requests gave: latencies of those answered 2xx in seconds, and how many were not.

    cpu_s: CPU that the generator itself took from the cores that it shares with the server.
    """

    seconds: float
    latencies_s: Sequence[float]
    refused: int
    cpu_s: float

    @property
    def per_second(self) -> float:
        return len(self.latencies_s) / self.seconds

    def quantile_ms(self, q: float) -> float:
        """The q-quantile of latency in milliseconds; NaN when nothing was answered."""
        ranked = sorted(self.latencies_s)
        return ranked[min(len(ranked) - 1, int(q * len(ranked)))] * 1000 if ranked else float("nan")


@dataclass(frozen=True, slots=True)
class Load:
    """Who is asked, with what, by how many at once; ``rate`` spaces requests out (None: as fast as answers come)."""

    url: str
    body: bytes
    headers: dict[str, str]
    connections: int = 16
    seconds: float = 5.0
    rate: float | None = None


def run(*loads: Load) -> Sequence[Seen]:
    """Run loads at the same time, each in a process of its own, and wait for them."""
    with get_context("spawn").Pool(len(loads)) as pool:
        return pool.map(_measure, loads)


def _measure(load: Load) -> Seen:
    return asyncio.run(_run(load))


async def _run(load: Load) -> Seen:
    latencies: list[float] = []
    refused = 0
    began, used = time.perf_counter(), time.process_time()
    until = began + load.seconds
    due = _schedule(began, load.rate)

    async def client() -> None:
        nonlocal refused
        reader, writer = await _connect(load.url)
        request = _request(load)
        while True:
            start = due()
            if start is not None:
                await asyncio.sleep(max(0.0, start - time.perf_counter()))
            start = start or time.perf_counter()  # with a rate, a late start counts as latency
            if start >= until:
                break
            writer.write(request)
            if 200 <= await _status_of_answer(reader) < 300:
                latencies.append(time.perf_counter() - start)
            else:
                refused += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(load.connections)))
    return Seen(time.perf_counter() - began, latencies, refused, time.process_time() - used)


def _schedule(began: float, rate: float | None) -> Callable[[], float | None]:
    if rate is None:
        return lambda: None
    ticket = iter(range(10**9))
    return lambda: began + next(ticket) / rate


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


def _request(load: Load) -> bytes:
    parts = urlsplit(load.url)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in load.headers.items()]
    lines += [f"Content-Length: {len(load.body)}", "", ""]
    return "\r\n".join(lines).encode() + load.body


async def _status_of_answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])
