"""Images and nodes by name, as they are met in the field, for tests of the matcher."""

from __future__ import annotations

from dataclasses import replace

from images.host import Area, BoundFile, Gpu, HostFacts, HostMpi, Room, RuntimeFacts
from images.needs import (
    CompatLibrary,
    CudaNeeds,
    Declared,
    Fabric,
    IsaNeed,
    Libc,
    LibcFamily,
    MpiFamily,
    MpiLibrary,
    Needs,
    PageAlignment,
    PmixClient,
    RocmNeeds,
)
from images.platforms import Platform

GIB = 1024**3
V2_FLAGS = ("mmx", "sse", "sse2", "pni", "ssse3", "cx16", "popcnt", "sse4_1", "sse4_2", "lahf_lm")
V3_FLAGS = (*V2_FLAGS, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave")
V4_FLAGS = (*V3_FLAGS, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")

# -- images --------------------------------------------------------------------------------------------------------

DEBIAN = Needs(
    manifest_digest="sha256:" + "d" * 64,
    platform=Platform(os="linux", architecture="amd64"),
    download_bytes=50_000_000,
    unpacked_bytes=125_000_000,
    tree_seen=True,
    page_alignment=PageAlignment(min_bytes=4096, max_bytes=4096),
    libc=Libc(family=LibcFamily.GLIBC, version=(2, 36), min_kernel=(3, 2)),
    glibcxx=(3, 4, 30),
    cuda=CudaNeeds(runtimes=(), requires={}, compat=(), cubins=(), ptx=()),
    rocm=RocmNeeds(runtimes=(), targets=()),
    mpi=(),
    pmix=(),
    fabrics=(),
)


def cuda(runtime, compat=None, cubins=("sm_70", "sm_80", "sm_90"), ptx=("compute_90",), **more):
    """Debian with CUDA of one version; compat: the driver of its compatibility library."""
    library = (CompatLibrary(folder="/usr/local/cuda/compat", driver=compat),) if compat else ()
    needs = CudaNeeds(runtimes=(runtime,), requires={}, compat=library, cubins=cubins, ptx=ptx)
    return replace(DEBIAN, cuda=replace(needs, **more))


def branches(*known):
    """What NVIDIA's images list beside ``cuda>=``: driver branches of data-centre GPUs."""
    return " ".join(f"brand=tesla,driver>={branch},driver<{branch + 1}" for branch in known)


REQUIRES_12_4 = {"NVIDIA_REQUIRE_CUDA": f"cuda>=12.4 {branches(470, 525, 535)}"}

CUDA_IMAGES = {
    "cuda-9.0": cuda((9, 0, 176), cubins=("sm_37", "sm_60", "sm_70"), ptx=("compute_70",)),
    "cuda-10.2": cuda((10, 2, 89), cubins=("sm_37", "sm_60", "sm_70", "sm_75"), ptx=("compute_75",)),
    "cuda-11.8": cuda((11, 8, 89), cubins=("sm_37", "sm_70", "sm_80", "sm_90"), ptx=()),
    "11.8-compat": cuda((11, 8, 89), compat=(520, 61, 5), cubins=("sm_37", "sm_70", "sm_80"), ptx=("compute_80",)),
    "cuda-12.4": cuda((12, 4, 127)),
    "12.4-compat": cuda((12, 4, 127), compat=(550, 54, 15)),
    "12.4-ptx": cuda((12, 4, 127), cubins=(), ptx=("compute_70",)),
    "12.8-wheel": cuda((12, 8, 90), cubins=("sm_75", "sm_80", "sm_86", "sm_90", "sm_100"), ptx=("compute_120",)),
    "13.0-compat": cuda((13, 0, 48), compat=(580, 65, 6), cubins=("sm_80", "sm_90", "sm_100"), ptx=()),
    "cuda-14.0": cuda((14, 0), cubins=None, ptx=None),
    "sm_90a": cuda((12, 4), cubins=("sm_90a",), ptx=()),
    "env-only": replace(DEBIAN, tree_seen=False, cuda=CudaNeeds(env_version="12.4.1")),
    "code?": cuda((12, 4, 127), cubins=None, ptx=None),
    "no-cuda": DEBIAN,
}

AVX512 = replace(DEBIAN, isa=IsaNeed(proven="x86_64_v4"))
ALPINE = replace(DEBIAN, libc=Libc(family=LibcFamily.MUSL, version=(1, 2, 4)), glibcxx=(3, 4, 32))
CPU_IMAGES = {
    "debian": DEBIAN,
    "alpine": ALPINE,
    "arm64": replace(DEBIAN, platform=Platform(os="linux", architecture="arm64", variant="v8")),
    "arm64-64k": replace(
        DEBIAN,
        platform=Platform(os="linux", architecture="arm64"),
        page_alignment=PageAlignment(min_bytes=65536, max_bytes=65536),
    ),
    "windows": replace(DEBIAN, platform=Platform(os="windows", architecture="amd64")),
    "says-nothing": Needs(manifest_digest="sha256:" + "0" * 64),
    "v3-noted": replace(DEBIAN, isa=IsaNeed(proven="x86_64_v3")),
    "v4-noted": AVX512,
    "zen3-declared": replace(DEBIAN, isa=IsaNeed(declared="zen3")),
    "neoverse-v1": replace(
        DEBIAN, platform=Platform(os="linux", architecture="arm64"), isa=IsaNeed(declared="neoverse_v1")
    ),
    "kernel-5.14": replace(DEBIAN, declared=Declared(kernel=(5, 14))),
    "big-memory": replace(DEBIAN, declared=Declared(memory_bytes=512 * GIB)),
    "writes-root": replace(DEBIAN, declared=Declared(writable_root=True)),
    "needs-network": replace(DEBIAN, declared=Declared(network=True)),
    "20-gib": replace(DEBIAN, download_bytes=20 * GIB, unpacked_bytes=45 * GIB),
}


def mpi(family, soname, abi=None, version=None, used=True):
    return MpiLibrary(family=family, soname=soname, path=f"/usr/lib/{soname}", abi=abi, version=version, used=used)


def open_mpi(*version, used=True):
    return mpi(MpiFamily.OPEN_MPI, "libmpi.so.40", (40, 30, 4), version, used)


def mpich(minor, soname="libmpi.so.12", used=True):
    return mpi(MpiFamily.MPICH_ABI, soname, (12, minor, 0), (4, 0, 2), used)


def with_mpi(*libraries, pmix=(), fabrics=(), base=DEBIAN):
    clients = tuple(PmixClient(path="/usr/lib/libpmix.so.2", version=version) for version in pmix)
    return replace(base, mpi=libraries, pmix=clients, fabrics=fabrics)


MPI_IMAGES = {
    "ompi-4.1": with_mpi(open_mpi(4, 1, 4), pmix=((4, 2, 2),), fabrics=(Fabric.VERBS,)),
    "ompi-5.0": with_mpi(open_mpi(5, 0, 3), pmix=((5, 0, 2),), fabrics=(Fabric.VERBS,)),
    "ompi-2.0": with_mpi(open_mpi(2, 0, 1), pmix=((1, 2, 5),)),
    "mpich-debian": with_mpi(mpich(2, soname="libmpich.so.12")),
    "intel-mpi": with_mpi(mpich(0), fabrics=(Fabric.VERBS,)),
    "mpich-13": with_mpi(mpi(MpiFamily.MPICH_ABI, "libmpi.so.13", (13, 0, 0))),
    "mpi-5-abi": with_mpi(mpi(MpiFamily.STANDARD_ABI, "libmpi_abi.so.0", (0, 1))),
    "both": with_mpi(open_mpi(4, 1, 4, used=None), mpich(2, used=None), pmix=((4, 2, 2),)),
    "both-uses-mpich": with_mpi(open_mpi(4, 1, 4, used=False), mpich(2)),
    "alpine-mpich": with_mpi(mpich(2), base=ALPINE),
    "no-mpi": DEBIAN,
    "not-looked": replace(DEBIAN, mpi=None, pmix=None, fabrics=None),
    "declared": replace(DEBIAN, mpi=None, pmix=None, declared=Declared(mpi="mpich-abi>=12")),
}

# -- nodes ---------------------------------------------------------------------------------------------------------

APPTAINER = RuntimeFacts(
    name="apptainer",
    version=(1, 3, 4),
    setuid=False,
    fuse=True,
    bare_squashfs=True,
    compressors=("gzip", "zstd"),
    nvccli=False,
    hooks=(),
)
NODE = HostFacts(
    node_class="node",
    architecture="amd64",
    cpu_vendor="GenuineIntel",
    cpu_flags=V4_FLAGS,
    microarchitecture="x86_64_v4",
    memory_bytes=256 * GIB,
    kernel=(5, 14, 0),
    page_size_bytes=4096,
    user_namespaces=True,
    gpus=(),
    compat=(),
    runtimes=(APPTAINER,),
    mpi=(),
    mpi_plugins=(),
    fabrics=(),
    rooms={Area.SCRATCH: Room(path="/scratch", free_bytes=10**13, limit_bytes=10**14)},
    outbound_network=True,
)


def gpu_node(name, capability, driver, brand="tesla"):
    gpu = Gpu(name=name, count=4, compute_capability=capability, brand=brand)
    return replace(NODE, node_class=name, gpus=(gpu,), gpu_driver=driver)


GPU_HOSTS = {
    "k80-450": gpu_node("Tesla K80", (3, 7), (450, 80, 2)),
    "v100-470": gpu_node("Tesla V100-SXM2-32GB", (7, 0), (470, 57, 2)),
    "v100-495": gpu_node("Tesla V100-SXM2-32GB", (7, 0), (495, 29, 5)),
    "a100-535": gpu_node("NVIDIA A100-SXM4-80GB", (8, 0), (535, 183, 1)),
    "h100-550": gpu_node("NVIDIA H100 80GB HBM3", (9, 0), (550, 90, 7)),
    "h100-580": gpu_node("NVIDIA H100 80GB HBM3", (9, 0), (580, 65, 6)),
    "b200-590": gpu_node("NVIDIA B200", (10, 0), (590, 44, 1)),
    "3090-470": gpu_node("NVIDIA GeForce RTX 3090", (8, 6), (470, 57, 2), brand="geforce"),
    "a6000-470": gpu_node("NVIDIA RTX A6000", (8, 6), (470, 57, 2), brand="nvidiartx"),
    "driver?": replace(gpu_node("NVIDIA A100-SXM4-80GB", (8, 0), (1,)), gpu_driver=None),
    "no-gpu": NODE,
    "gpus?": replace(NODE, gpus=None),
}

ARM = replace(
    NODE, architecture="arm64", cpu_vendor="0x41", cpu_flags=None, microarchitecture="neoverse_n1", page_size_bytes=4096
)
CPU_HOSTS = {
    "icelake": replace(NODE, microarchitecture="icelake", cpu_flags=None),
    "zen3": replace(NODE, cpu_vendor="AuthenticAMD", microarchitecture="zen3", cpu_flags=None),
    "masked-vm": replace(NODE, microarchitecture="x86_64_v3", cpu_flags=V3_FLAGS),
    "centos7": replace(
        NODE, microarchitecture="ivybridge", cpu_flags=V2_FLAGS, kernel=(3, 10, 0), user_namespaces=True
    ),
    "arm-4k": ARM,
    "arm-64k": replace(ARM, microarchitecture="neoverse_v2", page_size_bytes=65536),
    "no-userns": replace(NODE, user_namespaces=False, runtimes=(replace(APPTAINER, setuid=False),)),
    "no-fuse": replace(NODE, runtimes=(replace(APPTAINER, fuse=False, setuid_mounts=False),)),
    "gzip-sif": replace(NODE, runtimes=(replace(APPTAINER, compressors=("gzip",), bare_squashfs=False),)),
    "closed": replace(
        NODE, outbound_network=False, rooms={Area.SCRATCH: Room(path="/s", free_bytes=GIB, limit_bytes=10 * GIB)}
    ),
    "unprobed": HostFacts(node_class="unknown"),
}


def bound(library, glibc=(2, 28)):
    """A host's MPI with one library that it needs and a folder of plugins."""
    return HostMpi(
        library=library,
        needs_glibc=glibc,
        libraries=(BoundFile(soname="libucp.so.0", path="/usr/lib64/libucp.so.0.0.0"),),
        folders=("/usr/lib64/ucx",),
    )


IB_NODE = replace(NODE, fabrics=(Fabric.VERBS,))
MPI_HOSTS = {
    "pmix4": replace(IB_NODE, mpi_plugins=("none", "pmi2", "pmix", "pmix_v4"), pmix=(4, 2, 9)),
    "pmi2": replace(IB_NODE, mpi_plugins=("none", "pmi2")),
    "ompi4": replace(IB_NODE, mpi_plugins=("none",), mpi=(bound(open_mpi(4, 1, 6)),)),
    "ompi5": replace(IB_NODE, mpi_plugins=("none", "pmix", "pmix_v5"), pmix=(5, 0, 1), mpi=(bound(open_mpi(5, 0, 5)),)),
    "cray": replace(
        NODE,
        fabrics=(Fabric.CXI,),
        mpi_plugins=("none", "pmi2", "cray_shasta"),
        mpi=(bound(mpich(3)),),
        glibc_hook=False,
    ),
    "new-libc": replace(IB_NODE, mpi_plugins=("none",), mpi=(bound(mpich(3), glibc=(2, 39)),), glibc_hook=False),
    "libc-hook": replace(IB_NODE, mpi_plugins=("none",), mpi=(bound(mpich(3), glibc=(2, 39)),), glibc_hook=True),
    "wi4mpi": replace(IB_NODE, mpi_plugins=("none",), mpi=(bound(mpich(3)),), translators=("wi4mpi",)),
    "unprobed": replace(IB_NODE, mpi=None, mpi_plugins=None),
}
