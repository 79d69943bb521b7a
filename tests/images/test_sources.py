"""A blob is seen when it is proven, and never before."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.errors import BlobCorrupt
from images.manifests import Descriptor
from images.sources import FileSink, MemorySink, Proof
from scheduler.model.errors import FileRefused


def descriptor(data: bytes) -> Descriptor:
    return Descriptor("", f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))


pieces = st.lists(st.binary(max_size=6), max_size=6)


@given(pieces)
def test_a_blob_comes_whole_in_whatever_pieces(parts):
    sink = MemorySink()
    proof = Proof(descriptor(b"".join(parts)), sink, "here")
    for part in parts:
        proof.take(part)
    assert proof.is_whole
    proof.commit()
    assert sink.blob == b"".join(parts)


@given(pieces, pieces)
def test_other_bytes_are_never_seen(named, sent):
    sink = MemorySink()
    proof = Proof(descriptor(b"".join(named)), sink, "here")
    with suppress(BlobCorrupt):
        for part in sent:
            proof.take(part)
        proof.commit()
    assert sink.blob in (None, b"".join(named))
    assert (sink.blob is not None) == (b"".join(sent) == b"".join(named))


def test_a_later_try_counts_what_was_kept_and_the_file_appears_at_the_end(tmp_path):
    with FileSink(tmp_path / "blob") as sink:
        Proof(descriptor(b"onetwo"), sink, "here").take(b"one")
    with FileSink(tmp_path / "blob") as sink:
        proof = Proof(descriptor(b"onetwo"), sink, "here")
        proof.resume()
        assert (proof.offset_bytes, proof.is_pieced) == (3, True)
        proof.take(b"two")
        assert not (tmp_path / "blob").exists()
        proof.commit()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("blob", b"onetwo")]


def test_a_part_is_readable_by_its_owner_alone(tmp_path):
    with FileSink(tmp_path / "blob"):
        assert (tmp_path / "blob.part").stat().st_mode & 0o777 == 0o600


def test_a_part_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "victim").write_bytes(b"untouched")
    (tmp_path / "blob.part").symlink_to(tmp_path / "victim")
    with pytest.raises(FileRefused, match=r"blob\.part"):
        FileSink(tmp_path / "blob")
    assert (tmp_path / "victim").read_bytes() == b"untouched"


def test_a_place_that_cannot_be_written_is_said_with_what_to_do(tmp_path):
    with pytest.raises(FileRefused, match="No such file or directory; free some space, or check who may write"):
        FileSink(tmp_path / "none" / "blob")
