"""A real node of the testbed's Kubernetes: containers run, and what a user asks of them goes through the API server."""

import json
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from testbed import TestbedError
from testbed.host import run, wait_until
from testbed.k8s.client import client
from testbed.k8s.control_plane import STATES, ControlPlane
from testbed.k8s.images import layer_of
from testbed.k8s.node import Node
from testbed.k8s.spec import Spec
from testbed.oci import write_layout
from tests.testbed.kubernetes import create_job, ended, job, made, own_namespace, pod_spec, pods_of, wait_for
from tests.testbed.test_k8s import leftovers
from tests.testbed.websocket import Channels

pytestmark = pytest.mark.testbed

STDOUT, ERROR = 1, 3


@pytest.fixture
def node(real_node_cluster: ControlPlane) -> Node:
    return Node(real_node_cluster)


@pytest.fixture
def api(real_node_cluster: ControlPlane) -> Iterator[httpx.Client]:
    with client(real_node_cluster) as http:
        yield http


@pytest.fixture
def namespace(real_node_cluster: ControlPlane, api: httpx.Client) -> Iterator[str]:
    with own_namespace(real_node_cluster, api) as name:
        yield name


@pytest.fixture
def image(node: Node) -> str:
    return f"{node.registry}/demo/busybox:1"


def test_a_job_runs_and_its_log_can_be_read(api, namespace, image):
    create_job(api, namespace, job("says", pod_spec(image, "sh", "-c", "echo out; echo err >&2")))
    assert ended(api, namespace, "says") == "Complete"
    [pod] = pods_of(api, namespace, "says")
    log = api.get(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/log")
    assert sorted(log.text.splitlines()) == ["err", "out"]


def test_an_exit_code_reaches_the_api(api, namespace, image):
    create_job(api, namespace, job("ends", pod_spec(image, "sh", "-c", "exit 7")))
    assert ended(api, namespace, "ends") == "Failed"
    [pod] = pods_of(api, namespace, "ends")
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7


def test_a_container_past_its_memory_is_killed(api, namespace, image):
    eat = pod_spec(image, "sh", "-c", "exec tail /dev/zero")
    eat["containers"][0]["resources"] = {"limits": {"memory": "32Mi"}}
    create_job(api, namespace, job("eats", eat))
    assert ended(api, namespace, "eats") == "Failed"
    [pod] = pods_of(api, namespace, "eats")
    end = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (end["exitCode"], end["reason"]) == (137, "OOMKilled")


def test_an_init_container_leaves_files_for_the_main_one(api, namespace, image):
    spec = pod_spec(image, "cat", "/data/word")
    mounts = [{"name": "data", "mountPath": "/data"}]
    first = {"name": "first", "image": image, "command": ["sh", "-c", "echo staged > /data/word"]}
    spec["initContainers"] = [first | {"volumeMounts": mounts}]
    spec["containers"][0]["volumeMounts"] = mounts
    spec["volumes"] = [{"name": "data", "emptyDir": {}}]
    create_job(api, namespace, job("stages", spec))
    assert ended(api, namespace, "stages") == "Complete"
    [pod] = pods_of(api, namespace, "stages")
    assert api.get(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/log").text == "staged\n"


def test_exec_passes_output_and_exit_code(real_node_cluster, api, namespace, image):
    path = running_pod(api, namespace, pod_spec(image, "sleep", "600"))
    query = [("command", word) for word in ("sh", "-c", "hostname; exit 5")] + [("stdout", "1"), ("stderr", "1")]
    with Channels(real_node_cluster, f"{path}/exec", query) as channels:
        frames = list(channels.received())
    assert b"".join(content for channel, content in frames if channel == STDOUT) == b"one\n"
    status = json.loads(b"".join(content for channel, content in frames if channel == ERROR))
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "5"}]


def test_a_port_of_a_pod_is_reached_through_the_api_server(real_node_cluster, api, namespace, image):
    serve = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 8080 -h /www"
    path = running_pod(api, namespace, pod_spec(image, "sh", "-c", serve))
    wait_until(lambda: api.get(f"{path}:8080/proxy/").text == "served\n", "the server in the pod answers")
    with Channels(real_node_cluster, f"{path}/portforward", [("ports", "8080")]) as channels:
        frames = channels.received()
        opened = {next(frames) for _ in range(2)}  # each channel begins with the port's number
        assert opened == {(0, b"\x90\x1f"), (1, b"\x90\x1f")}
        channels.send(0, b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while b"served" not in answer:
            answer += next(frames)[1]
    assert answer.startswith((b"HTTP/1.0 200 OK", b"HTTP/1.1 200 OK"))


def test_an_image_of_any_tree_is_pulled_from_the_registry(node, api, namespace, tmp_path):
    (tmp_path / "tree/bin").mkdir(parents=True)
    run(["cp", node.plane.binaries.path("busybox"), tmp_path / "tree/bin/busybox"])
    (tmp_path / "tree/bin/sh").symlink_to("busybox")
    (tmp_path / "tree/word").write_text("pulled\n")
    write_layout(tmp_path / "image", [layer_of(tmp_path / "tree")], {"Entrypoint": ["/bin/busybox", "cat", "/word"]})
    name = node.push_image(tmp_path / "image", "own/tree:1")
    create_job(api, namespace, job("pulls", pod_spec(name)))
    assert ended(api, namespace, "pulls") == "Complete"
    [pod] = pods_of(api, namespace, "pulls")
    assert api.get(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/log").text == "pulled\n"
    assert name in node.ctr("images", "list", "--quiet").stdout.split()


def test_an_imported_image_needs_no_registry(node, api, namespace, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    run(["cp", node.plane.binaries.path("busybox"), tree / "busybox"])
    write_layout(tmp_path / "image", [layer_of(tree)], {"Entrypoint": ["/busybox", "true"]})
    node.import_image(tmp_path / "image", "nowhere.example/own/imported:1")
    spec = pod_spec("nowhere.example/own/imported:1")
    spec["containers"][0]["imagePullPolicy"] = "Never"
    create_job(api, namespace, job("imported", spec))
    assert ended(api, namespace, "imported") == "Complete"


def test_an_image_that_does_not_exist_is_backed_off_from(node, api, namespace):
    create_job(api, namespace, job("missing", pod_spec(f"{node.registry}/no/such:1")))

    def reason() -> str:
        [pod] = pods_of(api, namespace, "missing") or [{"status": {}}]
        statuses = pod["status"].get("containerStatuses", [])
        return statuses[0]["state"]["waiting"]["reason"] if statuses else ""

    wait_until(lambda: reason() == "ImagePullBackOff", "the kubelet backs off", timeout_s=90)


def test_pods_outlive_kubelet_and_containerd(node, api, namespace, image):
    create_job(api, namespace, job("lasts", pod_spec(image, "sh", "-c", "sleep 4; echo lasted")))
    wait_for(lambda: [pod for pod in pods_of(api, namespace, "lasts") if _runs(pod)], "the pod runs")
    node.kill("kubelet")
    node.kill("containerd")
    assert node.status() == {"machine": True, "registry": True, "containerd": False, "kubelet": False}
    node.start("containerd")
    node.start("kubelet")
    assert ended(api, namespace, "lasts", timeout_s=120) == "Complete"


def test_a_node_without_power_comes_back_with_its_images_and_its_pods_ended(node, api, namespace, image):
    create_job(api, namespace, job("lost", pod_spec(image, "sleep", "600")))
    wait_for(lambda: [pod for pod in pods_of(api, namespace, "lost") if _runs(pod)], "the pod runs")
    node.crash()
    assert not any(node.status().values())
    node.up()
    assert all(node.status().values())
    assert image in node.ctr("images", "list", "--quiet").stdout.split()
    assert ended(api, namespace, "lost", timeout_s=120) == "Failed"
    create_job(api, namespace, job("after", pod_spec(image, "true")))
    assert ended(api, namespace, "after", timeout_s=120) == "Complete"


def test_a_plane_without_a_namespace_takes_no_real_node():
    with pytest.raises(TestbedError, match=r"a real node needs Spec\.apart"):
        Node(ControlPlane(Spec()))


def test_a_session_that_was_killed_leaves_no_containers():
    killed = """
import os, signal
from testbed.host import wait_until
from testbed.k8s.client import client
from testbed.k8s.pytest_plugin import shared_real_node
from tests.testbed.kubernetes import pod_spec
with shared_real_node(f"killed {os.getpid()}") as running, client(running) as api:
    spec = pod_spec(f"127.0.0.1:{running.spec.ports['registry']}/demo/busybox:1", "sleep", "31415")
    body = {"metadata": {"name": "one"}, "spec": spec}
    pods = "/api/v1/namespaces/default/pods"
    api.post(pods, json=body).raise_for_status()
    wait_until(lambda: api.get(pods + "/one").json()["status"]["phase"] == "Running", "the pod runs")
    print(running.spec.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    name = run([sys.executable, "-c", killed], check=False, timeout_s=400).stdout.strip()
    assert (STATES / name / "up").exists()
    assert sleepers() != []
    run([sys.executable, "-m", "testbed", "k8s", "down", "--name", name])
    assert leftovers(name) == []
    assert sleepers() == []


def running_pod(api: httpx.Client, namespace: str, spec: dict) -> str:
    """The path of a new pod ``one``, once it runs."""
    pods = f"/api/v1/namespaces/{namespace}/pods"
    made(api.post(pods, json={"metadata": {"name": "one"}, "spec": spec}))
    wait_until(lambda: _runs(made(api.get(f"{pods}/one"))), "the pod runs", timeout_s=90)
    return f"{pods}/one"


def sleepers() -> list[str]:
    return subprocess.run(["pgrep", "-f", "^sleep 31415"], capture_output=True, text=True).stdout.split()


def _runs(pod: dict) -> bool:
    return pod["status"].get("phase") == "Running"
