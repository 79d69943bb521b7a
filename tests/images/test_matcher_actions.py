"""What is done to make an image run, what is warned of, and what showed it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from images.findings import MatchPolicy
from images.host import Area, FactEvidence, FactSource, Gpu, Room
from images.matcher import COST_S, evidence_of, match
from images.needs import CompatLibrary, Declared, Evidence, Fabric, MpiMode, PageAlignment, RocmNeeds, Source
from images.records import dump, load
from scheduler.model.actions import Bind, ConvertTo, LaunchWith, LibraryPathFirst, RuntimeEnv, Unpack, WritableRoot
from scheduler.model.verdicts import Fit, ImageVerdict
from tests.images.fleet import (
    CPU_HOSTS,
    CPU_IMAGES,
    CUDA_IMAGES,
    DEBIAN,
    GIB,
    GPU_HOSTS,
    MPI_HOSTS,
    MPI_IMAGES,
    NODE,
    REQUIRES_12_4,
    cuda,
    gpu_node,
    mpich,
    with_mpi,
)

ACROSS = MatchPolicy(wants_mpi=True, nodes=2)
V100, A100, H100 = GPU_HOSTS["v100-470"], GPU_HOSTS["a100-535"], GPU_HOSTS["h100-550"]


def test_the_hosts_mpi_is_bound_under_the_name_that_the_images_programs_ask_for():
    """Debian calls MPICH's library libmpich.so.12; the host's is libmpi.so.12."""
    verdict = match(MPI_IMAGES["mpich-debian"], MPI_HOSTS["cray"], ACROSS).verdict
    assert verdict.actions == (
        Bind("/usr/lib64/libucp.so.0.0.0", "/.berth/mpi/libucp.so.0"),
        Bind("/usr/lib/libmpi.so.12", "/.berth/mpi/libmpich.so.12"),
        Bind("/usr/lib64/ucx", "/usr/lib64/ucx"),
        LibraryPathFirst("/.berth/mpi"),
        LaunchWith("cray_shasta"),
    )


def test_without_a_plugin_the_hosts_own_launcher_starts_the_hosts_mpi():
    assert LaunchWith(None) in match(MPI_IMAGES["ompi-4.1"], MPI_HOSTS["ompi4"], ACROSS).verdict.actions


def test_the_images_own_mpi_is_started_by_slurm():
    assert match(MPI_IMAGES["ompi-4.1"], MPI_HOSTS["pmix4"], ACROSS).verdict.actions == (LaunchWith("pmix"),)


def test_the_way_of_the_sites_own_mpi_is_not_the_way_of_the_images():
    """Only Cray's MPI understands cray_shasta: an MPICH of another major version is started by PMI-2."""
    assert match(MPI_IMAGES["mpich-13"], MPI_HOSTS["cray"], ACROSS).verdict.actions == (LaunchWith("pmi2"),)
    only_cray = replace(MPI_HOSTS["cray"], mpi_plugins=("none", "cray_shasta"))
    assert match(MPI_IMAGES["mpich-13"], only_cray, ACROSS).verdict.fit is Fit.UNKNOWN


@pytest.mark.parametrize(("clients", "fit"), [((4, 2, 2), Fit.YES), ((1, 2, 5), Fit.NO)])
def test_mpich_with_a_pmix_client_is_started_by_pmix(clients, fit):
    image = with_mpi(mpich(2), pmix=(clients,))
    found = match(image, MPI_HOSTS["ompi5"], ACROSS).verdict
    assert found.fit is fit


@pytest.mark.parametrize(("declared", "fit"), [(None, Fit.UNKNOWN), ("openmpi>=4", Fit.YES), ("mpi-abi", Fit.UNKNOWN)])
def test_of_two_families_the_builder_says_which_is_used(declared, fit):
    image = replace(MPI_IMAGES["both"], declared=Declared(mpi=declared))
    verdict = match(image, MPI_HOSTS["pmix4"], ACROSS).verdict
    assert verdict.fit is fit
    assert ("berth.require.mpi" in verdict.fix) is (fit is Fit.UNKNOWN)


def test_a_job_without_mpi_is_not_asked_for_it():
    assert match(MPI_IMAGES["ompi-5.0"], MPI_HOSTS["cray"]).verdict == ImageVerdict(fit=Fit.YES)


def test_crays_plugin_is_taken_on_crays_network_alone():
    """Slurm is often built with it where there is none, and there it starts nothing that works."""
    elsewhere = replace(MPI_HOSTS["cray"], fabrics=(Fabric.VERBS,))
    bound = match(MPI_IMAGES["mpich-debian"], elsewhere, replace(ACROSS, mpi_mode=MpiMode.BIND)).verdict.actions
    assert LaunchWith("pmi2") in bound
    assert LibraryPathFirst("/.berth/mpi") in bound


def test_on_one_node_the_images_own_launcher_is_enough():
    one_node = MatchPolicy(wants_mpi=True, nodes=1)
    assert match(MPI_IMAGES["ompi-5.0"], MPI_HOSTS["cray"], one_node).verdict.fit is Fit.YES


@pytest.mark.parametrize(
    ("mode", "fit"), [(MpiMode.HYBRID, Fit.NO), (MpiMode.BIND, Fit.NO), (MpiMode.NONE, Fit.YES), (None, Fit.NO)]
)
def test_the_builder_says_how_the_image_means_to_run(mode, fit):
    image = replace(MPI_IMAGES["ompi-5.0"], declared=Declared(mpi_mode=mode))
    assert match(image, MPI_HOSTS["cray"], ACROSS).verdict.fit is fit


@pytest.mark.parametrize(("asked", "fit"), [((4, 1), Fit.YES), ((4, 2, 9), Fit.YES), ((5,), Fit.NO), (None, Fit.YES)])
def test_the_builder_may_ask_for_a_newer_pmix(asked, fit):
    image = replace(MPI_IMAGES["ompi-4.1"], declared=Declared(pmix=asked))
    assert match(image, MPI_HOSTS["pmix4"], ACROSS).verdict.fit is fit
    only_the_major_is_known = replace(MPI_HOSTS["pmix4"], pmix=None)
    assert match(image, only_the_major_is_known, ACROSS).verdict.fit is fit


@pytest.mark.parametrize(("declared", "cost_s"), [((Fabric.VERBS,), 0.0), ((Fabric.CXI,), 600.0), (None, 0.0)])
def test_declared_fabrics_count_where_nobody_looked(declared, cost_s):
    image = replace(MPI_IMAGES["ompi-4.1"], fabrics=None, declared=Declared(fabrics=declared))
    assert match(image, MPI_HOSTS["pmix4"], ACROSS).verdict.cost_s == cost_s


@pytest.mark.parametrize(("inject", "fit"), [(False, Fit.UNKNOWN), (True, Fit.FIXABLE), (None, Fit.FIXABLE)])
def test_a_builder_may_refuse_another_c_library(inject, fit):
    """The image's own MPI is left, and nobody knows how it would start."""
    image = replace(MPI_IMAGES["intel-mpi"], declared=Declared(inject_glibc=inject))
    assert match(image, MPI_HOSTS["libc-hook"], ACROSS).verdict.fit is fit


def test_a_fast_network_that_the_image_does_not_drive_is_slow_and_not_broken():
    verdict = match(MPI_IMAGES["both-uses-mpich"], MPI_HOSTS["pmix4"], ACROSS).verdict
    assert (verdict.fit, verdict.cost_s) == (Fit.YES, 600.0)
    assert "over TCP, slowly" in verdict.warnings[0]


def test_a_compatibility_library_comes_first_in_the_library_path():
    verdict = match(CUDA_IMAGES["12.4-compat"], V100).verdict
    assert verdict.actions == (LibraryPathFirst("/usr/local/cuda/compat"),)
    assert verdict.cost_s == COST_S[Fit.FIXABLE]


def test_a_compatibility_library_of_the_site_is_bound():
    host = replace(V100, compat=(CompatLibrary(folder="/opt/cuda-compat", driver=(550, 54, 15)),))
    verdict = match(CUDA_IMAGES["cuda-12.4"], host).verdict
    assert verdict.actions == (Bind("/opt/cuda-compat", "/.berth/cuda-compat"), LibraryPathFirst("/.berth/cuda-compat"))


def test_a_compatibility_library_does_not_help_a_gpu_that_its_driver_dropped():
    """K80 and CUDA 11.5 or later."""
    host = gpu_node("Tesla K80", (3, 7), (440, 33, 1))
    verdict = match(CUDA_IMAGES["11.8-compat"], host).verdict
    assert verdict.fit is Fit.NO
    assert "Tesla K80 is too old for the compatibility library 520.61.5" in verdict.warnings


def test_consumer_gpus_take_no_compatibility_library():
    verdict = match(CUDA_IMAGES["12.4-compat"], GPU_HOSTS["3090-470"]).verdict
    assert verdict.reason == "CUDA 12.4.127 needs driver 525 or newer, the nodes have driver 470.57.2"
    assert "NVIDIA GeForce RTX 3090 does not take compatibility libraries (error 804)" in verdict.warnings


def test_code_that_an_older_driver_must_compile_may_fail_and_a_compatibility_library_compiles_it():
    verdict = match(CUDA_IMAGES["12.4-ptx"], A100).verdict
    assert (verdict.fit, verdict.cost_s) == (Fit.UNKNOWN, 360.0)
    assert "error 222" in verdict.reason
    brings_one = cuda((12, 4, 127), compat=(550, 54, 15), cubins=(), ptx=("compute_70",))
    assert match(brings_one, A100).verdict.actions == (LibraryPathFirst("/usr/local/cuda/compat"),)


REQUIRING = cuda((12, 4, 127), requires=REQUIRES_12_4, visible_devices="all")
ONLY_CUDA = cuda((12, 4, 127), requires={"NVIDIA_REQUIRE_CUDA": "cuda>=12.4"}, visible_devices="all")
LEGACY = cuda((12, 4, 127), env_version="12.4.1")


@pytest.mark.parametrize(
    ("image", "host", "policy", "fit", "switched_off"),
    [
        (REQUIRING, H100, {"enforces_require": True}, Fit.YES, False),  # its CUDA
        (REQUIRING, A100, {"enforces_require": True}, Fit.YES, False),  # its branch is listed
        (ONLY_CUDA, A100, {"enforces_require": True}, Fit.FIXABLE, True),  # stricter than the driver
        (ONLY_CUDA, A100, {"enforces_require": True, "may_disable_require": False}, Fit.NO, False),
        (ONLY_CUDA, A100, {"enforces_require": False}, Fit.YES, False),
        (ONLY_CUDA, A100, {}, Fit.YES, False),  # apptainer --nv does not look
        (LEGACY, A100, {"enforces_require": True}, Fit.FIXABLE, True),
        (LEGACY, H100, {"enforces_require": True}, Fit.YES, False),
        (cuda((12, 4), requires=ONLY_CUDA.cuda.requires), A100, {"enforces_require": True}, Fit.YES, False),
        (cuda((12, 4), requires=ONLY_CUDA.cuda.requires, visible_devices="void"), A100, {}, Fit.YES, False),
        (
            cuda((12, 4), requires=ONLY_CUDA.cuda.requires, visible_devices="none"),
            A100,
            {"enforces_require": True},
            Fit.FIXABLE,
            True,
        ),
        (
            cuda((12, 4), requires=ONLY_CUDA.cuda.requires, visible_devices="all", require_disabled=True),
            A100,
            {"enforces_require": True},
            Fit.YES,
            False,
        ),
        (cuda((12, 4), requires={"NVIDIA_REQUIRE_X": "cuda=>1"}, visible_devices="all"), H100, {}, Fit.YES, False),
        (
            cuda((12, 4), requires={"NVIDIA_REQUIRE_X": "cuda=>1"}, visible_devices="all"),
            H100,
            {"enforces_require": True},
            Fit.UNKNOWN,
            False,
        ),
        (REQUIRING, replace(A100, gpus=None), {"enforces_require": True}, Fit.FIXABLE, True),
    ],
)
def test_what_the_image_requires_matters_where_a_hook_enforces_it(image, host, policy, fit, switched_off):
    verdict = match(image, host, MatchPolicy(**policy)).verdict
    assert verdict.fit is fit, verdict
    assert (RuntimeEnv("NVIDIA_DISABLE_REQUIRE", "true") in verdict.actions) is switched_off


@pytest.mark.parametrize(
    ("host", "action"),
    [
        ("no-fuse", Unpack()),
        ("gzip-sif", ConvertTo(form="sif")),
        ("gzip-sif", ConvertTo(compressor="gzip")),
    ],
)
def test_what_the_runtime_cannot_mount_is_brought_in_another_form(host, action):
    assert action in match(DEBIAN, CPU_HOSTS[host]).verdict.actions


@pytest.mark.parametrize(
    ("least", "most", "fit"), [(4096, 4096, Fit.NO), (4096, 65536, Fit.UNKNOWN), (65536, 65536, Fit.YES)]
)
def test_one_program_that_is_linked_for_small_pages_closes_no_place(least, most, fit):
    image = replace(CPU_IMAGES["arm64"], page_alignment=PageAlignment(min_bytes=least, max_bytes=most))
    assert match(image, CPU_HOSTS["arm-64k"]).verdict.fit is fit


@pytest.mark.parametrize(("compat", "fit"), [((), Fit.NO), (None, Fit.UNKNOWN)])
def test_a_library_that_nobody_looked_for_may_be_there(compat, fit):
    assert match(CUDA_IMAGES["cuda-12.4"], replace(V100, compat=compat)).verdict.fit is fit


@pytest.mark.parametrize(("ptx", "fit"), [((), Fit.NO), (None, Fit.UNKNOWN)])
def test_gpu_code_that_nobody_looked_for_may_be_there(ptx, fit):
    assert match(cuda((12, 4), cubins=("sm_90",), ptx=ptx), A100).verdict.fit is fit


@pytest.mark.parametrize(("hook", "fit"), [(False, Fit.NO), (None, Fit.UNKNOWN), (True, Fit.FIXABLE)])
def test_newer_host_libraries_need_the_sites_hook(hook, fit):
    image = replace(MPI_IMAGES["intel-mpi"], declared=Declared(mpi_mode=MpiMode.BIND))
    assert match(image, replace(MPI_HOSTS["libc-hook"], glibc_hook=hook), ACROSS).verdict.fit is fit


@pytest.mark.parametrize(("setuid", "fit"), [(False, Fit.NO), (None, Fit.UNKNOWN), (True, Fit.YES)])
def test_containers_need_setuid_or_user_namespaces(setuid, fit):
    host = CPU_HOSTS["no-userns"]
    runtime = replace(host.runtimes[0], setuid=setuid)
    assert match(DEBIAN, replace(host, runtimes=(runtime,))).verdict.fit is fit


def test_an_image_that_writes_into_its_tree_gets_a_writable_layer():
    assert match(CPU_IMAGES["writes-root"], NODE).verdict.actions == (WritableRoot(),)


@pytest.mark.parametrize(
    ("targets", "gpu", "fit"),
    [
        (("gfx90a",), "gfx90a", Fit.YES),
        (("gfx90a:xnack-", "gfx1030"), "gfx90a", Fit.YES),
        (("gfx90a",), "gfx942", Fit.UNKNOWN),  # so are its libraries; the application may bring kernels of its own
        (("gfx9-generic",), "gfx906", Fit.UNKNOWN),
        (("amdgcnspirv",), "gfx942", Fit.UNKNOWN),
        (None, "gfx942", Fit.YES),
        ((), "gfx942", Fit.YES),
    ],
)
def test_amd_code_runs_on_its_own_target(targets, gpu, fit):
    host = replace(NODE, gpus=(Gpu(name="AMD Instinct", target=gpu),))
    verdict = match(replace(DEBIAN, rocm=RocmNeeds(targets=targets)), host).verdict
    assert verdict.fit is fit
    assert verdict.fix == ("use an image built for these GPUs" if fit is Fit.UNKNOWN else "")


@pytest.mark.parametrize(
    ("targets", "fit"),
    [(("8.0",), Fit.YES), (("sm_90",), Fit.NO), (("sm_70", "sm_90"), Fit.YES), (("odd",), Fit.UNKNOWN)],
)
def test_declared_gpus_are_these_or_newer_ones(targets, fit):
    assert match(replace(DEBIAN, declared=Declared(gpu_targets=targets)), A100).verdict.fit is fit


def test_a_job_that_wants_gpus_is_closed_out_of_nodes_without():
    image = CUDA_IMAGES["cuda-12.4"]
    assert match(image, NODE, MatchPolicy(wants_gpus=True)).verdict.fit is Fit.NO
    assert match(image, NODE).verdict.fit is Fit.YES
    assert match(image, V100, MatchPolicy(wants_gpus=False)).verdict == ImageVerdict(fit=Fit.YES)


@pytest.mark.parametrize(
    ("room", "converts", "fit"),
    [
        (Room(path="/t", limit_bytes=100 * GIB), True, Fit.YES),
        (Room(path="/t", limit_bytes=80 * GIB), True, Fit.FIXABLE),
        (Room(path="/t", limit_bytes=80 * GIB), False, Fit.YES),
        (Room(path="/t"), True, Fit.YES),
        (Room(path="/t", limit_bytes=100 * GIB, in_memory=True), True, Fit.YES),
    ],
)
def test_converting_needs_room_for_layers_tree_and_file(room, converts, fit):
    host = replace(NODE, rooms={Area.TMPDIR: room})
    verdict = match(CPU_IMAGES["20-gib"], host, MatchPolicy(converts_here=converts)).verdict
    assert verdict.fit is fit
    assert bool(verdict.warnings) is bool(room.in_memory)


def test_a_full_store_is_emptied_first_and_a_small_quota_closes_the_place():
    full = replace(NODE, rooms={Area.SCRATCH: Room(path="/s", free_bytes=GIB, limit_bytes=100 * GIB)})
    assert match(CPU_IMAGES["20-gib"], full).verdict.fit is Fit.FIXABLE
    assert match(CPU_IMAGES["20-gib"], CPU_HOSTS["closed"]).verdict.reason == (
        "the image has 20.0 GiB, /s holds at most 10.0 GiB"
    )


def test_hooks_that_a_site_is_not_known_to_have_are_unknown():
    assert match(replace(DEBIAN, declared=Declared(hooks=("cxi",))), NODE).verdict.fit is Fit.UNKNOWN


def test_a_finding_shows_what_its_facts_rest_on():
    seen_at = datetime(2026, 11, 1, tzinfo=UTC)
    why = FactEvidence(source=FactSource.PROBE, detail="nvidia-smi", seen_at=seen_at)
    needs = replace(
        CUDA_IMAGES["cuda-12.4"], evidence=(Evidence("cuda.runtimes", Source.FILE_NAME, "libcudart.so.12.4.127"),)
    )
    host = replace(V100, evidence={"gpu_driver": why})
    deciding = next(each for each in match(needs, host).findings if each.rule == "R5")
    assert evidence_of(deciding, needs, host) == (
        "image: file name: libcudart.so.12.4.127",
        "nodes: probe on 2026-11-01: nvidia-smi",
    )


@pytest.mark.parametrize(("image", "host"), [("mpich-debian", "cray"), ("ompi-4.1", "ompi4"), ("no-mpi", "pmix4")])
def test_a_verdict_survives_its_journey_through_json(image, host):
    verdict = match(MPI_IMAGES[image], MPI_HOSTS[host], ACROSS).verdict
    assert load(ImageVerdict, dump(verdict)) == verdict


def test_every_action_survives_its_journey_through_json():
    actions = (
        Bind("/a", "/b"),
        LibraryPathFirst("/a"),
        RuntimeEnv("A", "b"),
        LaunchWith(None),
        LaunchWith("pmix"),
        ConvertTo(form="sif"),
        ConvertTo(compressor="gzip"),
        Unpack(),
        WritableRoot(),
    )
    verdict = ImageVerdict(fit=Fit.FIXABLE, actions=actions)
    assert load(ImageVerdict, dump(verdict)) == verdict
