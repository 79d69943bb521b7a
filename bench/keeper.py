"""An image into a store over a real sshd on loopback: ``python -m bench.keeper [--mib 128] [--runs 5]``.

The bytes are random, as those of a compressed image are. The peer writes the same file by the same connection, whole
and without a look at what is there. Each run has a store of its own; the ways take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from backends.ssh.connection import SshConnection
from backends.ssh.storage import SftpStorage
from bench.report import Row, show, spread
from images.keeper import Keeper, Sent
from images.store import StorePolicy
from images.workshop import Workshop
from tests.contract.sshd import host_system, sshd

CHANGED_BYTES = 1 << 20
"""What a new version has in place of as many bytes of the old one, in its middle."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class File:
    """An image on this host."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds of each way in one turn, and what travelled."""

    nothing_s: float
    whole_s: float
    first_s: float
    again_s: float
    version_s: float
    again: Sent
    version: Sent


async def timed(work: Awaitable[T]) -> tuple[float, T]:
    """How many seconds it took, and what it gave."""
    began = time.perf_counter()
    answer = await work
    return time.perf_counter() - began, answer


def written(path: Path, content: bytes) -> File:
    """A file with its digest."""
    path.write_bytes(content)
    return File(path, f"sha256:{hashlib.sha256(content).hexdigest()}")


async def pieces(path: Path) -> AsyncIterator[bytes]:
    """A file as a sender reads it."""
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece


async def turn(home: Path, number: int, connection: SshConnection, old: File, new: File) -> Run:
    """Every way once."""
    storage = SftpStorage(host_system(home), connection)
    store = StorePolicy(str(home / f"stores-{number}")).of("ada")
    keeper = Keeper(store, storage.run_beside, chunks_of=Workshop(home / f"workshop-{number}").chunks_of)
    nothing_s, _ = await timed(connection.run(["true"]))
    whole_s, _ = await timed(storage.write("whole", pieces(old.path)))
    first_s, _ = await timed(keeper.send(old.path, old.digest))
    again_s, again = await timed(keeper.send(old.path, old.digest))
    version_s, version = await timed(keeper.send(new.path, new.digest))
    return Run(nothing_s, whole_s, first_s, again_s, version_s, again, version)


async def measure(size_bytes: int, runs: int) -> list[Row]:
    """All turns, and the table of them."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        chance = random.Random(1)
        content = b"".join(chance.randbytes(1 << 20) for _ in range(size_bytes >> 20))
        middle = size_bytes // 2
        old = written(home / "old", content)
        other = chance.randbytes(CHANGED_BYTES)
        new = written(home / "new", content[:middle] + other + content[middle + CHANGED_BYTES :])
        async with sshd(home) as server:
            connection = server.connection()
            await connection.connect()
            made = [await turn(home, number, connection, old, new) for number in range(runs)]
            await connection.aclose()
    whole = f"{spread([run.whole_s for run in made], 's')} to write it whole"
    nothing = f"{spread([run.nothing_s for run in made], 's')} to run true"
    slower = median(run.first_s / run.whole_s for run in made)
    return [
        Row(f"{size_bytes >> 20} MiB for the first time, verified", spread([run.first_s for run in made], "s"), whole),
        Row("  beside writing it whole", f"{slower:.2f} times as long"),
        Row("the same image again", spread([run.again_s for run in made], "s"), nothing, "< 1 s"),
        Row("  bytes of it that travel", str(max(run.again.sent_bytes for run in made)), "", "0"),
        Row("a version with 1 MiB changed", spread([run.version_s for run in made], "s"), whole),
        Row("  bytes of it that travel", f"{max(run.version.sent_bytes for run in made):,}", f"{size_bytes:,}"),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure as the command line says, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.keeper", description=__doc__)
    parser.add_argument("--mib", type=int, default=128, help="size of the image")
    parser.add_argument("--runs", type=int, default=5, help="turns of all ways")
    asked = parser.parse_args(argv)
    show("An image into a store over ssh", asyncio.run(measure(asked.mib << 20, asked.runs)))


if __name__ == "__main__":
    main()
