"""An unpacked image as one squashfs file: the same tree gives the same bytes, whoever converts it and whenever.

Level 3 of zstd costs a small part of the CPU of gzip 9, which mksquashfs and Apptainer choose, for a few more bytes.
Blocks of 128 KiB keep small random reads small, and a changed file changes few of them. Files keep the times that the
image gives them, since Python and others compare them; what unpacking made up is set back to the start of the epoch.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import resource
import shutil
import socket
import time
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from images.threads import Halt, HaltingFile, in_thread, in_thread_wholly
from scheduler.model.errors import FileRefused, SpecInvalid

RUN_FILES_VERSION = 1
"""To be raised whenever ``images.runfiles`` writes anything else: the bytes of every image change with it."""

_UNDER_WAY = ".converting"
_PIECE_BYTES = 2**20
_OLDEST = (4, 4)
"""The first mksquashfs that gives the same bytes with any number of processors."""


class ConversionFailed(FileRefused):
    """The tree did not become a file; nothing was left under the target's name."""


class Compressor(StrEnum):
    """What a system's runtime can mount: zstd nearly everywhere, gzip everywhere."""

    ZSTD = "zstd"
    GZIP = "gzip"


LEVELS = {Compressor.ZSTD: 3, Compressor.GZIP: 1}
"""The levels at which a second of CPU saves most; gzip 1 is the quick way where only gzip is read."""


@dataclass(frozen=True, slots=True)
class ConverterKey:
    """All that decides which bytes a tree becomes, beside the tree. Chunks are shared only under equal keys."""

    mksquashfs_version: str
    compressor: Compressor = Compressor.ZSTD
    level: int = LEVELS[Compressor.ZSTD]
    block_bytes: int = 128 * 1024
    run_files_version: int = RUN_FILES_VERSION

    def __str__(self) -> str:
        """Stable text: part of the name under which a conversion is looked up."""
        return (
            f"squashfs;tool={self.mksquashfs_version};comp={self.compressor};level={self.level}"
            f";block={self.block_bytes};run={self.run_files_version}"
        )


def converter_key(mksquashfs_version: str, mountable: frozenset[Compressor]) -> ConverterKey:
    """The key for a system that mounts these; gzip where nothing is known of it or zstd is not among them."""
    chosen = Compressor.ZSTD if Compressor.ZSTD in mountable else Compressor.GZIP
    return ConverterKey(mksquashfs_version, chosen, LEVELS[chosen])


@dataclass(frozen=True, slots=True)
class Share:
    """How much of a host a conversion may take; the bytes do not depend on it."""

    processors: int = 1
    memory_mib: int = 512
    nice: int = 10
    timeout_s: float = 3600.0


def convert_argv(tree: str, target: str, key: ConverterKey, share: Share) -> list[str]:
    """The command that turns a tree into a squashfs file, without owners or attributes of the host that converts."""
    words = ["nice", "-n", str(share.nice), "mksquashfs", tree, target]
    words += ["-comp", key.compressor, "-Xcompression-level", str(key.level), "-b", str(key.block_bytes)]
    words += ["-mkfs-time", "0", "-all-root", "-no-xattrs", "-noappend", "-no-progress", "-quiet"]
    return [*words, "-processors", str(share.processors), "-mem", f"{share.memory_mib}M"]


def parse_version(text: str) -> str:
    """The version from ``mksquashfs -version``; SpecInvalid when it is too old or says none."""
    found = re.match(r"mksquashfs version (\d+)\.(\d+)(\.\d+)*", text)
    if found is None:
        raise SpecInvalid.of("mksquashfs", f"does not say its version: {text[:80]!r}", "install squashfs-tools 4.4+")
    if (int(found[1]), int(found[2])) < _OLDEST:
        raise SpecInvalid.of("mksquashfs", f"is too old: {found[0]}", "install squashfs-tools 4.4 or later")
    return found[0].removeprefix("mksquashfs version ")


# -- doing it --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Converted:
    """A finished file. ``digest`` is of its bytes; ``cpu_s`` is what mksquashfs took on all cores."""

    path: Path
    digest: str
    size_bytes: int
    key: ConverterKey
    cpu_s: float
    wall_s: float


async def installed_version() -> str:
    """Version of the mksquashfs on this host; SpecInvalid when there is none that serves."""
    try:
        running = await asyncio.create_subprocess_exec("mksquashfs", "-version", stdout=asyncio.subprocess.PIPE)
    except FileNotFoundError:
        raise SpecInvalid.of("mksquashfs", "is not installed", "install squashfs-tools 4.4 or later") from None
    text, _ = await running.communicate()
    return parse_version(text.decode("utf-8", "replace"))


async def convert(tree: Path, target: Path, key: ConverterKey, share: Share, newest_at: datetime) -> Converted:
    """Make ``target`` from a tree that holds its run files already; it appears whole or not at all.

    newest_at: when the image was made, as its config says; what is younger in the tree is of the unpacking.
    """
    began, cpu_before_s = time.monotonic(), _children_cpu_s()
    await in_thread_wholly(set_back_times, tree, newest_at)
    await in_thread_wholly(_sweep, target.parent)
    fresh = target.with_name(f".{target.name}.{socket.gethostname()}.{os.getpid()}{_UNDER_WAY}")
    try:
        await _run(convert_argv(str(tree), str(fresh), key, share), share.timeout_s)
        digest, size_bytes = await in_thread(lambda halt: _finish(fresh, target, halt))
    finally:
        fresh.unlink(missing_ok=True)
    return Converted(target, digest, size_bytes, key, _children_cpu_s() - cpu_before_s, time.monotonic() - began)


def set_back_times(tree: Path, newest_at: datetime) -> None:
    """No entry of an image is younger than the image: such times differ from one unpacking to the next."""
    newest_ns = int(newest_at.timestamp()) * 10**9
    for folder, folders, files in os.walk(tree):
        for path in (Path(folder), *(Path(folder, name) for name in (*folders, *files))):
            if path.lstat().st_mtime_ns > newest_ns:
                os.utime(path, ns=(newest_ns, newest_ns), follow_symlinks=False)


def _sweep(folder: Path) -> None:
    """Remove what killed processes of this host left under way."""
    left = re.compile(rf"\..+\.{re.escape(socket.gethostname())}\.(\d{{1,9}}){re.escape(_UNDER_WAY)}")
    for path in folder.glob(f".*{_UNDER_WAY}"):
        found = left.fullmatch(path.name)
        if found and not _is_running(int(found[1])):
            path.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


async def _run(argv: list[str], timeout_s: float) -> None:
    """Run a command that dies with this process, where there is ``setpriv``: a kill must not leave it at work."""
    tied = ["setpriv", "--pdeathsig", "KILL", *_child_of(os.getpid(), argv)] if shutil.which("setpriv") else argv
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(*tied, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(timeout_s):
            said, complaint = await running.communicate()
    except TimeoutError:
        raise ConversionFailed(
            f"mksquashfs took longer than {timeout_s:.0f} s and was ended; give the conversion more processors or time"
        ) from None
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    if running.returncode != 0:
        text = (complaint or said)[-1000:].decode("utf-8", "replace").strip()
        fix = "make room, or convert elsewhere" if "No space left" in text else "see what it says"
        raise ConversionFailed(f"mksquashfs ended with {running.returncode}: {text}; {fix}")


def _child_of(pid: int, argv: list[str]) -> list[str]:
    """The command, unless its parent is another by now: who died before the tie was made sends no signal."""
    return ["sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(pid), *argv]


def _finish(fresh: Path, target: Path, halt: Halt) -> tuple[str, int]:
    """Digest, make durable and show the file; its digest and size."""
    digest = hashlib.sha256()
    with fresh.open("rb", buffering=0) as file:
        pieces = HaltingFile(file, halt)
        while piece := pieces.read(_PIECE_BYTES):
            digest.update(piece)
        os.fsync(file.fileno())
        size_bytes = os.fstat(file.fileno()).st_size
    halt.check()
    fresh.replace(target)
    return f"sha256:{digest.hexdigest()}", size_bytes


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# -- where -----------------------------------------------------------------------------------------------------------


class Place(StrEnum):
    """Where an image may be converted."""

    BERTH_HOST = "berth-host"
    TRANSFER_NODE = "transfer-node"
    BATCH_JOB = "batch-job"
    LOGIN_NODE = "login-node"


SHARES = {
    Place.BERTH_HOST: Share(),
    Place.TRANSFER_NODE: Share(),
    Place.BATCH_JOB: Share(processors=4, memory_mib=2048, nice=0),
    Place.LOGIN_NODE: Share(nice=19),
}


@dataclass(frozen=True, slots=True)
class ConversionPolicy:
    """A system's rule. ``places``: the first that can is taken; a login node is never among them unless written."""

    places: tuple[Place, ...] = (Place.BERTH_HOST, Place.TRANSFER_NODE, Place.BATCH_JOB)

    def choose(self, able: frozenset[Place]) -> tuple[Place, Share]:
        """Where to convert, and what it may take there. able: places with mksquashfs and room for the image."""
        for place in self.places:
            if place in able:
                return place, SHARES[place]
        named = ", ".join(self.places) or "none"
        raise ConversionFailed(
            f"no place may convert this image: the policy allows {named}; "
            "install squashfs-tools 4.4 or make room in one of them"
        )
