"""What an image needs, learnt without running it: one record for each manifest digest.

None means that nobody knows. An empty tuple means that it was looked for and is not there. Only proof closes a place
to an image, so whoever fills this in leaves out what was not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from images.platforms import Platform
from images.versions import Version


class Source(StrEnum):
    """Where a fact comes from, hints first and proof last."""

    LABEL = "label"
    ENV = "env"
    CONFIG = "config"
    MANIFEST = "manifest"
    SBOM = "sbom"
    ARTIFACT = "artifact"
    PACKAGES = "packages"
    FILE_NAME = "file name"
    ELF = "elf"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What showed a fact. fact: the field it stands in, such as ``cuda.runtimes``; detail: a path, a line, a label."""

    fact: str
    source: Source
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCommand:
    """What the image starts with when nothing else is asked."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsaNeed:
    """CPU that the programs need. proven: the level that an ELF note names; declared: the builder's word for it.

    Both are archspec's names (``x86_64_v3``, ``zen3``, ``neoverse_v1``). Linkers seldom write the note, so that
    none is no proof of anything.
    """

    proven: str | None = None
    declared: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageAlignment:
    """Least and greatest alignment of loadable segments over the programs and libraries of the image, in bytes.

    Of each file its largest counts: a kernel with larger pages cannot load that file.
    """

    min_bytes: int
    max_bytes: int


class LibcFamily(StrEnum):
    """Which C library the image brings."""

    GLIBC = "glibc"
    MUSL = "musl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Libc:
    """The C library of the image. version: the newest that it defines; min_kernel: the oldest kernel it starts on."""

    family: LibcFamily
    version: Version | None = None
    min_kernel: Version | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatLibrary:
    """A newer user-space CUDA driver that the image carries for old kernel drivers: ``cuda/compat/libcuda.so.N``.

    folder: where it lies in the image; driver: the version in its file name.
    """

    folder: str
    driver: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaNeeds:
    """What the image brings of CUDA, and what it asks of the driver.

    runtimes: versions of the CUDA runtime in it, linked in statically or not. requires: the values of
    ``NVIDIA_REQUIRE_*`` by their names, unparsed. cubins, ptx: targets of its GPU code in nvcc's words (``sm_80``,
    ``compute_80``), all of them or None.
    """

    runtimes: tuple[Version, ...] | None = None
    requires: Mapping[str, str] | None = None
    require_disabled: bool = False
    """``NVIDIA_DISABLE_REQUIRE`` is set."""
    env_version: str | None = None
    """``CUDA_VERSION``: where no ``NVIDIA_REQUIRE_CUDA`` stands beside it, a legacy image asks for this CUDA."""
    visible_devices: str | None = None
    """``NVIDIA_VISIBLE_DEVICES``; None where it is not set."""
    compat: tuple[CompatLibrary, ...] | None = None
    cubins: tuple[str, ...] | None = None
    ptx: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RocmNeeds:
    """What the image brings of ROCm. targets: of its GPU code in the compiler's words (``gfx90a``), all or None."""

    runtimes: tuple[Version, ...] | None = None
    targets: tuple[str, ...] | None = None


class MpiFamily(StrEnum):
    """Families of MPI libraries that may replace each other. The wire's words are those of ``berth.require.mpi``."""

    MPICH_ABI = "mpich-abi"
    OPEN_MPI = "openmpi"
    STANDARD_ABI = "mpi-abi"


@dataclass(frozen=True, slots=True, kw_only=True)
class MpiLibrary:
    """One MPI library, in an image or on a host. path: of the real file; implementation: ``mpich``, ``cray``, ...

    soname: the name that programs ask for (Debian calls MPICH's ``libmpich.so.12``). abi: the numbers at the end of
    the file's name, (12, 2, 0) for ``libmpi.so.12.2.0``. version: of the implementation.
    """

    family: MpiFamily
    soname: str
    path: str
    implementation: str = ""
    abi: Version | None = None
    version: Version | None = None
    used: bool | None = None
    """Whether the entry program, or ``mpi4py``, asks for it; an image may hold several and use one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PmixClient:
    """A PMIx library. Its soname stays the same over major versions, so that only packages tell the version."""

    path: str
    version: Version | None = None


class Fabric(StrEnum):
    """Fast networks between nodes that libraries drive; all else goes over TCP."""

    VERBS = "verbs"  # InfiniBand and RoCE, by UCX or libfabric
    CXI = "cxi"  # Slingshot
    EFA = "efa"
    PSM2 = "psm2"  # Omni-Path
    OPX = "opx"  # Omni-Path, its newer provider


class MpiMode(StrEnum):
    """How the image means to run over several nodes."""

    HYBRID = "hybrid"  # its own MPI, started by the host
    BIND = "bind"  # the host's MPI in place of its own
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What its builder says that it needs: labels or annotations ``berth.require.*``, as written but for the types.

    mpi: ``mpich-abi>=12``, ``openmpi>=4`` or ``mpi-abi``. hooks: names out of ``com.hooks.NAME.enabled``.
    """

    cuda: Version | None = None
    gpu_targets: tuple[str, ...] | None = None
    mpi: str | None = None
    mpi_mode: MpiMode | None = None
    pmix: Version | None = None
    fabrics: tuple[Fabric, ...] | None = None
    inject_glibc: bool | None = None
    kernel: Version | None = None
    memory_bytes: int | None = None
    writable_root: bool | None = None
    network: bool | None = None
    hooks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """All that is known of one image. manifest_digest: ``sha256:`` and 64 hexadecimal digits.

    download_bytes: its compressed layers together. unpacked_bytes: its files together. libc, glibcxx: the newest
    that its own libraries define. tree_seen: whether the files were looked at, or only manifest and configuration.
    """

    manifest_digest: str
    platform: Platform | None = None
    download_bytes: int | None = None
    unpacked_bytes: int | None = None
    command: StartCommand | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    tree_seen: bool = False
    isa: IsaNeed = field(default_factory=IsaNeed)
    page_alignment: PageAlignment | None = None
    libc: Libc | None = None
    glibcxx: Version | None = None
    cuda: CudaNeeds = field(default_factory=CudaNeeds)
    rocm: RocmNeeds = field(default_factory=RocmNeeds)
    mpi: tuple[MpiLibrary, ...] | None = None
    pmix: tuple[PmixClient, ...] | None = None
    fabrics: tuple[Fabric, ...] | None = None
    declared: Declared = field(default_factory=Declared)
    evidence: tuple[Evidence, ...] = ()
