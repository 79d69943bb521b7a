"""One HAProxy: started with a listening socket of ours, told of routes while it runs, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from gateway import embedded
from gateway import haproxy_config as config
from gateway.certificates import Certificate
from gateway.errors import GatewayRefused
from scheduler.model.pods import NetProtocol

PROGRAMS = ("haproxy", "/usr/sbin/haproxy")
"""The second where the first is not on the path of users."""
OLDEST = (2, 6)
VERSION = re.compile(r"version (\d+)\.(\d+)")
START_S, ANSWER_S, END_S = 10.0, 5.0, 2.0
LOOK_S = 0.02
LINES_KEPT = 20
KEPT_MEMORY = MappingProxyType({"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_TOP_PAD_": str(4 << 20)})
"""What the C library is told: to keep memory that is free. Buffers hold heads of 64 KiB, and to have pages from the
system anew for each of them was a third of what a request cost HAProxy."""
ENTRIES_AT_ONCE = 200
"""Of a map: what is told in one message must fit a buffer of HAProxy's."""

Numbers = Mapping[NetProtocol, Mapping[str, int]]
"""What the maps are to hold: a number for each plain name."""


class Failed(Exception):
    """It did not start, ended, or does not answer; the text says what it said."""


async def find_program(*, required: bool) -> str | None:
    """HAProxy as it is installed here; None where it is not, or is too old to be driven.

    GatewayRefused in place of None where it is required.
    """
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    missing = "haproxy is not installed"
    if found is not None:
        process = await asyncio.create_subprocess_exec(found, "-v", stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
        said = VERSION.search((await process.communicate())[0].decode("utf-8", "replace"))
        if said is not None and (int(said[1]), int(said[2])) >= OLDEST:
            return found
        missing = f"{found} is older than {OLDEST[0]}.{OLDEST[1]}, or does not say its version"
    if required:
        raise GatewayRefused(f"BERTH_GATEWAY_PROXY: {missing}; install it, or choose embedded")
    return None


async def start(
    program: str,
    folder: Path,
    listener: socket.socket,
    shape: config.Shape,
    certificates: Mapping[str, Certificate],
    numbers: Numbers,
) -> HAProxyProcess:
    """One that answers, in a directory that is made for it. Failed."""
    await asyncio.to_thread(config.write, folder, shape, certificates, numbers)
    argv = [program, "-db", "-f", config.CONFIGURATION]
    tied = ["setpriv", "--pdeathsig", "KILL", *_child_of(os.getpid(), argv)] if shutil.which("setpriv") else argv
    process = HAProxyProcess(
        await asyncio.create_subprocess_exec(
            *tied,
            cwd=folder,
            pass_fds=(listener.fileno(),),
            env={**os.environ, **KEPT_MEMORY},
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
        ),
        folder,
        numbers,
    )
    try:
        await process.begin()
    except BaseException:
        await process.end()
        raise
    return process


class HAProxyProcess:
    """A running one. shown: what its maps hold."""

    def __init__(self, process: Process, folder: Path, numbers: Numbers) -> None:
        self._process, self._folder = process, folder
        self.shown: Numbers = numbers
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        return f"it ended with {self._process.returncode}: {' / '.join(self._lines)}"

    async def begin(self) -> None:
        """Returns when it answers. Failed."""
        try:
            async with asyncio.timeout(START_S):
                while not (self._folder / config.ADMIN).exists():
                    if self._reading.done():
                        await self.ended()
                        raise Failed(self.said)
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise Failed(f"it did not start within {START_S:g} s: {' / '.join(self._lines)}") from None
        await self._ask("show version")

    async def show(self, numbers: Numbers) -> None:
        """From now on these names are plain. Failed."""
        for protocol, name in config.MAPS.items():
            if numbers[protocol] != self.shown[protocol]:
                await self._replace(name, list(config.entries(numbers[protocol])))
        self.shown = numbers

    async def ended(self) -> None:
        """Returns when it has ended."""
        await self._process.wait()

    async def retire(self) -> None:
        """Take no connection more, and end with the last one. Those that were taken just now still have to come from
        its entry to where TLS ends, so that goes later."""
        try:
            with contextlib.suppress(Failed):
                await self._ask("shutdown frontend entry")
                await asyncio.sleep(embedded.HANDSHAKE_S)
            self._signal(signal.SIGUSR1)
            await self.ended()
        finally:
            await self.end()

    async def end(self) -> None:
        """End it, whatever it carries, and leave nothing behind."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_S):
                await self.ended()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self.ended()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _read(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self._lines.append(line.decode("utf-8", "replace").strip()[:500])

    async def _replace(self, name: str, entries: list[str]) -> None:
        """Hold other entries in a map, all at once: half of them is never seen."""
        version = (await self._ask(f"prepare map {name}")).rpartition(":")[2].strip()
        if not version.isdecimal():
            raise Failed("it did not say which version of a map it prepares")
        for at in range(0, len(entries), ENTRIES_AT_ONCE):
            await self._tell(f"add map @{version} {name} <<\n{''.join(entries[at : at + ENTRIES_AT_ONCE])}")
        await self._tell(f"commit map @{version} {name}")

    async def _tell(self, command: str) -> None:
        if said := (await self._ask(command)).strip():
            raise Failed(f"it was told '{command.partition(' <<')[0]}' and said: {said[:500]}")

    async def _ask(self, command: str) -> str:
        """What it answers to one command."""
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(self._folder / config.ADMIN)
                try:
                    writer.write(command.encode() + b"\n")
                    return (await reader.read()).decode("utf-8", "replace")
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise Failed(f"it does not answer: {error}; {' / '.join(self._lines)}") from None


def _child_of(pid: int, argv: list[str]) -> list[str]:
    """The command, unless its parent is another by now: who died before the tie was made sends no signal."""
    return ["sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(pid), *argv]
