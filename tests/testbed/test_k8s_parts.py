"""The pure parts of the testbed's Kubernetes: specification, argument lists, what annotations ask of fake nodes."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from testbed import TestbedError
from testbed.k8s.binaries import Binaries
from testbed.k8s.fake_nodes import PREFIX, Plan
from testbed.k8s.parts import FAKE_NODES, PARTS, programs
from testbed.k8s.spec import FakeNode, Spec, fake_nodes


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "../etc"}, "name"),
        ({"name": "a-b"}, "name"),
        ({"port": 80}, "port"),
        ({"users": ("admin",)}, "user"),
        ({"users": ("a,b",)}, "user"),
        ({"users": ("../a",)}, "user"),
    ],
)
def test_an_impossible_specification_is_refused_by_field_name(wrong, said):
    with pytest.raises(TestbedError, match=said):
        Spec(**wrong)


@pytest.mark.parametrize("name", ["Node", "a_b", "-a", "", "a/b"])
def test_what_is_no_name_of_a_node_is_refused(name):
    with pytest.raises(TestbedError, match="node"):
        FakeNode(name)


def test_a_specification_is_the_same_when_it_is_read_again():
    spec = Spec("k", (*fake_nodes(2, gpus=1), FakeNode("own", labels={"a": "b"})), apart=True)
    assert Spec(**json.loads(json.dumps(asdict(spec)))) == spec


def test_the_last_fake_node_has_the_gpus():
    assert [(node.name, node.gpus) for node in fake_nodes(3, gpus=2)] == [("fake-1", 0), ("fake-2", 0), ("fake-3", 2)]


def test_every_part_has_a_port_of_its_own():
    ports = Spec(port=3000).ports
    assert len(set(ports.values())) == len(ports)
    assert set(ports.values()) <= set(range(3000, 3010))
    assert set(PARTS) < set(ports)


@dataclass(frozen=True)
class _OfVersion(Binaries):
    """Programs that need not be there."""

    is_version: tuple[int, int] = (1, 20)

    def path(self, program: str) -> Path:
        return Path("/programs", program)

    @property
    def version(self) -> tuple[int, int]:
        return self.is_version


@pytest.mark.parametrize(
    ("version", "closes_it"), [((1, 20), True), ((1, 22), True), ((1, 23), False), ((1, 36), False)]
)
def test_old_versions_alone_are_told_to_close_their_port_without_tls(tmp_path, version, closes_it):
    started = programs(Spec(), tmp_path, _OfVersion((), version))
    for part in ("kube-controller-manager", "kube-scheduler"):
        assert ("--port=0" in started[part].argv) is closes_it


def test_nothing_listens_beyond_loopback_unless_it_lives_apart(tmp_path):
    started = programs(Spec(nodes=fake_nodes(1)), tmp_path, _OfVersion(()))
    assert set(started) == {*PARTS, FAKE_NODES}
    assert "--bind-address=127.0.0.1" in started["kube-apiserver"].argv
    apart = programs(Spec(apart=True), tmp_path, _OfVersion(()), ("nsenter",))
    assert "--bind-address=0.0.0.0" in apart["kube-apiserver"].argv
    assert all(program.argv[0] == "nsenter" for program in apart.values())


@pytest.mark.parametrize(
    ("notes", "plan"),
    [
        ({}, Plan(1.0, 0, "Completed")),
        ({"run-s": "0.5", "exit-code": "3"}, Plan(0.5, 3, "Error")),
        ({"exit-code": "137", "reason": "OOMKilled"}, Plan(1.0, 137, "OOMKilled")),
        ({"run-s": "forever"}, Plan(math.inf, 0, "Completed")),
        ({"waiting": "ErrImagePull"}, Plan(1.0, 0, "Completed", "ErrImagePull")),
    ],
)
def test_annotations_say_how_a_pod_ends_on_a_fake_node(notes, plan):
    annotations = {PREFIX + key: text for key, text in notes.items()} | {"of/others": "x"}
    assert Plan.of({"metadata": {"annotations": annotations}}) == plan
    assert Plan.of({"metadata": {}}) == Plan(1.0, 0, "Completed")


def test_an_annotation_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="soon"):
        Plan.of({"metadata": {"annotations": {PREFIX + "run-s": "soon"}}})
