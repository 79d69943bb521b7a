"""Requests to a pod by way of the gateway, beside the same requests to the pod's server alone, in one run.

    python -m bench.gateway [--seconds 3] [--rounds 5]

The pods are uvicorn on ports of loopback: one answers at no cost, one works half a millisecond for each answer. Server,
gateways and clients are processes of their own on the same cores; the ways take turns, and a HAProxy with TLS and
nothing else among them. One connection shows latency, sixteen of wrk show throughput; each carries one request after
another. What PostgreSQL's first bytes cost is measured apart, on round trips of 100 bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import uvloop

from backends.base import Channel
from backends.pods.host import DoorHost
from backends.pods.sockets import OpenSocket
from bench import gateway_pods
from bench.bare_haproxy import bare_haproxy
from bench.gateway_pods import BODY, serve_application, serve_echo, serve_file, wait_for
from bench.report import Row, show, spread
from gateway import certificates, postgres
from gateway.board import Board
from gateway.embedded import Embedded, Names
from gateway.haproxy import HAProxy
from gateway.haproxy_process import find_program
from gateway.routes import Route, RouteState, Target
from gateway.ways import Ways
from scheduler.model.ids import LoginKey, Marker, RemoteId
from scheduler.model.pods import NetProtocol, PodNet

DOMAIN = "pods.localhost"
NAME, APPLICATION, DATABASE = f"web.{DOMAIN}", f"app.{DOMAIN}", f"db.{DOMAIN}"
DOORED = {f"doored-web.{DOMAIN}": gateway_pods.FILE, f"doored-app.{DOMAIN}": gateway_pods.APPLICATION}
ECHO = b"e" * 100
CLIENTS = 16
ALONE, EMBEDDED, HAPROXY, BARE = "pod alone", "embedded gateway", "gateway with HAProxy", "HAProxy, no gateway"
DOORS, NO_DOOR = "doors", Marker("m")
BEHIND = "gateway with HAProxy, pod behind a door"
RATE = re.compile(r"Requests/sec:\s+([0-9.]+)")
FAILURES = re.compile(r"Socket errors|Non-2xx")
ON_LOOPBACK = 'wrk.resolve = function(_, service) wrk.addrs = wrk.lookup("127.0.0.1", service) end\n'
"""wrk's own words for connecting there under any name."""


@dataclass(frozen=True, slots=True)
class Place:
    """Keeps pods behind doors, and one whose ports are ports of loopback: of a web server, and of one that repeats what
    it hears."""

    doors: DoorHost

    async def pod_host(self, login: LoginKey) -> Place:
        return self

    async def connect(self, remote_id: RemoteId, marker: Marker, port: int) -> Channel:
        if marker in gateway_pods.SERVE:
            return await self.doors.connect(remote_id, marker, port)
        connection = socket.socket()
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return OpenSocket(connection)


def serve_gateway(folder: Path, listener: socket.socket, ports: Mapping[str, int], program: str | None) -> None:
    """A gateway with two routes, until the process ends. program: of HAProxy; None: the embedded proxy alone."""

    async def serve() -> None:
        names, board = Names(), Board(lambda: datetime.now(UTC))
        served = {DOMAIN: certificates.own(folder, DOMAIN, datetime.now(UTC))}
        names.serve(served)
        plain = {name: _route(name, port) for name, port in ports.items()}
        board.show(plain | {name: _route(name, gateway_pods.PORT, marker) for name, marker in DOORED.items()})
        ways = Ways(Place(gateway_pods.doors(folder.parent / DOORS)), board)  # type: ignore[arg-type]
        embedded = Embedded(names, ways)
        if program is None:
            await embedded.serve(listener, asyncio.Event())
            return
        haproxy = HAProxy(program, folder / "gateway", embedded, ways)
        haproxy.serve_certificates(served)
        serving = asyncio.create_task(haproxy.serve(listener, asyncio.Event()))
        while not haproxy.is_told:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        (folder / "told").touch()
        await serving

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def _route(name: str, port: int, marker: Marker = NO_DOOR) -> Route:
    protocol = NetProtocol.POSTGRES if name == DATABASE else NetProtocol.HTTP
    net = PodNet(name="default", protocol=protocol, port=port)
    target = Target(LoginKey("t", "s", "o"), RemoteId("r"), marker, port)
    return Route(host_name=name, tenant="t", pod_id="web", net=net, state=RouteState.OPEN, target=target)


def times_s(way: Way, seconds: float) -> list[float]:
    """How long each request took on one connection."""
    found = []
    request = f"GET / HTTP/1.1\r\nHost: {urlsplit(way.url).hostname}\r\n\r\n".encode()
    with way.connect() as connection:
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            connection.sendall(request)
            answer = b""
            while not answer.endswith(BODY):
                part = connection.recv(65536)
                if not part:
                    raise ConnectionError("the connection ended within an answer")
                answer += part
            found.append(time.perf_counter() - began)
    return found


def wrk_per_s(url: str, script: Path, seconds: float) -> float:
    """Answers per second on all connections together."""
    argv = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{max(1, round(seconds))}s", "-s", str(script), url]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    rate = RATE.search(said)
    if rate is None or FAILURES.search(said):
        raise RuntimeError(f"wrk: {said}")
    return float(rate[1])


def round_trips_s(connect: Callable[[], socket.socket], seconds: float) -> list[float]:
    """How long the echo of a few bytes took, on one connection."""
    found = []
    with connect() as connection:
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            connection.sendall(ECHO)
            left = len(ECHO)
            while left:
                left -= len(connection.recv(left))
            found.append(time.perf_counter() - began)
    return found


@dataclass(frozen=True, slots=True)
class Way:
    """How pods are reached. to_database: None where it is not."""

    url: str
    application_url: str
    connect: Callable[[], socket.socket]
    to_database: Callable[[], socket.socket] | None


@contextlib.contextmanager
def running() -> Iterator[tuple[Path, dict[str, Way]]]:
    """Pod and gateways as processes; a folder, and ways by name."""
    folder = Path(tempfile.mkdtemp(prefix="berth-bench-"))
    web, application, echo = _loopback(), _loopback(), _loopback()
    listeners = {NAME: web, APPLICATION: application, DATABASE: echo}
    ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=serve_file, args=(web,), daemon=True),
        fork.Process(target=serve_application, args=(application,), daemon=True),
        fork.Process(target=serve_echo, args=(echo,), daemon=True),
    ]
    urls = (f"http://127.0.0.1:{ports[name]}/" for name in (NAME, APPLICATION))
    found = {ALONE: Way(*urls, lambda: _plain(web.getsockname()), lambda: _plain(echo.getsockname()))}
    program = asyncio.run(find_program(required=False))
    stack = contextlib.ExitStack()
    try:
        for name in (EMBEDDED, HAPROXY) if program else (EMBEDDED,):
            home, listener = folder / name.replace(" ", "-"), _loopback()
            home.mkdir()
            args = (home, listener, ports, program if name == HAPROXY else None)
            processes.append(fork.Process(target=serve_gateway, args=args))
            found[name] = _through(home, listener.getsockname()[1])
        homes = list(folder.iterdir())
        for process in processes:
            process.start()
        for marker in gateway_pods.SERVE:
            stack.callback(_ended, gateway_pods.behind_door(folder / DOORS, marker))
        wait_for(*(each / "ca" / DOMAIN / "leaf.pem" for each in homes))
        if program:
            home = folder / HAPROXY.replace(" ", "-")
            wait_for(home / "told")
            pem = home / "ca" / DOMAIN / "leaf.pem"
            web_ports = {name: ports[name] for name in (NAME, APPLICATION)}
            port = stack.enter_context(bare_haproxy(program, folder / "bare", pem, web_ports))
            found[BARE] = replace(_through(home, port), to_database=None)
            wait_for(*(folder / DOORS / marker / "door" for marker in gateway_pods.SERVE))
            found[BEHIND] = replace(_through(home, _port(found[HAPROXY]), tuple(DOORED)), to_database=None)
        yield folder, found
    finally:
        stack.close()
        for process in processes:
            process.terminate()
            process.join()
        shutil.rmtree(folder)


def _loopback() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=256)


def _plain(address: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _port(way: Way) -> int:
    return int(way.url.rstrip("/").rpartition(":")[2])


def _ended(door: subprocess.Popen[bytes]) -> None:
    door.terminate()
    door.wait()


def _through(home: Path, port: int, names: tuple[str, ...] = (NAME, APPLICATION)) -> Way:
    """By way of a gateway with this home, or of what has its certificate."""
    address = ("127.0.0.1", port)

    def tls(connection: socket.socket, name: str) -> socket.socket:
        context = ssl.create_default_context(cafile=home / "ca" / DOMAIN / "ca.pem")
        return context.wrap_socket(connection, server_hostname=name)

    def to_database() -> socket.socket:
        connection = _plain(address)
        connection.sendall(postgres.SSL_REQUEST)
        if connection.recv(1) != postgres.YES:
            raise ConnectionError("no TLS for PostgreSQL")
        return tls(connection, DATABASE)

    urls = (f"https://{name}:{port}/" for name in names)
    return Way(*urls, lambda: tls(_plain(address), names[0]), to_database)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each, in turn")
    chosen = parser.parse_args(argv)
    latencies: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    application: dict[str, list[float]] = {}
    trips: dict[str, list[float]] = {}
    with running() as (folder, ways):
        script = folder / "loopback.lua"
        script.write_text(ON_LOOPBACK)
        for way in ways.values():
            times_s(way, 0.5)  # not counted: everything is loaded now
        for _ in range(chosen.rounds):
            for name, way in ways.items():
                latencies.setdefault(name, []).append(median(times_s(way, chosen.seconds)) * 1000)
                rates.setdefault(name, []).append(wrk_per_s(way.url, script, chosen.seconds))
                application.setdefault(name, []).append(wrk_per_s(way.application_url, script, chosen.seconds))
                if way.to_database is not None:
                    trips.setdefault(name, []).append(median(round_trips_s(way.to_database, chosen.seconds)) * 1000)
    p50_ms = median(latencies[ALONE])
    rows = [
        Row(
            name,
            spread(latencies[name], "ms"),
            f"{median(latencies[name]) - p50_ms:+.2f} ms p50; {_rate(rates, name)}; application: "
            f"{_rate(application, name)}",
            "" if name in (ALONE, BARE) else "+1 ms, 80%",
        )
        for name in latencies
    ]
    rows += [
        Row(
            f"PostgreSQL, {name}",
            spread(trips[name], "ms"),
            f"{median(trips[name]) - median(trips[ALONE]):+.2f} ms p50 for each round trip",
        )
        for name in trips
    ]
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    show(f"1 KiB answers of a pod: p50 on one connection, rate on {CLIENTS} (load {load})", rows)


def _rate(rates: Mapping[str, Sequence[float]], name: str) -> str:
    return f"{median(rates[name]):,.0f} requests/s, {median(rates[name]) / median(rates[ALONE]):.0%} of the pod alone"


if __name__ == "__main__":
    main()
