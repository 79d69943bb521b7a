"""The probe of a node: for real on this machine, and with recorded commands of nodes that we do not have."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from images.needs import Fabric, MpiFamily
from images.probe_report import parse_report
from images.programs import probe_node

PROGRAM = Path(probe_node.__file__)
NOW = datetime(2100, 1, 1, tzinfo=UTC)

A100_CSV = "NVIDIA A100-SXM4-80GB, 535.183.01, 8.0, Disabled\n" * 4
A100 = {
    "nvidia-smi": f"""
case "$*" in
  *--query-gpu=name,driver_version,compute_cap,mig.mode.current*) printf '{A100_CSV}' ;;
  -q) echo '    Product Brand                         : Tesla' ;;
  '') echo '| NVIDIA-SMI 535.183.01   Driver Version: 535.183.01   CUDA Version: 12.2     |' ;;
esac"""
}
K80 = {
    "nvidia-smi": """
case "$*" in
  *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2 ;;
  *--query-gpu=*) echo 'Tesla K80, 450.80.02, [N/A]' ;;
esac"""
}
MI250 = {
    "rocminfo": """cat <<'END'
*******
Agent 1
*******
  Name:                    AMD EPYC 7A53 64-Core Processor
  Marketing Name:          AMD EPYC 7A53 64-Core Processor
*******
Agent 2
*******
  Name:                    gfx90a
  Uuid:                    GPU-0
  Marketing Name:          AMD Instinct MI250X
*******
Agent 3
*******
  Name:                    gfx90a
  Marketing Name:          AMD Instinct MI250X
END"""
}
SLURM_23 = {
    "srun": """cat <<'END' >&2
MPI plugin types are...
\tnone
\tpmi2
\tpmix
specific pmix plugin versions available: pmix_v3,pmix_v4
END"""
}
SLURM_20 = {"srun": "printf 'srun: MPI types are...\\nsrun: none\\nsrun: pmi2\\nsrun: cray_shasta\\n'"}


def commands(folder, scripts):
    """A folder for PATH with these shell scripts in it."""
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return folder


def probed(tmp_path, scripts=None, **ask):
    """What the program tells on this machine with these commands in front of its own."""
    folder = commands(tmp_path / "bin", scripts or {})
    env = {**os.environ, "PATH": f"{folder}:/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    argv = [sys.executable, str(PROGRAM), json.dumps({"limit_s": 20, **ask})]
    run = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert run.stderr == ""
    report = parse_report(run.stdout, "here", NOW)
    assert report.left_out == ()
    return report.host


def test_this_machine_is_told_as_it_is(tmp_path):
    host = probed(tmp_path, scratch=str(tmp_path))
    assert host.page_size_bytes == os.sysconf("SC_PAGE_SIZE")
    assert host.kernel == tuple(int(part) for part in os.uname().release.split("-")[0].split("."))
    assert host.architecture in ("amd64", "arm64")
    assert host.microarchitecture
    assert host.memory_bytes > 2**28
    assert host.rooms["scratch"].path == str(tmp_path)
    assert 0 < host.rooms["tmpdir"].free_bytes <= host.rooms["tmpdir"].limit_bytes
    assert set(host.evidence) >= {"kernel", "memory_bytes", "cpu_flags", "rooms"}
    assert host.outbound_network is None
    assert not list(tmp_path.glob("berth-probe-*"))


def test_nvidia_gpus_come_with_driver_and_the_drivers_cuda(tmp_path):
    host = probed(tmp_path, A100)
    (gpu,) = host.gpus
    assert (gpu.name, gpu.count, gpu.compute_capability) == ("NVIDIA A100-SXM4-80GB", 4, (8, 0))
    assert (gpu.brand, gpu.mig) == ("tesla", False)
    assert (host.gpu_driver, host.driver_cuda) == ((535, 183, 1), (12, 2))
    assert host.evidence["gpu_driver"].detail.startswith("nvidia-smi --query-gpu=")


def test_an_old_driver_that_knows_fewer_columns_is_asked_again(tmp_path):
    host = probed(tmp_path, K80)
    (gpu,) = host.gpus
    assert (gpu.name, gpu.compute_capability, gpu.mig) == ("Tesla K80", None, None)
    assert (host.gpu_driver, host.driver_cuda) == ((450, 80, 2), None)


def test_amd_gpus_come_with_their_target(tmp_path):
    (gpu,) = probed(tmp_path, MI250).gpus
    assert (gpu.name, gpu.target, gpu.count) == ("AMD Instinct MI250X", "gfx90a", 2)


@pytest.mark.parametrize(
    ("scripts", "plugins"),
    [
        (SLURM_23, ("none", "pmi2", "pmix", "pmix_v3", "pmix_v4")),
        (SLURM_20, ("cray_shasta", "none", "pmi2")),
        ({"srun": "echo 'srun: error: no controller'; exit 1"}, None),
    ],
)
def test_slurm_tells_how_it_starts_mpi(tmp_path, scripts, plugins):
    assert probed(tmp_path, scripts).mpi_plugins == plugins


def test_the_runtime_is_tried_with_a_tiny_image_of_each_compressor(tmp_path):
    """A stand-in for squashfuse that reads all but zstd (compressor 6 in the header of the image)."""
    conf = tmp_path / "apptainer.conf"
    conf.write_text("allow setuid = yes\nallow container squashfs = no\n# comment\nuse nvidia-container-cli = yes\n")
    buildcfg = f"APPTAINER_CONF_FILE={conf}\\nLIBEXECDIR={tmp_path}/libexec\\n"
    mount = """[ "$(od -An -tu1 -j20 -N1 "$2" | tr -d ' ')" = 6 ] && exit 1; echo berth >"$3/a"; exec sleep 60"""
    scripts = {
        "apptainer": f"case $1 in --version) echo apptainer version 1.3.4-1.el9 ;; *) printf '{buildcfg}' ;; esac",
        "squashfuse_ll": mount,
    }
    (runtime,) = probed(tmp_path, scripts).runtimes
    assert (runtime.name, runtime.version) == ("apptainer", (1, 3, 4))
    assert (runtime.fuse, runtime.compressors) == (True, ("gzip",))
    assert (runtime.bare_squashfs, runtime.nvccli) == (False, True)


@pytest.mark.parametrize(
    ("starters", "says", "setuid", "mounts"),
    [
        ({}, "", None, True),  # kept elsewhere, or not installed: nobody knows
        ({}, "allow setuid = no", False, False),
        ({"starter": 0o755}, "", False, False),
        ({"starter": 0o755, "starter-suid": 0o755}, "", False, False),
        ({"starter": 0o755, "starter-suid": 0o4755}, "", os.geteuid() == 0, os.geteuid() == 0),
        ({"starter": 0o755, "starter-suid": 0o4755}, "allow setuid = no", False, False),
    ],
)
def test_a_runtime_is_not_setuid_only_where_that_is_sure(tmp_path, starters, says, setuid, mounts):
    conf, folder = tmp_path / "apptainer.conf", tmp_path / "libexec/apptainer/bin"
    conf.write_text(f"allow setuid-mount squashfs = yes\n{says}\n")
    folder.mkdir(parents=True)
    for name, mode in starters.items():
        (folder / name).touch()
        (folder / name).chmod(mode)
    buildcfg = f"APPTAINER_CONF_FILE={conf}\\nLIBEXECDIR={tmp_path}/libexec\\n"
    script = f"case $1 in --version) echo apptainer version 1.3.4 ;; *) printf '{buildcfg}' ;; esac"
    (runtime,) = probed(tmp_path, {"apptainer": script}).runtimes
    assert (runtime.setuid, runtime.setuid_mounts) == (setuid, mounts)


@pytest.mark.parametrize("told", [b"Open MPI v4.1.4, package", b"Open MPI v%d.%d.%d\x004.1.4\0Open MPI"])
def test_an_mpi_library_comes_with_what_it_brings_along(tmp_path, told):
    folder = tmp_path / "lib"
    for name in ("ucx", "pmix2"):
        (folder / name).mkdir(parents=True)
    real = folder / "libmpi.so.40.30.4"
    real.write_bytes(b"\x7fELF\0" + told + b"\0GLIBC_2.17\0GLIBC_2.28\0")
    (folder / "libmpi.so.40").symlink_to(real)
    (folder / "libucp.so.0").write_bytes(b"GLIBC_2.34\0GLIBCXX_3.4.29\0")
    scripts = {
        "ldconfig": f"printf '\\tlibmpi.so.40 (libc6,x86-64) => {folder}/libmpi.so.40\\n'",
        "ldd": f"printf '\\tlibucp.so.0 => {folder}/libucp.so.0 (0x0)\\n\\tlibc.so.6 => /lib/libc.so.6 (0x0)\\n'",
    }
    mpi = next(each for each in probed(tmp_path, scripts).mpi if each.library.path == str(real))
    assert (mpi.library.family, mpi.library.abi, mpi.library.version) == (MpiFamily.OPEN_MPI, (40, 30, 4), (4, 1, 4))
    assert (mpi.needs_glibc, mpi.needs_glibcxx) == ((2, 34), (3, 4, 29))
    assert [each.soname for each in mpi.libraries] == ["libucp.so.0"]
    assert mpi.folders == (str(folder / "pmix2"), str(folder / "ucx"))


def test_plugins_of_another_mpi_in_the_same_folder_do_not_come_along(tmp_path):
    folder = tmp_path / "lib"
    for name in ("openmpi", "pmix2", "ucx"):
        (folder / name).mkdir(parents=True)
    real = folder / "libmpich.so.12.4.1"
    real.write_bytes(b"\x7fELF\0MPICH Version: 4.2.1\0GLIBC_2.38\0")
    (folder / "libmpich.so.12").symlink_to(real)
    listed = f"printf '\\tlibmpich.so.12 (libc6,x86-64) => {folder}/libmpich.so.12\\n'"
    mpi = next(each for each in probed(tmp_path, {"ldconfig": listed}).mpi if each.library.path == str(real))
    assert mpi.folders == (str(folder / "ucx"),)


def test_what_is_brought_by_modules_on_many_sites_is_unknown_and_not_absent(tmp_path):
    host = probed(tmp_path, {"ldconfig": "true", "apptainer": "exit 1", "singularity": "exit 1"})
    assert host.runtimes is None
    assert host.mpi is None or all(each.library.path for each in host.mpi)


@pytest.mark.parametrize("script", ["exec sleep 60", "exec yes NVIDIA", "trap '' TERM; sleep 60; sleep 60"])
def test_a_command_that_hangs_or_floods_holds_up_its_own_fact_only_and_is_ended(tmp_path, script):
    host = probed(tmp_path, {"nvidia-smi": f"echo $$ >>{tmp_path}/pids; {script}"}, limit_s=1)
    assert host.gpu_driver is None
    assert host.memory_bytes
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert pids
    assert not [pid for pid in pids if is_running(pid)]


def is_running(pid):
    """A process that ended may still wait to be collected by whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_the_network_is_tried_only_where_a_registry_is_named(tmp_path):
    host = probed(tmp_path, registry="127.0.0.1:1")
    assert host.outbound_network is False
    assert "127.0.0.1:1" in host.evidence["outbound_network"].detail


def test_fabrics_have_the_words_that_images_use():
    assert {"verbs", "psm2", "opx", "efa", "cxi"} == {each.value for each in Fabric}


def test_the_program_is_python_3_6():
    ast.parse(PROGRAM.read_text(), feature_version=(3, 6))
