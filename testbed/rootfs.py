"""The root file system that all machines of a cluster share, built once from Debian packages and kept in a cache.

The cache folder's name carries a hash of the recipe, so a changed recipe never meets an old tree. A tree is built under
a temporary name and renamed when whole: what stands under its final name is complete.
"""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from testbed.cache import CACHE, begin, debian_mirror, only_builder, progress
from testbed.host import TestbedError, install_tools, launch, run, say

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
    "lmod",  # sites give their users programs, Apptainer often among them, as modules
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
    with only_builder(suite.name, f"the {suite.name} root file system"):
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
    say(f"building the {suite_name} root file system in the background")
    launch([sys.executable, "-m", "testbed", "rootfs", "--suite", suite_name], log=Path(os.devnull), folder=_SOURCE)


def recipe_hash(suite: Suite) -> str:
    recipe = repr((suite, COMMON_PACKAGES, _apt_options(suite))).encode() + SETUP.read_bytes()
    return hashlib.sha256(recipe).hexdigest()[:12]


def package_versions(rootfs: Path) -> dict[str, str]:
    """Package -> version, as recorded in the tree when it was built."""
    lines = (rootfs / "etc/testbed-versions").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


def _build(suite: Suite, target: Path) -> None:
    building = begin(suite.name)
    progress(suite.name, f"building the {suite.name} root file system in {target} (once; about a minute)")
    sources = "".join(f"deb {debian_mirror()} {name} main\n" for name in (suite.name, *suite.extra_suites))
    argv = ["mmdebstrap", "--mode=root", "--variant=apt", "--format=directory"]
    argv += [f"--include={','.join(COMMON_PACKAGES + suite.extra_packages)}"]
    argv += [f"--aptopt={option}" for option in (*_apt_options(suite), *_host_proxy())]
    argv += ["--dpkgopt=force-unsafe-io", f"--extract-hook={SETUP}", f"--customize-hook={SETUP}"]
    argv += [suite.name, str(building), "-"]
    _run_with_progress(argv, sources, suite)
    versions = package_versions(building)
    building.rename(target)
    progress(suite.name, f"ready: {', '.join(f'{name} {version}' for name, version in versions.items())}")


def _apt_options(suite: Suite) -> tuple[str, ...]:
    return (
        f'APT::Default-Release "{suite.name}"',
        'Acquire::Languages "none"',
        'Acquire::Check-Valid-Until "false"',  # old Release files are fine for a throw-away cluster
    )


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
                progress(suite.name, f"  {suite.name}: {line[3:].strip()}")
    if process.returncode != 0:
        raise TestbedError(f"mmdebstrap could not build the {suite.name} root file system:\n{''.join(tail)}")
