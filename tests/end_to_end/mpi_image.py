"""Images of MPI programs, made of Debian's files: a program, what it loads, and the record of their packages."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from testbed.oci import write_layout

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
LOADER = "/lib64/ld-linux-x86-64.so.2"
APPLETS = ("sh", "cat", "echo", "grep", "hostname", "sed")


def write_mpi_image(
    folder: Path, root: Path, program: str, *, plugins: Sequence[str] = (), labels: dict[str, str] | None = None
) -> str:
    """Write the OCI layout of an image that starts ``program`` of a root file system; its manifest's digest.

    plugins: folders with what its libraries load by themselves.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for link in ("bin", "lib", "lib64", "sbin"):
            tar.addfile(_link(link, f"usr/{link}"))
        paths = [f"/usr/bin/{program}", "/usr/bin/busybox", "/var/lib/dpkg/status", LOADER]
        extra = [str(each.relative_to(root)) for start in plugins for each in sorted((root / start[1:]).rglob("*"))]
        for path in sorted({*_with_links(root, [*paths, *_loaded(root, program), *extra])}):
            tar.add(root / path, path, recursive=False, filter=_bare)
        for applet in APPLETS:
            tar.addfile(_link(f"usr/bin/{applet}", "busybox"))
        for name in ("dev", "etc", "home", "proc", "root", "sys", "tmp"):
            tar.addfile(_folder(name))
    config: dict[str, Any] = {"Env": ["PATH=/usr/bin"], "Cmd": [program], "Labels": labels or {}}
    return write_layout(folder, [buffer.getvalue()], config)


def _loaded(root: Path, program: str) -> list[str]:
    """What the loader finds for it."""
    said = subprocess.run(
        ["chroot", root, "ldd", f"/usr/bin/{program}"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    return re.findall(r"=> (/\S+)", said)


def _with_links(root: Path, paths: Iterable[str]) -> Iterator[str]:
    """Each path by the folder in which it really lies, and what it leads to when it is a link."""
    for path in paths:
        inside = root / path.lstrip("/")
        while True:
            folder = Path(os.path.realpath(inside.parent))
            yield str((folder / inside.name).relative_to(root))
            if not inside.is_symlink():
                break
            inside = folder / inside.readlink()


def _bare(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def _link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
    return entry


def _folder(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
    return entry
