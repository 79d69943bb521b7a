"""What a conversion costs and what a new version of an image moves: ``python -m bench.convert [--runs 3]``.

The tree is made of Debian packages (numpy, scipy and what they stand on), kept in ``.cache/bench``. The peer is gzip 9,
which mksquashfs and Apptainer choose by themselves; both are measured in CPU seconds of all cores, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.report import Row, show, spread
from images.chunks import Index, index_of
from images.convert import Compressor, Converted, Share, convert, converter_key, installed_version
from testbed.server import ROOT

CACHE = ROOT / ".cache/bench/packages"
MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)
SHARE = Share(processors=1, memory_mib=512, nice=0)
BASE = [
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3-numpy",
    "python3-scipy",
    "libopenblas0-pthread",
    "libgfortran5",
    "libstdc++6",
    "libicu72",
    "libpmix2",
    "libopenmpi3",
    "perl-modules-5.36",
    "libpython3.11",
    "git",
    "coreutils",
    "libc6",
    "libssl3",
]
ADDED = ("python3-pandas", "python3-pandas-lib")


@dataclass(frozen=True)
class Version:
    """One version of the image as a file, with its chunks."""

    made: Converted
    index: Index


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.convert", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="berth-convert-") as name:
        asyncio.run(measure(Path(name), chosen.runs))


async def measure(folder: Path, runs: int) -> None:
    """Both tables."""
    tree = folder / "tree"
    unpack(BASE, tree)
    pairs = [(await converted(tree, folder / f"run{run}"), gzip_9(tree, folder / "gzip")) for run in range(runs)]
    ours, (peer_bytes, *_) = [made for made, _ in pairs], [size for _, (size, _) in pairs]
    first = Version(ours[0], index_of(ours[0].path))
    again = await converted(tree, folder / "again", Share(processors=2, memory_mib=512, nice=0))
    cpu_s, peer_cpu_s = [made.cpu_s for made in ours], [spent for _, (_, spent) in pairs]
    ratio = median(cpu_s) / median(peer_cpu_s)
    size_mb, peer_mb = ours[0].size_bytes / 1e6, peer_bytes / 1e6
    same = len({made.digest for made in (*ours, again)}) == 1
    show(
        f"Conversion of {content_mb(tree):.0f} MB in files; beside gzip 9",
        [
            Row("CPU", spread(cpu_s, "s"), spread(peer_cpu_s, "s"), "at most 1/10"),
            Row("CPU, of the peer's", f"{ratio:.3f}", "1", "at most 0.100"),
            Row("size", f"{size_mb:.1f} MB", f"{peer_mb:.1f} MB", "at most +5 %"),
            Row("size, more than the peer's", f"{100 * (size_mb / peer_mb - 1):+.1f} %", "", "at most +5 %"),
            Row(f"same bytes in {runs + 1} runs, 1 and 2 processors", "yes" if same else "NO", "", "yes"),
        ],
    )
    rows = [moved("the same again", first, first)]
    unpack(ADDED, tree)
    second = await version(tree, folder / "v2")
    rows.append(moved("v2: one package more", first, second))
    touch_three(tree)
    rows.append(moved("v3: three files changed", second, await version(tree, folder / "v3")))
    show(f"A new version where the last one is, chunks of {size_mb * 1e3 / len(first.index.chunks):.0f} kB", rows)


async def converted(tree: Path, target: Path, share: Share = SHARE) -> Converted:
    return await convert(tree, target, converter_key(await installed_version(), frozenset(Compressor)), share, MADE_AT)


async def version(tree: Path, target: Path) -> Version:
    made = await converted(tree, target)
    return Version(made, index_of(made.path))


def moved(what: str, old: Version, new: Version) -> Row:
    """Bytes that must come where the old version is, beside the whole file."""
    missing = new.index.missing({chunk.sha256 for chunk in old.index.chunks})
    net_bytes = max(0, new.made.size_bytes - old.made.size_bytes)
    goal_mb = (1.3 * net_bytes + 0.01 * new.made.size_bytes) / 1e6 if new is not old else 0.0
    bytes_ = new.index.bytes_of(missing)
    return Row(
        what,
        f"{bytes_ / 1e6:.2f} MB of {new.made.size_bytes / 1e6:.1f} ({100 * bytes_ / new.made.size_bytes:.2f} %)",
        f"net growth {net_bytes / 1e6:.2f} MB",
        f"at most {goal_mb:.2f} MB",
    )


def gzip_9(tree: Path, target: Path) -> tuple[int, float]:
    """Size in bytes and CPU seconds of what mksquashfs does when it is told nothing, with the same limits."""
    command = ["mksquashfs", tree, target, "-noappend", "-no-progress", "-quiet", "-all-root", "-mkfs-time", "0"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "-processors", "1", "-mem", "512M"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return target.stat().st_size, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


# -- the tree --------------------------------------------------------------------------------------------------------


def unpack(packages: Sequence[str], tree: Path) -> None:
    """Unpack Debian packages over a tree; those that are not in the cache are downloaded."""
    CACHE.mkdir(parents=True, exist_ok=True)
    tree.mkdir(exist_ok=True)
    if absent := [package for package in packages if not list(CACHE.glob(f"{package}_*.deb"))]:
        subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *absent], cwd=CACHE, check=True)
    for package in packages:
        subprocess.run(["dpkg", "-x", *CACHE.glob(f"{package}_*.deb"), tree], check=True)
    for unwanted in ("usr/share/doc", "usr/share/locale", "usr/share/man"):
        shutil.rmtree(tree / unwanted, ignore_errors=True)


def touch_three(tree: Path) -> None:
    """A patch: a byte more on the largest library, and two small files with another content."""
    largest = max((path for path in tree.rglob("*.so*") if not path.is_symlink()), key=lambda path: path.stat().st_size)
    for path in (largest, *sorted(tree.rglob("numpy/core/*.py"))[:2]):
        with path.open("ab") as file:
            file.write(b"\n")


def content_mb(tree: Path) -> float:
    """What is in the regular files of a tree."""
    return sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


if __name__ == "__main__":
    os.umask(0o022)
    main()
