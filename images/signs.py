"""By which names and folders the files of an image are known: MPI, PMIx, fabrics, CUDA and ROCm. Data alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from images.needs import Fabric, MpiFamily

MPI_SONAMES: tuple[tuple[re.Pattern[str], MpiFamily, str], ...] = (
    (re.compile(r"libmpi_abi\.so\.\d+"), MpiFamily.STANDARD_ABI, ""),
    (re.compile(r"libmpi\.so\.(0|1|20|40)"), MpiFamily.OPEN_MPI, "openmpi"),
    (re.compile(r"libmpi\.so\.12"), MpiFamily.MPICH_ABI, ""),  # or Open MPI 1.10, which its own libraries tell
    (re.compile(r"libmpich\.so\.12"), MpiFamily.MPICH_ABI, "mpich"),  # Debian's name for it
    (re.compile(r"libmpi_(cray|gnu|amd|aocc|intel|nvidia)[\w]*\.so\.12"), MpiFamily.MPICH_ABI, "cray"),
)
"""The C libraries of MPI by the name that programs ask for, with their implementation where the name tells it."""

BUILT_ON = ("intel", "cray", "mvapich", "mpich")
"""Implementations of the MPICH ABI by their own words; those built on another come before it."""

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "mpich": ("libmpich12", "mpich"),
    "openmpi": ("libopenmpi3", "libopenmpi40", "openmpi"),
    "pmix": ("libpmix2", "pmix", "openpmix"),
}
"""Packages that tell a version, in Debian's words and Alpine's."""

FABRIC_FILES: tuple[tuple[re.Pattern[str], Fabric], ...] = (
    (re.compile(r"libuct_ib(_\w+)?\.so\b"), Fabric.VERBS),
    (re.compile(r"mca_btl_openib\.so"), Fabric.VERBS),
    (re.compile(r"libverbs-fi\.so"), Fabric.VERBS),
    (re.compile(r"libcxi-fi\.so"), Fabric.CXI),
    (re.compile(r"libefa-fi\.so"), Fabric.EFA),
    (re.compile(r"libpsm2-fi\.so"), Fabric.PSM2),
    (re.compile(r"libopx-fi\.so"), Fabric.OPX),
)
"""Plugins that drive a network."""

FABRIC_NEEDS: Mapping[str, Fabric] = {
    "libibverbs.so.1": Fabric.VERBS,
    "libcxi.so.1": Fabric.CXI,
    "libefa.so.1": Fabric.EFA,
    "libpsm2.so.2": Fabric.PSM2,
}
"""What the library that carries MPI or libfabric asks for, where drivers are built into it."""

CARRIERS = re.compile(r"lib(fabric|mpi|mpich|psm2?)\.so|libuct")
"""Libraries that drive networks with what is built into them."""

OPTIONAL = re.compile(r"/glibc-hwcaps/|/(haswell|avx512_1|x86-64-v\d)/")
"""Folders that the loader takes only where their CPU level is met."""

NOT_LOADED = re.compile(r"(^|/)usr/lib/debug/|\.debug$")
"""Debugging information: programs without their content."""

USUAL_FOLDER = re.compile(r"(usr/)?lib(64)?(/[^/]*-linux-[^/]*)?")
"""Where a distribution keeps its libraries."""

CUDA_COMPAT = re.compile(r"((?:.*/)?cuda[^/]*/compat(?:/[^/]+)*)/libcuda\.so\.(\d+(?:\.\d+)+)")
"""A newer CUDA driver for old kernels: its folder and version."""

ROCBLAS = re.compile(r"/(?:rocblas|hipblaslt)/library/[^/]*?(gfx[0-9a-f]{3,4})(?![0-9a-f])")
"""Kernels of AMD's libraries, one file for each target."""

NVIDIA_OWN = re.compile(r"lib(cu|nv|npp|nccl)[\w-]*\.so")
"""NVIDIA's libraries hold code for every GPU; what the image runs on is told by the rest of it."""
