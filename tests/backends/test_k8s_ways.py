"""Ways to a pod's ports past the API server: when they are made, taken and left, and what they look like."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from backends.k8s.api import INGRESSES, ROUTES, SERVICES, Object, Refused
from backends.k8s.objects import MARKER, WAYS, job
from backends.k8s.policies import policy
from backends.k8s.site import Gateway, Ingress, Site, site_of
from backends.k8s.ways import AVOID_S, Ways
from scheduler.model.errors import BackendUnavailable
from scheduler.model.ids import RemoteId, marker_for, new_job_uuid
from scheduler.model.runs import Way
from scheduler.model.systems import System
from tests.contract.subjects import run_spec

MARKER_1 = marker_for(new_job_uuid(), 1)
POD_1 = RemoteId("uid-1")
NODES = (ip_network("10.0.0.0/24"),)
SITE = Site(node_ports=True)
GATEWAY = Gateway(domain="pods.example.org", name="shared", namespace="infra")


def pod(ways: str = '{"80": ["web"], "5432": []}', node: str = "10.0.0.7") -> Object:
    return {"metadata": {"name": "p", "annotations": {WAYS: ways}}, "status": {"hostIP": node}}


class Server:
    """Keeps what is created, and gives each port of a Service a node port as it likes."""

    namespace = "lab"

    def __init__(self) -> None:
        self.kept: dict[tuple[Any, str], Object] = {}
        self.created, self.trouble = 0, None
        self.refused: set[Any] = set()

    async def create(self, kind, manifest) -> Object:
        self.created += 1
        if self.trouble is not None:
            raise self.trouble
        if kind in self.refused:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        key = kind, manifest["metadata"]["name"]
        if key in self.kept:
            raise Refused(409, "AlreadyExists", "it is there")
        if manifest["spec"].get("type") == "NodePort":
            for number, port in enumerate(manifest["spec"]["ports"]):
                port["nodePort"] = 30_000 + number
        self.kept[key] = manifest
        return manifest

    async def get(self, kind, name) -> Object | None:
        return self.kept.get((kind, name))

    async def delete(self, kind, name) -> None:
        self.kept.pop((kind, name), None)


class Dialled:
    """Notes who is called; what a node answers with is set by ``trouble``."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.trouble: Exception | None = None

    async def __call__(self, address: str, port: int) -> str:
        self.calls.append((address, port))
        if self.trouble is not None:
            raise self.trouble
        return "a channel"


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def dialled() -> Dialled:
    return Dialled()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def ways(server, dialled, now) -> Ways:
    return Ways(server, SITE, NODES, dial=dialled, monotonic=lambda: now[0])


async def test_a_port_is_reached_by_its_node_port_on_the_pods_own_node(ways, server, dialled):
    for port in (80, 5432, 80):
        assert await ways.connect(POD_1, MARKER_1, port, pod()) == "a channel"
    assert dialled.calls == [("10.0.0.7", 30_000), ("10.0.0.7", 30_001), ("10.0.0.7", 30_000)]
    assert server.created == 1, "one Service for all of its ports"


async def test_a_port_without_a_name_outside_gets_no_node_port(ways, server):
    assert await ways.connect(POD_1, MARKER_1, 81, pod()) is None
    assert await ways.connect(POD_1, MARKER_1, 80, {"metadata": {}, "status": {}}) is None
    assert server.kept == {}


@pytest.mark.parametrize("node", ["10.0.1.7", "127.0.0.1", "169.254.169.254", "fd00::1", "node-1", ""])
async def test_nodes_outside_of_what_the_operator_names_are_not_called(ways, dialled, node):
    assert await ways.connect(POD_1, MARKER_1, 80, pod(node=node)) is None
    assert dialled.calls == []


async def test_a_node_that_does_not_answer_is_left_alone_for_a_while(ways, dialled, now):
    dialled.trouble = TimeoutError()
    assert await ways.connect(POD_1, MARKER_1, 80, pod()) is None
    assert await ways.connect(POD_1, MARKER_1, 80, pod()) is None
    assert len(dialled.calls) == 1
    dialled.trouble = None
    now[0] += AVOID_S
    assert await ways.connect(POD_1, MARKER_1, 80, pod()) == "a channel"


async def test_a_refused_connection_may_mean_that_the_service_is_gone(ways, server, dialled):
    await ways.connect(POD_1, MARKER_1, 80, pod())
    await server.delete(SERVICES, MARKER_1)
    dialled.trouble = ConnectionRefusedError()
    assert await ways.connect(POD_1, MARKER_1, 80, pod()) is None
    dialled.trouble = None
    assert await ways.connect(POD_1, MARKER_1, 80, pod()) == "a channel"
    assert (SERVICES, MARKER_1) in server.kept, "it was made again"


async def test_another_process_takes_the_service_that_is_there(ways, server, dialled):
    await ways.connect(POD_1, MARKER_1, 80, pod())
    assert await Ways(server, SITE, NODES, dial=dialled).connect(POD_1, MARKER_1, 80, pod()) == "a channel"
    assert len(server.kept) == 1


async def test_a_service_from_before_node_ports_were_asked_for_is_no_way(ways, server, dialled):
    asked = Ingress(domain="pods.example.org")
    await Ways(server, Site(ingress=asked), NODES, dial=dialled).connect(POD_1, MARKER_1, 80, pod())
    assert await ways.connect(POD_1, MARKER_1, 80, pod()) is None
    assert dialled.calls == []


async def test_a_service_of_another_is_not_taken_for_the_pods(ways, server, dialled):
    await server.create(SERVICES, {"metadata": {"name": MARKER_1}, "spec": {"ports": [{"port": 80}]}})
    assert await ways.connect(POD_1, MARKER_1, 80, pod()) is None
    assert dialled.calls == []


@pytest.mark.parametrize("trouble", [Refused(403, "Forbidden", "no"), BackendUnavailable("away")])
async def test_a_cluster_that_refuses_is_asked_again_after_a_while(ways, server, now, trouble):
    server.trouble = trouble
    for _ in range(3):
        assert await ways.connect(POD_1, MARKER_1, 80, pod()) is None
    assert server.created == 1
    server.trouble = None
    now[0] += AVOID_S
    assert await ways.connect(POD_1, MARKER_1, 80, pod()) == "a channel"


async def test_a_proxy_that_cannot_be_told_takes_no_node_port_away_and_is_told_later(server, dialled, now):
    fronts = {"ingress": Ingress(domain="pods.example.org"), "gateway": GATEWAY}
    ways = Ways(server, replace(SITE, **fronts), NODES, dial=dialled, monotonic=lambda: now[0])
    server.refused = {INGRESSES}
    for _ in range(3):
        assert await ways.connect(POD_1, MARKER_1, 80, pod()) == "a channel"
    assert {kind for kind, _ in server.kept} == {SERVICES, ROUTES}
    server.refused = set()
    now[0] += AVOID_S
    await ways.connect(POD_1, MARKER_1, 80, pod())
    assert {kind for kind, _ in server.kept} == {SERVICES, INGRESSES, ROUTES}


async def test_node_ports_and_names_are_given_back_at_the_end(server, dialled):
    fronts = {"ingress": Ingress(domain="pods.example.org"), "gateway": GATEWAY}
    ways = Ways(server, replace(SITE, **fronts), NODES, dial=dialled)
    await ways.connect(POD_1, MARKER_1, 80, pod())
    assert {kind for kind, _ in server.kept} == {SERVICES, INGRESSES, ROUTES}
    await ways.forget(MARKER_1, {"spec": {"template": {"metadata": {}}}})
    assert len(server.kept) == 3, "a Job without ports has nothing to give back"
    await ways.forget(MARKER_1, {"spec": {"template": pod()}})
    assert server.kept == {}


@pytest.mark.parametrize("told", ["{", "[]", '{"x": []}', '{"80": 7}', "null"])
async def test_what_cannot_be_read_is_no_way(ways, server, told):
    assert await ways.connect(POD_1, MARKER_1, 80, pod(told)) is None
    assert server.kept == {}


@pytest.mark.parametrize("number", [22, 10250, 29_999, 32_768, "30000", None])
async def test_berth_connects_to_node_ports_alone(ways, server, dialled, number):
    await ways.connect(POD_1, MARKER_1, 80, pod())
    dialled.calls.clear()
    for port in server.kept[SERVICES, MARKER_1]["spec"]["ports"]:
        port["nodePort"] = number
    assert await Ways(server, SITE, NODES, dial=dialled).connect(POD_1, MARKER_1, 80, pod()) is None
    assert dialled.calls == []


async def test_all_that_is_made_belongs_to_the_job_and_serves_the_pod_alone(ways, server):
    await ways.connect(POD_1, MARKER_1, 80, pod())
    made = server.kept[SERVICES, MARKER_1]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": MARKER_1, "uid": POD_1}
    assert made["metadata"]["ownerReferences"] == [owner]
    assert made["spec"]["selector"] == {MARKER: MARKER_1}
    assert (made["spec"]["type"], made["spec"]["externalTrafficPolicy"]) == ("NodePort", "Local")


async def test_an_ingress_names_what_lets_in_whoever_comes(server, dialled):
    asked = Ingress(domain="pods.example.org", class_name="nginx", tls_secret="pods-tls")
    ways = Ways(server, Site(ingress=asked), NODES, dial=dialled)
    assert await ways.connect(POD_1, MARKER_1, 80, pod()) is None, "without node ports there is no way for Berth"
    assert server.kept[SERVICES, MARKER_1]["spec"]["type"] == "ClusterIP"
    made = server.kept[INGRESSES, MARKER_1]["spec"]
    backend = {"service": {"name": MARKER_1, "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    assert made["rules"] == [{"host": "web.pods.example.org", "http": {"paths": [path]}}]
    assert made["ingressClassName"] == "nginx"
    assert made["tls"] == [{"hosts": ["web.pods.example.org"], "secretName": "pods-tls"}]


async def test_each_port_has_a_route_from_the_gateway_with_its_names(server, dialled):
    ways = Ways(server, Site(gateway=GATEWAY), NODES, dial=dialled)
    assert await ways.connect(POD_1, MARKER_1, 80, pod('{"80": ["web", "docs"], "81": ["api"], "5432": []}')) is None
    made = {name: kept for (kind, name), kept in server.kept.items() if kind is ROUTES}
    assert {name: each["spec"]["hostnames"] for name, each in made.items()} == {
        f"{MARKER_1}-80": ["web.pods.example.org", "docs.pods.example.org"],
        f"{MARKER_1}-81": ["api.pods.example.org"],
    }
    first = made[f"{MARKER_1}-80"]
    assert first["spec"]["parentRefs"] == [{"name": "shared", "namespace": "infra"}]
    assert first["spec"]["rules"] == [{"backendRefs": [{"name": MARKER_1, "port": 80}]}]
    assert first["metadata"]["ownerReferences"][0]["uid"] == POD_1


async def test_a_pod_that_no_one_may_ask_without_berth_has_no_name_without_it(server, dialled):
    ways = Ways(server, Site(ingress=Ingress(domain="pods.example.org"), gateway=GATEWAY), NODES, dial=dialled)
    await ways.connect(POD_1, MARKER_1, 80, pod('{"80": []}'))
    assert [kind for kind, _ in server.kept] == [SERVICES]


def test_ways_are_noted_with_the_pod():
    made = job(MARKER_1, run_spec("/w", MARKER_1, ports=(80, 81), ways=(Way(80, "web"), Way(80), Way(5432))), SITE, "/")
    about = made["spec"]["template"]["metadata"]["annotations"]
    assert about[WAYS] == '{"80": ["web"], "5432": []}'
    assert WAYS not in job(MARKER_1, run_spec("/w", MARKER_1), SITE, "/")["spec"]["template"]["metadata"]["annotations"]


def test_the_policy_admits_whom_the_notes_name():
    site = Site(admitted=("192.0.2.7/32",), admitted_namespaces=("ingress-nginx",))
    came = policy(site)["spec"]["ingress"][0]["from"]
    assert came[1:] == [
        {"ipBlock": {"cidr": "192.0.2.7/32"}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}},
    ]


def site_with(notes: dict[str, Any]) -> Site:
    about = {"berth": {"backend": "k8s", "k8s": notes}}
    return site_of(System(tenant="t", id="kube", uuid="u", owner="o", host="k8s", port=6443, root_dir="/", notes=about))


NOTES = {
    "nodePorts": True,
    "ingress": {"domain": "pods.example.org", "className": "nginx"},
    "gateway": {"domain": "pods.example.org", "name": "shared", "namespace": "infra", "listener": None},
    "admitNetworks": ["192.0.2.7"],
    "admitNamespaces": ["ingress-nginx"],
}


def test_the_notes_ask_for_ways():
    site = site_with(NOTES)
    assert site.has_ways
    assert site.node_ports
    assert site.ingress == Ingress(domain="pods.example.org", class_name="nginx")
    assert site.gateway == GATEWAY
    assert (site.admitted, site.admitted_namespaces) == (("192.0.2.7/32",), ("ingress-nginx",))
    assert not site_with({}).has_ways
