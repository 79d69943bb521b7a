"""OCI images made in a test, entry by entry."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return _entry(name, tarfile.DIRTYPE, mode), b""


def file(name: str, data: bytes = b"", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    return _entry(name, tarfile.REGTYPE, mode, size=len(data)), data


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return _entry(name, tarfile.SYMTYPE, 0o777, linkname=target), b""


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return _entry(name, tarfile.LNKTYPE, 0o644, linkname=target), b""


def device(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return _entry(name, tarfile.CHRTYPE, 0o666), b""


def _entry(name: str, kind: bytes, mode: int, size: int = 0, linkname: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, size, linkname
    return entry


def oci_image(place: Path, *layers: Sequence[tuple[tarfile.TarInfo, bytes]], **config: object) -> Path:
    """An OCI layout at ``place`` with these layers, lowest first. ``config``: Entrypoint, Cmd, Env, WorkingDir."""
    (place / "blobs" / "sha256").mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (place / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    tars = [_tar(layer) for layer in layers]
    diffs = [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]
    about = {"architecture": "amd64", "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": diffs}}
    manifest = {
        "schemaVersion": 2,
        "config": blob(json.dumps(about).encode(), "config.v1+json"),
        "layers": [blob(gzip.compress(tar, 1, mtime=0), "layer.v1.tar+gzip") for tar in tars],
    }
    index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json")]}
    (place / "index.json").write_text(json.dumps(index))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return place


def _tar(layer: Sequence[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry, data in layer:
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
