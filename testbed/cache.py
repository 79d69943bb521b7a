"""The cache folder: what is built once, each part by one process, while others wait for it and see its progress."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from testbed.host import TestbedError, run, say

CACHE = Path(os.environ.get("BERTH_TESTBED_CACHE", "/var/cache/berth-testbed"))


@contextmanager
def only_builder(name: str, what: str) -> Iterator[None]:
    """Be the one process that may build the part ``name``; while another does, show its progress.

    what: the part in words, like ``the trixie root file system``.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as handle:
        shown = None
        while not _try_lock(handle):
            if shown is None:
                say(f"another process is building {what}; waiting for it")
            lines = _log(name).read_text().splitlines() if _log(name).exists() else []
            for line in lines[shown or 0 :]:
                say(line)
            shown = len(lines)
            time.sleep(0.2)
        yield


def begin(name: str) -> Path:
    """Clear away what builders that died have left; the path to build at, not yet made. Only for the only builder."""
    _log(name).unlink(missing_ok=True)
    for leftover in CACHE.glob(f".building-{name}-*"):
        shutil.rmtree(leftover)
    return CACHE / f".building-{name}-{os.getpid()}"


def progress(name: str, message: str) -> None:
    """Say it here, and leave it where a waiting process finds it."""
    say(message)
    with _log(name).open("a") as log:
        log.write(f"{message}\n")


def debian_mirror() -> str:
    """The Debian mirror this host already uses, so that a site's own mirror or cache serves us too."""
    filters = ["Created-By: Packages", "Origin: Debian", "Label: Debian"]
    known = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *filters], check=False).stdout.split()
    if not known:
        raise TestbedError("apt knows no Debian mirror: put one into /etc/apt/sources.list and run apt-get update")
    return known[0]


def _try_lock(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _log(name: str) -> Path:
    return CACHE / f"{name}.log"
