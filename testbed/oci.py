"""The demo image: an OCI layout of a few files around a static busybox; the same busybox gives the same bytes."""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DEMO_REFERENCE = "demo/busybox:1"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

# Passes on to any command, so that both of an image's ways to say what to run (entrypoint and command) are exercised.
_ENTRYPOINT = """#!/bin/sh
export DEMO_ENTRYPOINT=passed
exec "$@"
"""
_HELLO = """#!/bin/sh
echo "hello from $(hostname), image made by the Berth testbed"
"""
_CONFIG = {
    "Env": ["PATH=/bin", "DEMO_IMAGE=busybox"],
    "Entrypoint": ["/bin/entrypoint"],
    "Cmd": ["hello"],
    "WorkingDir": "/",
    "Labels": {"org.opencontainers.image.title": "demo/busybox"},
}
_EPOCH = "1970-01-01T00:00:00Z"


def write_demo_image(folder: Path, busybox: Path) -> str:
    """Write the image's OCI layout into ``folder`` (created) and return the digest of its manifest."""
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True, timeout=10).stdout.split()
    return write_layout(folder, [layer_tar(busybox.read_bytes(), applets)], _CONFIG)


def layer_tar(busybox: bytes, applets: list[str]) -> bytes:
    """The image's one layer: folders, busybox, one symbolic link for each applet, and two scripts."""
    files = {"bin/busybox": busybox, "bin/entrypoint": _ENTRYPOINT.encode(), "bin/hello": _HELLO.encode()}
    text = {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "var", "var/tmp"):
            tar.addfile(_entry(name, tarfile.DIRTYPE, mode=0o1777 if name.endswith("tmp") else 0o755))
        for name, content in files.items():
            tar.addfile(_entry(name, size=len(content), mode=0o755), io.BytesIO(content))
        for name, line in text.items():
            tar.addfile(_entry(name, size=len(line), mode=0o644), io.BytesIO(line.encode()))
        for applet in sorted(set(applets) - {"busybox"}):
            tar.addfile(_entry(f"bin/{applet}", tarfile.SYMTYPE, linkname="busybox"))
        tar.addfile(_entry("usr/bin", tarfile.SYMTYPE, linkname="../bin"))
    return buffer.getvalue()


def write_layout(folder: Path, layers: Sequence[bytes], config: dict[str, Any], level: int = 9) -> str:
    """Write an image of these tars as an OCI layout and return its manifest's digest. level: of gzip."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    described = {
        "created": _EPOCH,
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
        "history": [{"created": _EPOCH, "created_by": "berth testbed"}],
    }
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(_json(described), "application/vnd.oci.image.config.v1+json"),
        # mtime=0: gzip would otherwise write the time of day into its header.
        "layers": [blob(gzip.compress(layer, level, mtime=0), LAYER_TYPE) for layer in layers],
    }
    entry = blob(_json(manifest), manifest["mediaType"])
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    (folder / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [entry]}))
    return str(entry["digest"])


def _entry(
    name: str, kind: bytes = tarfile.REGTYPE, *, mode: int = 0o777, size: int = 0, linkname: str = ""
) -> tarfile.TarInfo:
    """A tar entry that carries no trace of when, where or by whom it was made."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, size, linkname
    return entry


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
