"""The live tests of the testbed share one cluster, and use it as its users do: over ssh."""

import subprocess
from collections.abc import Callable

import pytest

from testbed import Cluster

Ssh = Callable[..., str]


@pytest.fixture
def ssh(cluster: Cluster) -> Ssh:
    """Run a command line on login as a user; returns its standard output."""

    def run(command: str, host: str = "testbed", timeout_s: float = 60) -> str:
        argv = ["ssh", "-F", cluster.info()["ssh"]["config"], host, command]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0, f"exit status {done.returncode}: {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run
