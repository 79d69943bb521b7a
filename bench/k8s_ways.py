"""Ways to a pod on Kubernetes, side by side: ``python -m bench.k8s_ways [--runs 5]``.

Through the API server, by the pod's node port, and straight to the pod's address as the limit: how long a new
connection takes until the pod's first word, and how fast 256 MiB come out of it. Needs root; brings a Kubernetes with a
real node up, and takes it down.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

from backends.base import Channel
from backends.streams import SocketChannel
from bench.report import Row, show, spread
from scheduler.model.errors import NothingLearnt, PortClosed
from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.runs import SubmitIntent, Way
from testbed.k8s.client import client
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.node import Node
from testbed.k8s.node_parts import PROXY
from testbed.k8s.pytest_plugin import shared_real_node
from tests.contract.subjects import INTENDED_AT, eventually, run_spec
from tests.testbed.k8s_node_ports import dial_inside, opened
from tests.testbed.k8s_subject import let_all_go
from tests.testbed.kubernetes import own_namespace

WORD, FLOOD = 7001, 7002
MIB = 1024 * 1024
SIZE = 256 * MIB
SERVE = f"""
nc -ll -p {WORD} -e echo here &
nc -ll -p {FLOOD} -e dd if=/dev/zero bs=64k count={SIZE // 65536} &
wait
"""
CONNECTIONS = 20

Connect = Callable[[int], Awaitable[Channel]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.k8s_ways", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args(argv)
    with shared_real_node("bench of ways") as plane, client(plane) as admin, own_namespace(plane, admin) as namespace:
        Node(plane).start(PROXY)
        try:
            show("Ways to a pod on Kubernetes", asyncio.run(_measured(plane, namespace, chosen.runs)))
        finally:
            let_all_go(admin, namespace)
    return 0


async def _measured(plane: ControlPlane, namespace: str, runs: int) -> list[Row]:
    async with (
        opened(plane, namespace, {"nodePorts": True}) as (backend, by_node),
        opened(plane, namespace, {}) as (_, forwarded),
    ):
        marker = marker_for(new_job_uuid(), 1)
        image = f"docker://{Node(plane).registry}/demo/busybox:1"
        run = run_spec("/work", marker, image=image, args=("sh", "-c", SERVE), use_entrypoint=False)
        run = replace(run, ports=(WORD, FLOOD), ways=(Way(WORD), Way(FLOOD)))
        remote_id = (await backend.submit([SubmitIntent(marker, run, INTENDED_AT)]))[marker]
        await eventually(lambda: _says_here(partial(forwarded.connect, remote_id, marker)), "it answers", timeout_s=60)
        await eventually(lambda: _is_by_node(by_node.connect(remote_id, marker, WORD)), "its node knows", timeout_s=60)
        seen = await forwarded.look({remote_id: marker})
        address = plane.get(f"/api/v1/namespaces/{namespace}/pods/{seen[remote_id].details['name']}")["status"]["podIP"]
        ways: dict[str, Connect] = {
            "through the API server": partial(forwarded.connect, remote_id, marker),
            "by node port": partial(by_node.connect, remote_id, marker),
            "bare": partial(dial_inside, plane, address),
        }
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, connect in ways.items():
                took[name].append((await _first_word_s(connect), await _speed(connect)))
    first_ms = {name: spread([first_s * 1000 for first_s, _ in some], "ms") for name, some in took.items()}
    speed = {name: spread([speed for _, speed in some], "MiB/s") for name, some in took.items()}
    return [
        Row(f"{what}, {name}", said[name], f"pod's address: {said['bare']}")
        for what, said in (("first word", first_ms), ("one connection", speed))
        for name in said
        if name != "bare"
    ]


async def _says_here(connect: Connect) -> bool:
    try:
        await _first_word_s(connect, 1)
    except (PortClosed, NothingLearnt, OSError):
        return False
    return True


async def _is_by_node(connecting: Awaitable[Channel]) -> bool:
    channel = await connecting
    await channel.aclose()
    return isinstance(channel, SocketChannel)


async def _first_word_s(connect: Connect, times: int = CONNECTIONS) -> float:
    """Median seconds until a new connection brings something."""
    took = []
    for _ in range(times):
        began_s = time.perf_counter()
        channel = await connect(WORD)
        if await channel.read(100) != b"here\n":
            raise ConnectionError("it said something else")
        took.append(time.perf_counter() - began_s)
        await channel.aclose()
    return median(took)


async def _speed(connect: Connect) -> float:
    """MiB/s of one connection."""
    channel, read = await connect(FLOOD), 0
    began_s = time.perf_counter()
    while piece := await channel.read(MIB):
        read += len(piece)
    took_s = time.perf_counter() - began_s
    await channel.aclose()
    if read != SIZE:
        raise ConnectionError(f"{read} bytes of {SIZE} came")
    return read / MIB / took_s


if __name__ == "__main__":
    raise SystemExit(main())
