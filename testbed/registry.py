"""Debian's registry by itself, out of the testbed's root file system, and a push of layers to it."""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from testbed.host import TestbedError
from testbed.rootfs import ensure_rootfs

_CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
_OCI = "application/vnd.oci.image"


@contextmanager
def debian_registry(folder: Path) -> Iterator[str]:
    """A registry that stores below ``folder`` and is gone at the end; its address, without TLS."""
    root = ensure_rootfs("bookworm")
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    (folder / "config.yml").write_text(_CONFIG.format(folder=folder / "storage", port=port))
    libraries = root / "lib" / f"{platform.machine()}-linux-gnu"
    loader = next((root / "lib64").glob("ld-linux-*")) if (root / "lib64").exists() else None
    command = [loader, "--library-path", libraries] if loader else []
    command += [root / "usr/bin/docker-registry", "serve", folder / "config.yml"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TestbedError("the registry did not start in 30 s")


def push_layers(host: str, name: str, tag: str, layers: Sequence[Path], **run: object) -> None:
    """Push an image of these layers, each a ``.tar.gz``. run: what the config says of running it, as ``Cmd``."""
    with httpx.Client(base_url=f"http://{host}/v2/{name}/", timeout=600) as http:

        def push(content: bytes, kind: str) -> dict[str, object]:
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            upload = http.post("blobs/uploads/").raise_for_status().headers["location"]
            http.put(httpx.URL(upload).copy_merge_params({"digest": digest}), content=content).raise_for_status()
            return {"mediaType": f"{_OCI}.{kind}", "digest": digest, "size": len(content)}

        diff_ids = [_digest_of_tar(layer) for layer in layers]
        about = {"architecture": _architecture(), "os": "linux", "config": run}
        config = json.dumps({**about, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": push(config, "config.v1+json"),
            "layers": [push(layer.read_bytes(), "layer.v1.tar+gzip") for layer in layers],
        }
        headers = {"Content-Type": manifest["mediaType"]}
        http.put(f"manifests/{tag}", content=json.dumps(manifest), headers=headers).raise_for_status()


def _digest_of_tar(layer: Path) -> str:
    with gzip.open(layer) as tar:
        return "sha256:" + hashlib.file_digest(tar, "sha256").hexdigest()  # type: ignore[arg-type]


def _architecture() -> str:
    """In Go's words, which images use."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
