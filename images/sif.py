"""The Singularity Image Format: a header that wraps a squashfs, for sites whose runtime refuses it bare.

Little-endian: a header of 128 bytes, 48 descriptors of 585 bytes from byte 4096 on, then the objects. Id and times are
fixed by the content, so that the same squashfs gives the same file. Source: github.com/apptainer/sif, version 01.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from scheduler.model.errors import SpecInvalid

ARCHITECTURES: Mapping[str, bytes] = {
    "386": b"01",
    "amd64": b"02",
    "arm": b"03",
    "arm64": b"04",
    "ppc64": b"05",
    "ppc64le": b"06",
    "s390x": b"11",
}
"""Go's names, as registries use them, to the header's code."""

DEFINITION, PARTITION, JSON = 0x4001, 0x4004, 0x4006
"""Kinds of objects that are written or looked for here."""

_LAUNCH = b"#!/usr/bin/env run-singularity\n"
_HEADER = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR = struct.Struct("<i?III7q128s384s")
_EXTRA = struct.Struct("<ii3s")  # of a partition: file system, role, architecture
_SQUASHFS, _PRIMARY = 1, 2
_SLOTS, _TABLE_AT = 48, 4096
_DATA_AT = _TABLE_AT + _SLOTS * _DESCRIPTOR.size
_ONE_GROUP = 0xF0000001
_PAGE_BYTES = 4096
_NAMESPACE = uuid.UUID("7a0c5d2e-3b1f-5c7e-9a64-62657274682e")


@dataclass(frozen=True, slots=True)
class SifObject:
    """One object of a SIF file; ``kind`` as in the constants of this module."""

    kind: int
    name: str
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class Sif:
    """What the headers of a SIF file say. ``architecture``: Go's name, empty when the code is not known."""

    id: uuid.UUID
    architecture: str
    objects: tuple[SifObject, ...]

    @property
    def partition(self) -> SifObject:
        """The first file system, which is the only one in an image to run; SpecInvalid when there is none."""
        for each in self.objects:
            if each.kind == PARTITION:
                return each
        raise SpecInvalid.of("image", "is a SIF file without a file system", "build it again")


def write_sif(squashfs: Path, digest: str, architecture: str, config: Mapping[str, Any], target: Path) -> None:
    """Wrap a squashfs file. digest: of the squashfs; config: the image's own, which runtimes keep beside it."""
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise SpecInvalid.of("architecture", f"'{architecture}' has no code in a SIF file", f"one of {known}")
    text = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    size_bytes = squashfs.stat().st_size
    file_system_at = -(-(_DATA_AT + len(text)) // _PAGE_BYTES) * _PAGE_BYTES
    extra = _EXTRA.pack(_SQUASHFS, _PRIMARY, ARCHITECTURES[architecture])
    table = [
        _descriptor(1, JSON, _DATA_AT, len(text), _DATA_AT, b"oci-config.json"),
        _descriptor(2, PARTITION, file_system_at, size_bytes, _DATA_AT + len(text), b"image.sqfs", extra),
    ]
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file, squashfs.open("rb") as content:
            file.write(_header(digest, architecture, table, file_system_at + size_bytes - _DATA_AT))
            file.seek(_TABLE_AT)
            file.write(b"".join(table))
            file.seek(_DATA_AT)
            file.write(text)
            file.seek(file_system_at)
            shutil.copyfileobj(content, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def read_sif(file: BinaryIO) -> Sif:
    """Headers of a SIF file, whoever wrote it; SpecInvalid when they cannot be meant."""
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise _not_a_sif("is shorter than a SIF header")
    _, magic, version, code, uid, _, _, _, slots, table_at, _, _, _ = _HEADER.unpack(head)
    if magic.rstrip(b"\0") != b"SIF_MAGIC" or version.rstrip(b"\0") != b"01":
        raise _not_a_sif("is not a SIF file of version 01")
    if not (0 < slots <= 4096 and _HEADER.size <= table_at <= 1 << 20):
        raise _not_a_sif(f"has {slots} descriptors at byte {table_at}, which cannot be")
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(table_at)
    table = file.read(slots * _DESCRIPTOR.size)
    if len(table) < slots * _DESCRIPTOR.size:
        raise _not_a_sif("ends within its descriptors")
    objects = []
    for kind, used, _, _, _, offset_bytes, length_bytes, *_, name, _ in _DESCRIPTOR.iter_unpack(table):
        if not used:
            continue
        if not (offset_bytes >= 0 and length_bytes >= 0 and offset_bytes + length_bytes <= size_bytes):
            raise _not_a_sif(f"ends before its object of kind {kind:#x}")
        objects.append(SifObject(kind, name.rstrip(b"\0").decode("utf-8", "replace"), offset_bytes, length_bytes))
    names = {known: name for name, known in ARCHITECTURES.items()}
    return Sif(uuid.UUID(bytes=uid), names.get(code.rstrip(b"\0"), ""), tuple(objects))


def _not_a_sif(wrong: str) -> SpecInvalid:
    return SpecInvalid.of("image", wrong, "name a SIF or squashfs file, or build this one again")


def _header(digest: str, architecture: str, table: Sequence[bytes], data_bytes: int) -> bytes:
    uid = uuid.uuid5(_NAMESPACE, f"{digest} {architecture}").bytes
    places = (0, 0, _SLOTS - len(table), _SLOTS, _TABLE_AT, _SLOTS * _DESCRIPTOR.size, _DATA_AT, data_bytes)
    return _HEADER.pack(_LAUNCH, b"SIF_MAGIC", b"01", ARCHITECTURES[architecture], uid, *places)


def _descriptor(number: int, kind: int, at: int, length: int, after: int, name: bytes, extra: bytes = b"") -> bytes:
    """One row of the table. after: where the object before ends; what is between counts as padding."""
    return _DESCRIPTOR.pack(kind, True, number, _ONE_GROUP, 0, at, length, at + length - after, 0, 0, 0, 0, name, extra)
