"""The ``cluster`` fixture: one 4-node cluster for a whole test session, also when several xdist workers share it.

A suite takes it into its conftest.py with ``from testbed.pytest_plugin import cluster``; one whose tests leave machines
down or drained takes ``rough_cluster`` instead, which is brought up anew for each module. Sessions that run side by
side get clusters of their own, and a session that was killed is cleared away by the next one.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from testbed.cluster import STATE, Cluster
from testbed.host import TestbedError, require_root
from testbed.sessions import Sessions, this_test_run
from testbed.spec import Spec

_NODES = 4
_FIRST_PORT = 12622
_SESSIONS = Sessions(STATE / ".sessions", take_down=lambda name: Cluster(Spec(name=name)).down())


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster; each test leaves it as it found it: machines on, links whole, daemons up."""
    with _cluster_for("") as running:
        yield running


@pytest.fixture(scope="module")
def rough_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running cluster for the tests of one module, which may leave it in any state."""
    with _cluster_for(request.node.nodeid) as running:
        yield running


@contextmanager
def _cluster_for(part: str) -> Iterator[Cluster]:
    """The cluster of this test run that is meant for ``part`` of it."""
    try:
        require_root()
    except TestbedError as error:
        cannot_run(str(error))
    with shared_cluster(this_test_run(part)) as running:
        yield running


@contextmanager
def shared_cluster(
    test_run: str, *, nodes: int = _NODES, gpus: int = 0, packages: tuple[str, ...] = ()
) -> Iterator[Cluster]:
    """The cluster of a test run: the first process of the run brings it up, the last one takes it down."""

    def bring_up(name: str) -> Cluster:
        spec_file = STATE / name / "spec.json"
        new = Spec(nodes, name, gpus=gpus, ssh_port=free_port(), packages=packages)
        running = Cluster.load(name) if spec_file.exists() else Cluster(new)
        running.up()
        return running

    with _SESSIONS.joined(test_run, bring_up) as running:
        yield running


def cannot_run(reason: str) -> NoReturn:
    """End the test: in CI, where nothing may pass unseen, as a failure; elsewhere as a skip that says why."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run the testbed: {reason}", pytrace=False)
    pytest.skip(f"no testbed here: {reason}")


def free_port() -> int:
    """The first port of a hundred of which nobody holds the one that every cluster needs."""
    for port in range(_FIRST_PORT, 20_000, 100):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise TestbedError("no free ports between 12622 and 20000 of 127.0.0.1")
