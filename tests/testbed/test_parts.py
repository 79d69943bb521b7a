"""The testbed's pure parts: specification, configuration text, the demo image, the daemon table."""

import hashlib
import io
import json
import tarfile
from dataclasses import asdict

import pytest

from testbed import Spec, TestbedError, network, rootfs, slurm_conf
from testbed.host import run
from testbed.oci import layer_tar, write_layout
from testbed.pytest_plugin import cannot_run
from testbed.services import DAEMONS, daemons_of


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "../etc"}, "name"),
        ({"name": "a-b"}, "name"),
        ({"name": "new\nline"}, "name"),
        ({"nodes": 0}, "nodes"),
        ({"nodes": 101}, "nodes"),
        ({"suite": "potato"}, "suite"),
        ({"cgroup": "v3"}, "cgroup"),
        ({"gpus": -1}, "gpus"),
        ({"ssh_port": 22}, "ssh port"),
        ({"rate": "fast"}, "rate"),
    ],
)
def test_an_impossible_specification_is_refused_by_field_name(wrong, said):
    with pytest.raises(TestbedError, match=said):
        Spec(**wrong)


def test_every_machine_has_an_address_and_every_door_a_port_of_its_own():
    spec = Spec(nodes=100)
    addresses = {network.address_of(name) for name in spec.machines} | {network.SWITCH_ADDRESS}
    assert len(addresses) == 102
    assert set(spec.doors.values()) == {("login", 22), ("login", 6820), ("login", 5000)} | {
        (name, 22) for name in spec.compute_nodes
    }


def test_the_slurm_configuration_declares_each_node_once_and_both_partitions():
    text = slurm_conf.slurm_conf(Spec(nodes=3, gpus=2), "v1")
    lines = text.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("NodeName=")] == [f"NodeName=n{i}" for i in (1, 2, 3)]
    assert [line.split()[0] for line in lines if line.startswith("Part")] == [
        "PartitionName=cpu",
        "PartitionName=debug",
    ]
    assert all("Gres=gpu:2" in line for line in lines if line.startswith("NodeName="))
    assert [line for line in lines if "Feature=fast" in line] == [
        line for line in lines if line.startswith("NodeName=n1 ")
    ]
    keys = [line.split("=")[0] for line in lines if not line.startswith(("NodeName", "PartitionName", "#"))]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("mode", ["v1", "v2"])
def test_memory_limits_are_real_where_control_groups_are(mode):
    assert "TaskPlugin=task/cgroup" in slurm_conf.slurm_conf(Spec(), mode)
    assert f"CgroupPlugin=cgroup/{mode}\nConstrainRAMSpace=yes" in slurm_conf.cgroup_conf(Spec(), mode)
    assert "TaskPlugin=task/none" in slurm_conf.slurm_conf(Spec(), "none")


def test_without_slurmdbd_nothing_asks_for_it():
    spec = Spec(dbd=False)
    assert "slurmdbd" not in slurm_conf.slurm_conf(spec, "none")
    assert "/etc/slurm/slurmdbd.conf" not in slurm_conf.files(spec, "none")
    assert daemons_of("login", dbd=False) == ("munged", "sshd", "registry", "registrydoor", "slurmctld")


def test_every_daemon_that_a_machine_starts_is_in_the_table():
    assert {*daemons_of("login", dbd=True), *daemons_of("n1", dbd=True)} == set(DAEMONS)


def test_the_demo_image_is_the_same_bytes_each_time(tmp_path):
    digests = {write_layout(tmp_path / name, [layer_tar(b"busybox", ["sh", "ls"])], {"Cmd": ["sh"]}) for name in "ab"}
    assert len(digests) == 1
    files = [
        sorted((p.relative_to(tmp_path / n), p.read_bytes()) for p in (tmp_path / n).rglob("*") if p.is_file())
        for n in "ab"
    ]
    assert files[0] == files[1]


def test_the_demo_image_names_its_blobs_by_their_content(tmp_path):
    write_layout(tmp_path / "image", [layer_tar(b"busybox", ["sh"])], {})
    blobs = list((tmp_path / "image/blobs/sha256").iterdir())
    assert len(blobs) == 3
    assert all(hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name for blob in blobs)
    [manifest] = json.loads((tmp_path / "image/index.json").read_text())["manifests"]
    assert manifest["digest"].removeprefix("sha256:") in {blob.name for blob in blobs}


def test_the_demo_image_holds_a_link_for_each_applet():
    with tarfile.open(fileobj=io.BytesIO(layer_tar(b"busybox", ["sh", "ls", "busybox"]))) as tar:
        links = {entry.name: entry.linkname for entry in tar if entry.issym()}
        assert links == {"bin/sh": "busybox", "bin/ls": "busybox", "usr/bin": "../bin"}
        assert all(entry.mtime == 0 and entry.uid == 0 for entry in tar)


def test_each_suite_and_each_recipe_has_a_cache_folder_of_its_own():
    assert len({rootfs.recipe_hash(suite) for suite in rootfs.SUITES.values()}) == len(rootfs.SUITES)


def test_packages_beside_the_usual_ones_make_a_recipe_of_their_own():
    bare, suite = Spec(), rootfs.SUITES["trixie"]
    assert rootfs.recipe_hash(rootfs.with_packages(suite, bare.packages)) == rootfs.recipe_hash(suite)
    assert rootfs.recipe_hash(rootfs.with_packages(suite, ("libmpich12",))) != rootfs.recipe_hash(suite)


def test_a_specification_is_the_same_when_it_is_read_again():
    spec = Spec(packages=("libmpich12", "libstdc++6"))
    assert Spec(**json.loads(json.dumps(asdict(spec)))) == spec


@pytest.mark.parametrize("name", ["-y", "a b", "Slurm", "x;id", ""])
def test_what_is_no_name_of_a_package_is_refused(name):
    with pytest.raises(TestbedError, match="package"):
        Spec(packages=(name,))


def test_a_failed_program_is_reported_in_its_own_words():
    with pytest.raises(TestbedError, match=r"exit status 3: sh -c .*\nno such luck"):
        run(["sh", "-c", "echo no such luck >&2; exit 3"])


def test_a_program_that_does_not_end_is_reported():
    with pytest.raises(TestbedError, match=r"no end after 0\.1 s: sleep 5"):
        run(["sleep", "5"], timeout_s=0.1)


def test_a_suite_that_cannot_run_fails_in_ci_and_is_skipped_elsewhere(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI must run the testbed: no root"):
        cannot_run("no root")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no testbed here: no root"):
        cannot_run("no root")
