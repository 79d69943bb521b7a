"""The ``cluster`` fixture: one 4-node cluster for a whole test session, also when several xdist workers share it.

A suite takes it into its conftest.py with ``from testbed.pytest_plugin import cluster``; one whose tests leave machines
down or drained takes ``rough_cluster`` instead, which is brought up anew for each module. Sessions that run side by
side get clusters of their own, and a session that was killed is cleared away by the next one.
"""

import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from testbed.cluster import STATE, Cluster
from testbed.host import TestbedError, lock, require_root
from testbed.spec import Spec

_NODES = 4
_FIRST_PORT = 12622
_SESSIONS = STATE / ".sessions"


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
    test_run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"alone-{os.getpid()}")
    with shared_cluster(f"{test_run} {part}".strip()) as running:
        yield running


@contextmanager
def shared_cluster(
    test_run: str, *, nodes: int = _NODES, gpus: int = 0, packages: tuple[str, ...] = ()
) -> Iterator[Cluster]:
    """The cluster of a test run: the first process of the run brings it up, the last one takes it down."""
    name = f"t{hashlib.sha256(test_run.encode()).hexdigest()[:8]}"
    me = _SESSIONS / name / str(os.getpid())
    _SESSIONS.mkdir(parents=True, exist_ok=True)
    try:
        with lock(STATE / ".sessions.lock"):
            _clear_dead_sessions()
            me.parent.mkdir(exist_ok=True)
            me.touch()
            spec_file = STATE / name / "spec.json"
            new = Spec(nodes, name, gpus=gpus, ssh_port=free_port(), packages=packages)
            running = Cluster.load(name) if spec_file.exists() else Cluster(new)
            running.up()
        yield running
    finally:
        with lock(STATE / ".sessions.lock"):
            me.unlink(missing_ok=True)
            _clear_dead_sessions()


def cannot_run(reason: str) -> NoReturn:
    """End the test: in CI, where nothing may pass unseen, as a failure; elsewhere as a skip that says why."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run the testbed: {reason}", pytrace=False)
    pytest.skip(f"no testbed here: {reason}")


def _clear_dead_sessions() -> None:
    """Take down each cluster none of whose processes is alive, our own included once we have left it."""
    for session in _SESSIONS.iterdir():
        if not any(Path("/proc", member.name).exists() for member in session.iterdir()):
            Cluster(Spec(name=session.name)).down()
            shutil.rmtree(session)


def free_port() -> int:
    """The first port of a hundred of which nobody holds the one that every cluster needs."""
    for port in range(_FIRST_PORT, 20_000, 100):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise TestbedError("no free ports between 12622 and 20000 of 127.0.0.1")
