"""What 1,000 pods on a Kubernetes cost a server: ``python -m bench.k8s_pods [--pods 1000]``.

A real control plane with fake nodes, and a server of Berth's in a process of its own, which is looked at from outside:
its memory, its processor time, what it watches and what it asks the API server for. Nothing listens on fake nodes: pods
run there and stay CREATING, and every try at a port is refused by the API server, which costs more than one that is
taken. Needs root.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from bench.report import Row, show
from testbed.k8s.client import client
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.spec import FakeNode, Spec, free_port
from tests.end_to_end.kubernetes_place import SYSTEM, register
from tests.end_to_end.pod_stage import PodStage, pod_server
from tests.testbed.k8s_subject import let_all_go
from tests.testbed.kubernetes import own_namespace

PODS_A_NODE = 250
LIMIT_S = 1800
FOREVER = {"testbed.berth/run-s": "forever"}
WATCHES = re.compile(r"apiserver_longrunning_gauge\{(.*)\} (\S+)")
REQUESTS = re.compile(r"apiserver_request_total\{(.*)\} (\S+)")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.k8s_pods", description=__doc__)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--settled-s", type=int, default=60)
    chosen = parser.parse_args(argv)
    count = -(-chosen.pods // PODS_A_NODE) + 1
    nodes = tuple(FakeNode(f"fake-{n}", cpus=256, memory_mib=2**20, labels=FOREVER) for n in range(count))
    plane = ControlPlane(Spec("manypods", nodes, port=free_port()))
    plane.up()
    try:
        with client(plane) as admin, own_namespace(plane, admin) as namespace:
            try:
                with TemporaryDirectory(prefix="berth-pods-", dir="/var/tmp") as home, pod_server(Path(home)) as stage:
                    register(stage.wire, plane, namespace, {}, pods=True)
                    time.sleep(15)  # Berth has looked at it by then
                    rows = _measured(stage, admin, chosen.pods, chosen.settled_s)
                    show(f"{chosen.pods} pods on Kubernetes {'.'.join(map(str, plane.version))}", rows)
            finally:
                let_all_go(admin, namespace)
    finally:
        plane.down()
    return 0


def _measured(stage: PodStage, admin: httpx.Client, count: int, settled_s: int) -> list[Row]:
    pid = stage.server.pid
    bare_mib, began_s = _memory_mib(pid), time.monotonic()
    with ThreadPoolExecutor(4) as hands:
        list(hands.map(lambda number: stage.wire.post("/v3/pods", _request(number)), range(count)))
    asked_s = time.monotonic() - began_s
    while (there := Counter(pod["status"] for pod in stage.wire.get("/v3/pods")))["CREATING"] < count:
        print(f"{time.monotonic() - began_s:.0f} s: {dict(there)}, {_memory_mib(pid):.0f} MiB", flush=True)
        if time.monotonic() - began_s > LIMIT_S:
            raise RuntimeError(f"not all run: {there}")
        time.sleep(5)
    took_s, most_mib = time.monotonic() - began_s, _memory_mib(pid, "VmHWM")
    time.sleep(10)
    before, spent_s = _asked(admin), _processor_s(pid)
    time.sleep(settled_s)
    calls, used_s = _asked(admin) - before, (_processor_s(pid) - spent_s) * 60 / settled_s
    said = ", ".join(f"{verb} {number * 60 / settled_s:.0f}" for verb, number in sorted(calls.items())) or "nothing"
    return [
        Row("watches in the namespace", _watches(admin), "of Jobs and of pods, one each", "one"),
        Row("memory, settled", f"{_memory_mib(pid):.0f} MiB", f"before the first pod {bare_mib:.0f}", "300 MiB"),
        Row("memory, at most", f"{most_mib:.0f} MiB", "", "300 MiB"),
        Row("processor, settled", f"{used_s:.1f} s a minute", f"{used_s / 60:.0%} of a core", ""),
        Row("asked of Jobs and pods, settled", said, "a minute", ""),
        Row("from the first request until all run", f"{took_s:.0f} s", f"all asked for after {asked_s:.0f} s", ""),
    ]


def _request(number: int) -> dict[str, object]:
    return {
        "pod_id": f"many{number}",
        "image": "busybox",
        "command": ["sleep", "infinity"],
        "resources": {"cpu_request": 100, "cpu_limit": 500, "mem_request": 32, "mem_limit": 128},
        "compute_queue": SYSTEM,
    }


# -- from outside ------------------------------------------------------------------------------------------------------


def _memory_mib(pid: int, which: str = "VmRSS") -> float:
    said = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(rf"{which}:\s+(\d+) kB", said)[0]) / 1024


def _processor_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _watches(admin: httpx.Client) -> str:
    """Those of one namespace are Berth's: the cluster's own parts watch all of it."""
    open_now = Counter[str]()
    for labels, number in WATCHES.findall(admin.get("/metrics").text):
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if (told["verb"], told["scope"]) == ("WATCH", "namespace") and told["resource"] in ("jobs", "pods"):
            open_now[told["resource"]] += int(float(number))
    return ", ".join(f"{kind} {number}" for kind, number in sorted(open_now.items()))


def _asked(admin: httpx.Client) -> Counter[str]:
    calls = Counter[str]()
    for labels, number in REQUESTS.findall(admin.get("/metrics").text):
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if told["verb"] in ("LIST", "GET") and told["scope"] != "cluster" and told["resource"] in ("jobs", "pods"):
            calls[f"{told['verb']} {told['resource']}"] += int(float(number))
    return calls


if __name__ == "__main__":
    raise SystemExit(main())
