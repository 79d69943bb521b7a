"""Pods leave nothing behind, and their status does not lie, whatever is killed during their lives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.crash.lead_pods import PLACES, led
from tests.crash.pod_campaign import BERTH, PROXY
from tests.crash.pod_judgement import faults
from tests.crash.pod_places import processes, this_machine

SEED = 20261123
SHORT = {"lives": 10, "seed": SEED, "changes_of_mind": 1, "rest_s": (8.0, 14.0), "patience_s": 240.0}
FULL = {"lives": int(os.environ.get("LIVES", "8")), "seed": SEED + 1, "patience_s": 300.0}
"""34 lives take about 20 minutes."""

AWAY = {"lives": 5, "at_once": 5, "seed": SEED + 2, "changes_of_mind": 1, "patience_s": 600.0}
"""About two minutes at each place; many more are led by hand (``lead_pods``)."""


@pytest.fixture
def home() -> Iterator[Path]:
    """Where the account that runs pods may read."""
    with TemporaryDirectory(prefix="berth-pods-", dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    "how", [pytest.param(SHORT, id="short"), pytest.param(FULL, id="full", marks=pytest.mark.slow)]
)
def test_pods_of_this_machine_leave_nothing_and_do_not_lie(home: Path, how: Mapping[str, Any]):
    with this_machine(home, home.name) as place:
        verdict = led(place, home, home.name, at_once=4, **how)
    assert faults(verdict) == []
    assert not processes(str(home)), "the server left processes behind"
    assert min(verdict.strikes[kind] for kind in (BERTH, PROXY, *place.strikes)) >= 1


@pytest.mark.slow
@pytest.mark.testbed
@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_pods_of_a_cluster_leave_nothing_and_do_not_lie(home: Path, name: str):
    with PLACES[name](home) as place:
        verdict = led(place, home, home.name, **AWAY)
    assert faults(verdict) == []
    assert min(verdict.strikes[kind] for kind in (BERTH, PROXY)) >= 1
    assert sum(verdict.strikes[kind] for kind in place.strikes) >= 1
