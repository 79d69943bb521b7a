"""Chunks follow the content: the same bytes are cut alike wherever they stand and whoever cuts them."""

from __future__ import annotations

import hashlib
import io
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.chunks import AVERAGE_BYTES, LEAST_BYTES, MOST_BYTES, Index, boundaries, index_of
from images.programs import store as program
from scheduler.model.errors import SpecInvalid

NOISE = random.Random(4).randbytes(6 << 20)


@pytest.fixture
def indexed(tmp_path):
    def index(content):
        path = tmp_path / "file"
        path.write_bytes(content)
        return index_of(path)

    return index


def test_chunks_are_the_file_and_their_lengths_are_within_bounds(indexed):
    index = indexed(NOISE)
    assert index.size_bytes == len(NOISE)
    assert all(LEAST_BYTES <= chunk.length_bytes <= MOST_BYTES for chunk in index.chunks[:-1])
    assert AVERAGE_BYTES * 0.7 < index.size_bytes / len(index.chunks) < AVERAGE_BYTES * 1.5
    start = 0
    for chunk in index.chunks:
        assert hashlib.sha256(NOISE[start : start + chunk.length_bytes]).hexdigest() == chunk.sha256
        start += chunk.length_bytes


@pytest.mark.parametrize("at", [0, 1, 2_000_000, len(NOISE)])
def test_bytes_put_in_anywhere_move_a_few_chunks(indexed, at):
    held = {chunk.sha256 for chunk in indexed(NOISE).chunks}
    changed = indexed(NOISE[:at] + b"something new" + NOISE[at:])
    assert changed.bytes_of(changed.missing(held)) <= 2 * MOST_BYTES
    assert indexed(NOISE).missing(held) == ()


def test_a_content_that_stands_twice_is_sent_once(indexed):
    index = indexed(bytes(MOST_BYTES * 3))
    assert index.missing(()) == (0,)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        bytes(LEAST_BYTES),
        bytes(MOST_BYTES * 2 + 5),
        NOISE[: 1 << 20],
        NOISE[: 1 << 19] + bytes(1 << 19) + NOISE[: 1 << 19],
    ],
    ids=["nothing", "one byte", "the least", "zeros", "noise", "mixed"],
)
def test_the_program_on_a_site_cuts_where_this_does(indexed, content):
    assert list(program._chunks(io.BytesIO(content))) == indexed(content).to_json()


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 700_000))
def test_a_cut_does_not_depend_on_how_the_file_is_read(seed, size):
    content = np.frombuffer(random.Random(seed).randbytes(size), np.uint8)
    ends = list(boundaries(content))
    assert ends[-1] == size
    assert list(boundaries(content[: ends[0]])) == ends[:1]


def test_a_few_boundaries_are_written_down():
    """What one release stores the next must find: these numbers may never change."""
    ends = list(boundaries(np.frombuffer(hashlib.shake_256(b"berth").digest(400_000), np.uint8)))
    assert ends == [87641, 177778, 259814, 327444, 386202, 400000]


@pytest.mark.parametrize("value", [None, [[1]], [[0, "a" * 64]], [[1, "a"]], [["1", "a" * 64]]])
def test_an_index_that_is_none_is_refused(value):
    with pytest.raises(SpecInvalid, match="chunks"):
        Index.of_json(value)


def test_an_index_comes_back_from_what_a_store_holds(indexed, tmp_path):
    index = indexed(NOISE[: 1 << 20])
    assert Index.of_json(index.to_json()) == index
    assert b"".join(index.read(tmp_path / "file", range(len(index.chunks)))) == NOISE[: 1 << 20]
