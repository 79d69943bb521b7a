"""Kubernetes with a real node and its kube-proxy: pods are reached by node ports, and by the API server where not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import httpx
import pytest
import pytest_asyncio

from backends.k8s.pods import ForwardedPort
from backends.streams import SocketChannel
from scheduler.model.errors import NothingLearnt, PortClosed, SubmitError
from scheduler.model.ids import Marker, RemoteId, marker_for, new_job_uuid
from scheduler.model.runs import Way
from testbed.k8s.client import client
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.node import Node
from testbed.k8s.node_parts import PROXY
from tests.contract.subjects import eventually
from tests.contract.test_pod_host import line, rest
from tests.testbed.gateway_routes import known_to
from tests.testbed.k8s_node_ports import opened
from tests.testbed.k8s_subject import Link, let_all_go
from tests.testbed.kubernetes import own_namespace
from tests.testbed.test_k8s_pods import PORTS, Place

pytestmark = pytest.mark.testbed

NOTES = {
    "nodePorts": True,
    "ingress": {"domain": "pods.kube.example.org", "className": "proxy"},
    "gateway": {"domain": "pods.gate.example.org", "name": "shared", "namespace": "infra"},
}


@pytest.fixture(scope="module")
def plane(real_node_cluster: ControlPlane) -> Iterator[ControlPlane]:
    node = Node(real_node_cluster)
    node.start(PROXY)
    with client(real_node_cluster) as api, known_to(api):
        yield real_node_cluster
    node.stop(PROXY)


@pytest.fixture
def admin(plane: ControlPlane) -> Iterator[httpx.Client]:
    with client(plane) as api:
        yield api


@pytest.fixture
def namespace(plane: ControlPlane, admin: httpx.Client) -> Iterator[str]:
    with own_namespace(plane, admin) as name:
        yield name


@pytest_asyncio.fixture
async def place(plane: ControlPlane, admin: httpx.Client, namespace: str) -> AsyncIterator[Place]:
    link = Link(plane.spec.ports["kube-apiserver"])
    async with opened(plane, namespace, NOTES) as (backend, host):
        yield Place(plane, namespace, f"{Node(plane).registry}/demo/busybox:1", backend, host, link, 0)
    let_all_go(admin, namespace)


@pytest.fixture
def marker() -> Marker:
    return marker_for(new_job_uuid(), 1)


async def started(place: Place, marker: Marker) -> RemoteId:
    """A pod whose first port has a name outside, once both answer."""
    intent = place.pod(marker)
    intent = replace(intent, run=replace(intent.run, ways=(Way(PORTS[0], "docpod"),)))
    remote_id = (await place.backend.submit([intent]))[marker]
    assert not isinstance(remote_id, SubmitError), remote_id

    async def answers() -> bool:
        try:
            for port in PORTS:
                await (await place.host.connect(remote_id, marker, port)).aclose()
        except (PortClosed, NothingLearnt):
            return False
        return True

    await eventually(answers, f"{marker} answers", timeout_s=60)
    return remote_id


async def gone_with_the_end(
    place: Place, remote_id: RemoteId, marker: Marker, admin: httpx.Client, *paths: str
) -> None:
    """The objects at these paths go once Berth has seen that the pod ended, whatever the cluster does by itself."""

    def is_gone(path: str) -> bool:
        return admin.get(path).status_code == httpx.codes.NOT_FOUND

    async def gone() -> bool:
        await place.backend.observe({remote_id: marker})
        return all(map(is_gone, paths))

    await eventually(gone, f"all of {marker} goes", timeout_s=60)


async def test_a_pod_is_reached_by_its_node_and_each_way_ends_alone(place, marker):
    remote_id = await started(place, marker)

    async def by_its_node() -> bool:
        channel = await place.host.connect(remote_id, marker, PORTS[0])
        await channel.aclose()
        return isinstance(channel, SocketChannel)

    await eventually(by_its_node, "the node knows the port", timeout_s=20)
    channel = await place.host.connect(remote_id, marker, PORTS[0])
    assert await line(channel) == b"pod %s port 7001\n" % marker[-6:].encode()
    await channel.write(b"last words")
    await channel.end()
    assert await rest(channel) == b"last wordsEND"
    await channel.aclose()


async def test_a_port_without_a_name_outside_is_on_no_node(place, marker, admin):
    remote_id = await started(place, marker)
    channel = await place.host.connect(remote_id, marker, PORTS[1])
    assert isinstance(channel, ForwardedPort)
    await channel.aclose()
    made = admin.get(f"/api/v1/namespaces/{place.namespace}/services/{marker}").json()
    assert [port["port"] for port in made["spec"]["ports"]] == [PORTS[0]]


async def test_without_what_brings_them_there_pods_are_reached_through_the_api_server(place, marker):
    Node(place.plane).stop(PROXY)
    try:
        remote_id = await started(place, marker)
        channel = await place.host.connect(remote_id, marker, PORTS[0])
        assert isinstance(channel, ForwardedPort)
        assert await line(channel) == b"pod %s port 7001\n" % marker[-6:].encode()
        await channel.aclose()
    finally:
        Node(place.plane).start(PROXY)


async def test_what_nobody_listens_to_is_closed_by_its_node_port_too(place, marker):
    intent = place.pod(marker)
    intent = replace(intent, run=replace(intent.run, ways=(Way(7999),)))
    remote_id = (await place.backend.submit([intent]))[marker]

    async def runs() -> bool:
        seen = await place.host.look({remote_id: marker})
        return remote_id in seen and seen[remote_id].phase == "Running"

    await eventually(runs, f"{marker} runs", timeout_s=60)
    with pytest.raises(PortClosed):
        await place.host.connect(remote_id, marker, 7999)


async def test_names_at_the_clusters_own_proxy_come_and_go_with_the_pod(place, marker, admin):
    remote_id = await started(place, marker)
    paths = [
        f"/apis/networking.k8s.io/v1/namespaces/{place.namespace}/ingresses/{marker}",
        f"/apis/gateway.networking.k8s.io/v1/namespaces/{place.namespace}/httproutes/{marker}-{PORTS[0]}",
        f"/api/v1/namespaces/{place.namespace}/services/{marker}",
    ]
    made = admin.get(paths[0]).raise_for_status().json()["spec"]
    assert made["ingressClassName"] == "proxy"
    assert [rule["host"] for rule in made["rules"]] == ["docpod.pods.kube.example.org"]
    backend = made["rules"][0]["http"]["paths"][0]["backend"]
    assert backend == {"service": {"name": marker, "port": {"number": PORTS[0]}}}
    routed = admin.get(paths[1]).raise_for_status().json()["spec"]
    assert routed["hostnames"] == ["docpod.pods.gate.example.org"]
    assert routed["parentRefs"] == [{"name": "shared", "namespace": "infra"}]
    assert routed["rules"] == [{"backendRefs": [{"name": marker, "port": PORTS[0]}]}]
    await place.backend.cancel(remote_id, marker)
    await gone_with_the_end(place, remote_id, marker, admin, *paths)


async def test_a_pod_that_ends_by_itself_gives_its_node_port_back(place, marker, admin):
    intent = place.run(marker, "sh", "-c", "nc -ll -p 7001 -e /bin/true & sleep 6", ports=(7001,), ways=(Way(7001),))
    remote_id = (await place.backend.submit([intent]))[marker]

    async def answers() -> bool:
        try:
            await (await place.host.connect(remote_id, marker, 7001)).aclose()
        except (PortClosed, NothingLearnt):
            return False
        return True

    await eventually(answers, "it answers", timeout_s=60)
    path = f"/api/v1/namespaces/{place.namespace}/services/{marker}"
    assert admin.get(path).is_success

    await gone_with_the_end(place, remote_id, marker, admin, path)
