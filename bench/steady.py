"""A client that asks a pod at a steady rate, half over new connections, and notes what came of every request.

It stands in a process of its own. A request is sent when it is due, whether or not earlier ones were answered, and
what it took is counted from then. Nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context

ANSWER_S = 30.0
"""How long an answer is waited for: longer than the gateway holds anybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """What is asked, and for how long: until ``changes`` other instances than the first have answered and ``after_s``
    have passed since, or for ``limit_s``."""

    port: int
    host_name: str
    authority: str
    changes: int
    after_s: float
    limit_s: float
    rate_per_s: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. at_s: when it was due, in seconds since the epoch. failure: how it failed, empty where it did not.
    instance: what the pod said of itself."""

    at_s: float
    took_s: float
    on_new: bool
    failure: str = ""
    instance: str = ""


def run(asked: Steady) -> Sequence[Request]:
    """Every request in the order in which they were due."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (asked,))


def _run(asked: Steady) -> Sequence[Request]:
    return asyncio.run(_Client(asked).run())


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Client:
    """Requests of one run."""

    def __init__(self, asked: Steady) -> None:
        self._asked = asked
        self._tls = ssl.create_default_context(cafile=asked.authority)
        self._kept: list[Connection] = []
        self._instances: set[str] = set()
        self._seen: list[Request] = []

    async def run(self) -> Sequence[Request]:
        asked, began, number = self._asked, time.monotonic(), 0
        stop_s = began + asked.limit_s
        async with asyncio.TaskGroup() as requests:
            while (due_s := began + number / asked.rate_per_s) < stop_s:
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                requests.create_task(self._one(due_s, on_new=number % 2 == 0))
                number += 1
                if stop_s == began + asked.limit_s and len(self._instances) > asked.changes:
                    stop_s = min(stop_s, time.monotonic() + asked.after_s)
        for _, writer in self._kept:
            writer.close()
        return sorted(self._seen, key=lambda one: one.at_s)

    async def _one(self, due_s: float, *, on_new: bool) -> None:
        failure = instance = ""
        try:
            async with asyncio.timeout(ANSWER_S):
                status, instance = await (self._on_new() if on_new else self._on_kept())
                failure = "" if status == 200 else f"status {status}: {instance}"
        except TimeoutError:
            failure = f"no answer within {ANSWER_S:g} s"
        except (OSError, EOFError) as error:
            failure = f"broken: {type(error).__name__}"
        if not failure:
            self._instances.add(instance)
        now_s = time.monotonic()
        at_s = time.time() - (now_s - due_s)
        said = "" if failure else instance
        self._seen.append(Request(at_s=at_s, took_s=now_s - due_s, on_new=on_new, failure=failure[:300], instance=said))

    async def _on_new(self) -> tuple[int, str]:
        reader, writer = await self._connect()
        try:
            return await self._ask(reader, writer, "close")
        finally:
            writer.close()

    async def _on_kept(self) -> tuple[int, str]:
        """Over a connection that is kept; over a new one, which is kept from then on, where all are in use."""
        reader, writer = self._free() or await self._connect()
        try:
            answer = await self._ask(reader, writer, "keep-alive")
        except BaseException:
            writer.close()
            raise
        self._kept.append((reader, writer))
        return answer

    def _free(self) -> Connection | None:
        """One that nobody uses, and that the gateway has not ended meanwhile."""
        while self._kept:
            reader, writer = self._kept.pop(0)
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def _connect(self) -> Connection:
        name = self._asked.host_name
        return await asyncio.open_connection("127.0.0.1", self._asked.port, ssl=self._tls, server_hostname=name)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wish: str) -> tuple[int, str]:
        """Status and body. EOFError where the connection ends before the answer does."""
        writer.write(f"GET / HTTP/1.1\r\nHost: {self._asked.host_name}\r\nConnection: {wish}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        lengths = [line.partition(b":")[2] for line in head if line.lower().startswith(b"content-length:")]
        body = await reader.readexactly(int(lengths[0]))
        return int(head[0].split(b" ", 2)[1]), body.decode(errors="replace").strip()
