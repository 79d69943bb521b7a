"""SQLite means exactly one process: whoever holds the lock in the home directory is it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scheduler.model.errors import BerthError


class HomeTaken(BerthError):
    """Another process works on this home directory."""


@contextmanager
def only_process(home: Path) -> Iterator[None]:
    """Hold the home directory; HomeTaken names the process that has it. The kernel lets go when the process dies."""
    path = home / "berth.lock"
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read(20).strip() or "unknown"
            raise HomeTaken(
                f"{home} is in use by process {holder}: on SQLite exactly one Berth process runs;"
                " end that one, or use PostgreSQL (BERTH_DATABASE_URL) for several"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
