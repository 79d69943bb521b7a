"""MPI over two nodes: the probe finds what the nodes have, the matcher says how, and the ranks see each other."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster import Cluster
from testbed.host import TestbedError, require_root
from testbed.pytest_plugin import cannot_run, shared_cluster
from testbed.server import running
from tests.end_to_end.mpi_image import LIBRARIES, write_mpi_image
from tests.end_to_end.wire import Wire

pytestmark = pytest.mark.testbed

PROGRAMS = {"mpich": "NPmpich2", "openmpi": "NPopenmpi"}
"""NetPIPE: each of two ranks says where it is, and they send each other messages."""
PLUGINS = {"mpich": (), "openmpi": (f"{LIBRARIES}/openmpi", f"{LIBRARIES}/pmix2")}
FACTS = "/v3/systems/alder/nodeFacts"
OVER_TCP = {"UCX_TLS": "tcp,self", "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "tcp,self"}
"""The nodes share one kernel, from which these libraries conclude that they share memory."""


@pytest.fixture(scope="module")
def mpi_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        require_root()
    except TestbedError as error:
        cannot_run(str(error))
    packages = ("netpipe-mpich2", "netpipe-openmpi")
    with shared_cluster(f"{os.getpid()} mpi", nodes=2, packages=packages) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def wire(mpi_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    registry = mpi_cluster.info()["registry"]["address"]
    settings = {"plain_http_registries": registry, "image_unpack_limit_mib": "1000"}
    with running(tmp_path_factory.mktemp("berth"), **settings) as server:
        wire = Wire(server.url)
        notes = {"berth": {"images": {"store": "/shared/images"}}}
        wire.register(mpi_cluster.info(), "alder", plain_http=(registry,), notes=notes)
        yield wire


@pytest.fixture(scope="module", params=[("mpich", "bind"), ("openmpi", "bind"), ("mpich", "hybrid")], ids="-".join)
def brought(request: Any, mpi_cluster: Cluster, wire: Wire, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An image that nobody used before, and nodes that a probe has seen."""
    family, mode = request.param
    folder: Path = tmp_path_factory.mktemp(f"{family}-{mode}") / "layout"
    labels = {"berth.require.mpi.mode": mode}
    write_mpi_image(folder, mpi_cluster.rootfs, PROGRAMS[family], plugins=PLUGINS[family], labels=labels)
    mpi_cluster.push_image(folder, f"demo/{family}-{mode}:1")
    image = f"docker://{mpi_cluster.info()['registry']['address']}/demo/{family}-{mode}:1"
    until = time.monotonic() + 120
    while "cpu" not in (seen := {each["nodeClass"]: each for each in wire.get(FACTS) if each["seenAt"]}):
        assert time.monotonic() < until, wire.get(FACTS)
        time.sleep(1)
    assert {"pmi2", "pmix"} <= {*seen["cpu"]["facts"]["mpi_plugins"]}
    return family, mode, image


def test_an_mpi_job_on_two_nodes_runs_as_the_matcher_says(brought: Any, wire: Wire):
    family, mode, image = brought
    program = PROGRAMS[family]
    variables = "".join(f"export {name}={value}; " for name, value in OVER_TCP.items())
    loads = f"/lib64/ld-linux-x86-64.so.2 --list /usr/bin/{program} | grep libmpi"
    script = f"{variables}{loads}; exec {program} -u 8 -n 20 -p 0 -o /dev/null 2>&1"
    job = wire.submit(script, image=image, isMpi=True, nodeCount=2, coresPerNode=1, memoryMB=1500, maxMinutes=4)
    ended = wire.finish(job["uuid"], timeout_s=300)
    said = wire.output(job["uuid"])
    assert ended["status"] == "FINISHED", (ended["lastMessage"], said)
    ranks = {line for line in said.splitlines() if line.startswith(("0: ", "1: "))}
    assert ranks in ({"0: n1", "1: n2"}, {"0: n2", "1: n1"}), said
    loaded = [line.split("=>")[1].strip() for line in said.splitlines() if line.strip().startswith("libmpi")]
    assert len(loaded) == 2
    assert all(path.startswith("/.berth/mpi/") == (mode == "bind") for path in loaded), said
