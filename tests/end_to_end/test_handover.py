"""A stateless pod on a Slurm cluster outlives the walltime of its instance, and nobody who asks it notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bench import steady
from bench.handover import DOMAIN, POD, QUEUE_MINUTES, pod_request, pushed_image
from bench.steady import Steady
from testbed.host import TestbedError, require_root
from testbed.pytest_plugin import cannot_run, shared_cluster
from tests.end_to_end.pod_stage import PodStage, pod_server

pytestmark = [pytest.mark.testbed, pytest.mark.slow]


@pytest.fixture
def stage() -> Iterator[PodStage]:
    """A server whose only system keeps pods for a few minutes at a time."""
    try:
        require_root()
    except TestbedError as error:
        cannot_run(str(error))
    with TemporaryDirectory(prefix="berth-over-", dir="/var/tmp") as folder, ExitStack() as stack:
        cluster = stack.enter_context(shared_cluster(folder, nodes=2))
        stage = stack.enter_context(pod_server(Path(folder), gateway_retries="0"))
        stage.wire.register(
            cluster.info(), "alder", plain_http=[cluster.info()["registry"]["from_nodes"]], keeps_pods=True
        )
        queues = stage.wire.get("/v3/systems/alder")["batchLogicalQueues"]
        short = {"batchLogicalQueues": [{**queue, "maxMinutes": QUEUE_MINUTES} for queue in queues]}
        stage.wire.http.patch("/v3/systems/alder", json=short).raise_for_status()
        stage.wire.post("/v3/pods", pod_request(pushed_image(cluster)))
        yield stage


def test_no_request_is_lost_while_an_instance_takes_over(stage: PodStage):
    stage.available(POD)
    requests = steady.run(
        Steady(
            port=stage.gateway_port,
            host_name=f"{POD}.{DOMAIN}",
            authority=stage.authority,
            changes=1,
            after_s=15,
            limit_s=180,
            rate_per_s=10,
        )
    )
    told = stage.wire.get(f"/v3/pods/{POD}/logs")["action_logs"]
    assert [one.failure for one in requests if one.failure] == [], told
    assert len({one.instance for one in requests}) == 2, told
