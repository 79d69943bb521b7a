"""What an ELF file says of itself: whom it loads, which versions it needs and defines, and for which machine it is.

Only program headers and what they point at are read, as the loader does; sections only to find GPU code. Files come
from strangers: every offset is checked and every list has an end, and a file that does not hold together gives None.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from mmap import mmap

from images.fatbin import GpuCode, read_fatbin
from images.versions import Version, version_of

MAGIC = b"\x7fELF"

ARCHITECTURES: Mapping[tuple[int, bool], str] = {
    (3, True): "386",
    (21, True): "ppc64le",
    (21, False): "ppc64",
    (22, False): "s390x",
    (40, True): "arm",
    (62, True): "amd64",
    (183, True): "arm64",
    (243, True): "riscv64",
    (258, True): "loong64",
}
"""Machine number and whether it is little-endian, in Go's names."""

ISA_LEVELS = ((8, "x86_64_v4"), (4, "x86_64_v3"), (2, "x86_64_v2"), (1, "x86_64"))
"""Bits of the property ISA_1_NEEDED, highest first, in archspec's names."""

_VERSIONED = re.compile(r"(GLIBC|GLIBCXX|CXXABI)_([0-9]+(?:\.[0-9]+)*)")

_EXECUTABLE, _SHARED = 2, 3
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 14, 15, 29
_DT_VERDEF, _DT_VERDEFNUM, _DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
_NT_ABI_TAG, _NT_PROPERTIES = 1, 5
_ISA_1_NEEDED = 0xC0008002

_MAX_READS = 20_000
"""Entries of all lists of a file together; programs have some hundred, and a list may lead back into itself."""
_MAX_NAME_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Elf:
    """One program or shared library. needs, defines: newest versions of GLIBC, GLIBCXX and CXXABI, by these names.

    arch: in Go's names, "" for one that is not known here. isa: the CPU level that a note asks for; linkers seldom
    write it. min_kernel: of the ABI note. gpu: None where it holds no NVIDIA code, or some that is not understood,
    which ``gpu_unknown`` tells.
    """

    arch: str
    page_align_bytes: int
    interpreter: str = ""
    soname: str = ""
    needed: tuple[str, ...] = ()
    runpath: str = ""
    needs: Mapping[str, Version] = field(default_factory=dict)
    defines: Mapping[str, Version] = field(default_factory=dict)
    isa: str | None = None
    min_kernel: Version | None = None
    gpu: GpuCode | None = None
    gpu_unknown: bool = False


def read_elf(image: bytes | mmap) -> Elf | None:
    """The facts of a program or shared library; None for any other file, and for one that does not hold together."""
    if image[:4] != MAGIC:
        return None
    try:
        return _File(image).facts()
    except (_DoesNotHold, struct.error):
        return None


class _DoesNotHold(Exception):
    """An offset or a count leads out of the file, or there is more of a thing than any program has."""


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int
    align: int


class _File:
    def __init__(self, image: bytes | mmap) -> None:
        self._image, self._reads = image, 0
        self._wide, little = image[4:5] == b"\2", image[5:6] == b"\1"
        self._order = "<" if little else ">"
        header = self._unpack("HHIQQQIHHHHHH" if self._wide else "HHIIIIIHHHHHH", 16)
        kind, machine, _, _, self._segments_at, self._sections_at, _, _, size, count, *sections = header
        if kind not in (_EXECUTABLE, _SHARED):
            raise _DoesNotHold
        self._section_size, self._section_count, self._section_names = sections
        self._arch = ARCHITECTURES.get((machine, little), "")
        self._segments = list(self._read_segments(size, count))

    def facts(self) -> Elf:
        dynamic = list(self._dynamic())
        where = dict(reversed(dynamic))  # of an entry that stands twice, the first counts
        names_at = self._offset_of(where[_DT_STRTAB]) if _DT_STRTAB in where else None

        def name(offset: int) -> str:
            return "" if names_at is None else self._text(names_at + offset)

        def first(*tags: int) -> str:
            return next((name(where[tag]) for tag in tags if tag in where), "")

        isa, min_kernel = self._notes()
        gpu_section = self._gpu_section()
        gpu = read_fatbin(self._image, *gpu_section) if gpu_section else None
        return Elf(
            arch=self._arch,
            page_align_bytes=max((part.align for part in self._segments if part.kind == _PT_LOAD), default=0),
            interpreter=next((self._text(part.offset) for part in self._segments if part.kind == _PT_INTERP), ""),
            soname=first(_DT_SONAME),
            needed=tuple(name(value) for tag, value in dynamic if tag == _DT_NEEDED),
            runpath=first(_DT_RUNPATH, _DT_RPATH),
            needs=_newest(map(name, self._needed_versions(where))),
            defines=_newest(map(name, self._defined_versions(where))),
            isa=isa,
            min_kernel=min_kernel,
            gpu=gpu,
            gpu_unknown=gpu_section is not None and gpu is None,
        )

    # -- segments and what is in them ---------------------------------------------------------------------------------

    def _read_segments(self, size: int, count: int) -> Iterator[_Segment]:
        for index in range(count):
            at = self._segments_at + index * size
            if self._wide:
                kind, _, offset, address, _, held, _, align = self._unpack("IIQQQQQQ", at)
            else:
                kind, offset, address, _, held, _, _, align = self._unpack("IIIIIIII", at)
            yield _Segment(kind, offset, address, held, align)

    def _dynamic(self) -> Iterator[tuple[int, int]]:
        """Tags and values of the dynamic section, up to its end mark."""
        for part in self._segments:
            if part.kind != _PT_DYNAMIC:
                continue
            entry, width = ("QQ", 16) if self._wide else ("II", 8)
            for index in range(part.size // width):
                tag, value = self._unpack(entry, part.offset + index * width)
                if tag == 0:
                    return
                yield tag, value

    def _needed_versions(self, where: Mapping[int, int]) -> Iterator[int]:
        """Where the names of all versions stand that other libraries must define."""
        for at, (_, count, _, first, _) in self._chain(where, _DT_VERNEED, _DT_VERNEEDNUM, "HHIII"):
            at += first
            for _ in range(count):
                _, _, _, name, step = self._unpack("IHHII", at)
                yield name
                if step == 0:
                    break
                at += step

    def _defined_versions(self, where: Mapping[int, int]) -> Iterator[int]:
        """Where the names of the versions stand that this library defines."""
        for at, (*_, first, _) in self._chain(where, _DT_VERDEF, _DT_VERDEFNUM, "HHHHIII"):
            yield self._unpack("II", at + first)[0]

    def _chain(
        self, where: Mapping[int, int], start: int, count: int, entry: str
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Entries that say at their end how far it is to the next one."""
        if start not in where:
            return
        at = self._offset_of(where[start])
        for _ in range(where.get(count, 0)):
            values = self._unpack(entry, at)
            yield at, values
            if values[-1] == 0:
                return
            at += values[-1]

    def _notes(self) -> tuple[str | None, Version | None]:
        """The CPU level that is asked for, and the oldest kernel."""
        isa, min_kernel = None, None
        for kind, text in self._gnu_notes():
            if kind == _NT_ABI_TAG and len(text) >= 16:
                os, *kernel = struct.unpack_from(self._order + "4I", text)
                min_kernel = tuple(kernel) if os == 0 else None
            elif kind == _NT_PROPERTIES and self._arch in ("amd64", "386"):
                bits = self._property(text, _ISA_1_NEEDED)
                isa = next((level for bit, level in ISA_LEVELS if bits & bit), None)
        return isa, min_kernel

    def _gnu_notes(self) -> Iterator[tuple[int, bytes]]:
        for part in self._segments:
            at, end, align = part.offset, part.offset + part.size, 8 if part.align == 8 else 4
            if part.kind != _PT_NOTE:
                continue
            while at + 12 <= end:
                name_size, size, kind = self._unpack("III", at)
                text_at = _aligned(at + 12 + name_size, align)
                if text_at + size > min(end, len(self._image)):
                    raise _DoesNotHold
                if self._image[at + 12 : at + 12 + min(name_size, 4)] == b"GNU\0":
                    yield kind, self._image[text_at : text_at + min(size, _MAX_NAME_BYTES)]
                at = _aligned(text_at + size, align)

    def _property(self, text: bytes, wanted: int) -> int:
        at, align = 0, 8 if self._wide else 4
        while at + 12 <= len(text):
            kind, size = struct.unpack_from(self._order + "II", text, at)
            if kind == wanted and size == 4:
                bits: int = struct.unpack_from(self._order + "I", text, at + 8)[0]
                return bits
            at = _aligned(at + 8 + size, align)
        return 0

    def _gpu_section(self) -> tuple[int, int] | None:
        """Offset and size of the section with NVIDIA's code."""
        if not 0 < self._section_names < self._section_count:
            return None
        names_at, names_size = self._section(self._section_names)[1:]
        names = self._image[names_at : names_at + min(names_size, 1 << 20)]
        found = names.find(b".nv_fatbin\0")
        if found < 0:
            return None
        sections = map(self._section, range(self._section_count))
        return next(((offset, size) for name, offset, size in sections if name == found), None)

    def _section(self, index: int) -> tuple[int, int, int]:
        """Where its name stands, its offset and its size."""
        entry = "IIQQQQ" if self._wide else "IIIIII"
        name, _, _, _, offset, size = self._unpack(entry, self._sections_at + index * self._section_size)
        return name, offset, size

    # -- pieces -------------------------------------------------------------------------------------------------------

    def _unpack(self, entry: str, offset: int) -> tuple[int, ...]:
        layout = self._order + entry
        self._reads += 1
        if self._reads > _MAX_READS or offset + struct.calcsize(layout) > len(self._image):
            raise _DoesNotHold
        return struct.unpack_from(layout, self._image, offset)

    def _offset_of(self, address: int) -> int:
        """Where in the file stands what is loaded at an address."""
        for part in self._segments:
            if part.kind == _PT_LOAD and part.address <= address < part.address + part.size:
                return part.offset + address - part.address
        raise _DoesNotHold

    def _text(self, offset: int) -> str:
        end = self._image.find(b"\0", offset, offset + _MAX_NAME_BYTES) if offset < len(self._image) else -1
        if end < 0:
            raise _DoesNotHold
        return self._image[offset:end].decode("utf-8", "replace")


def _newest(names: Iterator[str]) -> dict[str, Version]:
    """The newest version of each family among names such as ``GLIBC_2.34``; other names are left out."""
    newest: dict[str, Version] = {}
    for found in filter(None, map(_VERSIONED.fullmatch, names)):
        family, version = found[1], version_of(found[2])
        newest[family] = max(newest.get(family, ()), version)
    return newest


def _aligned(offset: int, align: int) -> int:
    return (offset + align - 1) // align * align
