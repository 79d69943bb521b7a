"""What the files of an image show, gathered while they are unpacked and without a second look at them.

Each fact hangs on the path that shows it. When a layer above removes the path, the fact goes with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from mmap import ACCESS_READ, mmap
from posixpath import basename, dirname, normpath
from typing import Any

from images.elf import MAGIC, Elf, read_elf
from images.versions import Version, version_of

PACKAGE_LISTS: Mapping[str, tuple[bytes, bytes]] = {
    "var/lib/dpkg/status": (b"Package: ", b"Version: "),
    "lib/apk/db/installed": (b"P:", b"V:"),
}
"""Lists of installed packages, with how their lines of name and version begin."""

_LIST_BYTES = 32 << 20
_MAX_LINKS = 40
_MAX_ASKED, _MAX_FOLDERS = 20_000, 50
"""Names that libraries ask for in all, and folders of one path: some programs have a tenth of either."""

_SPEAKS = re.compile(r"lib(mpi|mpich|pmix)\.so|libmpi_(abi|cray|gnu|intel)")
_WORDS: Mapping[str, re.Pattern[bytes]] = {
    "intel": re.compile(rb"Intel\(R\) MPI Library(?: ([0-9][0-9.]*))?"),
    "cray": re.compile(rb"CRAY MPICH(?: version ([0-9][0-9.]*))?"),
    "mvapich": re.compile(rb"MVAPICH2? Version *:(?:[ \t]*([0-9][0-9.]*))?"),
    "mpich": re.compile(rb"MPICH Version:(?:[ \t]*([0-9][0-9.]*))?"),
    "openmpi": re.compile(rb"\0v(\d{1,2}\.\d{1,2}\.\d{1,2})\0"),
    "pmix": re.compile(rb"OpenPMIx ([0-9][0-9.]*)"),
}
"""What libraries print about themselves, with the version where it is not filled in as they print it."""

_NAMED = re.compile(r"gfx[0-9a-f]{3,4}")


class Survey:
    """An observer of ``layers.unpack``. programs: ELF files by path; scripts: their first lines; links: targets of
    symbolic links; packages: versions by name; words: what MPI and PMIx libraries call themselves, by path, with the
    version; named: files that say by their name for which GPU of AMD they are. Paths have no slash in front."""

    def __init__(self) -> None:
        self.programs: dict[str, Elf] = {}
        self.scripts: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.words: dict[str, dict[str, Version | None]] = {}
        self.named: set[str] = set()
        self._packages: dict[str, dict[str, str]] = {}
        self._by_path: tuple[dict[str, Any], ...] = (
            self.programs,
            self.scripts,
            self.links,
            self.words,
            self._packages,
        )

    @property
    def packages(self) -> dict[str, str]:
        """Versions of installed packages, as the distribution writes them."""
        return {name: version for listed in self._packages.values() for name, version in listed.items()}

    # -- what the observer is told ------------------------------------------------------------------------------------

    def file(self, path: str, fd: int, size_bytes: int) -> None:
        """Keep what a regular file shows."""
        head = os.pread(fd, 128, 0)
        if head.startswith(MAGIC):
            self._program(path, fd)
        elif head.startswith(b"#!"):
            self.scripts[path] = head[2:].partition(b"\n")[0].decode("utf-8", "replace").strip()
        elif path in PACKAGE_LISTS or path.startswith("var/lib/dpkg/status.d/"):
            lines = PACKAGE_LISTS.get(path, PACKAGE_LISTS["var/lib/dpkg/status"])
            self._packages[path] = _packages(os.pread(fd, min(size_bytes, _LIST_BYTES), 0), *lines)
        if _NAMED.search(basename(path)):
            self.named.add(path)

    def link(self, path: str, other: str) -> None:
        """A further name shows what the first one does."""
        for facts in self._by_path:
            if other in facts:
                facts[path] = facts[other]
        if other in self.named:
            self.named.add(path)

    def symlink(self, path: str, target: str) -> None:
        """Keep where it leads."""
        self.links[path] = target

    def removed(self, path: str) -> None:
        """Forget what it showed."""
        for facts in self._by_path:
            facts.pop(path, None)
        self.named.discard(path)

    def _program(self, path: str, fd: int) -> None:
        with mmap(fd, 0, access=ACCESS_READ) as image:
            found = read_elf(image)
            if found is None:
                return
            self.programs[path] = found
            if _SPEAKS.match(found.soname or basename(path)):
                told = {name: set(words.findall(image)) for name, words in _WORDS.items()}
                self.words[path] = {name: _only(versions) for name, versions in told.items() if versions}

    # -- questions ----------------------------------------------------------------------------------------------------

    def real(self, path: str) -> str:
        """The path that a container would reach, links followed inside the image; "" where they lead in circles."""
        way: list[str] = []
        pending, links = path.split("/")[::-1], 0
        while pending:
            name = pending.pop()
            if name in ("", ".", ".."):
                way = way[:-1] if name == ".." else way
                continue
            target = self.links.get("/".join((*way, name)))
            if target is None:
                way.append(name)
                continue
            links += 1
            if links > _MAX_LINKS:
                return ""
            way = [] if target.startswith("/") else way
            pending += target.split("/")[::-1]
        return "/".join(way)

    def started(self, word: str, search: str) -> str | None:
        """The ELF program that runs for a word of a command: found along ``search``, behind scripts that name it."""
        for _ in range(4):
            folders = [""] if "/" in word else search.split(":")
            paths = (self.real(f"{folder}/{word}") for folder in folders)
            path = next((path for path in paths if path in self.programs or path in self.scripts), None)
            if path is None or path in self.programs:
                return path
            word, *arguments = self.scripts[path].split() or [""]
            if basename(word) == "env":
                word = next((argument for argument in arguments if argument[:1] != "-" and "=" not in argument), "")
        return None

    def loaded(self, starts: list[str], library_path: str) -> set[str]:
        """Paths of all libraries that the loader brings in for some programs, themselves included.

        Nothing when they ask for more than any program does.
        """
        by_name = self._libraries()
        reached, pending, asked = set(starts), list(starts), 0
        while pending:
            path = pending.pop()
            program = self.programs[path]
            asked += len(program.needed)
            if asked > _MAX_ASKED:
                return set()
            for name in program.needed:
                found = self._library(name, path, program, library_path, by_name)
                if found is not None and found not in reached:
                    reached.add(found)
                    pending.append(found)
        return reached

    def _library(
        self, name: str, asker: str, program: Elf, library_path: str, by_name: Mapping[str, list[str]]
    ) -> str | None:
        """Where the loader finds a name; where its own rules find none, the only file that is called so."""
        origin = "/" + dirname(asker)
        own = re.sub(r"\$(ORIGIN|\{ORIGIN\})", origin.replace("\\", "\\\\"), program.runpath)
        for folder in (*own.split(":")[:_MAX_FOLDERS], *library_path.split(":")[:_MAX_FOLDERS]):
            if folder.startswith("/") and (path := self.real(f"{normpath(folder)}/{name}")) in self.programs:
                return path
        fitting = [path for path in by_name.get(name, ()) if self.programs[path].arch == program.arch]
        usual = [path for path in fitting if _usual(path)]
        return next(iter(usual or fitting), None)

    def _libraries(self) -> dict[str, list[str]]:
        """Real paths of libraries by every name that leads to them."""
        found: dict[str, list[str]] = {}
        for path in sorted({*self.programs, *self.links}):
            real = self.real(path)
            if ".so" in basename(path) and real in self.programs and real not in found.setdefault(basename(path), []):
                found[basename(path)].append(real)
        return found


def _only(told: set[bytes]) -> Version | None:
    """The version, where there is one and no other."""
    (version, *others) = told
    return None if others or not version else version_of(version.decode())


def _usual(path: str) -> bool:
    return re.match(r"(usr/)?(local/)?lib(64|32)?/([^/]*-linux-[^/]*/)?[^/]*$", path) is not None


def _packages(text: bytes, name_line: bytes, version_line: bytes) -> dict[str, str]:
    return dict(_package_lines(text, name_line, version_line))


def _package_lines(text: bytes, name_line: bytes, version_line: bytes) -> Iterator[tuple[str, str]]:
    name = b""
    for line in text.splitlines():
        if line.startswith(name_line):
            name = line[len(name_line) :]
        elif line.startswith(version_line) and name:
            yield name.decode("utf-8", "replace"), line[len(version_line) :].decode("utf-8", "replace")
