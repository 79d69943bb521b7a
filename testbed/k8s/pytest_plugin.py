"""Fixtures of a real Kubernetes for a whole test session, also when several xdist workers share it.

``control_plane`` is shared, so its tests use namespaces of their own and break nothing; tests that end or stop parts of
it take ``rough_control_plane``, which is brought up anew for each module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from testbed.host import TestbedError, require_root
from testbed.k8s.binaries import ensure_binaries
from testbed.k8s.control_plane import STATES, ControlPlane
from testbed.k8s.node import Node
from testbed.k8s.spec import Spec, fake_nodes, free_port
from testbed.pytest_plugin import cannot_run
from testbed.sessions import Sessions, this_test_run

_NODES = 4
_GPUS = 4
_SESSIONS = Sessions(STATES / ".sessions", take_down=lambda name: ControlPlane(Spec(name)).down())


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A control plane with four fake nodes, the last of which has four GPUs."""
    with _or_cannot_run(), shared_control_plane(this_test_run()) as running:
        yield running


@pytest.fixture(scope="module")
def rough_control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """The same for the tests of one module, which may kill its parts and start them again."""
    with _or_cannot_run(), shared_control_plane(this_test_run(request.node.nodeid)) as running:
        yield running


@pytest.fixture(scope="session")
def real_node_cluster() -> Iterator[ControlPlane]:
    """A control plane with one real node, on which containers run; ``Node(plane)`` is what a test does to it."""
    with _or_cannot_run(), shared_real_node(this_test_run("real node")) as running:
        yield running


@contextmanager
def shared_control_plane(test_run: str) -> Iterator[ControlPlane]:
    """The control plane of a test run: its first process brings it up, the last one takes it down."""
    with _shared(test_run, lambda name: Spec(name, fake_nodes(_NODES, gpus=_GPUS), port=free_port())) as running:
        yield running


@contextmanager
def shared_real_node(test_run: str) -> Iterator[ControlPlane]:
    """The same with a real node and no others."""
    with _shared(test_run, lambda name: Spec(name, apart=True, port=free_port())) as running:
        yield running


@contextmanager
def _shared(test_run: str, new: Callable[[str], Spec]) -> Iterator[ControlPlane]:
    ensure_binaries()

    def bring_up(name: str) -> ControlPlane:
        there = (STATES / name / "spec.json").exists()
        running = ControlPlane.load(name) if there else ControlPlane(new(name))
        running.up()
        if running.spec.apart:
            Node(running).up()
        return running

    with _SESSIONS.joined(test_run, bring_up) as running:
        yield running


@contextmanager
def _or_cannot_run() -> Iterator[None]:
    try:
        require_root()
    except TestbedError as error:
        cannot_run(str(error))
    yield
