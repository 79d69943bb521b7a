"""Files of this machine below a root directory."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import grp
import hashlib
import os
import platform
import pwd
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import ParamSpec, TypeVar

from backends.beside import run_beside
from backends.local.commands import Account, LocalCommands
from scheduler.model.errors import FileMissing, FileRefused
from scheduler.model.runs import FileInfo, FileKind
from scheduler.model.units import utc

PIECE_BYTES = 256 * 1024
"""Most bytes read at a time."""

_SETGROUPS = {"x86_64": 116, "aarch64": 159}

P = ParamSpec("P")
T = TypeVar("T")


class LocalStorage:
    """The Storage of a directory. With ``account`` every touch of the disk is made with that account's rights."""

    def __init__(self, root: Path, account: Account | None = None) -> None:
        self._root = Path(os.path.realpath(root))
        self._account = account
        self._commands = LocalCommands(account)
        self._threads = ThreadPoolExecutor(
            max_workers=4, thread_name_prefix="files", initializer=_become, initargs=(account,)
        )

    async def stat(self, path: str) -> FileInfo:
        return await self._do(path, lambda: self._info(self._inside(path), follow=True))

    async def list(self, path: str, limit: int = 1000, offset: int = 0) -> Sequence[FileInfo]:
        def entries() -> Sequence[FileInfo]:
            found = self._inside(path)
            if not found.is_dir():
                return [self._info(found, follow=True)][offset : offset + limit]
            names = sorted(entry.name for entry in os.scandir(found))
            return [self._info(found / name) for name in names[offset : offset + limit]]

        return await self._do(path, entries)

    async def read(self, path: str, offset_bytes: int = 0, length_bytes: int | None = None) -> AsyncIterator[bytes]:
        fd = await self._do(path, lambda: _open_file(self._inside(path)))
        try:
            while length_bytes is None or length_bytes > 0:
                want = PIECE_BYTES if length_bytes is None else min(PIECE_BYTES, length_bytes)
                piece = await self._do(path, os.pread, fd, want, offset_bytes)
                if not piece:
                    break
                offset_bytes += len(piece)
                length_bytes = None if length_bytes is None else length_bytes - len(piece)
                yield piece
        finally:
            os.close(fd)

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        fd, fresh, target = await self._do(path, self._open_new, path)
        size = 0
        try:
            try:
                async for chunk in chunks:
                    await self._do(path, _write_all, fd, chunk)
                    size += len(chunk)
                await self._do(path, os.fsync, fd)
            finally:
                os.close(fd)
            await self._do(path, fresh.replace, target)
        except BaseException:
            with contextlib.suppress(FileMissing, FileRefused):
                await self._do(path, fresh.unlink)
            raise
        return size

    async def make_directory(self, path: str) -> None:
        await self._do(path, lambda: self._inside(path).mkdir(parents=True, exist_ok=True))

    async def move(self, source: str, target: str) -> None:
        def move() -> None:
            here, there = self._name(source), self._name(target)
            _must_lie_apart(here, there)
            here.lstat()
            there.parent.mkdir(parents=True, exist_ok=True)
            _rename(here, there)

        await self._do(source, move)

    async def copy(self, source: str, target: str) -> None:
        def copy() -> None:
            here, there = self._inside(source), self._inside(target)
            _must_lie_apart(here, there)
            here.lstat()
            there.parent.mkdir(parents=True, exist_ok=True)
            _copy_tree(here, there) if here.is_dir() else _copy_file(here, there)

        await self._do(source, copy)

    async def delete(self, path: str) -> None:
        def delete() -> None:
            found = self._name(path)
            if found == self._root:
                raise FileRefused("the root directory itself is never deleted")
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink()

        await self._do(path, delete)

    async def checksum(self, path: str) -> str:
        def digest() -> str:
            with os.fdopen(_open_file(self._inside(path)), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

        return await self._do(path, digest)

    async def adopt(self, directory: Path, path: str) -> bool:
        """Rename a directory of Berth's own to ``path``; False where it must be copied: another account or disk."""
        if self._account is not None:
            return False

        def rename() -> bool:
            there = self._inside(path)
            there.parent.mkdir(parents=True, exist_ok=True)
            try:
                directory.rename(there)
            except OSError:
                return False
            return True

        return await self._do(path, rename)

    async def run_beside(self, program: bytes, stdin: bytes) -> bytes:
        return await run_beside(self._commands, program, stdin)

    async def aclose(self) -> None:
        """Let go of the threads; what they do now is finished."""
        self._threads.shutdown(wait=False)

    # -- the disk ------------------------------------------------------------------------------------------------------

    async def _do(self, path: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that touches the disk in a thread with the account's rights; its errors speak of ``path``."""

        def run() -> T:
            with _errors_of(path):
                return call(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _inside(self, path: str) -> Path:
        """The real path, every link followed; FileRefused when it is not below the root."""
        if "\0" in path or ".." in path.split("/"):
            raise FileRefused(f"{path[:200]!r} is not a path below the root directory")
        found = Path(os.path.realpath(self._root / path.lstrip("/")))
        if found != self._root and self._root not in found.parents:
            raise FileRefused(f"{path[:200]} leads out of the root directory")
        return found

    def _name(self, path: str) -> Path:
        """The path of a name in a real directory: a link is moved or deleted itself, not what it points to."""
        folder, _, name = path.rstrip("/").rpartition("/")
        return self._inside(path) if name in ("", ".", "..") or "\0" in name else self._inside(folder) / name

    def _open_new(self, path: str) -> tuple[int, Path, Path]:
        """A new file beside the one that it will replace."""
        target = self._inside(path)
        if target.is_dir():
            raise FileRefused(f"{path[:200]} is a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o644
        return _open_there(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), fresh, target

    def _info(self, found: Path, follow: bool = False) -> FileInfo:
        facts = found.stat() if follow else found.lstat()
        return FileInfo(
            path="" if found == self._root else str(found.relative_to(self._root)),
            kind=_kind(facts.st_mode),
            size_bytes=facts.st_size,
            modified_at=utc(facts.st_mtime),
            owner=_user(facts.st_uid),
            group=_group(facts.st_gid),
            permissions=stat.filemode(facts.st_mode)[1:],
        )


@contextlib.contextmanager
def _errors_of(path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileMissing(path) from error
    except (OSError, shutil.Error) as error:
        raise FileRefused(f"{path[:200]}: {getattr(error, 'strerror', None) or error}") from error


def _open_file(found: Path) -> int:
    """A descriptor of a regular file; nothing else is opened for reading, so nothing can block."""
    fd = _open_there(found, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileRefused(f"{found.name} is not a file")
    return fd


def _open_there(found: Path, flags: int, mode: int = 0) -> int:
    """Open a real path; FileRefused where a directory on the way gave its name to a link since it was looked at."""
    fd = os.open(found, flags | os.O_NOFOLLOW, mode)
    if str(Path(f"/proc/self/fd/{fd}").readlink()) not in (str(found), f"{found} (deleted)"):
        os.close(fd)
        raise FileRefused(f"{found.name}: a directory on the way to it became a link meanwhile")
    return fd


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _rename(here: Path, there: Path) -> None:
    """Give a file or a tree this very name: a link of that name is replaced, never followed."""
    try:
        here.rename(there)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        fresh = _fresh_beside(there)
        _copy_tree(here, fresh) if here.is_dir() and not here.is_symlink() else _copy_file(here, fresh)
        fresh.rename(there)
        shutil.rmtree(here) if here.is_dir() and not here.is_symlink() else here.unlink()


def _copy_tree(here: Path, there: Path) -> None:
    """Copy what a directory holds; what lies at the target stays. No link below the target is written through."""
    if there.is_symlink():
        raise FileRefused(f"'{there.name[:200]}' is a link at the target, which copies do not follow; delete it first")
    there.mkdir(exist_ok=True)
    for entry in os.scandir(here):
        copy = _copy_tree if entry.is_dir(follow_symlinks=False) else _copy_file
        copy(Path(entry.path), there / entry.name)
    shutil.copystat(here, there)


def _copy_file(here: Path, there: Path) -> None:
    """Copy a file, or a link as one, beside its name and then onto it."""
    fresh = _fresh_beside(there)
    try:
        shutil.copy2(here, fresh, follow_symlinks=False)
        fresh.replace(there)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _fresh_beside(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(8)}")


def _must_lie_apart(source: Path, target: Path) -> None:
    if target == source or source in target.parents:
        raise FileRefused(f"{target.name} lies within what is moved or copied")


def _kind(mode: int) -> FileKind:
    if stat.S_ISREG(mode):
        return FileKind.FILE
    if stat.S_ISDIR(mode):
        return FileKind.DIRECTORY
    return FileKind.LINK if stat.S_ISLNK(mode) else FileKind.OTHER


@lru_cache(maxsize=1024)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@lru_cache(maxsize=1024)
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _become(account: Account | None) -> None:
    """Give this thread alone the file rights of an account (setfsuid(2)); it raises when that did not work."""
    if account is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    groups = os.getgrouplist(account.name, account.gid)
    array = (ctypes.c_uint32 * len(groups))(*groups)
    # By the bare system call: the C library's setgroups would change every thread of the process.
    if libc.syscall(_SETGROUPS[platform.machine()], len(groups), array) != 0:
        raise OSError(ctypes.get_errno(), "setgroups failed")
    libc.setfsgid(account.gid)
    libc.setfsuid(account.uid)
    if libc.setfsuid(-1) != account.uid or libc.setfsgid(-1) != account.gid:
        raise PermissionError(f"the file rights of {account.name} could not be taken on")
