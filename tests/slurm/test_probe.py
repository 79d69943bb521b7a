"""A first look at a host becomes a definition that the API takes; what was not seen is a warning."""

import pytest
import pytest_asyncio

from api.schemas.systems import SystemBody
from backends.slurm.probe import COMMANDS, describe, probe
from backends.slurm.remote import Said
from scheduler.model.errors import NotAuthorised
from scheduler.model.probes import ProbeAsk
from scheduler.model.systems import Credential
from tests.slurm.recorded import VERSIONS, recorded
from tests.slurm.ssh_server import USER, ssh_server

ASK = ProbeAsk(
    host="login.example.org",
    credential=Credential(tenant="t", system_id="s", user="alice", login_user="alice", private_key="k"),
)


def said(version, **changes):
    """A recorded cluster with Apptainer on it."""
    answers = {name: Said(0, "") for name in COMMANDS} | {
        "slurm": Said(0, recorded(version, "version")),
        "nodes": Said(0, recorded(version, "sinfo")),
        **{name: Said(0, recorded(version, name)) for name in ("partitions", "config", "qos", "accounts")},
        "runtimes": Said(0, "apptainer apptainer version 1.4.5\n"),
        "directories": Said(0, "Welcome!\n\nHOME=/home/alice\n\nWORK=\n\nSCRATCH=/scratch/alice\n"),
        "file_systems": Said(0, "/dev/vda ext4 264212480 25165824 81788928 24% /home\n"),
        "compute_node": Said(0, "/usr/bin/apptainer\nuserns\n"),
    }
    return answers | changes


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_becomes_a_definition_that_the_api_takes(version):
    definition, warnings = describe(ASK, said(version))
    system = SystemBody(**definition).to_system(tenant="t", caller="alice", uuid="u")
    assert system.can_run_batch
    assert system.default_queue == "cpu"
    cpu = system.queue("cpu")
    assert (cpu.max_walltime_s, cpu.max_cores_per_node, cpu.max_memory_mib) == (86400, 4, 4000)
    assert system.job_working_dir == "/home/${EffectiveUserId}/berth"
    facts = definition["notes"]["berth"]["facts"]
    assert facts["slurmVersion"] == version.partition("-")[2]
    assert (facts["accounts"], facts["maxArraySize"], facts["minJobAgeS"]) == (["lab", "teaching"], 20001, 300)
    assert {"name": "express", "maxMinutes": 10, "maxJobsPerUser": None} in facts["qos"]
    assert facts["fileSystems"] == [{"mount": "/home", "type": "ext4", "sizeMiB": 258020, "freeMiB": 79872}]
    assert warnings == []


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"runtimes": Said(0, "")}, "no container runtime was found"),
        ({"user_namespaces": Said(1, "")}, "user namespaces are off on this host"),
        ({"compute_node": Said(1, "srun: error: Unable to allocate resources")}, "no compute node could be looked at"),
        ({"compute_node": Said(0, "userns\n")}, "neither apptainer nor singularity"),
        ({"accounts": Said(1, "sacctmgr: error: Connection refused")}, "Connection refused"),
        ({"nodes": Said(1, "slurm_load_partitions: Unable to contact slurm controller")}, "sinfo did not answer"),
        ({"nodes": Said(0, "what is this\n")}, "sinfo was not understood"),
        ({"directories": Said(1, "")}, "set jobWorkingDir"),
    ],
)
def test_what_could_not_be_seen_is_a_warning(changes, warning):
    _, warnings = describe(ASK, said("trixie-24.11.5", **changes))
    assert [one for one in warnings if warning in one]


@pytest.mark.parametrize(
    ("offered", "module", "version"),
    [
        ("/etc/modules:\napptainer/1.3.1\napptainer/1.4.1\n", "apptainer/1.4.1", "1.4.1"),
        ("/opt/apps/modulefiles:\ntacc-apptainer/\ntacc-apptainer/1.3.3 (default)\n", "tacc-apptainer/1.3.3", "1.3.3"),
        ("/sw/modules:\ntools/Singularity\nsingularity/v3.8(default)\n", "singularity/v3.8", "3.8"),
        ("singularity-ce\n", "singularity-ce", None),
        ("apptainer/1.3.1\napptainer/1.4.1\nsingularity/3.8\n", "apptainer/1.4.1", "1.4.1"),
    ],
)
def test_a_runtime_that_is_a_module_is_one_that_jobs_can_load(offered, module, version):
    nowhere = {"runtimes": Said(0, ""), "compute_node": Said(0, "userns\n")}
    definition, warnings = describe(ASK, said("trixie-24.11.5", modules=Said(0, offered), **nowhere))
    assert definition["jobRuntimes"] == [{"runtimeType": "SINGULARITY", "version": version}]
    assert definition["canRunBatch"]
    assert [f"--load {module})" in one for one in warnings] == [True]


@pytest.mark.parametrize("offered", ["", "No module(s) or extension(s) found!\n", "/opt/apptainer:\ngcc/13\n"])
def test_modules_of_other_things_are_no_runtime(offered):
    definition, _ = describe(ASK, said("trixie-24.11.5", modules=Said(0, offered), runtimes=Said(0, "")))
    assert not definition["canExec"]


@pytest_asyncio.fixture
async def server(tmp_path):
    async with ssh_server(tmp_path) as server:
        yield server


async def test_a_plain_host_is_a_system_that_forks(server):
    ask = ProbeAsk(
        host="127.0.0.1",
        port=server.port,
        credential=Credential(tenant="t", system_id="s", user="u", login_user=USER, private_key=server.private_key),
    )
    report = await probe(ask)
    assert report.host_key == server.public_host_key
    assert report.definition["canRunBatch"] is False
    assert set(report.evidence) == set(COMMANDS)
    assert report.definition["notes"]["berth"]["facts"]["host"][0].startswith("Linux")


async def test_a_refused_login_says_so(server):
    ask = ProbeAsk(
        host="127.0.0.1",
        port=server.port,
        credential=Credential(tenant="t", system_id="s", user="u", login_user=USER, password="wrong"),
    )
    with pytest.raises(NotAuthorised, match="Permission denied"):
        await probe(ask)
