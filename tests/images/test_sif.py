"""A SIF file holds the squashfs as it is, is the same each time, and a hostile one is refused."""

from __future__ import annotations

import hashlib
import io
import struct

import pytest

from images.sif import JSON, PARTITION, read_sif, write_sif
from scheduler.model.errors import SpecInvalid

CONTENT = b"hsqs" + bytes(range(256)) * 100
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def sif(tmp_path):
    (tmp_path / "squashfs").write_bytes(CONTENT)

    def make(name="image.sif", digest=DIGEST, architecture="amd64"):
        write_sif(tmp_path / "squashfs", digest, architecture, {"Cmd": ["sh"]}, tmp_path / name)
        return (tmp_path / name).read_bytes()

    return make


def test_the_squashfs_is_in_it_at_a_page_s_start_and_the_config_beside_it(sif):
    raw = sif()
    found = read_sif(io.BytesIO(raw))
    assert [each.kind for each in found.objects] == [JSON, PARTITION]
    at, length = found.partition.offset_bytes, found.partition.length_bytes
    assert at % 4096 == 0
    assert raw[at : at + length] == CONTENT
    assert found.architecture == "amd64"
    config = found.objects[0]
    assert raw[config.offset_bytes :][: config.length_bytes] == b'{"Cmd":["sh"]}'


def test_the_same_squashfs_gives_the_same_file_and_another_one_another_id(sif):
    assert sif("a") == sif("b")
    ids = {read_sif(io.BytesIO(sif("c", *which))).id for which in ((), (DIGEST[:-1] + "x",), (DIGEST, "arm64"))}
    assert len(ids) == 3


def test_an_architecture_without_a_code_is_refused_and_nothing_is_left(sif, tmp_path):
    with pytest.raises(SpecInvalid, match="one of 386, amd64"):
        sif(architecture="riscv64")
    assert [path.name for path in tmp_path.iterdir()] == ["squashfs"]


def changed(raw, at, form, value):
    return raw[:at] + struct.pack(form, value) + raw[at + struct.calcsize(form) :]


@pytest.mark.parametrize(
    ("damage", "wrong"),
    [
        (lambda raw: raw[:100], "shorter"),
        (lambda raw: b"\0" * len(raw), "not a SIF"),
        (lambda raw: raw[:20000], "within its descriptors"),
        (lambda raw: raw[:-1], "ends before"),
        (lambda raw: changed(raw, 88, "<q", 10**9), "descriptors"),
        (lambda raw: changed(raw, 96, "<q", -1), "descriptors"),
        (lambda raw: changed(raw, 4096 + 17, "<q", 2**62), "ends before"),
        (lambda raw: changed(raw, 4096 + 25, "<q", -5), "ends before"),
    ],
    ids=["header", "magic", "table", "cut", "count", "place", "offset", "length"],
)
def test_headers_that_cannot_be_meant_are_refused(sif, damage, wrong):
    with pytest.raises(SpecInvalid, match=wrong):
        read_sif(io.BytesIO(damage(sif())))


def test_a_file_without_a_file_system_cannot_run(sif):
    raw = changed(sif(), 4096 + 585 + 4, "<?", False)
    with pytest.raises(SpecInvalid, match="without a file system"):
        _ = read_sif(io.BytesIO(raw)).partition
