"""Requests to a stateless pod on a Slurm cluster while its instances are handed over before their walltimes end.

    python -m bench.handover [--changes 3]      (root; brings a cluster up and takes it down; 3 take about 8 minutes)

100 requests a second go through the gateway, half of them over new connections, and nothing is sent twice: neither by
the client nor, since ``gateway_retries`` is 0, by the gateway. The queue allows three minutes, so that an instance is
replaced after two. The pod says which instance it is, so hand-overs are counted where the client is.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import steady
from bench.report import Row, show
from bench.steady import Request, Steady
from bench.world import SYSTEM, World, wait_for, world
from testbed.cluster import Cluster
from tests.end_to_end import pod_images

POD, DOMAIN = "web", "pods.localhost"
QUEUE_MINUTES = 3
EACH_S = 180
AROUND_S = 20.0
"""Before and after the first answer of an instance: its hand-over."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.handover", description=__doc__)
    parser.add_argument("--changes", type=int, default=3, help="how many hand-overs")
    parser.add_argument("--ssh-port", type=int, default=12460)
    chosen = parser.parse_args(argv)
    port = _free_port()
    with world("benchhandover", chosen.ssh_port, nodes=2, gateway_port=str(port), gateway_retries="0") as here:
        keep_pods(here)
        start(here)
        asked = Steady(
            port=port,
            host_name=f"{POD}.{DOMAIN}",
            authority=str(here.server.home / "ca" / DOMAIN / "ca.pem"),
            changes=chosen.changes,
            after_s=AROUND_S,
            limit_s=(chosen.changes + 1) * EACH_S,
        )
        requests = steady.run(asked)
        told = here.get(f"/v3/pods/{POD}/logs")["action_logs"]
    show(f"{len(requests):,} requests to a pod at {asked.rate_per_s:g}/s, half on new connections", rows(requests))
    failures = Counter(one.failure for one in requests if one.failure)
    if failures or len(began_s(requests)) <= chosen.changes:
        print("\n".join([*(f"{count} x {words}" for words, count in failures.most_common()), *told]), file=sys.stderr)
        return 1
    return 0


def keep_pods(here: World) -> None:
    """The cluster keeps pods from now on, in a queue that allows little time."""
    system = here.get(f"/v3/systems/{SYSTEM}")
    queues = [{**queue, "maxMinutes": QUEUE_MINUTES} for queue in system["batchLogicalQueues"]]
    notes = {**system["notes"], "berth": {**system["notes"]["berth"], "pods": True}}
    here.http.patch(f"/v3/systems/{SYSTEM}", json={"batchLogicalQueues": queues, "notes": notes}).raise_for_status()


def start(here: World) -> None:
    """Make the pod, and wait until it answers."""
    here.post("/v3/pods", pod_request(pushed_image(here.cluster)))
    wait_for(lambda: here.get(f"/v3/pods/{POD}")["status"] == "AVAILABLE", 120, "the pod answers", every_s=0.2)


def pushed_image(cluster: Cluster) -> str:
    """A web server that names itself, as the nodes know it."""
    with tempfile.TemporaryDirectory() as folder:
        cluster.push_image(pod_images.naming_web(Path(folder) / "web"), "bench/web:1")
    return f"{cluster.info()['registry']['from_nodes']}/bench/web:1"


def pod_request(image: str) -> dict[str, Any]:
    """It may overlap with its successor, since its template says so."""
    return {"pod_id": POD, "template": "http", "image": image, "command": ["/bin/web"]}


def began_s(requests: Sequence[Request]) -> dict[str, float]:
    """When each instance was first asked something that it answered, in order."""
    found: dict[str, float] = {}
    for one in requests:
        if one.instance:
            found.setdefault(one.instance, one.at_s)
    return found


def rows(requests: Sequence[Request]) -> list[Row]:
    """What came of all requests, and of those around each hand-over."""
    changes = list(began_s(requests).values())[1:]
    parts = [("all", requests)]
    for number, change_s in enumerate(changes, 1):
        near = [one for one in requests if abs(one.at_s - change_s) <= AROUND_S]
        parts.append((f"{AROUND_S:g} s around hand-over {number}", near))
    return [
        Row(
            f"{name}, {'new' if on_new else 'kept'} connections",
            f"{sum(1 for one in some if one.failure)} failed of {len(some):,}",
            "p50 {:.0f} ms, p99 {:.0f} ms, most {:.0f} ms".format(*times_ms(some)),
            "0 failed",
        )
        for name, part in parts
        for on_new in (True, False)
        if (some := [one for one in part if one.on_new is on_new])
    ]


def times_ms(some: Sequence[Request]) -> tuple[float, float, float]:
    """Median, 99th percentile and longest."""
    ranked = sorted(one.took_s * 1000 for one in some)
    return ranked[len(ranked) // 2], ranked[int(len(ranked) * 0.99)], ranked[-1]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
