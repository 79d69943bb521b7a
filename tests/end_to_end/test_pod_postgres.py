"""A PostgreSQL pod on this machine: reached by its name with TLS, and its rows outlive a restart."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.end_to_end import pod_images
from tests.end_to_end.pod_stage import PodStage, pod_stage


@pytest.fixture(scope="module")
def stage() -> Iterator[PodStage]:
    with pod_stage({"library/postgres": pod_images.postgres}) as stage:
        yield stage


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


def test_rows_of_a_database_outlive_a_restart_of_its_pod(stage: PodStage):
    stage.wire.post("/v3/pods/volumes", {"volume_id": "rows"})
    mounts = {"rows": {"type": "tapisvolume", "mount_path": "/var/lib/postgresql/data"}}
    stage.wire.post("/v3/pods", {"pod_id": "mydb", "template": "postgres", "volume_mounts": mounts})
    url = stage.available("mydb")["networking"]["default"]["url"]
    known = stage.wire.get("/v3/pods/mydb/credentials")
    credentials = {"user": known["user_username"], "password": known["user_password"]}
    with connected(stage, url, **credentials) as database:
        database.execute("CREATE TABLE said (words text)")
        database.execute("INSERT INTO said VALUES ('still here')")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connected(stage, url, user="mydb", password="guessed")

    stage.wire.get("/v3/pods/mydb/restart")
    while stage.wire.get("/v3/pods/mydb")["status"] == "AVAILABLE":
        pass
    stage.available("mydb")
    with connected(stage, url, **credentials) as database:
        assert database.execute("SELECT words FROM said").fetchall() == [("still here",)]
