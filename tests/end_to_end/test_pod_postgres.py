"""A PostgreSQL pod, the same at each kind of place: reached by its name with TLS, its rows outlive a restart, and the
files of a volume are the same for it and for the API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest

from testbed.host import TestbedError, require_root
from testbed.pytest_plugin import cannot_run, shared_cluster
from tests.end_to_end import pod_images
from tests.end_to_end.kubernetes_place import kubernetes_place
from tests.end_to_end.pod_stage import PodStage, pod_server, pod_stage


@dataclass(frozen=True)
class Ground:
    """A server with one system that keeps pods. ``fields``: what a request for PostgreSQL says more there."""

    stage: PodStage
    fields: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def this_machine(_: pytest.FixtureRequest) -> Iterator[Ground]:
    with pod_stage({"library/postgres": pod_images.postgres}) as stage:
        yield Ground(stage)


@contextmanager
def an_allocation_of_slurm(_: pytest.FixtureRequest) -> Iterator[Ground]:
    """The volume lies in the home directory that all nodes share."""
    try:
        require_root()
    except TestbedError as error:
        cannot_run(str(error))
    with TemporaryDirectory(prefix="berth-rows-", dir="/var/tmp") as folder, ExitStack() as stack:
        home = Path(folder)
        cluster = stack.enter_context(shared_cluster(folder, nodes=2))
        cluster.push_image(pod_images.postgres(home / "postgres"), "library/postgres:16")
        stage = stack.enter_context(pod_server(home, watch_min_s="1", watch_max_s="3", snapshot_interval_s="1"))
        stage.wire.register(cluster.info(), "alder", keeps_pods=True)
        yield Ground(stage, {"image": "login:5000/library/postgres:16"})


@contextmanager
def a_kubernetes(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """Its node fetches the image from a registry, and the database's directory is one that its user makes."""
    with (
        kubernetes_place(request.getfixturevalue("real_node_cluster")) as place,
        TemporaryDirectory(prefix="berth-pods-", dir="/var/tmp") as home,
        pod_server(Path(home), plain_http_registries=place.node.registry) as stage,
    ):
        image = place.node.push_image(pod_images.postgres(Path(home) / "postgres"), "library/postgres:16")
        place.register(stage.wire, pods=True)
        variables = {"PGDATA": "/var/lib/postgresql/data/rows"}
        yield Ground(stage, {"image": image, "environment_variables": variables})


NOTES = "/v3/pods/volumes/notes"

GROUNDS = [
    pytest.param(this_machine, id="this-machine"),
    pytest.param(an_allocation_of_slurm, id="slurm", marks=pytest.mark.testbed),
    pytest.param(a_kubernetes, id="kubernetes", marks=pytest.mark.testbed),
]


@pytest.fixture(scope="module", params=GROUNDS)
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with request.param(request) as ground:
        yield ground


def connected(stage: PodStage, host: str, **credentials: str) -> psycopg.Connection:
    return psycopg.connect(
        host=host,
        hostaddr="127.0.0.1",
        port=stage.gateway_port,
        dbname="mydb",
        sslmode="verify-full",
        sslrootcert=stage.authority,
        connect_timeout=20,
        autocommit=True,
        **credentials,
    )


def inside(stage: PodStage, script: str) -> str:
    """What a command inside the pod says; it must end well."""
    [ran] = stage.wire.post("/v3/pods/mydb/exec", {"commands": [["sh", "-c", script]]})["results"]
    assert ran["exit_code"] == 0, ran
    return str(ran["stdout"])


def test_rows_of_a_database_outlive_a_restart_of_its_pod(ground: Ground):
    stage = ground.stage
    for volume in ("rows", "notes"):
        stage.wire.post("/v3/pods/volumes", {"volume_id": volume})
    written = stage.wire.http.post(f"{NOTES}/upload/to/pod", files={"file": ("pod", b"from outside")})
    assert written.is_success, written.text
    mounts = {
        "rows": {"type": "tapisvolume", "mount_path": "/var/lib/postgresql/data"},
        "notes": {"type": "tapisvolume", "mount_path": "/notes"},
    }
    stage.wire.post("/v3/pods", {"pod_id": "mydb", "template": "postgres", "volume_mounts": mounts, **ground.fields})
    url = stage.available("mydb")["networking"]["default"]["url"]
    known = stage.wire.get("/v3/pods/mydb/credentials")
    credentials = {"user": known["user_username"], "password": known["user_password"]}
    with connected(stage, url, **credentials) as database:
        database.execute("CREATE TABLE said (words text)")
        database.execute("INSERT INTO said VALUES ('still here')")
    assert inside(stage, "cat /notes/to/pod && echo from the pod > /notes/back") == "from outside"
    assert stage.wire.http.get(f"{NOTES}/contents/back").text == "from the pod\n"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connected(stage, url, user="mydb", password="guessed")

    stage.wire.get("/v3/pods/mydb/restart")
    while stage.wire.get("/v3/pods/mydb")["status"] == "AVAILABLE":
        pass
    stage.available("mydb")
    with connected(stage, url, **credentials) as database:
        assert database.execute("SELECT words FROM said").fetchall() == [("still here",)]
