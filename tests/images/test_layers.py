"""Layers give the tree that a container would see, whatever is in them, and touch nothing outside of it."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
import tracemalloc
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from images.errors import BlobCorrupt, ImageUnusable
from images.layers import PackedLayer, unpack
from images.streams import Limits
from tests.images.tarballs import DEVICE, FIFO, LINK, SYMLINK, digest, entry, folder, layer, tar


@dataclass
class Witness:
    """What an observer was told and has not been told to forget, by path."""

    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def file(self, path, fd, size_bytes):
        assert path not in self.files | self.links
        self.files[path] = os.pread(fd, size_bytes + 1, 0)
        assert len(self.files[path]) == size_bytes

    def link(self, path, other):
        self.files[path] = self.files[other]

    def symlink(self, path, target):
        self.links[path] = target

    def removed(self, path):
        assert (self.files if path in self.files else self.links).pop(path) is not None


@pytest.fixture
def tree(tmp_path):
    """Unpacks layers, each a list of entries or an archive, below a folder that nothing may leave."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched")
    root = outside / "root"
    root.mkdir()

    def made(*layers, limits=None):
        witness = Witness()
        packed = [each if isinstance(each, PackedLayer) else layer(tar(*each)) for each in layers]
        result = unpack(packed, root, witness, limits)
        assert seen(root) == witness.files | {path: ("->", to) for path, to in witness.links.items()}
        return root, result

    yield made
    assert (outside / "file").read_text() == "untouched"
    assert sorted(each.name for each in outside.iterdir()) == ["file", "root"]


def seen(root):
    """Files with their content and links with their targets, by path."""
    return {
        str(path.relative_to(root)): ("->", str(path.readlink())) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


# -- what layers do to each other --------------------------------------------------------------------------------------

BASE = [folder("d"), entry("d/a", b"1"), entry("d/b", b"2"), entry("e", b"3"), entry("s", kind=SYMLINK, link="d")]


@pytest.mark.parametrize(
    ("upper", "left"),
    [
        ([entry("d/a", b"9")], {"d/a": b"9", "d/b": b"2", "e": b"3", "s": ("->", "d")}),
        ([entry("d/.wh.a")], {"d/b": b"2", "e": b"3", "s": ("->", "d")}),
        ([entry(".wh.d")], {"e": b"3", "s": ("->", "d")}),
        ([entry(".wh.s")], {"d/a": b"1", "d/b": b"2", "e": b"3"}),
        ([entry("d/.wh..wh..opq"), entry("d/c", b"4")], {"d/c": b"4", "e": b"3", "s": ("->", "d")}),
        ([entry("d/c", b"4"), entry("d/.wh..wh..opq")], {"d/c": b"4", "e": b"3", "s": ("->", "d")}),
        ([entry("d/a", b"9"), entry("d/.wh.a")], {"d/a": b"9", "d/b": b"2", "e": b"3", "s": ("->", "d")}),
        ([entry("d", b"9")], {"d": b"9", "e": b"3", "s": ("->", "d")}),
        ([folder("s")], {"d/a": b"1", "d/b": b"2", "e": b"3"}),
        ([folder("e"), entry("e/x", b"9")], {"d/a": b"1", "d/b": b"2", "e/x": b"9", "s": ("->", "d")}),
        ([entry("s/c", b"9")], {"d/a": b"1", "d/b": b"2", "d/c": b"9", "e": b"3", "s": ("->", "d")}),
        ([entry("d/e", kind=LINK, link="e")], {"d/a": b"1", "d/b": b"2", "d/e": b"3", "e": b"3", "s": ("->", "d")}),
        ([entry("t", kind=LINK, link="s"), entry(".wh.d"), entry(".wh.e")], {"s": ("->", "d"), "t": ("->", "d")}),
        ([entry("e", kind=LINK, link="e")], {"d/a": b"1", "d/b": b"2", "e": b"3", "s": ("->", "d")}),
        ([entry(".wh.nothing"), entry("no/.wh.x")], {"d/a": b"1", "d/b": b"2", "e": b"3", "s": ("->", "d")}),
        ([entry(".wh..wh.plnk/12.34", b"x")], {"d/a": b"1", "d/b": b"2", "e": b"3", "s": ("->", "d")}),
    ],
    ids=[
        "replaced", "hidden", "a folder hidden", "a link hidden, not what it leads to", "opaque", "opaque at last",
        "hidden and made again", "a file over a folder", "a folder over a link", "a folder over a file",
        "through a link", "a hard link into a lower layer", "a hard link to a link", "a hard link to itself",
        "nothing to hide", "bookkeeping",
    ],
)  # fmt: skip
def test_an_upper_layer_changes_what_is_below(tree, upper, left):
    root, _ = tree(BASE, upper)
    assert seen(root) == left


def test_a_file_that_has_two_names_keeps_its_content_when_one_is_replaced(tree):
    root, result = tree([entry("a", b"old"), entry("b", kind=LINK, link="a")], [entry("a", b"new")])
    assert seen(root) == {"a": b"new", "b": b"old"}
    assert result.file_bytes == 6


def test_hard_links_are_one_file(tree):
    root, result = tree([entry("a", b"old"), entry("x/b", kind=LINK, link="/a")])
    assert (root / "a").stat().st_ino == (root / "x/b").stat().st_ino
    assert result.file_bytes == 3


def test_modes_let_the_owner_read_and_nobody_become_root(tree):
    root, result = tree([folder("d", 0o500), entry("d/f", mode=0o000), entry("su", mode=0o6755), folder("t", 0o1777)])
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("d", "d/f", "su", "t")}
    assert modes == {"d": 0o700, "d/f": 0o400, "su": 0o755, "t": 0o1777}
    assert result.setuid_count == 1


def test_devices_and_fifos_are_left_out_and_counted(tree):
    root, result = tree([entry("dev/null", kind=DEVICE, devmajor=1, devminor=3), entry("pipe", kind=FIFO), entry("f")])
    assert (seen(root), result.skipped_count) == ({"f": b""}, 2)


def test_times_are_those_of_the_layers(tree):
    root, _ = tree([folder("d", mtime=11), entry("d/f", mtime=12.75), entry("d/s", kind=SYMLINK, link="f", mtime=13)])
    assert [(root / name).lstat().st_mtime for name in ("d", "d/f", "d/s")] == [11, 12, 13]


def test_times_that_no_file_system_states_are_cut(tree):
    root, _ = tree([entry("late", mtime=1 << 50), entry("early", mtime=-5)])
    assert [(root / name).lstat().st_mtime for name in ("late", "early")] == [2**32 - 1, 0]


NAME = st.sampled_from(["a", "b", "c"])
PATH = st.lists(NAME, min_size=1, max_size=3).map("/".join)
STEP = st.one_of(
    st.tuples(st.just("file"), PATH, st.binary(max_size=3)),
    st.tuples(st.just("folder"), PATH, st.just(b"")),
    st.tuples(st.just("hide"), PATH, st.just(b"")),
    st.tuples(st.just("opaque"), PATH, st.just(b"")),
)


@example([[("file", "a/b", b"")], [("file", "a/c", b""), ("hide", "a", b"")]])
@given(st.lists(st.lists(STEP, max_size=6, unique_by=lambda step: step[1]), max_size=4))
def test_random_layers_give_what_a_simple_model_gives(tmp_path_factory, steps):
    root = tmp_path_factory.mktemp("root")
    layers, expected = [], {}
    for each in steps:
        entries, expected = modelled(expected, each)
        layers.append(layer(tar(*entries)))
    witness = Witness()
    unpack(layers, root, witness)
    assert seen(root) == witness.files == {path: text for path, text in expected.items() if text is not None}
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir()} == {
        path for path, text in expected.items() if text is None
    }


def modelled(below, steps):
    """Entries of one layer, and the paths after it: content of files, None for folders.

    First all that is hidden goes, then what is new comes; steps that no archiver would write are left out.
    """
    whole = dict(below)
    entries, new = [], {}
    for what, path, text in steps:
        above = {path.rsplit("/", n)[0] for n in range(1, path.count("/") + 1)}
        if what in ("file", "folder") and not any(isinstance(new.get(each), bytes) for each in above | {path}):
            if what == "file" and any(each.startswith(path + "/") for each in new):
                continue
            new |= dict.fromkeys(sorted(above)) | {path: text if what == "file" else None}
    for what, path, _ in steps:
        if what == "hide":
            *parents, name = path.split("/")
            entries.append(entry("/".join([*parents, ".wh." + name])))
            whole = {each: text for each, text in whole.items() if each != path and not each.startswith(path + "/")}
        elif what == "opaque":
            entries.append(entry(path + "/.wh..wh..opq"))
            whole = {each: text for each, text in whole.items() if not each.startswith(path + "/")}
    for path, text in new.items():
        entries.append(folder(path) if text is None else entry(path, text))
        if text is not None:
            whole = {each: held for each, held in whole.items() if not each.startswith(path + "/")}
        whole[path] = text
    return entries, whole


# -- what layers are packed in -----------------------------------------------------------------------------------------

PLAIN = tar(entry("a", b"content" * 1000))
ZSTD = zstandard.ZstdCompressor()


@pytest.mark.parametrize(
    "packed",
    [
        PLAIN,
        gzip.compress(PLAIN),
        gzip.compress(PLAIN[:700]) + gzip.compress(PLAIN[700:]),
        ZSTD.compress(PLAIN),
        ZSTD.compress(PLAIN[:700]) + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + ZSTD.compress(PLAIN[700:]),
        b"\x50\x2a\x4d\x18\x03\0\0\0abc" + ZSTD.compress(PLAIN),
    ],
    ids=["plain", "gzip", "two members", "zstd", "frames and one to skip", "one to skip first"],
)
def test_layers_of_every_format_are_read(tree, packed):
    root, _ = tree(layer(PLAIN, packed))
    assert (root / "a").read_bytes() == b"content" * 1000


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read(tree, format):
    parts = 100 if format == tarfile.USTAR_FORMAT else 300
    name = "x" * (parts // 2) + "/" + "y" * (parts // 2 - 1 if parts == 100 else 120)
    root, _ = tree(layer(tar(entry(name, b"1"), entry("s", kind=SYMLINK, link="t" * 99), format=format)))
    assert seen(root) == {name: b"1", "s": ("->", "t" * 99)}


def test_names_that_are_no_utf8_are_kept(tree):
    content = tar(entry("n\udce9", b"1"), format=tarfile.GNU_FORMAT)
    root, _ = tree(layer(content))
    assert [os.fsencode(path.name) for path in root.iterdir()] == [b"n\xe9"]


SPARSE = ["--format=gnu", *(f"--format=pax --sparse-version={version}" for version in ("0.0", "0.1", "1.0"))]


@pytest.mark.parametrize("options", SPARSE)
def test_sparse_files_are_read_as_gnu_tar_writes_them(tree, tmp_path, options):
    """Its own reader and writer is the standard of these formats."""
    with (tmp_path / "holes").open("wb") as file:
        for offset in range(0, 40 << 20, 1 << 20):
            file.seek(offset)
            file.write(b"%d" % offset)
        file.truncate(41 << 20)
    argv = ["tar", "--create", "--sparse", *options.split(), "--directory", tmp_path, "holes"]
    packed = subprocess.run(argv, check=True, capture_output=True).stdout
    assert len(packed) < 1 << 20
    root, result = tree(layer(packed))
    assert (root / "holes").read_bytes() == (tmp_path / "holes").read_bytes()
    assert result.file_bytes == 41 << 20


# -- hostile layers ----------------------------------------------------------------------------------------------------

REFUSED = {
    "a name that leads out": [entry("../file", b"x")],
    "a name that leads out at last": [entry("a/../../file", b"x")],
    "a hidden name that leads out": [entry(".wh...")],
    "an empty hidden name": [entry(".wh.")],
    "a hard link that leads out": [entry("l", kind=LINK, link="../file")],
    "a hard link to an absolute name outside": [entry("l", kind=LINK, link="/../file")],
    "a hard link to nothing": [entry("l", kind=LINK, link="nothing")],
    "a hard link to a folder": [folder("d"), entry("l", kind=LINK, link="d")],
    "a hard link through a link that leads out": [
        entry("s", kind=SYMLINK, link="../.."),
        entry("l", kind=LINK, link="s/outside/file"),
    ],
    "links in circles": [entry("a", kind=SYMLINK, link="b"), entry("b", kind=SYMLINK, link="a"), entry("a/f")],
    "something put into a file": [entry("f"), entry("f/g")],
    "a name that is too long": [entry("n" * 300)],
    "a path that is too long": [entry("/".join(["n" * 250] * 20))],
    "deep folders": [entry("/".join(["n"] * 300))],
    "deep folders through links": [
        folder("/".join(["n"] * 200)),
        entry("s", kind=SYMLINK, link="/".join(["n"] * 200)),
        entry("s/" + "/".join(["m"] * 100)),
    ],
    "a link without a target": [entry("s", kind=SYMLINK, link="")],
}  # fmt: skip


@pytest.mark.parametrize("entries", REFUSED.values(), ids=REFUSED)
def test_a_hostile_layer_is_refused_by_the_name_of_its_entry(tree, entries):
    with pytest.raises(ImageUnusable, match=r"^image: .+; build the image again without it$"):
        tree(entries)


CONTAINED = {
    "an absolute name": [entry("/file", b"x")],
    "a link to the root's parent": [entry("s", kind=SYMLINK, link=".."), entry("s/file", b"x")],
    "an absolute link": [entry("s", kind=SYMLINK, link="/"), entry("s/file", b"x")],
    "many steps up": [entry("s", kind=SYMLINK, link="../../../../.."), entry("s/file", b"x")],
}


@pytest.mark.parametrize("entries", CONTAINED.values(), ids=CONTAINED)
def test_what_a_container_would_find_inside_stays_inside(tree, entries):
    root, _ = tree(entries)
    assert (root / "file").read_bytes() == b"x"


def test_a_file_is_never_written_through_a_link(tree):
    root, _ = tree([entry("s", kind=SYMLINK, link="../file"), entry("s", b"x")], [entry("s", b"y")])
    assert seen(root) == {"s": b"y"}


ZEROS = tar(entry("zeros", bytes(3 << 20)))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(entry_limit=1), "more entries"),
        (Limits(file_bytes=1 << 20), "'zeros' is longer than"),
        (Limits(unpacked_bytes=1 << 20), "more than 1048576 bytes"),
        (Limits(ratio_from_bytes=1 << 20, ratio_limit=100), "more than 100 times its size"),
    ],
    ids=["entries", "one file", "all files", "ratio"],
)
def test_a_bomb_is_refused_while_it_is_read(tree, limits, said):
    packed = gzip.compress(ZEROS + tar(entry("more")))
    with pytest.raises(ImageUnusable, match=said):
        tree([entry("a")], layer(ZEROS, packed), limits=limits)


@pytest.mark.parametrize("pack", [gzip.compress, ZSTD.compress], ids=["gzip", "zstd"])
def test_a_bomb_fills_no_memory(tree, pack):
    packed = pack(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(ImageUnusable, match="times its size"):
        tree(layer(b"", packed), limits=Limits(ratio_from_bytes=48 << 20))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 16 << 20


def test_a_sparse_file_counts_as_long_as_it_reads(tree, tmp_path):
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 40)
    argv = ["tar", "--create", "--sparse", "--directory", tmp_path, "holes"]
    packed = subprocess.run(argv, check=True, capture_output=True).stdout
    with pytest.raises(ImageUnusable, match="'holes' is longer than"):
        tree(layer(packed))


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(PLAIN[:1000], id="cut in a file"),
        pytest.param(PLAIN[:1500], id="cut in what fills a block"),
        pytest.param(gzip.compress(PLAIN, mtime=0)[:-9], id="gzip, cut"),
        pytest.param(gzip.compress(PLAIN, mtime=0) + b"tail", id="gzip, with a tail"),
        pytest.param(ZSTD.compress(PLAIN)[:-9], id="zstd, cut"),
        pytest.param(b"\x28\xb5\x2f\xfd" + b"nonsense" * 8, id="zstd in its first bytes only"),
        pytest.param(b"\x1f\x8b" + b"nonsense" * 8, id="gzip in its first bytes only"),
        pytest.param(b"no archive at all" * 100, id="text"),
        pytest.param(bytes(100) + PLAIN[100:], id="a name of zeros"),
        pytest.param(PLAIN[:124] + b"9" * 12 + PLAIN[136:], id="a size that is no number"),
    ],
)
def test_a_damaged_layer_is_to_be_fetched_again(tree, packed):
    with pytest.raises(BlobCorrupt):
        tree(layer(PLAIN, packed))


@pytest.mark.parametrize("which", ["digest", "diff_id"])
def test_a_layer_that_is_not_what_was_promised_is_damaged(tree, which):
    other = {"digest": layer(PLAIN).digest, "diff_id": layer(PLAIN).diff_id} | {which: digest(b"another")}
    with pytest.raises(BlobCorrupt, match=digest(b"another")):
        tree(PackedLayer(packed=io.BytesIO(PLAIN), **other))


@given(st.data())
def test_any_damage_gives_an_error_that_is_ours(tmp_path_factory, data):
    content = bytearray(tar(folder("d"), entry("d/" + "f" * 120, b"x" * 600), entry("l", kind=LINK, link="d")))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 4] = data.draw(st.binary(min_size=1, max_size=8))
        header = at // 512 * 512
        if data.draw(st.booleans()):  # as one who means it would write it
            block = content[header : header + 512]
            block[148:156] = b" " * 8
            content[header + 148 : header + 156] = b"%06o\0 " % sum(block)
    packed = bytes(content)
    with suppress(BlobCorrupt, ImageUnusable):
        unpack([layer(packed)], tmp_path_factory.mktemp("root"), Witness())
