"""Requests to a pod by way of the gateway, beside the same requests to the pod's server alone, in one run.

    python -m bench.gateway [--seconds 3] [--rounds 5]

The pod is uvicorn behind a Unix socket. Server, gateway and clients are processes of their own on the same cores; the
ways take turns. One connection shows latency, sixteen show throughput; each carries one request after another.
Beside them stands what a request costs of the gateway's CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import uvicorn
import uvloop

from backends.base import Channel
from bench.report import Row, show, spread
from gateway import certificates
from gateway.board import Board
from gateway.channels import SocketChannel
from gateway.embedded import Embedded, Names
from gateway.routes import Route, RouteState, Target
from gateway.ways import Ways
from scheduler.model.ids import LoginKey, Marker, RemoteId
from scheduler.model.pods import NetProtocol, PodNet

DOMAIN = "pods.localhost"
NAME = f"web.{DOMAIN}"
REQUEST = f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
BODY = b"x" * 1024
CLIENTS = 16
ALONE, EMBEDDED = "pod alone", "embedded gateway"


@dataclass(frozen=True, slots=True)
class Place:
    """Keeps one pod, whose port is a Unix socket."""

    path: Path

    async def pod_host(self, login: LoginKey) -> Place:
        return self

    async def connect(self, remote_id: RemoteId, marker: Marker, port: int) -> Channel:
        return SocketChannel(*await asyncio.open_unix_connection(self.path))


async def _pod(scope: dict[str, Any], receive: Any, send: Any) -> None:
    headers = [(b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def serve_pod(path: str) -> None:
    """The pod's server, until the process ends."""
    uvicorn.run(_pod, uds=path, log_config=None, lifespan="off", access_log=False)


def serve_gateway(folder: str, listener: socket.socket) -> None:
    """A gateway with one route, until the process ends."""

    async def serve() -> None:
        home, net = Path(folder), PodNet(name="default", protocol=NetProtocol.HTTP, port=80)
        names, board = Names(), Board(lambda: datetime.now(UTC))
        names.serve({DOMAIN: certificates.own(home, DOMAIN, datetime.now(UTC))})
        target = Target(LoginKey("t", "s", "o"), RemoteId("r"), Marker("m"), 80)
        route = Route(host_name=NAME, tenant="t", pod_id="web", net=net, state=RouteState.OPEN, target=target)
        board.show({NAME: route})
        ways = Ways(Place(home / "pod.sock"), board)  # type: ignore[arg-type]
        await Embedded(names, ways).serve(listener, asyncio.Event())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def times_s(connect: Callable[[], socket.socket], seconds: float) -> list[float]:
    """How long each request took on one connection."""
    found = []
    with connect() as connection:
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            connection.sendall(REQUEST)
            answer = b""
            while not answer.endswith(BODY):
                part = connection.recv(65536)
                if not part:
                    raise ConnectionError("the connection ended within an answer")
                answer += part
            found.append(time.perf_counter() - began)
    return found


def rate_per_s(connect: Callable[[], socket.socket], seconds: float) -> float:
    """Answers per second on all connections together."""
    counts: list[int] = []
    clients = [threading.Thread(target=lambda: counts.append(len(times_s(connect, seconds)))) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    if len(counts) < CLIENTS:
        raise RuntimeError("a client failed")
    return sum(counts) / seconds


@contextlib.contextmanager
def running() -> Iterator[tuple[dict[str, Callable[[], socket.socket]], int]]:
    """Pod and gateway as processes; ways to connect, by name, and the gateway's process id."""
    folder = Path(tempfile.mkdtemp(prefix="berth-bench-"))
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=serve_pod, args=(str(folder / "pod.sock"),), daemon=True),
        fork.Process(target=serve_gateway, args=(str(folder), listener), daemon=True),
    ]
    for process in processes:
        process.start()

    def alone() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(folder / "pod.sock"))
        return connection

    def embedded() -> socket.socket:
        context = ssl.create_default_context(cafile=folder / "ca" / DOMAIN / "ca.pem")
        connection = socket.create_connection(listener.getsockname())
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(connection, server_hostname=NAME)

    try:
        _wait_for(folder / "pod.sock", folder / "ca" / DOMAIN / "leaf.pem")
        gateway_pid = processes[1].pid
        assert gateway_pid is not None
        yield {ALONE: alone, EMBEDDED: embedded}, gateway_pid
    finally:
        for process in processes:
            process.terminate()
            process.join()
        listener.close()
        shutil.rmtree(folder)


def _cpu_s(pid: int) -> float:
    """The CPU time that a process has used, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_for(*paths: Path) -> None:
    until = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        if time.monotonic() > until:
            raise RuntimeError("pod and gateway did not start")
        time.sleep(0.05)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each, in turn")
    chosen = parser.parse_args(argv)
    latencies: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    with running() as (ways, gateway_pid):
        for connect in ways.values():
            times_s(connect, 0.5)  # not counted: everything is loaded now
        before_s = _cpu_s(gateway_pid)
        count = len(times_s(ways[EMBEDDED], chosen.seconds * chosen.rounds))
        cost_ms = (_cpu_s(gateway_pid) - before_s) * 1000 / count
        for _ in range(chosen.rounds):
            for name, connect in ways.items():
                latencies.setdefault(name, []).append(median(times_s(connect, chosen.seconds)) * 1000)
                rates.setdefault(name, []).append(rate_per_s(connect, chosen.seconds))
    p50_ms, most = median(latencies[ALONE]), median(rates[ALONE])
    rows = [
        Row(
            name,
            spread(latencies[name], "ms"),
            f"{median(latencies[name]) - p50_ms:+.2f} ms p50; {median(rates[name]):,.0f} requests/s, "
            f"{median(rates[name]) / most:.0%} of the pod alone",
        )
        for name in latencies
    ]
    rows.append(Row("CPU of the gateway", f"{cost_ms:.2f} ms", "for each request"))
    show(f"1 KiB answers of a pod: p50 on one connection, rate on {CLIENTS}", rows)


if __name__ == "__main__":
    main()
