"""Files of a host over SSH: SFTP to look and read, and the system's own tools to write, copy and remove.

The tools speak in the system's words ("Disk quota exceeded"), where SFTP has only "Failure".
"""

from __future__ import annotations

import contextlib
import posixpath
import secrets
import stat as modes
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import asyncssh

from backends.beside import run_beside
from backends.ssh.connection import SshConnection
from scheduler.model.errors import BackendUnavailable, FileMissing, FileRefused
from scheduler.model.runs import FileInfo, FileKind
from scheduler.model.systems import System
from scheduler.model.units import utc

READ_BYTES = 1024 * 1024
TOOL_TIMEOUT_S = 3600.0
"""For copies, removals and checksums of whole trees."""


class SftpStorage:
    """Files below ``system.root_dir`` as one login; shares the connection with whoever runs jobs there.

    A path is refused when it or a link on the way leads out of the root directory.
    """

    def __init__(self, system: System, connection: SshConnection) -> None:
        self._root_dir = posixpath.normpath("/" + system.root_dir.lstrip("/"))
        self._connection = connection
        self._real_root: str | None = None

    async def stat(self, path: str) -> FileInfo:
        """What is at ``path``, links followed."""
        absolute = await self._inside(path)
        async with self._files(path) as sftp:
            return self._info(path, await sftp.stat(absolute))

    async def list(self, path: str, limit: int = 1000, offset: int = 0) -> Sequence[FileInfo]:
        """Entries of a directory by name, or the one file that ``path`` is."""
        absolute = await self._inside(path)
        async with self._files(path) as sftp:
            itself = self._info(path, await sftp.stat(absolute))
            if itself.kind is not FileKind.DIRECTORY:
                return [itself][offset : offset + limit]
            entries = [entry for entry in await sftp.readdir(absolute) if entry.filename not in (".", "..")]
        entries.sort(key=lambda entry: str(entry.filename))
        return [
            self._info(posixpath.join(path, str(entry.filename)), entry.attrs, str(entry.longname))
            for entry in entries[offset : offset + limit]
        ]

    async def read(self, path: str, offset_bytes: int = 0, length_bytes: int | None = None) -> AsyncIterator[bytes]:
        """The file's bytes in pieces of at most READ_BYTES."""
        absolute = await self._inside(path)
        async with self._files(path) as sftp:
            if modes.S_ISDIR((await sftp.stat(absolute)).permissions or 0):
                raise FileRefused(f"{path}: is a directory")
            file = await sftp.open(absolute, "rb")
        try:
            while length_bytes is None or length_bytes > 0:
                size = READ_BYTES if length_bytes is None else min(READ_BYTES, length_bytes)
                async with self._files(path):
                    piece: Any = await file.read(size, offset_bytes)
                if not piece:
                    return
                yield piece
                offset_bytes += len(piece)
                length_bytes = None if length_bytes is None else length_bytes - len(piece)
        finally:
            with contextlib.suppress(asyncssh.Error, OSError):
                await file.close()

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        """Write beside the name, then rename: readers see the old file or the new one."""
        absolute = await self._inside(path, may_be_root=False)
        await self._tool(path, "mkdir", "-p", "--", posixpath.dirname(absolute))
        if (await self._connection.run(["test", "-d", absolute])).exit_status == 0:
            raise FileRefused(f"{path}: is a directory")
        new = f"{posixpath.dirname(absolute)}/.{posixpath.basename(absolute)[:200]}.berth-{secrets.token_hex(6)}"
        try:
            async with self._connection.process(["dd", "bs=1M", "iflag=fullblock", "status=none", f"of={new}"]) as dd:
                try:
                    written = await _pour(chunks, dd.stdin)
                finally:
                    dd.stdin.write_eof()
                    complaint = (await dd.stderr.read()).decode("utf-8", "replace")
                    await dd.wait_closed()
            if dd.returncode is None:
                raise BackendUnavailable(f"{path}: the connection was lost while the file was written")
            _refuse(path, dd.returncode, complaint)
            await self._tool(path, "mv", "-fT", "--", new, absolute)
        except BaseException:
            with contextlib.suppress(Exception):
                await self._connection.run(["rm", "-f", "--", new], timeout_s=10)
            raise
        return written

    async def make_directory(self, path: str) -> None:
        """Make a directory and its parents."""
        await self._tool(path, "mkdir", "-p", "--", await self._inside(path))

    async def move(self, source: str, target: str) -> None:
        """Rename; across file systems the system copies. The target's parents are made."""
        await self._to(await self._inside(source, follow_last=False, may_be_root=False), source, target, "mv", "-fT")

    async def copy(self, source: str, target: str) -> None:
        """Copy on the system itself, with modes, times and links as they are. The target's parents are made."""
        await self._to(await self._inside(source, may_be_root=False), source, target, "cp", "-aT")

    async def delete(self, path: str) -> None:
        """Delete a file or a tree; a link itself, never what it leads to."""
        absolute = await self._inside(path, follow_last=False, may_be_root=False)
        async with self._files(path) as sftp:
            await sftp.lstat(absolute)
        await self._tool(path, "rm", "-rf", "--one-file-system", "--", absolute)

    async def checksum(self, path: str) -> str:
        """SHA-256 of a file, in hex; the bytes stay on the system."""
        said = await self._tool(path, "sha256sum", "-b", "--", await self._inside(path))
        return said.lstrip("\\")[:64]

    async def run_beside(self, program: bytes, stdin: bytes) -> bytes:
        """What a program of ours writes there; both travel over one channel of the connection."""
        return await run_beside(self._connection, program, stdin)

    async def aclose(self) -> None:
        """Nothing to let go of: the connection belongs to whoever opened it."""

    # -- pieces ------------------------------------------------------------------------------------------------------

    async def _to(self, from_: str, source: str, target: str, *tool: str) -> None:
        to = await self._inside(target, may_be_root=False)
        async with self._files(source) as sftp:
            await sftp.lstat(from_)
        await self._tool(target, "mkdir", "-p", "--", posixpath.dirname(to))
        await self._tool(target, *tool, "--", from_, to)

    async def _tool(self, path: str, *argv: str) -> str:
        completed = await self._connection.run(list(argv), timeout_s=TOOL_TIMEOUT_S)
        _refuse(path, completed.exit_status, completed.complaint)
        return completed.text

    async def _inside(self, path: str, *, follow_last: bool = True, may_be_root: bool = True) -> str:
        """The absolute path of ``path``; FileRefused when it is not below the root directory, links included."""
        if "\0" in path or ".." in path.split("/"):
            raise FileRefused(f"{path[:200]!r}: a path may hold neither '..' nor NUL")
        absolute = posixpath.normpath(posixpath.join(self._root_dir, path.lstrip("/")))
        if absolute == self._root_dir:
            if not may_be_root:
                raise FileRefused("the root directory itself may not be changed")
            return absolute
        async with self._files(path) as sftp:
            if self._real_root is None:
                self._real_root = str(await sftp.realpath(self._root_dir))
            real = await _real(sftp, absolute if follow_last else posixpath.dirname(absolute))
        if self._real_root != "/" and real != self._real_root and not real.startswith(self._real_root + "/"):
            raise FileRefused(f"{path}: leads out of the system's root directory")
        return absolute

    @contextlib.asynccontextmanager
    async def _files(self, path: str) -> AsyncIterator[asyncssh.SFTPClient]:
        async with self._connection.sftp() as sftp:
            with _file_errors(path):
                yield sftp

    def _info(self, path: str, attrs: asyncssh.SFTPAttrs, longname: str = "") -> FileInfo:
        mode = attrs.permissions or 0
        words = longname.split()
        return FileInfo(
            path=posixpath.normpath(path.strip("/")).removeprefix("."),
            kind=_KINDS.get(modes.S_IFMT(mode), FileKind.OTHER),
            size_bytes=attrs.size or 0,
            modified_at=utc(attrs.mtime or 0),
            owner=words[2] if len(words) > 4 else str(attrs.uid),
            group=words[3] if len(words) > 4 else str(attrs.gid),
            permissions=modes.filemode(mode)[1:],
        )


_KINDS = {modes.S_IFREG: FileKind.FILE, modes.S_IFDIR: FileKind.DIRECTORY, modes.S_IFLNK: FileKind.LINK}


async def _real(sftp: asyncssh.SFTPClient, absolute: str) -> str:
    """Where a path really is; for what does not exist yet, where its nearest parent is.

    A dangling link counts as what it points to: writing to it would make that.
    """
    while True:
        try:
            if modes.S_ISLNK((await sftp.lstat(absolute)).permissions or 0):
                target = posixpath.join(posixpath.dirname(absolute), str(await sftp.readlink(absolute)))
                await sftp.stat(absolute)
                return str(await sftp.realpath(target))
            return str(await sftp.realpath(absolute))
        except asyncssh.SFTPNoSuchFile:
            with contextlib.suppress(asyncssh.SFTPNoSuchFile):
                await sftp.readlink(absolute)
                raise FileRefused(f"{posixpath.basename(absolute)}: is a link that leads nowhere") from None
            absolute = posixpath.dirname(absolute)


@contextlib.contextmanager
def _file_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        raise FileMissing(path) from None
    except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
        raise BackendUnavailable(f"{path}: {error.reason}") from None
    except asyncssh.SFTPError as error:
        raise FileRefused(f"{path}: {error.reason}") from None


async def _pour(chunks: AsyncIterator[bytes], pipe: asyncssh.SSHWriter[bytes]) -> int:
    written = 0
    async for chunk in chunks:
        try:
            pipe.write(chunk)
            await pipe.drain()
        except (BrokenPipeError, ConnectionResetError):
            break  # the other end stopped; its words say why
        written += len(chunk)
    return written


def _refuse(path: str, exit_status: int, complaint: str) -> None:
    if exit_status == 0:
        return
    if "No such file or directory" in complaint:
        raise FileMissing(path)
    if exit_status == 124:
        raise BackendUnavailable(f"{path}: took longer than {TOOL_TIMEOUT_S:g} s")
    raise FileRefused(f"{path}: {complaint.strip() or f'exit status {exit_status}'}")
