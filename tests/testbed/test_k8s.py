"""The testbed's Kubernetes, live: jobs on fake nodes, who may do what, and the faults that other suites rely on."""

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testbed import TestbedError
from testbed.host import run, wait_until
from testbed.k8s.client import client
from testbed.k8s.control_plane import STATES, ControlPlane
from testbed.k8s.pytest_plugin import shared_control_plane
from testbed.k8s.spec import Spec, fake_nodes, free_port
from tests.testbed.kubernetes import create_job, ended, job, made, own_namespace, pod_spec, pods_of, wait_for

pytestmark = pytest.mark.testbed


@pytest.fixture
def api(control_plane: ControlPlane) -> Iterator[httpx.Client]:
    with client(control_plane) as http:
        yield http


@pytest.fixture
def namespace(control_plane: ControlPlane, api: httpx.Client) -> Iterator[str]:
    with own_namespace(control_plane, api) as name:
        yield name


def test_every_part_runs_and_every_fake_node_is_ready(control_plane, api):
    assert all(control_plane.status().values())
    offered = {
        node["metadata"]["name"]: node["status"]["allocatable"] for node in made(api.get("/api/v1/nodes"))["items"]
    }
    assert sorted(offered) == ["fake-1", "fake-2", "fake-3", "fake-4"]
    assert [name for name, offer in offered.items() if offer.get("nvidia.com/gpu") == "4"] == ["fake-4"]


def test_a_job_on_fake_nodes_completes(api, namespace):
    create_job(api, namespace, job("works", pod_spec("any"), pods=3, run_s="0.2"))
    assert ended(api, namespace, "works") == "Complete"
    assert [pod["status"]["phase"] for pod in pods_of(api, namespace, "works")] == ["Succeeded"] * 3


def test_a_job_on_fake_nodes_fails_with_the_exit_code_and_reason_asked_for(api, namespace):
    create_job(api, namespace, job("fails", pod_spec("any"), run_s="0.2", exit_code="137", reason="OOMKilled"))
    assert ended(api, namespace, "fails") == "Failed"
    [pod] = pods_of(api, namespace, "fails")
    end = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (end["exitCode"], end["reason"]) == (137, "OOMKilled")


def test_a_container_that_may_start_again_does_so_on_a_fake_node(api, namespace):
    again = job("again", pod_spec("any") | {"restartPolicy": "OnFailure"}, retries=9, run_s="0.2", exit_code="1")
    create_job(api, namespace, again)

    def restarts() -> int:
        [pod] = pods_of(api, namespace, "again") or [{"status": {}}]
        return sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))

    wait_for(lambda: restarts() >= 2, "the container was started again twice")


def test_a_pod_that_waits_says_why(api, namespace):
    create_job(api, namespace, job("waits", pod_spec("any"), waiting="ImagePullBackOff"))

    def reason() -> str:
        [pod] = pods_of(api, namespace, "waits") or [{"status": {}}]
        statuses = pod["status"].get("containerStatuses", [])
        return statuses[0]["state"]["waiting"]["reason"] if statuses else ""

    assert wait_for(reason, "the pod says why it waits") == "ImagePullBackOff"


def test_a_deleted_pod_leaves_its_fake_node_at_once(api, namespace):
    create_job(api, namespace, job("endless", pod_spec("any"), run_s="forever"))
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs/endless"
    wait_for(lambda: made(api.get(path))["status"].get("active"), "the pod is active")
    made(api.delete(path, params={"propagationPolicy": "Foreground"}))
    wait_until(lambda: api.get(path).status_code == 404, "the job is gone")
    assert pods_of(api, namespace, "endless") == []


def test_a_gpu_is_given_to_one_pod_at_a_time(api, namespace):
    spec = pod_spec("any")
    spec["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "4"}}
    create_job(api, namespace, job("gpus", spec, pods=2, run_s="0.2"))
    assert ended(api, namespace, "gpus") == "Complete"
    pods = pods_of(api, namespace, "gpus")
    assert {pod["spec"]["nodeName"] for pod in pods} == {"fake-4"}


def test_two_hundred_jobs_end_on_fake_nodes(api, namespace):
    for number in range(200):
        create_job(api, namespace, job(f"n{number}", pod_spec("any"), run_s="0.1"))
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    wait_until(
        lambda: sum(each["status"].get("succeeded", 0) for each in made(api.get(path))["items"]) == 200,
        "200 jobs are complete",
        timeout_s=120,
    )


def test_a_user_may_do_what_a_role_says_and_nothing_else(control_plane, api, namespace):
    pods = f"/api/v1/namespaces/{namespace}/pods"
    with client(control_plane, "alice") as alice:
        assert alice.get(pods).status_code == 403
        roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
        made(api.post(f"{roles}/roles", json={"metadata": {"name": "reader"}, "rules": [rule]}))
        subject = {"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}
        ref = {"kind": "Role", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}
        binding = {"metadata": {"name": "alice"}, "subjects": [subject], "roleRef": ref}
        made(api.post(f"{roles}/rolebindings", json=binding))
        wait_until(lambda: alice.get(pods).status_code == 200, "the role counts")
        assert alice.delete(f"{pods}/any").status_code == 403
    with client(control_plane, "bob") as bob:
        assert bob.get(pods).status_code == 403


def test_a_token_that_nobody_has_is_refused(control_plane):
    with client(control_plane) as http:
        assert http.get("/api/v1/nodes", headers={"Authorization": "Bearer guessed"}).status_code == 401
    with pytest.raises(TestbedError, match=r"no user 'carol'; there are admin, alice, bob"):
        control_plane.kubeconfig("carol")


def test_kubeconfigs_are_for_their_owner_alone(control_plane):
    assert (control_plane.state / "credentials").stat().st_mode & 0o077 == 0
    held = json.loads(control_plane.kubeconfig("alice").read_text())
    assert base64.b64decode(held["clusters"][0]["cluster"]["certificate-authority-data"]).startswith(b"-----BEGIN")


def test_a_killed_api_server_comes_back_with_everything_and_jobs_go_on(rough_control_plane):
    with client(rough_control_plane) as api, own_namespace(rough_control_plane, api) as namespace:
        create_job(api, namespace, job("over", pod_spec("any"), run_s="3"))
        wait_for(lambda: pods_of(api, namespace, "over"), "the job has a pod")
        rough_control_plane.kill("kube-apiserver")
        assert rough_control_plane.status()["kube-apiserver"] is False
        with pytest.raises(httpx.TransportError):
            api.get("/readyz")
        rough_control_plane.start("kube-apiserver")
        assert ended(api, namespace, "over") == "Complete"


def test_a_paused_api_server_is_silent_and_goes_on_when_it_is_resumed(rough_control_plane):
    with client(rough_control_plane) as api:
        made(api.get("/api/v1/nodes"))
        rough_control_plane.pause("kube-apiserver")
        try:
            with pytest.raises(httpx.ReadTimeout):
                api.get("/api/v1/nodes", timeout=1)
        finally:
            rough_control_plane.resume("kube-apiserver")
        made(api.get("/api/v1/nodes"))


def test_a_list_that_began_before_a_compaction_is_gone(rough_control_plane):
    with client(rough_control_plane) as api, own_namespace(rough_control_plane, api) as namespace:
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        for number in range(3):
            made(api.post(path, json={"metadata": {"name": f"c{number}"}}))
        first = made(api.get(path, params={"limit": 1}))
        made(api.post(path, json={"metadata": {"name": "more"}}))
        rough_control_plane.compact_etcd()
        rest = api.get(path, params={"limit": 1, "continue": first["metadata"]["continue"]})
        assert (rest.status_code, rest.json()["reason"]) == (410, "Expired")


def test_a_watch_from_before_a_compaction_is_gone_after_a_restart(rough_control_plane):
    with client(rough_control_plane) as api, own_namespace(rough_control_plane, api) as namespace:
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        old = made(api.get(path))["metadata"]["resourceVersion"]
        for number in range(3):
            made(api.post(path, json={"metadata": {"name": f"w{number}"}}))
        rough_control_plane.kill("kube-apiserver")
        rough_control_plane.compact_etcd()
        rough_control_plane.start("kube-apiserver")
        watch = {"watch": "1", "resourceVersion": old, "timeoutSeconds": "5"}
        answer = api.get(path, params=watch)
        status = json.loads(answer.text.splitlines()[0])
        assert (status["type"], status["object"]["code"]) == ("ERROR", 410)


def test_fake_nodes_that_were_killed_take_their_pods_up_again(rough_control_plane):
    with client(rough_control_plane) as api, own_namespace(rough_control_plane, api) as namespace:
        create_job(api, namespace, job("kept", pod_spec("any"), run_s="4"))
        wait_for(lambda: [pod for pod in pods_of(api, namespace, "kept") if _runs(pod)], "the pod runs")
        rough_control_plane.kill("fake-nodes")
        rough_control_plane.start("fake-nodes")
        assert ended(api, namespace, "kept") == "Complete"


def test_up_again_starts_what_has_died(rough_control_plane):
    rough_control_plane.kill("etcd")
    rough_control_plane.kill("kube-scheduler")
    ControlPlane.load(rough_control_plane.spec.name).up()
    assert all(rough_control_plane.status().values())


def test_an_unknown_part_is_refused_by_name(control_plane):
    with pytest.raises(TestbedError, match="no part 'kube-proxy'; there are etcd, kube-apiserver"):
        control_plane.kill("kube-proxy")


def test_the_same_name_with_another_shape_is_refused(control_plane):
    with pytest.raises(TestbedError, match="another specification"):
        ControlPlane(Spec(control_plane.spec.name, fake_nodes(1), port=control_plane.spec.port)).up()


def test_the_command_line_brings_one_up_says_how_to_reach_it_and_leaves_nothing(control_plane):
    name = f"{control_plane.spec.name}c"
    words = [sys.executable, "-m", "testbed", "k8s"]
    said = run([*words, "up", "--name", name, "--fake-nodes", "1", "--port", str(free_port())], timeout_s=180).stdout
    try:
        plane = ControlPlane.load(name)
        assert said.splitlines()[0] == f"export KUBECONFIG={plane.kubeconfig()}"
        assert "kube-scheduler           runs" in run([*words, "status", "--name", name]).stdout
        plane.kill("kube-scheduler")
        assert run([*words, "status", "--name", name], check=False).returncode == 1
    finally:
        run([*words, "down", "--name", name])
    assert leftovers(name) == []


def test_a_session_that_was_killed_is_cleared_away_by_the_next():
    killed = """
import os, signal
from testbed.k8s.pytest_plugin import shared_control_plane
with shared_control_plane(f"killed {os.getpid()}") as running:
    print(running.spec.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    name = run([sys.executable, "-c", killed], check=False, timeout_s=300).stdout.strip()
    assert (STATES / name / "up").exists()
    with shared_control_plane("next") as running:
        assert running.spec.name != name
        assert leftovers(name) == []
    assert leftovers(running.spec.name) == []


def test_down_leaves_nothing_even_after_up_was_killed(control_plane):
    """Kill ``up`` at several moments of its life, then look for whatever could be left."""
    name, port = f"{control_plane.spec.name}k", free_port()
    for reached in ("spec.json", "run/etcd.pid", "run/kube-apiserver.pid", "run/kube-scheduler.pid"):
        argv = [sys.executable, "-m", "testbed", "k8s", "up", "--name", name, "--port", str(port)]
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as up:
            wait_until((STATES / name / reached).exists, f"{reached} is there", timeout_s=90)
            up.send_signal(signal.SIGKILL)
        ControlPlane(Spec(name)).down()
        assert leftovers(name) == []


def _runs(pod: dict) -> bool:
    return pod["status"].get("phase") == "Running"


def leftovers(name: str) -> list[str]:
    """Whatever on this host still carries the name: files, mounts, control groups, namespaces, processes."""
    places = (STATES / name, STATES / f".{name}.lock", Path(f"/run/netns/berthk8s-{name}"))
    found = [str(path) for path in places if path.exists()]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/berth-k8s-{name}")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if f"/{name}/" in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if any(f"/{name}/" in word for word in words):
            found.append(" ".join(words))
    return found
