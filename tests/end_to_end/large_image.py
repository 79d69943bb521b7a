"""An image of about 300 MB of real and random files in a cluster's registry, and its next version."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from testbed.cluster import Cluster
from testbed.oci import layer_tar, write_layout

CONFIG = {"Env": ["PATH=/bin"], "Cmd": ["sh"]}
BALLAST_FILES, BALLAST_BYTES = 180, 2**20
"""Files that do not shrink, as data and wheels that are compressed already."""


def push_versions(cluster: Cluster, name: str) -> tuple[int, int]:
    """Push ``name:1``, and ``name:2`` with one package more; bytes in the registry of the first and of what was added.

    The files are those of the cluster's own root file system.
    """
    rootfs = cluster.rootfs
    base = layer_tar((rootfs / "usr/bin/busybox").read_bytes(), ["sh", "ls", "cat", "hostname", "sha256sum", "sleep"])
    libraries, data = _tree(rootfs / "usr/lib", "opt/lib"), _ballast(name)
    package = _tree(rootfs / "usr/share/mariadb", "opt/package")
    with TemporaryDirectory(dir="/var/tmp") as folder:
        sizes = []
        for version, layers in (("1", [base, libraries, data]), ("2", [base, libraries, data, package])):
            layout = Path(folder) / version
            write_layout(layout, layers, CONFIG, level=1)
            cluster.push_image(layout, f"{name}:{version}")
            sizes.append(sum(blob.stat().st_size for blob in (layout / "blobs/sha256").iterdir()))
    return sizes[0], sizes[1] - sizes[0]


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


def _ballast(seed: str) -> bytes:
    buffer, draw = io.BytesIO(), random.Random(seed)
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(BALLAST_FILES):
            entry = tarfile.TarInfo(f"opt/data/{number}")
            entry.size = BALLAST_BYTES
            tar.addfile(entry, io.BytesIO(draw.randbytes(BALLAST_BYTES)))
    return buffer.getvalue()
