"""Nothing is lost and nothing runs twice on a real cluster, whatever is killed on the way."""

from pathlib import Path
from typing import Any

import pytest

from tests.crash.campaign import Campaign

pytestmark = pytest.mark.testbed


@pytest.mark.parametrize(
    ("jobs", "seed"),
    [
        pytest.param(24, 7, id="short"),
        pytest.param(200, 20261122, id="full", marks=pytest.mark.slow),
    ],
)
def test_every_job_runs_exactly_once_while_everything_is_killed(cluster: Any, tmp_path: Path, jobs: int, seed: int):
    print(f"seed {seed}")
    verdict = Campaign(cluster, tmp_path / "berth", jobs=jobs, seed=seed).run()
    print(verdict)
    assert set(verdict.states) == {"FINISHED"}, {
        uuid: verdict.messages[uuid] for state, uuids in verdict.states.items() if state != "FINISHED" for uuid in uuids
    }
    assert verdict.strangers == set()
    assert set(verdict.runs.values()) == {1}
    assert set(verdict.endings.values()) == {1}
    assert max(verdict.ran_user_code.values()) == 1
    assert verdict.strikes["berth SIGKILL"] >= 3
    assert verdict.strikes["link cut"] >= 3
    assert verdict.strikes["slurmctld SIGTERM"] >= (1 if jobs >= 200 else 0)
    assert verdict.strikes["slurmctld SIGKILL"] >= (1 if jobs >= 200 else 0)
