"""Images in a cluster's registry: a large one of real and random files with its next version, and small ones."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from testbed.cluster import Cluster
from testbed.oci import layer_tar, write_layout

CONFIG = {"Env": ["PATH=/bin"], "Cmd": ["sh"]}
BALLAST_FILES, SMALL_FILES, BALLAST_BYTES = 180, 12, 2**20
"""Files that do not shrink, as data and wheels that are compressed already."""


def push_versions(cluster: Cluster, name: str) -> tuple[int, int]:
    """Push ``name:1``, and ``name:2`` with one package more; bytes in the registry of the first and of what was added.

    The files are those of the cluster's own root file system.
    """
    rootfs = cluster.rootfs
    libraries, data = _tree(rootfs / "usr/lib", "opt/lib"), _ballast(name, BALLAST_FILES)
    package = _tree(rootfs / "usr/share/mariadb", "opt/package")
    first_bytes = _push(cluster, f"{name}:1", [_base(cluster), libraries, data])
    return first_bytes, _push(cluster, f"{name}:2", [_base(cluster), libraries, data, package]) - first_bytes


def push_small(cluster: Cluster, name: str) -> int:
    """Push an image of some MB in ``opt/data`` that share nothing with another name's; its bytes in the registry."""
    return _push(cluster, name, [_base(cluster), _ballast(name, SMALL_FILES)])


def _base(cluster: Cluster) -> bytes:
    shell = (cluster.rootfs / "usr/bin/busybox").read_bytes()
    return layer_tar(shell, ["sh", "ls", "cat", "hostname", "sha256sum", "sleep", "test"])


def _push(cluster: Cluster, name: str, layers: Sequence[bytes]) -> int:
    with TemporaryDirectory(dir="/var/tmp") as folder:
        layout = Path(folder) / "layout"
        write_layout(layout, layers, CONFIG, level=1)
        cluster.push_image(layout, name)
        return sum(blob.stat().st_size for blob in (layout / "blobs/sha256").iterdir())


def _tree(folder: Path, name: str) -> bytes:
    """The files of a folder, as a package would bring them."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry if entry.isreg() or entry.isdir() or entry.issym() else None

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, name, filter=plain)
    return buffer.getvalue()


def _ballast(seed: str, files: int) -> bytes:
    buffer, draw = io.BytesIO(), random.Random(seed)
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(files):
            entry = tarfile.TarInfo(f"opt/data/{number}")
            entry.size = BALLAST_BYTES
            tar.addfile(entry, io.BytesIO(draw.randbytes(BALLAST_BYTES)))
    return buffer.getvalue()
