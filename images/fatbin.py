"""Targets of the GPU code that NVIDIA's compilers put into a program or library.

The section ``.nv_fatbin`` is a row of containers; each holds pieces of machine code (cubin) and of PTX for one target.
The format is not published. What does not read as we know it makes the whole answer unknown: half an answer could say
that a GPU is not served although it is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from mmap import mmap

_MAGIC = b"\x50\xed\x55\xba"
_CONTAINER = struct.Struct("<4sHHQ")  # magic, version, size of this header, size of what follows
_PIECE = struct.Struct("<HHIQ12xI")  # kind, version, size of this header, size of the code, target
_PTX, _CUBIN = 1, 2
_MAX_PIECES = 200_000
"""NVIDIA's own largest libraries hold about 20,000."""


@dataclass(frozen=True, slots=True)
class GpuCode:
    """Targets in nvcc's words (``sm_80``, ``compute_80``). What is for one chip alone (``sm_90a``) counts as plain."""

    cubins: frozenset[str]
    ptx: frozenset[str]


def read_fatbin(image: bytes | mmap, offset: int, size: int) -> GpuCode | None:
    """The targets in a section; None when any part of it is not understood."""
    found: dict[int, set[int]] = {_PTX: set(), _CUBIN: set()}
    end, pieces = offset + size, 0
    if end > len(image):
        return None
    while (start := image.find(_MAGIC, offset, end)) >= 0:
        if start + _CONTAINER.size > end or image[offset:start].strip(b"\0"):
            return None
        _, version, header_size, code_size = _CONTAINER.unpack_from(image, start)
        offset = start + header_size
        stop = offset + code_size
        if version != 1 or header_size != _CONTAINER.size or stop > end:
            return None
        while offset < stop:
            if (pieces := pieces + 1) > _MAX_PIECES or offset + _PIECE.size > stop:
                return None
            kind, _, piece_header_size, code_size, target = _PIECE.unpack_from(image, offset)
            offset += piece_header_size + code_size
            if kind not in found or piece_header_size < 64 or not 10 <= target < 1000 or offset > stop:
                return None
            found[kind].add(target)
    if image[offset:end].strip(b"\0"):
        return None
    return GpuCode(
        cubins=frozenset(f"sm_{target}" for target in found[_CUBIN]),
        ptx=frozenset(f"compute_{target}" for target in found[_PTX]),
    )
