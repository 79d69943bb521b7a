"""From the request for a pod to AVAILABLE, at each kind of place: ``python -m bench.pod_start [--runs 5]``.

The image is at the place already, and nothing else runs there. The pod is asked for by REST and looked at every 20 ms;
that it answers by its name is checked, and not counted. Needs root, brings a Slurm cluster and a Kubernetes with a real
node up, one after the other, and takes them down.
"""

from __future__ import annotations

import argparse
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.report import Row, show, spread
from bench.world import wait_for
from tests.crash.lead_pods import PLACES
from tests.crash.pod_life import MARK, PORT, SERVE, Door
from tests.crash.pod_places import Place
from tests.end_to_end.pod_stage import PodStage, pod_server

LOOK_S = 0.02
LIMIT_S = 120
SETTLE_S = 15
"""After a system was registered: Berth has looked at it by then."""

GOALS = {"here": "", "slurm": "5 s", "kubernetes": "3 s"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pod_start", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--places", nargs="+", choices=GOALS, default=list(GOALS))
    chosen = parser.parse_args(argv)
    rows = []
    for name in chosen.places:
        with TemporaryDirectory(prefix="berth-pods-", dir="/var/tmp") as folder:
            home = Path(folder)
            with PLACES[name](home) as place, pod_server(home, **place.settings) as stage:
                place.register(stage.wire)
                time.sleep(SETTLE_S)
                took_s = [_start_s(stage, place, f"run{number}") for number in range(chosen.runs + 1)]
        rows.append(Row(name, spread(took_s[1:], "s"), f"first, brings the image: {took_s[0]:.1f} s", GOALS[name]))
    show("From the request for a pod to AVAILABLE", rows)
    return 0


def _start_s(stage: PodStage, place: Place, pod_id: str) -> float:
    """How long one pod took; it is gone afterwards."""
    request = {
        "pod_id": pod_id,
        "image": place.image,
        "command": ["sh", "-c", SERVE],
        "environment_variables": {"WORDS": pod_id, MARK: pod_id},
        "networking": {"default": {"protocol": "http", "port": PORT}},
        "resources": {"cpu_request": 50, "cpu_limit": 500, "mem_request": 32, "mem_limit": 128},
        "compute_queue": place.system,
    }
    path = f"/v3/pods/{pod_id}"
    began_s = time.monotonic()
    stage.wire.post("/v3/pods", request)
    while (pod := stage.wire.get(path))["status"] != "AVAILABLE":
        if time.monotonic() - began_s > LIMIT_S:
            raise RuntimeError(f"{pod_id} is {pod['status']}: {stage.wire.get(f'{path}/logs')['action_logs']}")
        time.sleep(LOOK_S)
    took_s = time.monotonic() - began_s
    door = Door(stage.gateway_port, ssl.create_default_context(cafile=stage.authority))
    wait_for(lambda: (door.ask(pod_id) or "").startswith(pod_id), LIMIT_S, f"{pod_id} by its name")
    stage.wire.http.delete(path).raise_for_status()
    wait_for(lambda: stage.wire.http.get(path).status_code == 404, LIMIT_S, f"the end of {pod_id}")
    return took_s


if __name__ == "__main__":
    raise SystemExit(main())
