"""Commands on this machine, as Berth's own user or as the account that a system names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from backends import open_files
from backends.base import REMOTE_OUTPUT_BYTES
from scheduler.model.errors import BackendUnavailable, NotAuthorised, UnexpectedReply

KILLED_S = 10.0
"""How long the end of a command is waited for after it was killed."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account of this machine."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended; ``exit_status`` is negative when a signal ended it."""

    exit_status: int
    stdout: bytes
    stderr: bytes


def account_for(run_as: object) -> Account | None:
    """Whose account runs jobs here; None: Berth's own. As root, ``notes.berth.runAs`` must name an unprivileged one."""
    if not isinstance(run_as, str) or not run_as:
        if os.geteuid() == 0:
            raise NotAuthorised(
                "Berth runs as root and starts no jobs as root: name an unprivileged account in the system's"
                ' notes, {"berth": {"backend": "local", "runAs": "ACCOUNT"}}, or run Berth as an ordinary user'
            )
        return None
    try:
        found = pwd.getpwnam(run_as)
    except KeyError:
        raise NotAuthorised(f"notes.berth.runAs: this machine has no account '{run_as[:64]}'") from None
    if found.pw_uid == 0:
        raise NotAuthorised("notes.berth.runAs: jobs never run as root; name an unprivileged account")
    if found.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise NotAuthorised(f"notes.berth.runAs: only root can run jobs as '{run_as[:64]}'; Berth is not root")
    return Account(found.pw_name, found.pw_uid, found.pw_gid, found.pw_dir)


class LocalCommands:
    """Runs commands with a clean environment, bounded in time and output."""

    def __init__(self, account: Account | None = None) -> None:
        self._account = account

    async def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """Run one program to its end; BackendUnavailable when it cannot start or takes too long."""
        # Standard input is a file in memory, not a pipe: a program that ends without reading it breaks nothing.
        with os.fdopen(os.memfd_create("stdin"), "w+b") as given:
            given.write(stdin)
            given.seek(0)
            try:
                process = await asyncio.create_subprocess_exec(
                    *open_files.as_given(),
                    *_as_account(self._account),
                    *argv,
                    stdin=given,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    cwd="/",
                    env=_environment(self._account),
                    start_new_session=True,
                )
            except OSError as error:
                raise BackendUnavailable(f"{argv[0]} cannot be started: {error}") from error
        reading = [asyncio.create_task(_bounded(stream, argv)) for stream in (process.stdout, process.stderr)]
        try:
            async with asyncio.timeout(timeout_s):
                stdout, stderr = await asyncio.gather(*reading)
                await process.wait()
        except TimeoutError:
            raise BackendUnavailable(f"{argv[0]} did not end within {timeout_s:.0f} s") from None
        finally:
            if process.returncode is None:
                await _end(process, reading)
        return Completed(process.returncode or 0, stdout, stderr)


async def _end(process: asyncio.subprocess.Process, reading: Sequence[asyncio.Task[bytes]]) -> None:
    """Kill a command with all that it started. What it still wrote is read: its end is told behind that."""
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):  # something may have left its group, and hold a pipe
        async with asyncio.timeout(KILLED_S):
            await asyncio.gather(_drop(process.stdout), _drop(process.stderr), process.wait())


async def _drop(stream: asyncio.StreamReader | None) -> None:
    while stream is not None and await stream.read(64 * 1024):
        pass


async def _bounded(stream: asyncio.StreamReader | None, argv: Sequence[str]) -> bytes:
    pieces = bytearray()
    while stream is not None and (piece := await stream.read(64 * 1024)):
        pieces += piece
        if len(pieces) > REMOTE_OUTPUT_BYTES:
            raise UnexpectedReply(f"{argv[0]} wrote more than {REMOTE_OUTPUT_BYTES >> 20} MiB")
    return bytes(pieces)


def _as_account(account: Account | None) -> Sequence[str]:
    """What comes before a command to run it as an account; uvloop's processes take no ``user``."""
    if account is None:
        return ()
    return ("setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--init-groups", "--")


def _environment(account: Account | None) -> dict[str, str]:
    """What a login would have: jobs must not inherit Berth's own secrets."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "TZ", "HOME", "USER", "LOGNAME") if key in os.environ}
    if account is not None:
        kept |= {"HOME": account.home, "USER": account.name, "LOGNAME": account.name}
    return kept
