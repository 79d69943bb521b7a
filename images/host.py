"""What one class of nodes can do, learnt on such a node: one record, each fact with its evidence and date.

None means that nobody knows; an empty tuple, that it was looked for and is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from images.needs import CompatLibrary, Fabric, MpiLibrary
from images.versions import Version


class FactSource(StrEnum):
    """Who says so."""

    PROBE = "probe"
    OWNER = "owner"


@dataclass(frozen=True, slots=True, kw_only=True)
class FactEvidence:
    """Why a fact is believed. detail: the command or file that showed it, or the owner who said it."""

    source: FactSource
    detail: str
    seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """GPUs of one model in a node. compute_capability: NVIDIA's; target: AMD's word for its code, ``gfx90a``.

    brand: as the driver groups its products (``tesla``, ``geforce``), which ``NVIDIA_REQUIRE_*`` may ask for.
    """

    name: str
    count: int = 1
    compute_capability: Version | None = None
    target: str | None = None
    brand: str | None = None
    mig: bool | None = None
    data_centre: bool | None = None
    """Whether NVIDIA supports compatibility libraries on it; None: its name decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFacts:
    """The container runtime. setuid: it mounts as root; fuse: squashfuse and ``/dev/fuse`` are usable.

    bare_squashfs: it runs squashfs files that no SIF wraps. compressors: of images that it mounted when tried.
    nvccli: its NVIDIA hook is in use, which enforces ``NVIDIA_REQUIRE_*``. hooks: what the site offers beside.
    """

    name: str
    version: Version | None = None
    setuid: bool | None = None
    setuid_mounts: bool | None = None
    fuse: bool | None = None
    bare_squashfs: bool | None = None
    compressors: tuple[str, ...] | None = None
    nvccli: bool | None = None
    hooks: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundFile:
    """A library that comes along when the host's MPI is used. soname: the name that programs ask for."""

    soname: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMpi:
    """An MPI of the host that may take the place of an image's. needs_*: the most that it and its libraries ask for.

    libraries: those that it needs beside the C library; folders: its plugins and settings, bound where they are.
    """

    library: MpiLibrary
    needs_glibc: Version | None = None
    needs_glibcxx: Version | None = None
    libraries: tuple[BoundFile, ...] = ()
    folders: tuple[str, ...] = ()


class Area(StrEnum):
    """File systems that matter to an image."""

    HOME = "home"
    SCRATCH = "scratch"
    TMPDIR = "tmpdir"


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A file system as a compute node sees it. limit_bytes: its size, or the quota where that is less."""

    path: str
    filesystem: str | None = None
    free_bytes: int | None = None
    limit_bytes: int | None = None
    in_memory: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """All that is known of the nodes of one class.

    architecture: in Go's words. microarchitecture: archspec's name. gpu_driver, driver_cuda: NVIDIA's, and the CUDA
    that it brings itself. compat: newer CUDA drivers in user space that the site offers. mpi_plugins: those of
    ``srun --mpi=list``. pmix: the version that Slurm's plugin is built for. translators: programs that run one
    family's MPI over another's (``wi4mpi``), as the owner says.
    """

    node_class: str
    architecture: str | None = None
    cpu_model: str | None = None
    cpu_vendor: str | None = None
    cpu_flags: tuple[str, ...] | None = None
    microarchitecture: str | None = None
    memory_bytes: int | None = None
    kernel: Version | None = None
    page_size_bytes: int | None = None
    user_namespaces: bool | None = None
    gpus: tuple[Gpu, ...] | None = None
    gpu_driver: Version | None = None
    driver_cuda: Version | None = None
    rocm_driver: Version | None = None
    compat: tuple[CompatLibrary, ...] | None = None
    runtimes: tuple[RuntimeFacts, ...] | None = None
    mpi: tuple[HostMpi, ...] | None = None
    mpi_plugins: tuple[str, ...] | None = None
    pmix: Version | None = None
    translators: tuple[str, ...] | None = None
    glibc_hook: bool | None = None
    fabrics: tuple[Fabric, ...] | None = None
    rooms: Mapping[Area, Room] = field(default_factory=dict)
    outbound_network: bool | None = None
    evidence: Mapping[str, FactEvidence] = field(default_factory=dict)
    """By the name of the field above; facts that came without evidence are missing here."""
