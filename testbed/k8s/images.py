"""Images for real nodes, all made here: no registry beyond this machine is asked."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import httpx

from testbed.oci import DEMO_REFERENCE, layer_tar, write_demo_image, write_layout

__all__ = ["DEMO_REFERENCE", "demo", "import_archive", "layer_of", "pause", "push"]


def demo(folder: Path, busybox: Path) -> Path:
    """Write the testbed's demo image as an OCI layout into ``folder``, which may hold an older one."""
    shutil.rmtree(folder, ignore_errors=True)
    write_demo_image(folder, busybox)
    return folder


def pause(folder: Path, busybox: Path) -> Path:
    """Write an image whose one process only waits, as an OCI layout."""
    shutil.rmtree(folder, ignore_errors=True)
    write_layout(folder, [layer_tar(busybox.read_bytes(), ["sh", "sleep"])], {"Entrypoint": ["/bin/sleep", "inf"]})
    return folder


def layer_of(tree: Path) -> bytes:
    """A layer for ``testbed.oci.write_layout`` that holds a folder's content, owned by root, without times.

    With ``dpkg-deb --extract`` such a tree can be made of Debian packages.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(tree.rglob("*")):
            tar.add(path, str(path.relative_to(tree)), recursive=False, filter=_anonymous)
    return buffer.getvalue()


def push(address: str, layout: Path, reference: str) -> str:
    """Push an OCI layout's one image to a registry without TLS as NAME:TAG; its digest."""
    name, _, tag = reference.rpartition(":")
    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = _blob(layout, entry["digest"]).read_bytes()
    content = json.loads(manifest)
    with httpx.Client(base_url=f"http://{address}/v2/{name}/", timeout=600) as http:
        for blob in (content["config"], *content["layers"]):
            digest = blob["digest"]
            if http.head(f"blobs/{digest}").is_success:
                continue
            place = httpx.URL(http.post("blobs/uploads/").raise_for_status().headers["location"])
            data = _blob(layout, digest).read_bytes()
            http.put(place.copy_merge_params({"digest": digest}), content=data).raise_for_status()
        kind = {"Content-Type": entry["mediaType"]}
        http.put(f"manifests/{tag}", content=manifest, headers=kind).raise_for_status()
    return str(entry["digest"])


def import_archive(layout: Path, name: str, archive: Path) -> None:
    """Write an OCI layout as the tar that ``ctr images import`` takes, with the image's whole name in it."""
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["annotations"] = {"io.containerd.image.name": name}
    text = json.dumps(index).encode()
    with tarfile.open(archive, "w") as tar:
        entry = tarfile.TarInfo("index.json")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
        for part in ("oci-layout", "blobs"):
            tar.add(layout / part, part)


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry
