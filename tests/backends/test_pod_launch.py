"""What the launch files of a run with ports have more than another's."""

import ast
import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from backends.container import Launcher, launch_files
from backends.launchers.bubblewrap import UnpackedImage
from backends.launchers.words import Claim
from backends.ssh.backend import SshBackend
from scheduler.model.errors import SpecInvalid, SubmitRejected
from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.runs import ArraySpec, Mount, Resources, Runtime, SubmitIntent
from tests.backends.test_container import Host
from tests.contract.sshd import host_system
from tests.contract.subjects import INTENDED_AT

SHOW_WORDS = """#!/bin/sh
for word; do printf '%s\\0' "$word"; done > "$SHOWN/argv"
"""


@pytest.fixture(params=[("dash",), ("bash", "--posix")], ids=["dash", "bash"])
def host(tmp_path, request) -> Host:
    host = Host(tmp_path, request.param)
    host.install("python3", text=SHOW_WORDS)
    host.install("bwrap", "podman", text="#!/bin/sh\n")
    host.install("apptainer", text='#!/bin/sh\n[ "$2" = pull ] && touch "$4"\n')
    host.run = replace(host.run, ports=(80, 5432), env={"door_told": "x", "PATH": "/nowhere"})
    return host


def begun_by_a_door(host: Host) -> list[str]:
    """The words that the door was given after its own, once those were checked."""
    python, words = host.argv()[:0], host.argv()
    assert not python
    assert words[:2] == ["-I", f"{host.marker_dir}/door.py"]
    assert words[2] == str(host.marker_dir)
    return words[3:]


def test_a_door_stands_before_the_container_with_its_ports(host):
    done = host.start(host.run)
    assert done.returncode == 0, done.stderr
    told, runtime, *words = begun_by_a_door(host)
    assert json.loads(told) == {"ports": [80, 5432], "tcp": False, "shared": False, "contained": True}
    assert runtime.endswith("/apptainer")
    assert {"--userns", "--containall", "--writable-tmpfs"} <= set(words)
    assert words[-1] == f"{host.marker_dir}/image.sif", "what the pod's own network cannot fetch was fetched before"
    assert not (host.marker_dir / "image.sif").exists(), "the copy goes with the pod"
    assert (host.marker_dir / "door.py").read_text() == program()


def test_a_batch_systems_door_listens_to_other_nodes(host):
    assert host.start(host.run, Claim.SLURM, SLURM_JOB_ID="7").returncode == 0
    assert json.loads(begun_by_a_door(host)[0])["tcp"] is True


def test_bubblewrap_and_the_sites_prefix_come_behind_the_door(host):
    tree = UnpackedImage(root="/image", top={}, command=("serve",))
    host.start(replace(host.run, cmd_prefix="nice -n 5"), launcher=Launcher.BUBBLEWRAP, unpacked=tree)
    assert begun_by_a_door(host)[1:6] == ["nice", "-n", "5", "env", "-i"]


def test_a_run_without_ports_has_no_door(host):
    host.start(replace(host.run, ports=()))
    assert not (host.root / "argv").exists()
    assert "door" not in launch_files(replace(host.run, ports=()), marker_dir="/m", claim=Claim.FORK).script


def test_a_pod_reaches_nothing_that_a_shell_of_the_host_reads(host):
    """Its environment is read again by a run that is put back in the queue, and its outputs are opened again."""
    assert host.start(host.run).returncode == 0
    shown = [word.partition(":")[0] for word in begun_by_a_door(host) if ":/Tapis" in word]
    assert set(shown) == {f"{host.run.exec_dir}/inside"}
    assert list(Path(host.run.exec_dir, "inside").iterdir()) == []


@pytest.mark.parametrize("launcher", [Launcher.APPTAINER, Launcher.BUBBLEWRAP])
def test_a_link_in_a_volume_leads_no_mount_out_of_it(host, launcher):
    volume, elsewhere = host.root / "vol ume", host.root / "elsewhere"
    (volume / "data").mkdir(parents=True)
    elsewhere.mkdir()
    (volume / "inner").symlink_to("data")
    (volume / "outer").symlink_to(elsewhere)
    (volume / "up").symlink_to("..")
    tree = UnpackedImage(root="/image", top={}, command=("serve",)) if launcher is Launcher.BUBBLEWRAP else None
    for name, starts in (("data", True), ("inner", True), ("", True), ("outer", False), ("up", False), ("no", False)):
        (host.root / "argv").unlink(missing_ok=True)
        mount = Mount(source=f"{volume}/{name}".rstrip("/"), target="/data", root=str(volume))
        done = host.start(replace(host.run, mounts=(mount,)), launcher=launcher, unpacked=tree)
        assert (host.root / "argv").exists() is starts, (name, done.stderr)
        shutil.rmtree(host.marker_dir)
        host.marker_dir.mkdir()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"resources": Resources(nodes=2)}, "nodeCount"),
        ({"is_mpi": True}, "nodeCount"),
        ({"array": ArraySpec((1, 2))}, "notes.berth.array"),
        ({"mounts": (Mount(source="", target="/x", claim="data"),)}, "volume_mounts"),
        ({"ports": (0,)}, "networking.port"),
        ({"ports": (65536,)}, "networking.port"),
        ({"runtime": Runtime.DOCKER}, "runtime"),
    ],
)
def test_what_no_door_can_stand_before_is_refused(host, changes, field):
    with pytest.raises(SpecInvalid, match=field):
        launch_files(replace(host.run, **changes), marker_dir="/m", claim=Claim.FORK)


async def test_a_linux_host_refuses_what_has_ports(tmp_path):
    marker = marker_for(new_job_uuid(), 1)
    backend = SshBackend(host_system(tmp_path), "ann", None)
    intent = SubmitIntent(marker, replace(Host(tmp_path).run, ports=(80,)), INTENDED_AT)
    answer = (await backend.submit([intent]))[marker]
    assert isinstance(answer, SubmitRejected)
    assert "keeps no pods" in str(answer)


def program() -> str:
    return files("backends.pods.programs").joinpath("door.py").read_text()


@pytest.mark.parametrize("path", sorted(Path(str(files("backends.pods.programs"))).glob("*.py")), ids=lambda p: p.name)
def test_a_program_that_travels_is_understood_by_an_old_python(path):
    ast.parse(path.read_text("ascii"), feature_version=(3, 6))
