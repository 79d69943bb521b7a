"""Kubernetes' server programs, built once from Debian's source package and kept in the cache.

bookworm's source package holds the whole tree with the libraries it needs; the ones of later suites only kubectl. What
else a cluster needs (etcd, containerd, ...) is unpacked from Debian packages beside them; nothing is installed here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.cache import CACHE, begin, debian_mirror, only_builder, progress
from testbed.host import TestbedError, install_tools, launch, run, say

SUITE = "bookworm"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
PACKAGES = (
    "etcd-server",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "docker-registry",
    "busybox-static",  # the content of images
)
COMPILER = ("golang-1.19-go", "golang-1.19-src")
NEWER_LIBRARIES = {"golang-github-modern-go-reflect2-dev": "github.com/modern-go/reflect2"}
"""Package -> library of the source tree that it takes the place of: with this compiler the API server's own crashes on
every custom object."""
_NAME = "kubernetes"
_WHAT = "Kubernetes' programs"
_SOURCE = Path(__file__).parents[2]
_GO_ROOT = "usr/lib/go-1.19"
_LONGEST_STEP_S = 3600
# Kubernetes' makefiles copy what they have built with `rsync -pc FILE FOLDER`, and need rsync for nothing else.
_RSYNC = '#!/bin/sh\nexec cp -p "$2" "$3"\n'
# The compilers too, so that whoever builds next finds a tree that nobody writes to.
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=KILL")
_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin", "usr/lib/cni")


@dataclass(frozen=True)
class Binaries:
    """Where the programs are: ``folders`` in the order in which to look."""

    folders: tuple[Path, ...]

    def path(self, program: str) -> Path:
        """The file of a program; TestbedError when it is in none of the folders."""
        for folder in self.folders:
            if (folder / program).is_file():
                return folder / program
        raise TestbedError(f"no {program} in {', '.join(map(str, self.folders))}")

    def has(self, program: str) -> bool:
        """Whether it is in one of the folders."""
        return any((folder / program).is_file() for folder in self.folders)

    @property
    def version(self) -> tuple[int, int]:
        """Kubernetes' version as its API server tells it, like (1, 20)."""
        said = run([self.path("kube-apiserver"), "--version"]).stdout
        found = re.match(r"Kubernetes v(\d+)\.(\d+)\.", said)
        if found is None:
            raise TestbedError(f"{self.path('kube-apiserver')} tells no version: {said[:200]!r}")
        return int(found[1]), int(found[2])


def ensure_binaries() -> Binaries:
    """The programs, built first when there are none (6 to 10 minutes on two cores, 3.5 GB of disk meanwhile).

    What lies in the folder that BERTH_K8S_BIN names goes before ours, and Kubernetes is not built then.
    """
    other = os.environ.get("BERTH_K8S_BIN")
    with only_builder(_NAME, _WHAT):
        packages = _packages()
        if not packages.exists():
            _unpack_packages(packages)
        around = tuple(packages / folder for folder in _FOLDERS)
        if other:
            return Binaries((Path(other), *around))
        if not _programs().exists():
            install_tools()
            _build(_programs())
        return Binaries((_programs(), *around))


def build_in_background() -> None:
    """Start building, unless all is there, and return; whoever needs the programs waits and sees the progress."""
    if _packages().exists() and (os.environ.get("BERTH_K8S_BIN") or _programs().exists()):
        return
    install_tools()  # not in the background: apt-get's locks would surprise the caller's next apt-get
    say(f"building {_WHAT} in the background")
    argv = ["nice", "-n", "5", sys.executable, "-m", "testbed", "k8s", "build"]
    launch(argv, log=Path(os.devnull), folder=_SOURCE)


def _packages() -> Path:
    return CACHE / f"{_NAME}-packages-{_recipe_hash(PACKAGES)}"


def _programs() -> Path:
    return CACHE / f"{_NAME}-{_recipe_hash((*PROGRAMS, *COMPILER, *NEWER_LIBRARIES))}"


def _recipe_hash(recipe: tuple[str, ...]) -> str:
    return hashlib.sha256(repr((SUITE, recipe)).encode()).hexdigest()[:12]


@contextmanager
def _workshop() -> Iterator[Path]:
    """A folder to build in, which does not outlive the building."""
    building = begin(_NAME)
    building.mkdir()
    try:
        yield building
    finally:
        shutil.rmtree(building)


def _unpack_packages(target: Path) -> None:
    with _workshop() as building:
        progress(_NAME, f"fetching Debian packages for Kubernetes: {', '.join(PACKAGES)}")
        fetched = _Apt(building / "apt").download(PACKAGES)
        tree = building / "tree"
        tree.mkdir()
        for package in fetched:
            run(["dpkg-deb", "--extract", package, tree], timeout_s=300)
        fields = ["--showformat", "${Package} ${Version}\n"]
        versions = "".join(run(["dpkg-deb", *fields, "--show", package]).stdout for package in fetched)
        (tree / "versions").write_text(versions)
        tree.rename(target)


def _build(target: Path) -> None:
    with _workshop() as building:
        progress(_NAME, f"building {_WHAT} in {target} (once; 6 to 10 minutes)")
        progress(_NAME, "  1 of 4: fetching the sources and Go from Debian")
        apt = _Apt(building / "apt")
        for package in apt.download(COMPILER):
            run(["dpkg-deb", "--extract", package, building / "compiler"], timeout_s=600)
        tarball = apt.download_source("kubernetes")
        progress(_NAME, f"  2 of 4: unpacking {tarball.name}")
        tree = _unpack_source(tarball, building)
        _renew_libraries(apt, building, tree)
        environment = _go_environment(building, tree)
        progress(_NAME, "  3 of 4: generating code (about a minute)")
        _make(["generated_files"], tree, environment)
        progress(_NAME, f"  4 of 4: compiling {', '.join(PROGRAMS)} (4 to 8 minutes)")
        _make([f"WHAT={' '.join(f'cmd/{program}' for program in PROGRAMS)}"], tree, environment)
        built = building / "programs"
        built.mkdir()
        for program in PROGRAMS:
            shutil.copy2(tree / "_output/bin" / program, built)
        (built / "source").write_text(f"{tarball.name}\n")
        built.rename(target)
    progress(_NAME, f"ready: {_WHAT} of {tarball.name}")


def _unpack_source(tarball: Path, building: Path) -> Path:
    """The source tree, also under the name by which its packages know each other."""
    tree = building / "source"
    tree.mkdir()
    run(["tar", "-xf", tarball, "-C", tree, "--strip-components=1"], timeout_s=600)
    inside = tree / ".go/src/k8s.io"
    inside.mkdir(parents=True)
    (inside / "kubernetes").symlink_to(tree)
    return tree


def _renew_libraries(apt: _Apt, building: Path, tree: Path) -> None:
    for package in apt.download(tuple(NEWER_LIBRARIES)):
        run(["dpkg-deb", "--extract", package, building / "libraries"], timeout_s=300)
    for library in NEWER_LIBRARIES.values():
        old, new = tree / "vendor" / library, building / "libraries/usr/share/gocode/src" / library
        shutil.rmtree(old)
        shutil.copytree(new, old, ignore=shutil.ignore_patterns("*_test.go"))


def _go_environment(building: Path, tree: Path) -> dict[str, str]:
    tools = building / "tools"
    tools.mkdir()
    (tools / "rsync").write_text(_RSYNC)
    (tools / "rsync").chmod(0o755)
    go = building / "compiler" / _GO_ROOT
    return {
        "PATH": f"{go / 'bin'}:{tools}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "GOROOT": str(go),
        "GOPATH": str(tree / ".go"),
        "HOME": str(building),  # the compiler's cache goes with the rest, and so do its temporary files
        "TMPDIR": str(tools),
        "CGO_ENABLED": "0",
        "LANG": "C.UTF-8",
    }


def _make(goals: list[str], tree: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*_DIES_WITH_US, "make", *goals],
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_LONGEST_STEP_S,
        check=False,
    )
    if done.returncode != 0:
        raise TestbedError(f"make {' '.join(goals)} failed:\n{done.stdout[-4000:]}")


class _Apt:
    """apt-get with a state of its own, so that the host's lists and locks stay as they are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for part in ("state/lists/partial", "cache/archives/partial", "fetched"):
            (folder / part).mkdir(parents=True)
        (folder / "state/status").touch()
        mirror = debian_mirror()
        (folder / "sources.list").write_text(f"deb {mirror} {SUITE} main\ndeb-src {mirror} {SUITE} main\n")
        (folder / "apt.conf").write_text(
            f'Dir::State "{folder}/state"; Dir::State::status "{folder}/state/status"; Dir::Cache "{folder}/cache";\n'
            f'Dir::Etc::sourcelist "{folder}/sources.list"; Dir::Etc::sourceparts "/dev/null";\n'
            'APT::Sandbox::User "root"; Acquire::Languages "none"; Acquire::Check-Valid-Until "false";\n'
        )
        self._get("update")

    def download(self, packages: tuple[str, ...]) -> list[Path]:
        """Fetch binary packages; their files, sorted by name."""
        before = set(self._fetched.iterdir())
        self._get("download", *packages)
        return sorted(set(self._fetched.iterdir()) - before)

    def download_source(self, package: str) -> Path:
        """Fetch a source package; the file that holds what its authors published."""
        self._get("source", "--download-only", "--only-source", package)
        [tarball] = self._fetched.glob(f"{package}_*.orig.tar.*")
        return tarball

    @property
    def _fetched(self) -> Path:
        return self._folder / "fetched"

    def _get(self, *words: str) -> None:
        environment = os.environ | {"APT_CONFIG": str(self._folder / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}
        run(["env", f"--chdir={self._fetched}", "apt-get", "-q", *words], env=environment, timeout_s=900)
