"""An image from a registry to one file, beside ``apptainer pull``: ``python -m bench.pull [--runs 3]``. Needs root.

Both fetch the same image from Debian's registry on this machine, with nothing kept from before. What Berth learns of
the image on the way counts. Apptainer is Debian's, and has all processors for its conversion where Berth takes one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx

from bench.convert import ADDED, BASE, content_mb, unpack
from bench.report import Row, show, spread
from images.access import Access
from images.bring import Bringer
from images.convert import Compressor, Share
from images.exchange import Exchange, Rules
from images.platforms import Platform
from images.reference import parse_reference
from images.registry import Registry
from images.workshop import Workshop
from testbed.registry import debian_registry, push_layers
from testbed.rootfs import ensure_rootfs

IN_ROOT = """
set -e
cd "$1"
mkdir over root
mount -t tmpfs tmpfs over
mkdir over/up over/work
mount -t overlay -o "lowerdir=$2,upperdir=over/up,workdir=over/work" overlay root
mount --rbind /proc root/proc
mount --rbind /dev root/dev
mkdir root/out
: > root/etc/resolv.conf # Apptainer insists on it
mount --bind "$1/out" root/out
shift 2
exec chroot root "$@"
"""
"""Runs a command in a root file system that stays as it was; all mounts end with it."""


@dataclass(frozen=True)
class Took:
    """What one run cost, and how large its file is."""

    wall_s: float
    cpu_s: float
    size_bytes: int


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pull", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="berth-pull-") as name, debian_registry(Path(name)) as host:
        asyncio.run(measure(Path(name), host, chosen.runs))


async def measure(folder: Path, host: str, runs: int) -> None:
    """Both in turns, and the record alone."""
    held_mb = push(folder, host)
    root = ensure_rootfs("trixie")
    ours, theirs, learnt = [], [], []
    for run in range(runs):
        theirs.append(apptainer(folder / f"theirs{run}", root, host))
        home = folder / f"ours{run}"
        ours.append(await berth(home, host))
        learnt.append(await record(home, host))
        shutil.rmtree(home)
    wall, cpu = (
        median(getattr(one, kind) / getattr(other, kind) for one, other in zip(ours, theirs, strict=True))
        for kind in ("wall_s", "cpu_s")
    )
    show(
        f"From a registry to one file, {held_mb:.0f} MB in files, beside apptainer pull; load {os.getloadavg()[0]:.1f}",
        [
            Row("wall", *(spread([each.wall_s for each in side], "s") for side in (ours, theirs))),
            Row("wall, of the peer's in the same turn", f"{wall:.3f}", "1", "at most 0.25"),
            Row("CPU", *(spread([each.cpu_s for each in side], "s") for side in (ours, theirs))),
            Row("CPU, of the peer's in the same turn", f"{cpu:.3f}", "1", "at most 0.25"),
            Row("size", *(f"{side[0].size_bytes / 1e6:.1f} MB" for side in (ours, theirs))),
            Row("the record alone, layers at hand: wall", spread([each.wall_s for each in learnt], "s"), "", "< 5 s"),
            Row("the record alone: CPU", spread([each.cpu_s for each in learnt], "s"), "", "< 5 s"),
        ],
    )


def push(folder: Path, host: str) -> float:
    """The tree of ``bench.convert`` and its addition, as an image of two layers; megabytes in its files."""
    layers, held_mb = [], 0.0
    for number, packages in enumerate((BASE, ADDED)):
        tree, layer = folder / f"tree{number}", folder / f"layer{number}.tar.gz"
        unpack(packages, tree)
        held_mb += content_mb(tree)
        subprocess.run(["tar", "-C", tree, "-czf", layer, "."], check=True)
        shutil.rmtree(tree)
        layers.append(layer)
    push_layers(host, "app", "1", layers, Cmd=["python3.11"], Env=["PATH=/usr/bin:/bin"])
    return held_mb


async def berth(home: Path, host: str) -> Took:
    """Everything from the name to the file and its record."""
    before = used()
    source, found = await resolved(host)
    bringer = Bringer(Workshop(home), share=Share(nice=0))
    brought = await bringer.bring(found, frozenset(Compressor), source)
    return since(before, brought.size_bytes)


async def record(home: Path, host: str) -> Took:
    """What a layer's unpacking teaches, where all of them have come."""
    shutil.rmtree(home / "needs")
    source, found = await resolved(host)
    bringer, before = Bringer(Workshop(home)), used()
    needs = await bringer.learn(found, source)
    assert needs.tree_seen
    return since(before, 0)


async def resolved(host: str):
    http = httpx.AsyncClient()
    source = Registry(Access(Exchange(http, Rules(plain_http=frozenset({host})))))
    return source, await source.resolve(parse_reference(f"{host}/app:1"), Platform("linux", "amd64"))


def apptainer(folder: Path, root: Path, host: str) -> Took:
    """``apptainer pull`` with an empty cache, on the same disk."""
    for name in ("cache", "tmp"):
        (folder / "out" / name).mkdir(parents=True)
    words = ["env", "APPTAINER_CACHEDIR=/out/cache", "APPTAINER_TMPDIR=/out/tmp", "HOME=/out"]
    words += ["apptainer", "-q", "pull", "--no-https", "/out/app.sif", f"docker://{host}/app:1"]
    before = used()
    subprocess.run(["unshare", "--mount", "sh", "-c", IN_ROOT, "sh", folder, root, *words], check=True)
    took = since(before, (folder / "out/app.sif").stat().st_size)
    shutil.rmtree(folder)
    return took


def used() -> tuple[float, float]:
    """Wall clock, and CPU of this process and of all that it waited for, in seconds."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.monotonic(), sum(each.ru_utime + each.ru_stime for each in spent)


def since(before: tuple[float, float], size_bytes: int) -> Took:
    wall_s, cpu_s = (now - then for now, then in zip(used(), before, strict=True))
    return Took(wall_s, cpu_s, size_bytes)


if __name__ == "__main__":
    main()
