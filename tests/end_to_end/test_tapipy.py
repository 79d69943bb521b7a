"""tapipy, unmodified, takes the main path to the real cluster and back."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from testbed.server import running
from tests.end_to_end.wire import Wire

pytestmark = pytest.mark.testbed

SCRIPT = Path(__file__).parents[1] / "api" / "tapipy_path.py"


def test_tapipy_runs_a_job_on_the_cluster(cluster: Any, tapipy_python: Path, tmp_path: Path):
    info = cluster.info()
    with running(tmp_path / "berth") as server:
        Wire(server.url).post(
            "/v3/oauth2/profiles",
            {"username": "alice", "password": "tapipy-on-a-cluster", "email": "alice@example.org"},
        )
        environment = {
            "PATH": os.environ["PATH"],
            "BASE_URL": server.url,
            "BERTH_USER": "alice",
            "PASSWORD": "tapipy-on-a-cluster",
            "EXEC_HOST": info["ssh"]["host"],
            "EXEC_PORT": str(info["ssh"]["port"]),
            "EXEC_WORKDIR": "home/alice/tapipy",
            "EXEC_QUEUE": "cpu",
            "SYSTEM_NOTES": json.dumps({"berth": {"plainHttpRegistries": [info["registry"]["from_nodes"]]}}),
            "PRIVATE_KEY_FILE": info["ssh"]["users"]["alice"]["key"],
            "APP_IMAGE": info["demo_image"]["from_nodes"],
            "EXPECT": "hello from n",
        }
        done = subprocess.run(
            [tapipy_python, SCRIPT], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok   deleteSystem" in done.stdout
