"""What the testbed asks of its host: root, a few Debian tools, and ways to run commands and to take turns."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

TOOL_PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "tc": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "make": "make",
    "openssl": "openssl",
}
"""Each program we run on the host, and the Debian package that brings it."""

Finished = subprocess.CompletedProcess[str]

_started = time.monotonic()


class TestbedError(Exception):
    """The testbed cannot do what was asked; the message says why and what to do."""

    __test__ = False  # the name starts with Test, but pytest has nothing to collect here


def say(message: str) -> None:
    """One line of progress on stderr, so that stdout stays for results."""
    print(f"testbed [{time.monotonic() - _started:5.1f} s] {message}", file=sys.stderr, flush=True)


def require_root() -> None:
    if os.geteuid() != 0:
        raise TestbedError("namespaces, mounts and links need root: run this as root")


def install_tools() -> None:
    """Install, from Debian, the tools that are missing on this host."""
    missing = sorted({package for tool, package in TOOL_PACKAGES.items() if shutil.which(tool) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise TestbedError(f"install these first (no apt-get here to do it): {', '.join(missing)}")
    say(f"installing Debian packages on this host: {', '.join(missing)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Check-Valid-Until=false"]
    install = [*apt, "--no-install-recommends", "install", *missing]
    if run(install, env=environment, check=False, timeout_s=600).returncode != 0:  # lists missing, or out of date
        run([*apt, "update"], env=environment, timeout_s=300)
        run(install, env=environment, timeout_s=600)


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    check: bool = True,
    timeout_s: float = 60,
    env: dict[str, str] | None = None,
) -> Finished:
    """Run a program to its end and return its output; TestbedError with its own words when it fails and ``check``."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=env,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"no end after {timeout_s:g} s: {' '.join(words)}") from error
    if check and done.returncode != 0:
        output = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise TestbedError(f"exit status {done.returncode}: {' '.join(words)}\n{output}")
    return done


def launch(argv: Sequence[str | Path], log: Path, descriptors: Sequence[int] = (), folder: Path | None = None) -> None:
    """Start a program that outlives us: in a session of its own, and not as our child, so it is never our zombie."""
    with log.open("ab") as output:
        subprocess.run(
            ["setsid", "--fork", *(str(word) for word in argv)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=tuple(descriptors),
            cwd=folder,
            timeout=10,
            check=True,
        )


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    """Look every 20 ms until ``holds``; TestbedError naming ``what`` after the time-out."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TestbedError(f"not after {timeout_s:g} s: {what}")
        time.sleep(0.02)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which the holder may remove; it goes with the process, however that ends."""
    while True:
        with path.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_still(path, handle):
                yield
                return


def _is_still(path: Path, handle: IO[str]) -> bool:
    """Whether the open file still has this name: the holder before us may have removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle.fileno()))
    except FileNotFoundError:
        return False
