"""Files of a Kubernetes' volume, through a pod that has it: each operation is a command there, on streams.

The pod's tools do the work and speak in the system's words; nothing of it is kept here or in the API server.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import stat as modes
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from backends.beside import run_beside
from backends.k8s.exec import Command
from backends.k8s.volume import VolumePod, a_name, asking, give
from scheduler.model.errors import BackendUnavailable, FileMissing, FileRefused, UnexpectedReply
from scheduler.model.runs import FileInfo, FileKind
from scheduler.model.units import utc

READ_BYTES = 256 * 1024
TOOL_TIMEOUT_S = 3600.0
"""For copies, removals and checksums of whole trees."""

MISSING, REFUSED, AGAIN, LOST = 3, 4, 5, 124
"""Exit codes of the program in the pod; from LOST on, whatever ran there was ended."""

LIST_ENDS = b"\n."
"""What the program writes after the last entry of a list: no name is so short."""

_COMPLAINT_BYTES = 16 * 1024
_LAST_WORD_S = 5.0


class VolumeStorage:
    """Files below the top of the system's volume, which is its root directory.

    A path is refused when it or a link on the way leads out of the volume.
    """

    def __init__(self, pod: VolumePod) -> None:
        self._pod = pod

    async def stat(self, path: str) -> FileInfo:
        """What is at ``path``, links followed."""
        inside = _inside(path)
        return _info(inside, _facts(await self._do("stat", inside)))

    async def list(self, path: str, limit: int = 1000, offset: int = 0) -> Sequence[FileInfo]:
        """Entries of a directory by name, or the one file that ``path`` is."""
        inside = _inside(path)
        itself, entries = _listed(await self._do("list", inside))
        if not modes.S_ISDIR(itself.mode):
            return [_info(inside, itself)][offset : offset + limit]
        names = sorted(entries)[offset : offset + limit]
        return [_info(posixpath.join(inside, name), entries[name]) for name in names]

    async def read(self, path: str, offset_bytes: int = 0, length_bytes: int | None = None) -> AsyncIterator[bytes]:
        """The file's bytes in pieces of at most READ_BYTES; of one that grows, those there were at the beginning."""
        inside, length = _inside(path), "" if length_bytes is None else str(length_bytes)
        async with self._pod.command(asking("read", inside, str(offset_bytes), length)) as running:
            await running.stdin.end()
            left = await _announced(path, running)
            while left > 0:
                piece = await running.stdout.read(READ_BYTES)
                if not piece:
                    raise BackendUnavailable(f"{path}: {left} bytes of what was asked for did not come")
                left -= len(piece)
                yield piece

    async def write(self, path: str, chunks: AsyncIterator[bytes], mode: int = 0o644) -> int:
        """Write beside the name, then rename: readers see the old file or the new one. mode: its permissions."""
        inside = _inside(path, may_be_root=False)
        async with self._pod.command(asking("write", inside, a_name(), f"{mode:03o}")) as running:
            said = asyncio.create_task(_anything(running))
            try:
                size = await give(running.stdin, chunks, said.done)
                await _demand_success(path, running)
            except Exception:
                await _hear_the_end(running)  # it takes away what it had written
                raise
            finally:
                said.cancel()
        return size

    async def make_directory(self, path: str) -> None:
        """Make a directory and its parents."""
        await self._do("mkdir", _inside(path))

    async def move(self, source: str, target: str) -> None:
        """Rename; the target's parents are made."""
        await self._do("move", _inside(source, may_be_root=False), _inside(target, may_be_root=False))

    async def copy(self, source: str, target: str) -> None:
        """Copy within the volume, with modes, times and links as they are. The target's parents are made."""
        await self._do("copy", _inside(source, may_be_root=False), _inside(target, may_be_root=False))

    async def delete(self, path: str) -> None:
        """Delete a file or a tree; a link itself, never what it leads to."""
        await self._do("delete", _inside(path, may_be_root=False))

    async def checksum(self, path: str) -> str:
        """SHA-256 of a file, in hex; the bytes stay there."""
        return (await self._do("checksum", _inside(path)))[:64].decode("ascii")

    async def run_beside(self, program: bytes, stdin: bytes) -> bytes:
        """What a program of ours writes there; the helper's image needs Python for this."""
        return await run_beside(self._pod, program, stdin)

    async def aclose(self) -> None:
        await self._pod.aclose()

    async def _do(self, operation: str, *words: str) -> bytes:
        done = await self._pod.do(operation, *words, timeout_s=TOOL_TIMEOUT_S)
        _refuse(words[0], done.exit_status, done.stderr.decode("utf-8", "replace"))
        return done.stdout


# -- pieces ------------------------------------------------------------------------------------------------------------


class Facts(NamedTuple):
    """What the pod's ``stat`` says of a file."""

    mode: int
    size_bytes: int
    modified_s: int
    uid: str
    gid: str


def _inside(path: str, *, may_be_root: bool = True) -> str:
    """A path relative to the volume's top, with nothing in it that only a file system can resolve but links."""
    if "\0" in path or ".." in path.split("/"):
        raise FileRefused(f"{path[:200]!r}: a path may hold neither '..' nor NUL")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise FileRefused(f"{path[:200]!r}: a path that is no text cannot be asked for here") from None
    inside = posixpath.normpath("/" + path.lstrip("/")).lstrip("/")
    if not inside and not may_be_root:
        raise FileRefused("the root directory itself may not be changed")
    return inside


async def _announced(path: str, running: Command) -> int:
    """How many bytes will come, which the program says first; its refusal where it says none."""
    said = b""
    with contextlib.suppress(ConnectionError):  # what counts is how it ended
        while not said.endswith(b"\n") and (byte := await running.stdout.read(1)):
            said += byte
    if not said.endswith(b"\n"):
        await _demand_success(path, running)
    if not said.strip().isdigit():
        raise UnexpectedReply(f"{path}: how long it is was not understood", said.decode("latin-1"))
    return int(said)


async def _anything(running: Command) -> None:
    with contextlib.suppress(ConnectionError):
        await running.stdout.read(1)


async def _hear_the_end(running: Command) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_LAST_WORD_S):
            await running.stdin.end()
            await asyncio.shield(running.ending)


async def _demand_success(path: str, running: Command) -> None:
    code, words = await running.ending
    complaint = bytearray()
    with contextlib.suppress(ConnectionError):
        while len(complaint) < _COMPLAINT_BYTES and (piece := await running.stderr.read(_COMPLAINT_BYTES)):
            complaint += piece
    _refuse(path, code, complaint.decode("utf-8", "replace") + words)


def _refuse(path: str, exit_status: int, complaint: str) -> None:
    if exit_status == 0:
        return
    lines = [line for line in complaint.splitlines() if " records " not in line]
    words = (lines[-1] if lines else f"exit status {exit_status}").strip()
    if exit_status == MISSING or words.endswith(("No such file or directory", "Not a directory")):
        raise FileMissing(path)
    if exit_status == AGAIN or exit_status >= LOST:
        raise BackendUnavailable(f"{path}: what worked on it was ended: {words}")
    raise FileRefused(f"{path[:200]}: {words}")


def _facts(line: bytes) -> Facts:
    try:
        mode, size, modified, uid, gid = line.decode("ascii").split("/")[:5]
        return Facts(int(mode, 16), int(size), int(modified), uid, gid)
    except ValueError:
        raise UnexpectedReply("facts of a file were not understood", line.decode("utf-8", "replace")) from None


def _listed(said: bytes) -> tuple[Facts, dict[str, Facts]]:
    """What the program says of a directory: itself on the first line, then entries, each with ``./`` and its name.

    A name may hold a line break, but never a slash: so a line that begins a new entry is known by what precedes one.
    """
    first, _, rest = said.partition(b"\n")
    found: dict[str, Facts] = {}
    parts = rest.split(b"/./")
    for number, part in enumerate(parts[1:], 1):
        name, _, _ = part.rpartition(b"\n")
        found[name.decode("utf-8", "replace")] = _facts(parts[number - 1].rpartition(b"\n")[2] + b"/")
    if not said.endswith(LIST_ENDS):
        raise UnexpectedReply("a list of files was cut short", said[-200:].decode("utf-8", "replace"))
    return _facts(first), found


def _info(path: str, facts: Facts) -> FileInfo:
    return FileInfo(
        path=path,
        kind=_KINDS.get(modes.S_IFMT(facts.mode), FileKind.OTHER),
        size_bytes=facts.size_bytes,
        modified_at=utc(facts.modified_s),
        owner=facts.uid,
        group=facts.gid,
        permissions=modes.filemode(facts.mode)[1:],
    )


_KINDS = {modes.S_IFREG: FileKind.FILE, modes.S_IFDIR: FileKind.DIRECTORY, modes.S_IFLNK: FileKind.LINK}
