"""Jobs that wait in two queues of a real cluster run once, whatever is killed or cut."""

from pathlib import Path

import pytest

from testbed import Cluster
from testbed.server import Server
from tests.crash.hedged_live import SETTINGS, HedgedLive

pytestmark = [pytest.mark.testbed, pytest.mark.slow]


def test_fifty_hedged_jobs_run_once_each_on_a_real_cluster(cluster: Cluster, tmp_path: Path):
    live = HedgedLive(cluster, Server(tmp_path / "berth", **SETTINGS), jobs=50, seed=20261122)
    found = live.run()
    print({name: one for name, one in found.items() if name != "runs"})
    assert {uuid: runs for uuid, runs in found["runs"].items() if runs != 1} == {}
    assert found["strangers"] == set()
    assert found["failed"] == []
    assert found["hedged"] >= 45
    assert found["handed_over"] >= 5
    assert min(found["struck"].get(kind, 0) for kind in ("berth killed", "link cut")) >= 1
