"""The two other versions of Slurm: submit, watch, cancel and accounting; a container where there is Apptainer."""

import pytest

from backends.slurm.probe import probe
from scheduler.model.probes import ProbeAsk
from scheduler.model.runs import ArraySpec, Ending, RemoteState, Resources, Runtime
from scheduler.model.systems import Credential

pytestmark = pytest.mark.testbed


async def test_jobs_are_submitted_watched_and_accounted_for(other_login):
    login = other_login
    good, bad = login.intent("echo", "hello"), login.intent("sh", "-c", "exit 3")
    tasks = login.intent("sh", "-c", "exit $SLURM_ARRAY_TASK_ID", array=ArraySpec((0, 1)))
    endings = [await login.finish(intent) for intent in (good, bad, tasks)]
    assert [(seen.ending, seen.exit_code) for seen in endings] == [
        (Ending.COMPLETED, 0),
        (Ending.FAILED, 3),
        (Ending.FAILED, 1),
    ]
    assert await login.log(good) == "hello\n"
    assert await login.backend.find(good.marker, good.intended_at) == await login.submit(good)


async def test_a_running_job_is_cancelled(other_login):
    login = other_login
    intent = login.intent("sleep", "300")
    remote_id = await login.submit(intent)
    await login.until(remote_id, intent.marker, RemoteState.RUNNING)
    await login.backend.cancel(remote_id, intent.marker)
    assert (await login.until(remote_id, intent.marker, RemoteState.ENDED)).ending is Ending.CANCELLED


async def test_two_nodes_run_it_once_each(other_login):
    intent = other_login.intent("hostname", resources=Resources(nodes=2))
    assert (await other_login.finish(intent)).ending is Ending.COMPLETED
    assert len((await other_login.log(intent)).split()) == 2


async def test_a_container_runs_where_there_is_a_runtime(other_login):
    if other_login.info["suite"] == "bookworm":
        assert (await other_login.connection.run(["sh", "-c", "command -v apptainer"])).exit_status != 0
        return
    image = other_login.info["demo_image"]["from_nodes"]
    intent = other_login.intent(
        "echo", "inside", image=image, runtime=Runtime.SINGULARITY, use_entrypoint=False, plain_http_registry=True
    )
    assert (await other_login.finish(intent)).ending is Ending.COMPLETED
    assert await other_login.log(intent) == "inside\n"


APPTAINER_MODULES = """
mkdir -p /etc/lmod/modules/apptainer
touch /etc/lmod/modules/apptainer/1.3.lua /etc/lmod/modules/apptainer/1.4.1.lua
"""


async def test_a_probe_describes_the_cluster(other_login):
    ssh = other_login.info["ssh"]
    credential = Credential(tenant="t", system_id="s", user="alice", login_user="alice", private_key=other_login.key)
    other_login.cluster.sh("login", APPTAINER_MODULES)
    report = await probe(ProbeAsk(host=ssh["host"], port=ssh["port"], credential=credential, system_id="tb"))
    assert report.host_key == ssh["host_key"]
    is_module = other_login.info["suite"] == "bookworm"  # where it is installed nobody looks for modules
    assert (report.definition["jobRuntimes"][0]["version"] == "1.4.1") is is_module
    assert any("--load apptainer/1.4.1)" in one for one in report.warnings) is is_module
    facts = report.definition["notes"]["berth"]["facts"]
    assert facts["slurmVersion"] == other_login.info["slurm_version"]
    assert facts["accounts"] == ["lab", "teaching"]
    if other_login.info["suite"] != "bookworm":
        queues = {queue["name"]: queue for queue in report.definition["batchLogicalQueues"]}
        assert (queues["cpu"]["maxMinutes"], queues["cpu"]["maxNodeCount"], queues["cpu"]["maxCoresPerNode"]) == (
            1440,
            2,
            4,
        )
