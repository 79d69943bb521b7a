"""Images in files: the same answers as from a registry, and nothing but the image is ever read."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from images.errors import BlobCorrupt, ImageUnknown, ImageUnusable, TagMoved
from images.layouts import Layouts
from images.manifests import Descriptor
from images.platforms import Platform
from images.reference import parse_reference
from images.sources import MemorySink
from scheduler.model.errors import BerthError, FileRefused
from tests.fakes.images import file, oci_image

AMD64 = Platform("linux", "amd64")


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def packed(target: Path, members: dict[str, bytes | str]) -> Path:
    """A tar at ``target``; a text is a symbolic link to that name."""
    with tarfile.open(target, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return target


def folder_contents(folder: Path) -> dict[str, bytes | str]:
    return {f"./{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def saved(target: Path, *layers: bytes | str, tags: tuple[str, ...] = ("app:1",), **changes) -> Path:
    """What ``docker save`` writes: a manifest.json without digests, a config, and layers as plain tars."""
    names = [f"{place}/layer.tar" for place in range(len(layers))]
    contents = [layers[0] if isinstance(layer, str) else layer for layer in layers]
    plain = [gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer for layer in contents]
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest_of(layer) for layer in plain]}}
    manifest = [{"Config": "config.json", "RepoTags": list(tags), "Layers": names, **changes}]
    about = {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(config).encode()}
    return packed(target, about | dict(zip(names, layers, strict=True)))


async def read(root: Path, name: str):
    """The image and the content of its layers."""
    source = Layouts([root])
    found = await source.resolve(parse_reference(name), AMD64)
    contents = []
    for layer in found.manifest.layers:
        sink = MemorySink()
        await source.fetch(found.reference, layer, sink)
        contents.append(sink.blob)
    return found, contents


async def test_a_layout_and_its_archive_are_the_same_image(tmp_path):
    layout = oci_image(tmp_path / "app", [file("a", b"1")], [file("b", b"2")], Env=["A=1"], Cmd=["sh"])
    packed(tmp_path / "app.tar", folder_contents(layout))
    for name in ("oci:app", f"oci:{layout}", "oci-archive:app.tar"):
        found, layers = await read(tmp_path, name)
        assert (found.config.command, found.config.env) == (("sh",), {"A": "1"})
        assert [digest_of(layer) for layer in layers] == [layer.digest for layer in found.manifest.layers]
        assert found.manifest_digest == json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]


async def test_what_docker_saved_is_given_digests_that_stay(tmp_path):
    plain, compressed = b"plain" * 300, gzip.compress(b"packed" * 300)
    saved(tmp_path / "app.tar", plain, compressed)
    found, layers = await read(tmp_path, "docker-archive:app.tar")
    assert layers == [plain, compressed]
    assert [layer.media_type.rpartition(".")[2] for layer in found.manifest.layers] == ["tar", "tar+gzip"]
    again, _ = await read(tmp_path, "docker-archive:app.tar:app:1")
    assert again.manifest_digest == found.manifest_digest


async def test_a_layer_that_docker_stored_as_a_link_is_found(tmp_path):
    saved(tmp_path / "app.tar", b"same" * 300, "../0/layer.tar")
    _, layers = await read(tmp_path, "docker-archive:app.tar")
    assert layers == [b"same" * 300] * 2


async def test_the_tag_chooses_and_an_open_choice_is_handed_back(tmp_path):
    one, two = oci_image(tmp_path / "one", [file("a")]), oci_image(tmp_path / "two", [file("b")])
    entries = [json.loads((layout / "index.json").read_text())["manifests"][0] for layout in (one, two)]
    for blob in (two / "blobs/sha256").iterdir():
        (one / "blobs/sha256" / blob.name).write_bytes(blob.read_bytes())
    name = "org.opencontainers.image.ref.name"
    entries = [{**entry, "annotations": {name: tag}} for entry, tag in zip(entries, ("1", "2"), strict=True)]
    (one / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    assert (await read(tmp_path, "oci:one:2"))[0].manifest_digest == entries[1]["digest"]
    for wrong in ("oci:one", "oci:one:3"):
        with pytest.raises(ImageUnknown, match="it has 1, 2; "):
            await read(tmp_path, wrong)


async def test_an_index_inside_the_index_is_followed(tmp_path):
    layout = oci_image(tmp_path / "app", [file("a")])
    raw = (layout / "index.json").read_bytes()
    (layout / "blobs/sha256" / digest_of(raw)[7:]).write_bytes(raw)
    outer = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest_of(raw), "size": len(raw)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [outer]}))
    assert (await read(tmp_path, "oci:app"))[0].index_digest == digest_of(raw)


async def test_a_flipped_byte_is_noticed_wherever_it_is(tmp_path):
    for place in range(3):
        layout = oci_image(tmp_path / str(place), [file("a", b"1")])
        blob = sorted((layout / "blobs/sha256").iterdir())[place]
        blob.write_bytes(blob.read_bytes()[:-1] + b"\x07")
        with pytest.raises(BlobCorrupt):
            await read(tmp_path, f"oci:{place}")
    saved(tmp_path / "app.tar", b"plain" * 300)
    raw = (tmp_path / "app.tar").read_bytes()
    (tmp_path / "app.tar").write_bytes(raw.replace(b"plainplain", b"plainPlain", 1))
    with pytest.raises(BlobCorrupt):
        await read(tmp_path, "docker-archive:app.tar")


async def test_a_file_that_changed_since_it_was_resolved_is_told(tmp_path):
    source = Layouts([tmp_path])
    saved(tmp_path / "app.tar", b"old" * 300)
    found = await source.resolve(parse_reference("docker-archive:app.tar"), AMD64)
    saved(tmp_path / "app.tar", b"new" * 300)
    with pytest.raises(TagMoved, match="the file has changed"):
        await source.fetch(found.reference, found.manifest.layers[0], MemorySink())


@pytest.mark.parametrize("name", ["oci:/etc", "oci-archive:/etc/passwd", "docker-archive:link.tar", "oci:link"])
async def test_nothing_outside_the_allowed_folders_is_opened(tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.tar").symlink_to(saved(tmp_path / "outside.tar", b"x"))
    (inside / "link").symlink_to(oci_image(tmp_path / "outside", [file("a")]))
    with pytest.raises(FileRefused, match="does not lie in a folder"):
        await read(inside, name)


async def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "app.tar")
    layout = oci_image(tmp_path / "app", [file("a")])
    (layout / "index.json").unlink()
    os.mkfifo(layout / "index.json")
    for name in ("oci-archive:app.tar", "oci:app"):
        with pytest.raises(FileRefused, match="is not a file"):
            await read(tmp_path, name)


def long_header(target: Path) -> None:
    """A name of eight megabytes, which a careless reader holds in memory."""
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 8 * 2**20
    target.write_bytes(entry.tobuf() + b"a" * entry.size + bytes(1024))


def sparse(target: Path) -> None:
    """A member of gigabytes that takes no room."""
    entry = tarfile.TarInfo("manifest.json")
    entry.type = tarfile.GNUTYPE_SPARSE
    target.write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


HOSTILE = {
    "nothing": lambda target: target.write_bytes(b""),
    "not a tar": lambda target: target.write_bytes(b"x" * 2048),
    "compressed as a whole": lambda target: target.write_bytes(gzip.compress(b"x")),
    "a long header": long_header,
    "a sparse member": sparse,
    "links in a circle": lambda target: packed(target, {"manifest.json": "b", "b": "manifest.json"}),
    "a link to the host": lambda target: packed(target, {"manifest.json": "/etc/passwd"}),
    "no list": lambda target: packed(target, {"manifest.json": b"{}"}),
    "list of texts": lambda target: packed(target, {"manifest.json": b'["a"]'}),
    "no config": lambda target: packed(target, {"manifest.json": b"[{}]"}),
    "config elsewhere": lambda target: saved(target, b"x", Config="../../../../etc/passwd"),
    "layers that are missing": lambda target: saved(target, b"x", Layers=["none"]),
    "layers that are too few": lambda target: saved(target, b"x", Layers=[]),
    "half a character": lambda target: packed(
        target, {"manifest.json": rb'[{"RepoTags": ["\ud800"]}, {"RepoTags": ["b"]}]'}
    ),
    "layers that are no list": lambda target: saved(target, b"x", Layers="abc"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_archive_is_refused_in_words(tmp_path, name):
    HOSTILE[name](tmp_path / "app.tar")
    with pytest.raises((ImageUnusable, ImageUnknown)) as refused:
        await read(tmp_path, "docker-archive:app.tar")
    assert isinstance(refused.value, BerthError)
    assert "docker-archive:app.tar" in str(refused.value).encode().decode()


async def test_a_blob_name_cannot_lead_out_of_a_layout(tmp_path):
    source = Layouts([tmp_path])
    layout = oci_image(tmp_path / "app", [file("a")])
    secret = tmp_path / "secret"
    secret.write_bytes(b"hunter2")
    (layout / "blobs/sha256" / digest_of(b"hunter2")[7:]).symlink_to(secret)
    with pytest.raises(FileRefused):
        blob = Descriptor("", digest_of(b"hunter2"), 7)
        await source.fetch(parse_reference("oci:app"), blob, MemorySink())
