"""What the files of an image show of its needs, each fact with the files that showed it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from posixpath import basename, dirname

from images.elf import ISA_LEVELS, Elf
from images.needs import (
    CompatLibrary,
    CudaNeeds,
    Evidence,
    Fabric,
    Libc,
    LibcFamily,
    MpiFamily,
    MpiLibrary,
    Needs,
    PageAlignment,
    PmixClient,
    RocmNeeds,
    Source,
    StartCommand,
)
from images.platforms import Platform
from images.signs import (
    BUILT_ON,
    CARRIERS,
    CUDA_COMPAT,
    FABRIC_FILES,
    FABRIC_NEEDS,
    MPI_SONAMES,
    NOT_LOADED,
    NVIDIA_OWN,
    OPTIONAL,
    PACKAGES,
    ROCBLAS,
    USUAL_FOLDER,
)
from images.survey import Survey
from images.versions import Version, version_of

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_MAX_EVIDENCE = 20
"""Of one fact."""


def shown(survey: Survey, needs: Needs) -> Needs:
    """The record of the configuration with all that the files show; the platform is theirs where all say another."""
    return _Tree(survey, needs).needs()


class _Tree:
    """The files of an image, seen with what its configuration says."""

    def __init__(self, survey: Survey, needs: Needs) -> None:
        self._survey, self._config = survey, needs
        self._evidence = list(needs.evidence)
        self._all = {path: each for path, each in sorted(survey.programs.items()) if not NOT_LOADED.search(path)}
        self._platform = self._proven_platform()
        arch = self._platform.architecture if self._platform else ""
        self._programs = {path: each for path, each in self._all.items() if each.arch == arch}

    def needs(self) -> Needs:
        """The record with all that the files show."""
        return replace(
            self._config,
            platform=self._platform,
            tree_seen=True,
            isa=replace(self._config.isa, proven=self._isa()),
            page_alignment=self._page_alignment(),
            libc=self._libc(),
            glibcxx=self._glibcxx(),
            cuda=self._cuda(),
            rocm=self._rocm(),
            mpi=tuple(self._mpi()),
            pmix=tuple(self._pmix()),
            fabrics=self._fabrics(),
            evidence=tuple(self._evidence),
        )

    def _saw(self, fact: str, path: str, more: str = "", source: Source = Source.ELF) -> None:
        """Keep what showed a fact; of many only the first."""
        if sum(each.fact == fact for each in self._evidence) >= _MAX_EVIDENCE:
            return
        detail = f"/{path}: {more}" if more else f"/{path}"
        self._evidence.append(Evidence(fact, source, _plain(detail)))

    # -- the machine --------------------------------------------------------------------------------------------------

    def _proven_platform(self) -> Platform | None:
        """What its builder claims, unless every program in it is for another machine."""
        claimed = self._config.platform
        found = {each.arch: path for path, each in self._all.items() if each.arch}
        if len(found) != 1 or (claimed and claimed.architecture in found):
            return claimed
        ((arch, path),) = found.items()
        self._saw("platform", path, f"all programs are for {arch}")
        return Platform(os="linux", architecture=arch)

    def _isa(self) -> str | None:
        """The highest level that a file asks for; those that the loader takes only where they run do not count."""
        for _, level in ISA_LEVELS:
            for path, each in self._programs.items():
                if each.isa == level and not OPTIONAL.search(f"/{path}"):
                    self._saw("isa.proven", path, f"note asks for {level}")
                    return level
        return None

    def _page_alignment(self) -> PageAlignment | None:
        aligned = {path: each.page_align_bytes for path, each in self._programs.items() if each.page_align_bytes}
        if not aligned:
            return None
        least = min(aligned, key=lambda path: aligned[path])
        self._saw("page_alignment", least, f"{aligned[least]} bytes")
        return PageAlignment(min_bytes=aligned[least], max_bytes=max(aligned.values()))

    # -- C and C++ ----------------------------------------------------------------------------------------------------

    def _libc(self) -> Libc | None:
        for path, each in self._by_soname(r"libc\.so\.6(\.1)?"):
            version = each.defines.get("GLIBC")
            if version:
                self._saw("libc", path, f"defines GLIBC_{_dotted(version)}")
                return Libc(family=LibcFamily.GLIBC, version=version, min_kernel=each.min_kernel)
        for path, _ in self._named(r"(ld-musl-\w+\.so\.1|libc\.musl-\w+\.so\.1)"):
            listed = self._survey.packages.get("musl")
            self._saw("libc", path, f"package musl {listed}" if listed else "")
            return Libc(family=LibcFamily.MUSL, version=_leading(listed))
        return None

    def _glibcxx(self) -> Version | None:
        """Of the library in its usual place, where there is one: others belong to one application."""
        for path, each in self._by_soname(r"libstdc\+\+\.so\.6"):
            if version := each.defines.get("GLIBCXX"):
                self._saw("glibcxx", path, f"defines GLIBCXX_{_dotted(version)}")
                return version
        return None

    # -- GPUs ---------------------------------------------------------------------------------------------------------

    def _cuda(self) -> CudaNeeds:
        runtimes: set[Version] = set()
        for path, each in self._by_soname(r"libcudart\.so\.[\d.]+"):
            name = max(basename(path), each.soname, key=len)  # the file's name tells more, but for wheels
            runtimes.add(_of_file(name)[:2])
            self._saw("cuda.runtimes", path)
        compat = []
        for path in self._programs:
            if match := CUDA_COMPAT.fullmatch(path):
                compat.append(CompatLibrary(folder=_plain(f"/{match[1]}"), driver=version_of(match[2])))
                self._saw("cuda.compat", path, source=Source.FILE_NAME)
        cubins, ptx = self._gpu_code()
        return replace(
            self._config.cuda, runtimes=tuple(sorted(runtimes)), compat=tuple(compat), cubins=cubins, ptx=ptx
        )

    def _gpu_code(self) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        """Targets of all its GPU code; None where there is none to be seen: it may be made at run time."""
        holding = {path: each for path, each in self._programs.items() if each.gpu or each.gpu_unknown}
        own = {path: each for path, each in holding.items() if not NVIDIA_OWN.match(basename(path))}
        known = [(path, each.gpu) for path, each in (own or holding).items() if each.gpu]
        if not known or len(known) < len(own or holding):
            return None, None
        for path, code in known:
            targets = ", ".join(sorted(code.cubins | code.ptx))
            self._saw("cuda.cubins", path, targets)
            self._saw("cuda.ptx", path, targets)
        cubins = frozenset[str]().union(*(code.cubins for _, code in known))
        ptx = frozenset[str]().union(*(code.ptx for _, code in known))
        return tuple(sorted(cubins)), tuple(sorted(ptx))

    def _rocm(self) -> RocmNeeds:
        runtimes: set[Version] = set()
        for path, each in self._by_soname(r"libamdhip64\.so\.\d+"):
            runtimes.add(_of_file(max(basename(path), each.soname, key=len))[:2])
            self._saw("rocm.runtimes", path)
        targets: dict[str, str] = {}
        for path in sorted(self._survey.named):
            if match := ROCBLAS.search(f"/{path}"):
                targets.setdefault(match[1], path)
        for path in targets.values():
            self._saw("rocm.targets", path, source=Source.FILE_NAME)
        return RocmNeeds(runtimes=tuple(sorted(runtimes)), targets=tuple(sorted(targets)) or None)

    # -- MPI and networks ---------------------------------------------------------------------------------------------

    def _mpi(self) -> Iterator[MpiLibrary]:
        found = dict(self._mpi_libraries())
        starts = list(self._starts())
        library_path = (self._config.command or StartCommand()).env.get("LD_LIBRARY_PATH", "")
        loaded = self._survey.loaded(starts, library_path)
        some_used = not loaded.isdisjoint(found)
        for path, each in found.items():
            used = path in loaded
            if used:
                self._saw("mpi", path, f"loaded for {', '.join('/' + start for start in starts)[:200]}")
            yield replace(each, used=used if some_used else None)

    def _mpi_libraries(self) -> Iterator[tuple[str, MpiLibrary]]:
        for pattern, family, implementation in MPI_SONAMES:
            for path, each in self._by_soname(pattern.pattern):
                old = any(name.startswith("libopen-") for name in each.needed)
                kind = MpiFamily.OPEN_MPI if old else family
                name, version = self._implementation(kind, implementation, path)
                self._saw("mpi", path, f"is {each.soname}")
                yield (
                    path,
                    MpiLibrary(
                        family=kind,
                        soname=each.soname,
                        path=_plain(f"/{path}"),
                        implementation=name,
                        abi=_of_file(basename(path)) or _of_file(each.soname),
                        version=version,
                    ),
                )

    def _implementation(self, family: MpiFamily, implied: str, path: str) -> tuple[str, Version | None]:
        """Name and version as the library says them, or the packages; those built on MPICH name it, too."""
        told = self._survey.words.get(path, {})
        name = "openmpi" if family is MpiFamily.OPEN_MPI else next((name for name in BUILT_ON if name in told), implied)
        listed = (self._survey.packages.get(package) for package in PACKAGES.get(name, ()))
        return name, told.get(name) or next(filter(None, map(_leading, listed)), None)

    def _starts(self) -> Iterator[str]:
        """Programs that the image starts with, launchers included, and the modules of ``mpi4py``."""
        command = self._config.command or StartCommand()
        found = (self._survey.started(w, command.env.get("PATH", PATH)) for w in (*command.entrypoint, *command.cmd))
        modules = (path for path in self._programs if re.search(r"(^|/)mpi4py/MPI\.[^/]*so$", path))
        yield from dict.fromkeys(path for path in (*found, *modules) if path in self._programs)

    def _pmix(self) -> Iterator[PmixClient]:
        for path, each in self._by_soname(r"libpmix\.so\.\d+"):
            version = self._survey.words.get(path, {}).get("pmix")
            listed = next(filter(None, map(self._survey.packages.get, PACKAGES["pmix"])), None)
            if version or not listed:
                self._saw("pmix", path, f"is {each.soname}")
            else:
                self._saw("pmix", path, f"package {listed}", Source.PACKAGES)
            yield PmixClient(path=_plain(f"/{path}"), version=version or _leading(listed))
        for path, _ in self._named(r"mca_pmix_pmix\dx\.so"):  # the client that Open MPI 2 to 4 brought along
            self._saw("pmix", path, source=Source.FILE_NAME)
            yield PmixClient(path=_plain(f"/{path}"), version=(int(basename(path)[-5]),))

    def _fabrics(self) -> tuple[Fabric, ...]:
        seen: dict[Fabric, str] = {}
        for path, each in self._programs.items():
            name = basename(path)
            plugins = [fabric for pattern, fabric in FABRIC_FILES if pattern.match(name)]
            built_in = each.needed if CARRIERS.match(each.soname or name) else ()
            for fabric in (*plugins, *(FABRIC_NEEDS[need] for need in built_in if need in FABRIC_NEEDS)):
                seen.setdefault(fabric, path)
        for path in seen.values():
            self._saw("fabrics", path)
        return tuple(fabric for fabric in Fabric if fabric in seen)

    # -- finding files ------------------------------------------------------------------------------------------------

    def _by_soname(self, pattern: str) -> list[tuple[str, Elf]]:
        """Libraries of a name; those in the usual folders first, as the loader finds them."""
        found = ((path, each) for path, each in self._programs.items() if re.fullmatch(pattern, each.soname))
        return sorted(found, key=_place)

    def _named(self, pattern: str) -> Iterable[tuple[str, Elf]]:
        return [(path, each) for path, each in self._programs.items() if re.fullmatch(pattern, basename(path))]


def _place(found: tuple[str, Elf]) -> tuple[bool, str]:
    return USUAL_FOLDER.fullmatch(dirname(found[0])) is None, found[0]


def _of_file(name: str) -> Version:
    """The numbers after ``.so.``; none for a plain ``.so``."""
    _, _, numbers = name.partition(".so.")
    return _leading(numbers) or ()


def _leading(text: str | None) -> Version | None:
    """The numbers that a package's version begins with, without its epoch."""
    match = re.match(r"(?:\d+:)?(\d{1,9}(?:\.\d{1,9})*)", text or "")
    return version_of(match[1]) if match else None


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _plain(text: str) -> str:
    """As far as it is text: names of files may be any bytes."""
    return text.encode("utf-8", "replace").decode()
