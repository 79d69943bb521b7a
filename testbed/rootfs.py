"""The root file system that all machines of a cluster share, built once from Debian packages and kept in a cache.

The cache folder's name carries a hash of the recipe, so a changed recipe never meets an old tree. A tree is built under
a temporary name and renamed when whole: what stands under its final name is complete.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from testbed.host import TestbedError, install_tools, launch, run, say

CACHE = Path(os.environ.get("BERTH_TESTBED_CACHE", "/var/cache/berth-testbed"))
SETUP = Path(__file__).with_name("rootfs-setup.sh")
_SOURCE = Path(__file__).parents[1]

COMMON_PACKAGES = (
    "slurmctld",
    "slurmd",
    "slurm-client",
    "slurmdbd",
    "slurmrestd",
    "slurm-wlm-jwt-plugin",
    "munge",
    "mariadb-server-core",  # without mariadb-server's scripts, and without the Perl they need
    "mariadb-client-core",
    "openssh-server",
    "docker-registry",
    "skopeo",
    "tini",  # first process of a machine: reaps what daemons leave
    "socat",  # with sshfs: a shared file system whose bytes really cross the link
    "sshfs",
    "rsync",
    "squashfuse",
    "squashfs-tools",
    "uidmap",
    "python3",
    "iproute2",
    "procps",
    "curl",
    "busybox-static",  # the content of the demo image
)


@dataclass(frozen=True)
class Suite:
    """One Debian suite and what it adds to the common packages."""

    name: str
    extra_suites: tuple[str, ...]
    extra_packages: tuple[str, ...]


SUITES = {
    suite.name: suite
    for suite in (
        # Apptainer is in sid only, and needs no newer libc than trixie's.
        Suite("trixie", ("sid",), ("apptainer",)),
        Suite("sid", (), ("apptainer",)),
        Suite("bookworm", (), ()),
    )
}


def ensure_rootfs(suite_name: str, packages: tuple[str, ...] = ()) -> Path:
    """The cached root file system of a suite, built first when there is none (about a minute).

    packages: of Debian, beside the usual ones; each choice of them has a root file system of its own.
    """
    if suite_name not in SUITES:
        raise TestbedError(f"no suite '{suite_name}': choose one of {', '.join(SUITES)}")
    suite = with_packages(SUITES[suite_name], packages)
    target = CACHE / f"{suite.name}-{recipe_hash(suite)}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with _only_builder(suite):
        if not target.exists():
            install_tools()
            _build(suite, target)
    return target


def with_packages(suite: Suite, packages: tuple[str, ...]) -> Suite:
    """The suite with more packages."""
    return replace(suite, extra_packages=suite.extra_packages + packages)


def build_in_background(suite_name: str) -> None:
    """Start building a root file system and return; whoever needs it meanwhile waits and sees the progress."""
    install_tools()  # not in the background: apt-get's locks would surprise the caller's next apt-get
    CACHE.mkdir(parents=True, exist_ok=True)
    say(f"building the {suite_name} root file system in the background")
    launch([sys.executable, "-m", "testbed", "rootfs", "--suite", suite_name], log=Path(os.devnull), folder=_SOURCE)


def recipe_hash(suite: Suite) -> str:
    recipe = repr((suite, COMMON_PACKAGES, _apt_options(suite))).encode() + SETUP.read_bytes()
    return hashlib.sha256(recipe).hexdigest()[:12]


def package_versions(rootfs: Path) -> dict[str, str]:
    """Package -> version, as recorded in the tree when it was built."""
    lines = (rootfs / "etc/testbed-versions").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


@contextmanager
def _only_builder(suite: Suite) -> Iterator[None]:
    """Be the one process that may build this suite's tree; while another does, show its progress."""
    with (CACHE / f"{suite.name}.lock").open("w") as handle:
        shown = None
        while not _try_lock(handle):
            if shown is None:
                say(f"another process is building the {suite.name} root file system; waiting for it")
            lines = _log(suite).read_text().splitlines() if _log(suite).exists() else []
            for line in lines[shown or 0 :]:
                say(line)
            shown = len(lines)
            time.sleep(0.2)
        yield


def _try_lock(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _log(suite: Suite) -> Path:
    return CACHE / f"{suite.name}.log"


def _progress(suite: Suite, message: str) -> None:
    """Say it here, and leave it where a waiting process finds it."""
    say(message)
    with _log(suite).open("a") as log:
        log.write(f"{message}\n")


def _build(suite: Suite, target: Path) -> None:
    _log(suite).unlink(missing_ok=True)
    for leftover in CACHE.glob(f".building-{suite.name}-*"):
        shutil.rmtree(leftover)
    building = CACHE / f".building-{suite.name}-{os.getpid()}"
    _progress(suite, f"building the {suite.name} root file system in {target} (once; about a minute)")
    sources = "".join(f"deb {_mirror()} {name} main\n" for name in (suite.name, *suite.extra_suites))
    argv = ["mmdebstrap", "--mode=root", "--variant=apt", "--format=directory"]
    argv += [f"--include={','.join(COMMON_PACKAGES + suite.extra_packages)}"]
    argv += [f"--aptopt={option}" for option in (*_apt_options(suite), *_host_proxy())]
    argv += ["--dpkgopt=force-unsafe-io", f"--extract-hook={SETUP}", f"--customize-hook={SETUP}"]
    argv += [suite.name, str(building), "-"]
    _run_with_progress(argv, sources, suite)
    versions = package_versions(building)
    building.rename(target)
    _progress(suite, f"ready: {', '.join(f'{name} {version}' for name, version in versions.items())}")


def _apt_options(suite: Suite) -> tuple[str, ...]:
    return (
        f'APT::Default-Release "{suite.name}"',
        'Acquire::Languages "none"',
        'Acquire::Check-Valid-Until "false"',  # old Release files are fine for a throw-away cluster
    )


def _mirror() -> str:
    """The Debian mirror this host already uses, so that a site's own mirror or cache serves us too."""
    filters = ["Created-By: Packages", "Origin: Debian", "Label: Debian"]
    known = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *filters], check=False).stdout.split()
    if not known:
        raise TestbedError("apt knows no Debian mirror: put one into /etc/apt/sources.list and run apt-get update")
    return known[0]


def _host_proxy() -> list[str]:
    proxies = ("Acquire::http::Proxy ", "Acquire::https::Proxy ")
    settings = run(["apt-config", "dump"], check=False).stdout.splitlines()
    return [setting.rstrip(";") for setting in settings if setting.startswith(proxies)]


def _run_with_progress(argv: list[str], sources: str, suite: Suite) -> None:
    tail: list[str] = []
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(sources)
        process.stdin.close()
        for line in process.stdout:
            tail = [*tail[-20:], line]
            if line.startswith("I: "):
                _progress(suite, f"  {suite.name}: {line[3:].strip()}")
    if process.returncode != 0:
        raise TestbedError(f"mmdebstrap could not build the {suite.name} root file system:\n{''.join(tail)}")
