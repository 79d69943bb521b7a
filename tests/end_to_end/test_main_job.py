"""The main job on a real cluster: every way in which a job can end, ends in the right state and condition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from testbed.server import running
from tests.end_to_end.wire import Wire

pytestmark = pytest.mark.testbed


@pytest.fixture(scope="module")
def wire(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with running(tmp_path_factory.mktemp("berth")) as server:
        wire = Wire(server.url)
        wire.register(cluster.info(), "alder")
        yield wire


@pytest.fixture(scope="module")
def image(cluster: Any) -> str:
    return cluster.info()["demo_image"]["from_nodes"]


def test_a_job_without_a_system_is_placed_run_and_brought_home(wire: Wire, image: str):
    job = wire.submit("echo hello from $(hostname) > result.txt; cat result.txt", image=image)
    ended = wire.finish(job["uuid"])
    assert (ended["status"], ended["condition"]) == ("FINISHED", "NORMAL_COMPLETION"), ended["lastMessage"]
    assert ended["execSystemId"] == "alder"
    assert wire.output(job["uuid"]).startswith("hello from n")
    names = [entry["name"] for entry in wire.get(f"/v3/jobs/{job['uuid']}/output/list/")]
    assert "tapisjob.out" in names
    assert "alder" in wire.get(f"/v3/jobs/{job['uuid']}/why")["sentence"]


def test_four_nodes_each_run_the_container_once(wire: Wire, image: str):
    job = wire.submit("hostname", image=image, nodeCount=4)
    ended = wire.finish(job["uuid"])
    assert ended["status"] == "FINISHED", ended["lastMessage"]
    assert sorted(wire.output(job["uuid"]).split()) == ["n1", "n2", "n3", "n4"]


def test_an_array_of_a_hundred_is_one_job_that_finishes_when_all_have(wire: Wire, image: str):
    script = 'echo task $SLURM_ARRAY_TASK_ID >> "ran.$SLURM_ARRAY_TASK_ID"'
    job = wire.submit(script, image=image, berth={"array": "0-99%16"}, memoryMB=50)
    ended = wire.finish(job["uuid"], timeout_s=240)
    assert ended["status"] == "FINISHED", ended["lastMessage"]


def test_a_chain_runs_in_order_and_a_broken_link_is_not_followed(wire: Wire, image: str):
    first = wire.submit("true", image=image)
    second = wire.submit("exit 3", image=image, berth={"after": [{"uuid": first["uuid"], "condition": "ok"}]})
    third = wire.submit("true", image=image, berth={"after": [{"uuid": second["uuid"], "condition": "ok"}]})
    rescue = wire.submit("true", image=image, berth={"after": [{"uuid": second["uuid"], "condition": "notok"}]})
    states = {
        name: wire.finish(job["uuid"])
        for name, job in {"first": first, "second": second, "third": third, "rescue": rescue}.items()
    }
    assert states["first"]["status"] == "FINISHED"
    assert (states["second"]["status"], states["second"]["condition"]) == ("FAILED", "JOB_REMOTE_OUTCOME_ERROR")
    assert states["third"]["status"] in {"CANCELLED", "FAILED"}
    assert not states["third"]["remoteJobId"]
    assert states["rescue"]["status"] == "FINISHED"
    assert states["second"]["remoteStarted"] >= states["first"]["remoteEnded"]


def test_a_job_past_its_walltime_times_out(wire: Wire, image: str):
    job = wire.submit("sleep 600", image=image, maxMinutes=1)
    ended = wire.finish(job["uuid"], timeout_s=180)
    assert (ended["status"], ended["condition"]) == ("FAILED", "SCHEDULER_TIMEOUT"), ended["lastMessage"]


def test_a_job_past_its_memory_is_out_of_memory(wire: Wire, image: str):
    script = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"
    job = wire.submit(script, image=image, memoryMB=60)
    ended = wire.finish(job["uuid"])
    assert (ended["status"], ended["condition"]) == ("FAILED", "SCHEDULER_OUT_OF_MEMORY"), ended["lastMessage"]


def test_a_running_job_is_cancelled(wire: Wire, image: str):
    job = wire.submit("echo begun; sleep 600", image=image)
    wire.await_state(job["uuid"], {"RUNNING"})
    wire.post(f"/v3/jobs/{job['uuid']}/cancel")
    ended = wire.finish(job["uuid"])
    assert (ended["status"], ended["condition"]) == ("CANCELLED", "CANCELLED_BY_USER"), ended["lastMessage"]


def test_a_queued_job_is_cancelled_before_it_starts(wire: Wire, image: str):
    held = {"schedulerOptions": [{"name": "later", "arg": "--begin=now+1hour", "inputMode": "INCLUDE_BY_DEFAULT"}]}
    job = wire.submit("true", image=image, parameterSet=held)
    wire.await_state(job["uuid"], {"QUEUED"})
    wire.post(f"/v3/jobs/{job['uuid']}/cancel")
    ended = wire.finish(job["uuid"])
    assert (ended["status"], ended["condition"]) == ("CANCELLED", "CANCELLED_BY_USER"), ended["lastMessage"]
    assert ended["remoteStarted"] is None


def test_output_is_listed_and_read_while_the_job_runs(wire: Wire, image: str):
    job = wire.submit("echo early; sleep 30", image=image)
    wire.await_state(job["uuid"], {"RUNNING"})
    names = [e["name"] for e in wire.get(f"/v3/jobs/{job['uuid']}/output/list/", allowIfRunning=True)]
    assert "tapisjob.out" in names
    wire.post(f"/v3/jobs/{job['uuid']}/cancel")
    wire.finish(job["uuid"])
