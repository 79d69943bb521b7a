"""A login on a real cluster, on each of Debian's three Slurm versions."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from backends.slurm.backend import SlurmBackend
from backends.ssh.connection import SshConnection
from scheduler.model.errors import SubmitError
from scheduler.model.ids import Marker, RemoteId, marker_for, new_job_uuid
from scheduler.model.runs import Observation, RemoteState, RunSpec, Runtime, SubmitIntent
from scheduler.model.systems import System
from testbed.cluster import Cluster
from testbed.pytest_plugin import cluster as cluster
from testbed.spec import Spec
from tests.contract.subjects import eventually

OTHERS = {"sid": 12260, "bookworm": 12280}
"""First ports of the clusters of the two other versions."""


class Login:
    """Alice on a cluster, with the backend under test."""

    def __init__(self, running: Cluster) -> None:
        self.cluster = running
        self.info = running.info()
        ssh = self.info["ssh"]
        self.key = Path(ssh["users"]["alice"]["key"]).read_text()
        self.connection = SshConnection(
            ssh["host"], ssh["port"], "alice", private_key=self.key, host_key=ssh["host_key"]
        )
        self.system = System(
            tenant="t",
            id="live",
            uuid="u",
            owner="o",
            host=ssh["host"],
            port=ssh["port"],
            root_dir="/home/alice",
            job_working_dir="live",
            can_exec=True,
            can_run_batch=True,
        )
        self.backend = SlurmBackend(self.system, "alice", self.connection)

    def intent(self, *args: str, **changes: Any) -> SubmitIntent:
        """A run of a plain command, or of an image where ``image`` is given."""
        job_uuid = new_job_uuid()
        base = f"/home/alice/live/jobs/{job_uuid}"
        settings: dict[str, Any] = {"image": "none", "runtime": Runtime.NONE, "partition": "cpu"} | changes
        run = RunSpec(
            job_uuid=job_uuid,
            name="live",
            args=args,
            exec_dir=base,
            input_dir=base,
            output_dir=f"{base}/output",
            **settings,
        )
        return SubmitIntent(marker_for(job_uuid, 1), run, datetime.now(UTC), 1)

    async def submit(self, intent: SubmitIntent) -> RemoteId:
        answer = (await self.backend.submit([intent]))[intent.marker]
        assert not isinstance(answer, SubmitError), answer
        return answer

    async def until(
        self, remote_id: RemoteId, marker: Marker, *states: RemoteState, timeout_s: float = 60
    ) -> Observation:
        """The first observation in one of these states."""
        seen: dict[RemoteId, Observation] = {}

        async def reached() -> bool:
            seen.update(await self.backend.observe({remote_id: marker}))
            return remote_id in seen and seen[remote_id].state in states

        await eventually(reached, f"{remote_id} is {' or '.join(states)}", timeout_s)
        return seen[remote_id]

    async def finish(self, intent: SubmitIntent, timeout_s: float = 60) -> Observation:
        return await self.until(await self.submit(intent), intent.marker, RemoteState.ENDED, timeout_s=timeout_s)

    async def log(self, intent: SubmitIntent, name: str = "tapisjob.out") -> str:
        return (await self.backend.read_log(RemoteId("0"), f"{intent.run.output_dir}/{name}", 0)).data.decode()


@pytest_asyncio.fixture
async def login(cluster: Cluster) -> AsyncIterator[Login]:
    """On the main version."""
    one = Login(cluster)
    yield one
    await one.connection.aclose()


@pytest.fixture(scope="session", params=OTHERS)
def other_cluster(request, cluster: Cluster) -> Iterator[Cluster]:
    """A small cluster of another version; ``cluster`` says first whether this machine can have one."""
    with _small_cluster(request.param) as running:
        yield running


@pytest_asyncio.fixture
async def other_login(other_cluster: Cluster) -> AsyncIterator[Login]:
    one = Login(other_cluster)
    yield one
    await one.connection.aclose()


@contextmanager
def _small_cluster(suite: str) -> Iterator[Cluster]:
    running = Cluster(Spec(2, f"live{suite[:4]}{os.getpid()}", suite=suite, ssh_port=OTHERS[suite]))
    try:
        running.up()
        yield running
    finally:
        running.down()
