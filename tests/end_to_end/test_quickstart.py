"""The Pods Quickstart, word for word, with four releases of tapipy; and the pod's port reached by its name."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.server import ADMIN_PASSWORD
from tests.end_to_end import pod_images
from tests.end_to_end.pod_stage import PodStage, pod_stage
from tests.tapipy import python_with

SCRIPT = Path(__file__).with_name("tapipy_quickstart.py")
RELEASES = ("25.4.0", "1.9.1", "1.7.0", "1.6.0")
BOLT_ASKS = bytes.fromhex("6060b017 00000405 00000404 00000003 00000000")
BOLT_ANSWERS = bytes.fromhex("00000405")


@pytest.fixture(scope="module")
def stage() -> Iterator[PodStage]:
    with pod_stage({"library/neo4j": pod_images.neo4j}, default_pod_template="neo4j") as stage:
        yield stage


def quickstart(stage: PodStage, release: str, **more: str) -> list[str]:
    """What the script printed with this release of tapipy."""
    environment = {"PATH": os.environ["PATH"], "BASE_URL": stage.server.url, "BERTH_USER": "admin"}
    done = subprocess.run(
        [python_with(release), SCRIPT],
        env={**environment, "PASSWORD": ADMIN_PASSWORD, **more},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + stage.server.tail()
    return done.stdout.splitlines()


@pytest.mark.parametrize("release", RELEASES)
def test_the_quickstart_of_pods_passes_word_for_word(stage: PodStage, release: str):
    stage.clear()
    quickstart(stage, release)


def test_a_bolt_driver_reaches_the_pod_by_its_name(stage: PodStage):
    [address] = [line.split()[1] for line in quickstart(stage, "25.4.0", STAY="1") if line.startswith("address")]
    trusting = ssl.create_default_context(cafile=stage.authority)
    with (
        socket.create_connection(("127.0.0.1", stage.gateway_port), timeout=20) as plain,
        trusting.wrap_socket(plain, server_hostname=address) as secure,
    ):
        secure.sendall(BOLT_ASKS)
        assert secure.recv(4) == BOLT_ANSWERS
    stage.clear()
