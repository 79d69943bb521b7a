"""Layers are laid into a tree as they say, and never outside it."""

import contextlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from backends.local.images import unpacked
from scheduler.model.errors import SpecInvalid
from tests.fakes.images import device, directory, file, hardlink, oci_image, symlink


@pytest.fixture
def outside(tmp_path) -> Path:
    """A file that no image may touch."""
    victim = tmp_path / "outside" / "victim"
    victim.parent.mkdir()
    victim.write_text("untouched")
    return victim


def unpack(tmp_path: Path, *layers, **config) -> Path:
    return Path(unpacked(f"oci:{oci_image(tmp_path / 'image', *layers, **config)}", tmp_path / "cache").root)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_layers_are_laid_over_each_other_with_links_and_modes(tmp_path):
    lower = [
        directory("bin"),
        file("bin/tool", b"one", 0o755),
        symlink("sbin", "bin"),
        hardlink("bin/same", "bin/tool"),
    ]
    upper = [file("sbin/tool2", b"two", 0o4755), directory("bin", 0o700)]
    tree = unpack(tmp_path, lower, upper, Entrypoint=["/bin/tool"], Env=["A=1=2"], WorkingDir="/srv")
    assert (tree / "bin" / "tool").read_text() == (tree / "bin" / "same").read_text() == "one"
    assert (tree / "bin" / "tool2").read_text() == "two"
    assert (tree / "bin" / "tool2").stat().st_mode & 0o7777 == 0o755
    image = unpacked(f"oci:{tmp_path / 'image'}", tmp_path / "cache")
    assert (image.entrypoint, image.env) == (("/bin/tool",), {"A": "1=2"})
    assert image.top == {"bin": None, "sbin": "bin"}


def test_whiteouts_delete_what_lower_layers_brought(tmp_path):
    lower = [file("d/a", b"x"), file("d/b", b"x"), file("e/c", b"x")]
    upper = [file("d/.wh.a"), file("e/.wh..wh..opq"), file("e/new", b"y")]
    tree = unpack(tmp_path, lower, upper)
    assert names(tree / "d") == ["b"]
    assert names(tree / "e") == ["new"]


def test_a_directory_replaces_a_file_and_a_file_a_directory(tmp_path):
    tree = unpack(tmp_path, [file("a", b"x"), file("b/c", b"x")], [directory("a"), file("b")])
    assert (tree / "a").is_dir()
    assert (tree / "b").is_file()


ESCAPES = {
    "dots": [file("../../outside/victim", b"owned")],
    "absolute": [file("/{outside}", b"owned")],
    "through a link": [symlink("way", "{dir}"), file("way/victim", b"owned")],
    "through a relative link": [symlink("way", "../../../../../../../../{dir}"), file("way/victim", b"owned")],
    "over a link": [symlink("victim", "{outside}"), file("victim", b"owned")],
    "whiteout through a link": [symlink("way", "{dir}"), file("way/.wh.victim")],
    "opaque through a link": [symlink("way", "{dir}"), file("way/.wh..wh..opq")],
    "whiteout of dots": [file("a/.wh..."), file("a/.wh..")],
    "directory mode through a link": [symlink("way", "{dir}"), directory("way", 0o777)],
    "hard link": [hardlink("mine", "{outside}"), file("mine", b"owned")],
    "hard link through a link": [symlink("way", "{dir}"), hardlink("mine", "way/victim"), file("mine", b"owned")],
}


@pytest.mark.parametrize("name", ESCAPES)
def test_no_layer_reaches_out_of_its_tree(tmp_path, outside, name):
    before = outside.stat(), outside.parent.stat().st_mode
    for entry, _ in ESCAPES[name]:
        entry.name = entry.name.format(outside=outside, dir=outside.parent)
        entry.linkname = entry.linkname.format(outside=outside, dir=outside.parent)
    with contextlib.suppress(SpecInvalid):  # refused, or laid somewhere inside: both are fine
        unpack(tmp_path, ESCAPES[name])
    assert outside.read_text() == "untouched"
    assert (outside.stat().st_nlink, outside.parent.stat().st_mode) == (before[0].st_nlink, before[1])


def test_a_loop_of_links_is_refused(tmp_path):
    with pytest.raises(SpecInvalid, match="too many links"):
        unpack(tmp_path, [symlink("a", "b"), symlink("b", "a"), file("a/x")])


def test_devices_are_left_out(tmp_path):
    assert not (unpack(tmp_path, [device("dev/null"), file("x")]) / "dev" / "null").exists()


def test_an_altered_layer_is_refused_and_leaves_nothing(tmp_path):
    image = oci_image(tmp_path / "image", [file("x", b"good")])
    manifest = json.loads((image / "index.json").read_text())["manifests"][0]["digest"].split(":")[1]
    layer = json.loads((image / "blobs/sha256" / manifest).read_text())["layers"][0]["digest"].split(":")[1]
    (image / "blobs/sha256" / layer).write_bytes(b"evil")
    with pytest.raises(SpecInvalid, match="has another digest"):
        unpacked(f"oci:{image}", tmp_path / "cache")
    assert names(tmp_path / "cache") == []


def test_a_digest_that_is_a_path_is_refused(tmp_path):
    image = oci_image(tmp_path / "image", [file("x")])
    index = json.loads((image / "index.json").read_text())
    index["manifests"][0]["digest"] = "sha256:../../../etc/passwd"
    (image / "index.json").write_text(json.dumps(index))
    with pytest.raises(SpecInvalid, match="not a sha256 digest"):
        unpacked(f"oci:{image}", tmp_path / "cache")


@pytest.mark.parametrize("reference", ["oci:/nowhere", "oci-archive:/nowhere", "docker-archive:/etc/passwd", "oci:"])
def test_what_is_no_image_is_refused_by_its_name(tmp_path, reference):
    with pytest.raises(SpecInvalid, match="cannot be unpacked"):
        unpacked(reference, tmp_path / "cache")


def test_a_docker_archive_is_unpacked_too(tmp_path):
    layer, archive = tmp_path / "layer.tar", tmp_path / "saved.tar"
    (tmp_path / "hello").write_text("hi")
    with tarfile.open(layer, "w") as tar:
        tar.add(tmp_path / "hello", "etc/hello")
    (tmp_path / "config").write_text(json.dumps({"config": {"Cmd": ["sh"]}}))
    (tmp_path / "manifest").write_text(json.dumps([{"Config": "c.json", "Layers": ["l/layer.tar"]}]))
    with tarfile.open(archive, "w") as tar:
        for source, name in (("config", "c.json"), ("manifest", "manifest.json"), ("layer.tar", "l/layer.tar")):
            tar.add(tmp_path / source, name)
    image = unpacked(f"docker-archive:{archive}", tmp_path / "cache")
    assert Path(image.root, "etc/hello").read_text() == "hi"
    assert image.command == ("sh",)


def test_an_oci_archive_is_the_layout_in_one_file(tmp_path):
    image = oci_image(tmp_path / "image", [file("x", b"y")])
    subprocess.run(["tar", "-C", image, "-cf", tmp_path / "image.tar", "index.json", "blobs", "oci-layout"], check=True)
    found = unpacked(f"oci-archive:{tmp_path / 'image.tar'}", tmp_path / "cache")
    assert found.root == unpacked(f"oci:{image}", tmp_path / "cache").root
