"""Facts of ELF files: the same as an independent reader finds, and nothing but None for files that do not hold."""

from __future__ import annotations

import re
import struct
import sys
import sysconfig
from functools import cache
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection
from hypothesis import given, settings
from hypothesis import strategies as st

from images.elf import ISA_LEVELS, MAGIC, read_elf
from images.fatbin import GpuCode, read_fatbin

LIBRARIES = Path("/usr/lib") / sysconfig.get_config_var("MULTIARCH")


@cache
def binaries():
    """Programs and libraries of this machine: the loader's own, the interpreter, and every fortieth library."""
    found = sorted(path for path in LIBRARIES.rglob("*.so*") if path.is_file() and not path.is_symlink())
    chosen = [Path(sys.executable).resolve(), LIBRARIES / "libc.so.6", LIBRARIES / "libstdc++.so.6", *found[::40]]
    return [path for path in chosen if path.exists() and path.read_bytes()[:4] == MAGIC]


def test_an_independent_reader_finds_the_same():
    assert len(binaries()) >= 5
    for path in binaries():
        found, expected = read_elf(path.read_bytes()), by_pyelftools(path)
        assert found is not None, path
        assert {name: getattr(found, name) for name in expected} == expected, path


def by_pyelftools(path):
    """The facts of a file as pyelftools reads them, which goes by sections where we go by segments."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        segments = list(elf.iter_segments())
        tags = [tag for part in segments if isinstance(part, DynamicSegment) for tag in part.iter_tags()]
        versions = {GNUVerNeedSection: [], GNUVerDefSection: []}
        for section in elf.iter_sections():
            for _, auxiliaries in section.iter_versions() if type(section) in versions else ():
                names = [each.name for each in auxiliaries]
                versions[type(section)] += names if type(section) is GNUVerNeedSection else names[:1]
        notes = [note for part in segments if part.header.p_type == "PT_NOTE" for note in part.iter_notes()]
        return {
            "arch": {"EM_X86_64": "amd64", "EM_AARCH64": "arm64", "EM_386": "386"}[elf.header.e_machine],
            "page_align_bytes": max(part.header.p_align for part in segments if part.header.p_type == "PT_LOAD"),
            "interpreter": "".join(part.get_interp_name() for part in segments if part.header.p_type == "PT_INTERP"),
            "soname": "".join(tag.soname for tag in tags if tag.entry.d_tag == "DT_SONAME"),
            "needed": tuple(tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"),
            "runpath": "".join(tag.runpath for tag in tags if tag.entry.d_tag == "DT_RUNPATH")
            or "".join(tag.rpath for tag in tags if tag.entry.d_tag == "DT_RPATH"),
            "needs": newest(versions[GNUVerNeedSection]),
            "defines": newest(versions[GNUVerDefSection]),
            "min_kernel": next(
                (
                    (note["n_desc"].abi_major, note["n_desc"].abi_minor, note["n_desc"].abi_tiny)
                    for note in notes
                    if note["n_type"] == "NT_GNU_ABI_TAG"
                ),
                None,
            ),
            "isa": next(
                (
                    level
                    for note in notes
                    if note["n_type"] == "NT_GNU_PROPERTY_TYPE_0"
                    for each in note["n_desc"]
                    if each.pr_type in (0xC0008002, "GNU_PROPERTY_X86_ISA_1_NEEDED")
                    for bit, level in ISA_LEVELS
                    if each.pr_data & bit
                ),
                None,
            ),
        }


def newest(names):
    found = [re.fullmatch(r"(GLIBC|GLIBCXX|CXXABI)_([\d.]+)", name) for name in names]
    families = {}
    for match in filter(None, found):
        families.setdefault(match[1], []).append(tuple(map(int, match[2].split("."))))
    return {family: max(versions) for family, versions in families.items()}


def test_the_c_library_defines_what_the_interpreter_needs():
    libc = read_elf((LIBRARIES / "libc.so.6").read_bytes())
    python = read_elf(Path(sys.executable).resolve().read_bytes())
    assert libc.soname == "libc.so.6"
    assert libc.defines["GLIBC"] >= python.needs["GLIBC"] > (2, 2)
    assert python.interpreter.startswith("/lib")


@pytest.mark.parametrize(
    ("bits", "level"), [(0, None), (1, "x86_64"), (3, "x86_64_v2"), (7, "x86_64_v3"), (15, "x86_64_v4")]
)
def test_the_highest_bit_of_the_note_is_the_level_that_is_needed(bits, level):
    assert read_elf(elf(note=properties((0xC0010002, 15), (0xC0008002, bits)))).isa == level


def test_only_the_note_that_asks_counts_as_a_need():
    """ISA_1_USED tells what was compiled in, behind a check at run time or not."""
    assert read_elf(elf(note=properties((0xC0010002, 15)))).isa is None


def test_the_largest_page_that_a_file_can_be_loaded_on_is_told():
    assert read_elf(elf(align=65536)).page_align_bytes == 65536


# -- GPU code --------------------------------------------------------------------------------------------------------


def container(*pieces, version=1):
    body = b"".join(struct.pack("<HHIQ12xI32x", kind, 0x101, 64, 8, target) + b"\7" * 8 for kind, target in pieces)
    return struct.pack("<4sHHQ", b"\x50\xed\x55\xba", version, 16, len(body)) + body


PTX, CUBIN = 1, 2


def test_targets_of_all_containers_are_found():
    section = container((CUBIN, 80), (CUBIN, 90), (PTX, 90)) + bytes(24) + container((CUBIN, 70)) + bytes(8)
    code = GpuCode(frozenset({"sm_70", "sm_80", "sm_90"}), frozenset({"compute_90"}))
    assert read_fatbin(section, 0, len(section)) == code
    found = read_elf(elf(gpu=section))
    assert (found.gpu, found.gpu_unknown) == (code, False)


@pytest.mark.parametrize(
    "section",
    [
        container((CUBIN, 80), (64, 80)),
        container((CUBIN, 80), version=2),
        container((CUBIN, 80)) + b"something else",
        container((CUBIN, 80))[:-1],
        b"something else" + container((CUBIN, 80)),
        container((CUBIN, 3)),
    ],
    ids=["another kind", "another version", "a tail", "cut", "a head", "no such target"],
)
def test_half_understood_gpu_code_is_unknown(section):
    assert read_fatbin(section, 0, len(section)) is None
    found = read_elf(elf(gpu=section))
    assert (found.gpu, found.gpu_unknown) == (None, True)


# -- files that do not hold -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", MAGIC, b"#!/bin/sh\n", MAGIC + bytes(60), MAGIC + b"\2\1" + b"\xff" * 200])
def test_what_is_no_program_has_no_facts(content):
    assert read_elf(content) is None


def test_a_list_that_leads_back_into_itself_ends():
    libc = (LIBRARIES / "libc.so.6").read_bytes()
    endless = re.sub(struct.pack("<Q", 0x6FFFFFFD) + b".{8}", struct.pack("<QQ", 0x6FFFFFFD, 2**63), libc, flags=re.S)
    assert endless != libc
    assert read_elf(endless) is not None  # its last entry says that it is the last


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_program_gives_facts_or_none(data):
    path = data.draw(st.sampled_from(binaries()[:8]))
    content = bytearray(path.read_bytes()[: data.draw(st.integers(0, 1 << 20))])
    for _ in range(data.draw(st.integers(0, 12))) if content else ():
        at = data.draw(st.integers(0, min(len(content) - 1, data.draw(st.sampled_from([63, 1023, 65535, 1 << 20])))))
        patch = data.draw(st.sampled_from([b"\0", b"\xff", b"\xff" * 8, b"\x7f" * 4, b"\1\0\0\0\0\0\0\0"]))
        content[at : at + len(patch)] = patch
    read_elf(bytes(content))


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_after_the_magic_give_facts_or_none(content, wide):
    read_elf(MAGIC + (b"\2" if wide else b"\1") + b"\1" + content)


@given(st.binary(max_size=200))
def test_any_bytes_as_gpu_code_give_targets_or_none(content):
    read_fatbin(container((CUBIN, 80)) + content, 0, 96 + len(content))


# -- files made by hand ----------------------------------------------------------------------------------------------


def properties(*entries):
    text = b"".join(struct.pack("<IIII", kind, 4, bits, 0) for kind, bits in entries)
    return struct.pack("<III4s", 4, len(text), 5, b"GNU\0") + text


def elf(*, align=4096, note=b"", gpu=b""):
    """A shared library for x86-64 with one loaded segment, a note and a section of GPU code."""
    note_at = 64 + 2 * 56
    gpu_at = note_at + len(note)
    names, names_at = b"\0.nv_fatbin\0.shstrtab\0", gpu_at + len(gpu)
    sections_at = names_at + len(names)
    sections = [(0, 0, 0, 0), (1, 1, gpu_at, len(gpu)), (12, 3, names_at, len(names))] if gpu else []
    header = struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, sections_at, 0, 64, 56, 2, 64, len(sections), 2)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, names_at, names_at, align)
    notes = struct.pack("<IIQQQQQQ", 4, 4, note_at, note_at, 0, len(note), len(note), 8)
    table = b"".join(struct.pack("<IIQQQQIIQQ", n, kind, 0, 0, at, size, 0, 0, 1, 0) for n, kind, at, size in sections)
    return MAGIC + b"\2\1\1" + bytes(9) + header + load + notes + note + gpu + names + table
