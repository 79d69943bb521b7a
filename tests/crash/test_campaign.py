"""Nothing is lost and nothing runs twice on a real cluster, whatever is killed on the way."""

from pathlib import Path

import pytest

from testbed import Cluster
from testbed.server import Server
from tests.crash.campaign import SETTINGS, Campaign
from tests.crash.judgement import faults

pytestmark = pytest.mark.testbed


@pytest.mark.parametrize(
    ("jobs", "seed", "disorder_s"),
    [
        pytest.param(24, 7, 45.0, id="short"),
        pytest.param(200, 20261122, 300.0, id="full", marks=pytest.mark.slow),
    ],
)
def test_every_job_ends_once_and_runs_at_most_once_while_everything_is_killed(
    cluster: Cluster, tmp_path: Path, jobs: int, seed: int, disorder_s: float
):
    print(f"seed {seed}")
    server = Server(tmp_path / "berth", **SETTINGS)
    verdict = Campaign(cluster, server, jobs=jobs, seed=seed, disorder_s=disorder_s).run()
    print(verdict)
    assert faults(verdict) == []
    assert verdict.strikes["berth SIGKILL"] >= 3
    assert verdict.strikes["link cut"] >= 3
    for how in ("slurmctld SIGTERM", "slurmctld SIGKILL"):
        assert verdict.strikes[how] >= (1 if jobs >= 200 else 0)
