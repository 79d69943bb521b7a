"""The record of an image: proof from its files, hints from what it says of itself, and nothing that was not seen."""

from __future__ import annotations

import hashlib
import subprocess

import pytest

from images import records
from images.elf import Elf
from images.fatbin import GpuCode
from images.inspect import inspect
from images.layers import unpack
from images.needs import (
    CompatLibrary,
    CudaNeeds,
    Declared,
    Fabric,
    IsaNeed,
    Libc,
    LibcFamily,
    MpiFamily,
    MpiMode,
    Needs,
    PageAlignment,
    PmixClient,
    RocmNeeds,
    Source,
    StartCommand,
)
from images.platforms import Platform
from images.survey import Survey
from testbed.rootfs import CACHE
from tests.images.tarballs import LINK, entry, folder, layer, tar

DIGEST = "sha256:" + "0" * 64
LIB = "usr/lib/x86_64-linux-gnu"


def elf(soname="", needed=(), *, arch="amd64", align=4096, **more):
    return Elf(arch=arch, page_align_bytes=align, soname=soname, needed=tuple(needed), **more)


def survey(files=None, links=None, words=None, packages=None, scripts=None, named=()):
    found = Survey()
    found.programs |= files or {}
    found.links |= links or {}
    found.words |= words or {}
    found.scripts |= scripts or {}
    found.named |= set(named)
    found._packages["var/lib/dpkg/status"] = packages or {}
    return found


def record(found=None, *cmd, env=None, **more):
    command = StartCommand(cmd=cmd, env=env or {})
    more.setdefault("platform", Platform(os="linux", architecture="amd64"))
    needs = inspect(DIGEST, command=command, survey=found, **more)
    assert records.load(Needs, records.dump(needs)) == needs
    return needs


# -- what an image says of itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "fields"),
    [
        ({"cuda": ">=12.2"}, {"cuda": (12, 2)}),
        ({"gpu.arch": "sm_80, sm_90"}, {"gpu_targets": ("sm_80", "sm_90")}),
        ({"mpi": "mpich-abi >= 12", "mpi.mode": "bind"}, {"mpi": "mpich-abi>=12", "mpi_mode": MpiMode.BIND}),
        ({"pmix": "4", "kernel": "5.10"}, {"pmix": (4,), "kernel": (5, 10)}),
        ({"fabric": "verbs,cxi"}, {"fabrics": (Fabric.VERBS, Fabric.CXI)}),
        ({"memory": "16GiB"}, {"memory_bytes": 16 << 30}),
        ({"network": "yes", "writable-root": "0", "glibc-host-inject": "False"},
         {"network": True, "writable_root": False, "inject_glibc": False}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["labels", "annotations"])
def test_labels_and_annotations_declare_needs(labels, fields, where):
    needs = record(**{where: {f"berth.require.{name}": text for name, text in labels.items()}})
    assert needs.declared == Declared(**fields)
    assert {each.fact for each in needs.evidence} == {f"declared.{name}" for name in fields}


def test_labels_of_the_machine_stand_where_the_machine_stands():
    needs = record(labels={"berth.require.cpu-level": "x86-64-v3", "berth.require.arch": "arm64"}, platform=None)
    assert needs.isa == IsaNeed(declared="x86_64_v3")
    assert needs.platform == Platform(os="linux", architecture="arm64")


@pytest.mark.parametrize(
    ("name", "text"),
    [("cuda", "new"), ("mpi", "openmpi; rm"), ("mpi.mode", "x"), ("fabric", "verbs,x"), ("memory", "-1"),
     ("network", "perhaps"), ("cpu-level", "$(x)"), ("colour", "red"), ("memory", "9" * 99)],
)  # fmt: skip
def test_a_label_that_makes_no_sense_is_left_out_and_told(name, text):
    needs = record(labels={f"berth.require.{name}": text})
    assert needs.declared == Declared()
    assert [each.detail for each in needs.evidence] == [f"berth.require.{name}={text[:80]} is not understood"]


def test_hooks_are_those_that_are_switched_on():
    labels = {"com.hooks.cxi.enabled": "true", "com.hooks.ssh.enabled": "false"}
    assert record(annotations=labels).declared.hooks == ("cxi",)


def test_what_nvidia_s_variables_ask_for_is_kept_unparsed():
    env = {"NVIDIA_REQUIRE_CUDA": "cuda>=12.2 brand=tesla,driver>=470", "CUDA_VERSION": "12.2.2"}
    env |= {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DISABLE_REQUIRE": "1"}
    requires = {"NVIDIA_REQUIRE_CUDA": env["NVIDIA_REQUIRE_CUDA"]}
    assert record(env=env).cuda == CudaNeeds(
        requires=requires, require_disabled=True, env_version="12.2.2", visible_devices="all"
    )


def test_without_its_files_nothing_is_claimed_of_them():
    needs = record()
    assert not needs.tree_seen
    assert (needs.mpi, needs.pmix, needs.fabrics, needs.cuda.runtimes, needs.libc) == (None,) * 5


# -- what its files show ---------------------------------------------------------------------------------------------


def mpi_of(found, *cmd, **more):
    found = record(found, *cmd, **more).mpi
    return {each.path: (each.family, each.implementation, each.version, each.used) for each in found}


MPICH, OMPI, ABI = MpiFamily.MPICH_ABI, MpiFamily.OPEN_MPI, MpiFamily.STANDARD_ABI


@pytest.mark.parametrize(
    ("path", "program", "words", "packages", "expected"),
    [
        (f"{LIB}/libmpich.so.12.2.2", elf("libmpich.so.12"), {}, {"libmpich12": "4.0.2-3+b1"},
         (MPICH, "mpich", (4, 0, 2), None)),
        ("opt/lib/libmpi.so.12.2.0", elf("libmpi.so.12"), {"mpich": (4, 1)}, {}, (MPICH, "mpich", (4, 1), None)),
        ("opt/lib/libmpi.so.12", elf("libmpi.so.12"), {"intel": (2021, 8), "mpich": None}, {},
         (MPICH, "intel", (2021, 8), None)),
        ("opt/lib/libmpi_cray.so.12", elf("libmpi_cray.so.12"), {"cray": None}, {}, (MPICH, "cray", None, None)),
        ("opt/lib/libmpi.so.12.0.3", elf("libmpi.so.12", ["libopen-rte.so.12"]), {}, {}, (OMPI, "openmpi", None, None)),
        (f"{LIB}/libmpi.so.40.30.4", elf("libmpi.so.40"), {"openmpi": (4, 1, 4)}, {},
         (OMPI, "openmpi", (4, 1, 4), None)),
        (f"{LIB}/libmpi.so.40.30.4", elf("libmpi.so.40"), {}, {"libopenmpi3": "4.1.4-3"},
         (OMPI, "openmpi", (4, 1, 4), None)),
        ("opt/lib/libmpi_abi.so.1.0.0", elf("libmpi_abi.so.1"), {}, {}, (ABI, "", None, None)),
    ],
    ids=["Debian's MPICH", "MPICH", "Intel", "Cray", "an old Open MPI", "Open MPI", "Open MPI by package", "standard"],
)  # fmt: skip
def test_mpi_libraries_are_told_apart(path, program, words, packages, expected):
    found = survey({path: program}, words={path: words}, packages=packages)
    assert mpi_of(found) == {f"/{path}": expected}


def test_an_old_open_mpi_beside_mpich_is_the_only_one_of_its_family():
    old, new = elf("libmpi.so.12", ["libopen-rte.so.12"]), elf("libmpi.so.12")
    families = {path: each[0] for path, each in mpi_of(survey({"a/libmpi.so.12": old, "b/libmpi.so.12": new})).items()}
    assert families == {"/a/libmpi.so.12": OMPI, "/b/libmpi.so.12": MPICH}


def test_fortran_s_and_other_libraries_beside_mpi_are_none():
    names = ("libmpi_mpifh.so.40", "libmpichfort.so.12", "libmpi_cxx.so.40")
    assert mpi_of(survey({f"{LIB}/{name}": elf(name) for name in names})) == {}


BOTH = {
    f"{LIB}/libmpich.so.12.2.2": elf("libmpich.so.12"),
    f"{LIB}/libmpi.so.40.30.4": elf("libmpi.so.40"),
    f"{LIB}/libsolver.so.1": elf("libsolver.so.1", ["libmpich.so.12"]),
    "usr/bin/app": elf(needed=["libsolver.so.1"]),
    "usr/bin/bash": elf(needed=["libc.so.6"]),
}
LINKS = {
    f"{LIB}/libmpich.so.12": "libmpich.so.12.2.2",
    f"{LIB}/libmpi.so.40": "libmpi.so.40.30.4",
    "bin": "usr/bin",
    "usr/local/bin/run": "/bin/app",
}


@pytest.mark.parametrize("cmd", [
    ["app"], ["/bin/app"], ["/usr/local/bin/run"], ["bash", "/bin/app"], ["script"], ["bash", "-c", "app"],
])  # fmt: skip
def test_the_mpi_that_the_entry_program_loads_is_the_one_that_is_used(cmd):
    scripts = {"usr/bin/script": "/usr/bin/env app"}
    used = {path: each[3] for path, each in mpi_of(survey(BOTH, LINKS, scripts=scripts), *cmd).items()}
    assert used == {f"/{LIB}/libmpich.so.12.2.2": True, f"/{LIB}/libmpi.so.40.30.4": False}


def test_the_mpi_of_mpi4py_is_used():
    module = {"usr/lib/python3/dist-packages/mpi4py/MPI.cpython-311.so": elf(needed=["libmpi.so.40"])}
    used = {path: each[3] for path, each in mpi_of(survey(BOTH | module, LINKS), "bash").items()}
    assert used == {f"/{LIB}/libmpich.so.12.2.2": False, f"/{LIB}/libmpi.so.40.30.4": True}


def test_which_mpi_a_shell_will_start_is_unknown():
    assert {each[3] for each in mpi_of(survey(BOTH, LINKS), "bash").values()} == {None}


def test_a_runpath_stands_over_the_usual_folders():
    own = {"opt/app/lib/libmpi.so.12": elf("libmpi.so.12"), f"{LIB}/libmpi.so.12": elf("libmpi.so.12")}
    app = {"opt/app/bin/app": elf(needed=["libmpi.so.12"], runpath="$ORIGIN/../lib")}
    used = {path: each[3] for path, each in mpi_of(survey(own | app), "/opt/app/bin/app").items()}
    assert used == {"/opt/app/lib/libmpi.so.12": True, f"/{LIB}/libmpi.so.12": False}
    env = {"LD_LIBRARY_PATH": f"/{LIB}"}
    app = {"opt/app/bin/app": elf(needed=["libmpi.so.12"])}
    used = {path: each[3] for path, each in mpi_of(survey(own | app), "/opt/app/bin/app", env=env).items()}
    assert used == {"/opt/app/lib/libmpi.so.12": False, f"/{LIB}/libmpi.so.12": True}


def test_links_in_circles_lead_nowhere():
    found = survey({"usr/bin/app": elf(needed=["liba.so"])}, {f"{LIB}/liba.so": "libb.so", f"{LIB}/libb.so": "liba.so"})
    assert mpi_of(found, "app") == {}


def test_pmix_clients_tell_their_version_by_words_packages_or_file_name():
    path = f"{LIB}/pmix2/lib/libpmix.so.2.6.2"
    files, words = {path: elf("libpmix.so.2")}, {path: {"pmix": (4, 2, 2)}}
    assert record(survey(files, words=words)).pmix == (PmixClient(path=f"/{path}", version=(4, 2, 2)),)
    assert record(survey(files, packages={"libpmix2": "4.2.2-1"})).pmix[0].version == (4, 2, 2)
    assert record(survey(files)).pmix[0].version is None
    bundled = "opt/ompi/lib/openmpi/mca_pmix_pmix3x.so"
    assert record(survey({bundled: elf()})).pmix == (PmixClient(path=f"/{bundled}", version=(3,)),)


@pytest.mark.parametrize(
    ("files", "fabrics"),
    [
        ({"usr/lib/ucx/libuct_ib.so.0": elf("libuct_ib.so.0")}, (Fabric.VERBS,)),
        ({"usr/lib/libfabric.so.1": elf("libfabric.so.1", ["libpsm2.so.2", "libcxi.so.1"])}, (Fabric.CXI, Fabric.PSM2)),
        ({"opt/libfabric/libefa-fi.so": elf()}, (Fabric.EFA,)),
        ({"usr/lib/libibverbs.so.1": elf("libibverbs.so.1")}, ()),
    ],
    ids=["UCX", "built into libfabric", "a plugin", "a library that nothing drives"],
)
def test_networks_are_those_that_something_drives(files, fabrics):
    assert record(survey(files)).fabrics == fabrics


def test_glibc_is_as_new_as_what_it_defines():
    libc = elf("libc.so.6", defines={"GLIBC": (2, 36)}, needs={"GLIBC": (2, 35)}, min_kernel=(3, 2, 0))
    needs = record(survey({f"{LIB}/libc.so.6": libc}))
    assert needs.libc == Libc(family=LibcFamily.GLIBC, version=(2, 36), min_kernel=(3, 2, 0))


def test_musl_is_known_by_its_loader_and_its_package():
    found = survey({"lib/ld-musl-x86_64.so.1": elf("libc.musl-x86_64.so.1")}, packages={"musl": "1.2.4-r2"})
    assert record(found).libc == Libc(family=LibcFamily.MUSL, version=(1, 2, 4))


def test_the_c_library_for_another_machine_is_not_this_one():
    cross = {"usr/aarch64-linux-gnu/lib/libc.so.6": elf("libc.so.6", arch="arm64", defines={"GLIBC": (2, 40)})}
    libc = {f"{LIB}/libc.so.6": elf("libc.so.6", defines={"GLIBC": (2, 36)})}
    assert record(survey(cross | libc)).libc.version == (2, 36)


def test_the_system_s_libstdcxx_stands_over_one_of_an_application():
    own, system = (elf("libstdc++.so.6", defines={"GLIBCXX": version}) for version in ((3, 4, 33), (3, 4, 30)))
    assert record(survey({"opt/conda/lib/libstdc++.so.6": own, f"{LIB}/libstdc++.so.6": system})).glibcxx == (3, 4, 30)


def test_the_machine_of_all_programs_stands_over_the_builder_s_word():
    needs = record(survey({"bin/sh": elf(arch="arm64")}))
    assert needs.platform == Platform(os="linux", architecture="arm64")
    assert record(survey({"bin/sh": elf(), "x": elf(arch="arm64")})).platform.architecture == "amd64"


@pytest.mark.parametrize(
    ("files", "level"),
    [
        ({"bin/app": elf(isa="x86_64_v3"), "bin/sh": elf(isa="x86_64")}, "x86_64_v3"),
        ({"usr/lib/glibc-hwcaps/x86-64-v4/liba.so": elf(isa="x86_64_v4"), "bin/sh": elf(isa="x86_64")}, "x86_64"),
        ({"bin/sh": elf()}, None),
    ],
    ids=["a high note", "one that the loader takes where it runs", "no note"],
)
def test_a_high_note_is_proof_and_none_is_not(files, level):
    assert record(survey(files)).isa.proven == level


def test_page_alignment_is_of_the_files_of_this_machine():
    files = {"a": elf(align=65536), "b": elf(align=4096), "c": elf(align=0), "usr/lib/debug/d": elf(align=512)}
    assert record(survey(files)).page_alignment == PageAlignment(min_bytes=4096, max_bytes=65536)


def gpu(*targets):
    cubins = frozenset(target for target in targets if target.startswith("sm"))
    return GpuCode(cubins, frozenset(targets) - cubins)


@pytest.mark.parametrize(
    ("files", "cubins", "ptx"),
    [
        ({"a": elf(gpu=gpu("sm_80")), "b": elf(gpu=gpu("sm_90", "compute_90"))}, ("sm_80", "sm_90"), ("compute_90",)),
        ({"a": elf(gpu=gpu("sm_80")), "libcublas.so.12": elf(gpu=gpu("sm_70"))}, ("sm_80",), ()),
        ({"libcublas.so.12": elf(gpu=gpu("sm_70"))}, ("sm_70",), ()),
        ({"a": elf(gpu=gpu("sm_80")), "b": elf(gpu_unknown=True)}, None, None),
        ({"a": elf()}, None, None),
    ],
    ids=["all of it", "its own before NVIDIA's", "NVIDIA's alone", "some of it unknown", "none to be seen"],
)
def test_targets_of_gpu_code_are_all_or_unknown(files, cubins, ptx):
    cuda = record(survey(files)).cuda
    assert (cuda.cubins, cuda.ptx) == (cubins, ptx)


def test_cuda_s_runtimes_and_compat_libraries_are_found_by_name():
    cuda = record(survey({
        "usr/local/cuda-12.4/lib64/libcudart.so.12.4.127": elf("libcudart.so.12"),
        "site-packages/nvidia/cuda_runtime/lib/libcudart.so.11.0": elf("libcudart.so.11.0"),
        "usr/local/cuda-12.4/compat/libcuda.so.550.54.15": elf("libcuda.so.1"),
        "usr/lib/libcuda.so.535.1": elf("libcuda.so.1"),
    })).cuda  # fmt: skip
    assert cuda.runtimes == ((11, 0), (12, 4))
    assert cuda.compat == (CompatLibrary(folder="/usr/local/cuda-12.4/compat", driver=(550, 54, 15)),)


def test_rocm_is_found_by_its_runtime_and_the_names_of_its_kernels():
    names = ["TensileLibrary_lazy_gfx90a.dat", "Kernels.so-000-gfx942.hsaco", "TensileLibrary_gfx1100.co"]
    named = [f"opt/rocm/lib/rocblas/library/{name}" for name in names] + ["opt/share/gfx906.txt"]
    found = survey({"opt/rocm/lib/libamdhip64.so.6.1.60103": elf("libamdhip64.so.6")}, named=named)
    assert record(found).rocm == RocmNeeds(runtimes=((6, 1),), targets=("gfx1100", "gfx90a", "gfx942"))


def test_every_fact_of_the_files_has_evidence():
    files = BOTH | {f"{LIB}/libc.so.6": elf("libc.so.6", defines={"GLIBC": (2, 36)}), "bin/n": elf(isa="x86_64")}
    needs = record(survey(files, LINKS), "app")
    assert {"libc", "mpi", "page_alignment", "isa.proven"} <= {each.fact for each in needs.evidence}
    assert all(each.source is Source.ELF and each.detail.startswith("/") for each in needs.evidence)


def test_names_of_files_that_are_no_text_do_not_spoil_the_record():
    files = {"l\udce9/libmpi.so.40": elf("libmpi.so.40"), "usr/bin/app": elf(needed=["libmpi.so.40"])}
    needs = record(survey(files), "app")
    assert [(each.path, each.used) for each in needs.mpi] == [("/l?/libmpi.so.40", True)]


def test_programs_that_ask_for_more_than_any_does_leave_open_what_is_used():
    files = BOTH | {"usr/bin/app": elf(needed=["libmpich.so.12"] * 30_000)}
    assert {each[3] for each in mpi_of(survey(files, LINKS), "app").values()} == {None}


# -- what is found while unpacking -----------------------------------------------------------------------------------


def surveyed(root, *layers):
    found = Survey()
    return found, unpack([layer(each) for each in layers], root, found)


STATUS = b"Package: libpmix2\nStatus: install ok installed\nVersion: 4.2.2-1\n\nPackage: x\nVersion: 1\n"


def test_a_file_that_an_upper_layer_hides_proves_nothing(tmp_path):
    lower = tar(folder("var/lib/dpkg"), entry("var/lib/dpkg/status", STATUS), entry("bin/run", b"#!/bin/sh\n"),
                entry("bin/again", kind=LINK, link="bin/run"), entry("gfx906"))  # fmt: skip
    upper = tar(entry("var/lib/.wh.dpkg"), entry("bin/.wh.run"), entry(".wh.gfx906"))
    (tmp_path / "one").mkdir()
    found, _ = surveyed(tmp_path / "one", lower)
    assert (found.packages, set(found.scripts), found.named) == (
        {"libpmix2": "4.2.2-1", "x": "1"}, {"bin/run", "bin/again"}, {"gfx906"},
    )  # fmt: skip
    (tmp_path / "two").mkdir()
    found, _ = surveyed(tmp_path / "two", lower, upper)
    assert (found.packages, set(found.scripts), found.named) == ({}, {"bin/again"}, set())


PACKAGES = [
    *("base-files", "dash", "libc6", "libstdc++6", "libibverbs1", "libfabric1", "libucx0", "libpmix2", "libhwloc15"),
    *("libmpich12", "libopenmpi3", "python3.11-minimal", "python3-mpi4py", "python3-numpy", "libopenblas0-pthread"),
]


@pytest.fixture(scope="module")
def debian():
    """Layers out of packages of this Debian, one each; fetched once and kept."""
    kept = CACHE / "packages"
    kept.mkdir(parents=True, exist_ok=True)
    missing = [name for name in PACKAGES if not list(kept.glob(f"{name}_*.deb"))]
    if missing:
        subprocess.run(["apt-get", "download", "-q", *missing], cwd=kept, check=True)
    files = [next(kept.glob(f"{name}_*.deb")) for name in PACKAGES]
    argv = ["dpkg-deb", "--fsys-tarfile"]
    return files, [subprocess.run([*argv, file], check=True, capture_output=True).stdout for file in files]


@pytest.mark.slow
def test_real_packages_unpack_as_dpkg_unpacks_them(debian, tmp_path):
    files, layers = debian
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    surveyed(ours, *layers)
    for file in files:
        subprocess.run(["dpkg-deb", "--extract", file, theirs], check=True)
    assert listing(ours) == listing(theirs)


def listing(root):
    """What stands under each path: links with targets, files with digest, mode and time."""
    found = {}
    for path in sorted(root.rglob("*")):
        state, name = path.lstat(), str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = ("file", content, state.st_mode & 0o1777, int(state.st_mtime))
        else:
            found[name] = ("folder", state.st_mode & 0o1777)
    return found


@pytest.mark.slow
def test_real_packages_show_what_they_need(debian, tmp_path):
    _, layers = debian
    installed = b"".join(b"Package: %s\nVersion: 4.0.2-3\n\n" % name for name in (b"libmpich12",))
    found, unpacked = surveyed(tmp_path, *layers, tar(entry("var/lib/dpkg/status", installed)))
    needs = record(found, "python3.11", unpacked_bytes=unpacked.file_bytes)
    mpi = {each.soname: each for each in needs.mpi}
    assert {name: (each.family, each.used) for name, each in mpi.items()} == {
        "libmpich.so.12": (MPICH, False),  # Debian's name for MPICH's libmpi.so.12
        "libmpi.so.40": (OMPI, True),  # both are installed, and mpi4py asks for this one
    }
    assert mpi["libmpi.so.40"].version[:2] == (4, 1)
    assert mpi["libmpich.so.12"].version == (4, 0, 2)
    assert [(each.path.rsplit("/", 1)[1], each.version[:2]) for each in needs.pmix] == [("libpmix.so.2.6.2", (4, 2))]
    assert Fabric.VERBS in needs.fabrics
    assert needs.libc == Libc(family=LibcFamily.GLIBC, version=(2, 36), min_kernel=(3, 2, 0))
    assert needs.glibcxx == (3, 4, 30)
    assert needs.isa.proven == "x86_64"
    assert needs.page_alignment.min_bytes == 4096
