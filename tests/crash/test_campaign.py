"""Nothing is lost and nothing runs twice on a real cluster, whatever is killed on the way."""

from pathlib import Path

import pytest

from testbed import Cluster
from testbed.server import Server
from tests.crash.campaign import SETTINGS, STRIKES, Campaign
from tests.crash.judgement import faults

pytestmark = pytest.mark.testbed


@pytest.mark.parametrize(
    ("jobs", "seed", "least_strikes", "disorder_s"),
    [
        pytest.param(24, 32, 1, 75.0, id="short"),
        pytest.param(200, 20261122, 3, 300.0, id="full", marks=pytest.mark.slow),
    ],
)
def test_every_job_ends_once_and_runs_at_most_once_while_everything_is_killed(
    cluster: Cluster, tmp_path: Path, jobs: int, seed: int, least_strikes: int, disorder_s: float
):
    print(f"seed {seed}")
    server = Server(tmp_path / "berth", **SETTINGS)
    campaign = Campaign(cluster, server, jobs, seed, least_strikes=least_strikes, disorder_s=disorder_s)
    verdict = campaign.run()
    print(verdict)
    assert faults(verdict) == []
    assert {kind: verdict.strikes[kind] for kind in STRIKES if verdict.strikes[kind] < least_strikes} == {}
