"""Durable submissions over HTTP beside a bare FastAPI that commits two rows, in one run, on both databases.

``python -m bench.http [--seconds 5] [--rounds 3]``. The load comes from processes of their own on the same cores, so
beside rates stands what a request costs: the CPU of the server alone, which says what further cores would give.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import uvicorn

from bench import bare
from bench.load import Load, Seen, run
from bench.report import Row, show, spread
from testbed.postgresql import database_in, postgresql
from testbed.server import ADMIN_PASSWORD, Server

JOB = {"name": "bench", "appId": "bench", "appVersion": "1", "description": "x" * 200}
SYSTEM = {
    "id": "bench",
    "systemType": "LINUX",
    "host": "127.0.0.1",
    "effectiveUserId": "${apiUserId}",
    "defaultAuthnMethod": "PKI_KEYS",
    "rootDir": "/",
    "canExec": True,
    "canRunBatch": True,
    "jobRuntimes": [{"runtimeType": "SINGULARITY"}],
    "jobWorkingDir": "work",
    "batchScheduler": "SLURM",
    "batchLogicalQueues": [{"name": "q", "hpcQueueName": "normal"}],
    "batchDefaultLogicalQueue": "q",
}
APP = {
    "id": "bench",
    "version": "1",
    "containerImage": "docker://registry.example.org/tool:1",
    "runtime": "SINGULARITY",
    "jobType": "BATCH",
    "jobAttributes": {"execSystemId": "bench"},
}
KEY = {"loginUser": "bench", "privateKey": "not a key", "publicKey": "not a key"}
BATCH = 1000
ALIKE = [JOB] * BATCH
DIFFERENT = [
    {**JOB, "name": f"bench-{n}", "parameterSet": {"appArgs": [{"name": "case", "arg": f"--case {n}"}]}}
    for n in range(BATCH)
]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.http", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each, in turn")
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as folder:
        here = Path(folder)
        files = (f"sqlite+aiosqlite:///{here / 'berth.sqlite'}", f"sqlite+aiosqlite:///{here / 'bare.sqlite'}")
        compare("SQLite", here, *files, chosen.seconds, chosen.rounds)
        with postgresql() as cluster, database_in(cluster) as ours, database_in(cluster) as theirs:
            compare("PostgreSQL", here, ours, theirs, chosen.seconds, chosen.rounds)


@dataclass(frozen=True, slots=True)
class Cost:
    """A run of requests, and the CPU that one took from the server that answered."""

    seen: Seen
    cpu_ms: float


def compare(name: str, folder: Path, ours: str, theirs: str, seconds: float, rounds: int) -> None:
    """Measure both in turn, then latency at half the bare rate, batches, and two processes where the store allows."""
    with berth(folder / name, ours) as server, peer(theirs) as (bare_url, bare_pid):
        token = prepare(server)
        submit = Load(f"{server.url}/v3/jobs/submit", json.dumps(JOB).encode(), token, seconds=seconds)
        two_rows = Load(bare_url, json.dumps(JOB).encode(), {}, seconds=seconds)
        pairs = [(cost(two_rows, bare_pid), cost(submit, server.pid)) for _ in range(rounds)]
        bare_rate = median(bare_one.seen.per_second for bare_one, _ in pairs)
        (calm,) = run(Load(submit.url, submit.body, token, seconds=2 * seconds, rate=bare_rate / 2))
        rows = [
            *_rates([mine for _, mine in pairs], [bare_one for bare_one, _ in pairs]),
            Row(
                f"latency at {bare_rate / 2:.0f}/s: p50, p99",
                f"{calm.quantile_ms(0.5):.0f} ms, {calm.quantile_ms(0.99):.0f} ms",
                f"refused: {calm.refused}",
                "p99 < 150 ms",
            ),
        ]
        for what, jobs in (("alike", ALIKE), ("all different", DIFFERENT)):
            rates = [BATCH / batch(server, token, jobs) for _ in range(3)]
            rows.append(Row(f"{BATCH} jobs in one request, {what}", spread(rates, "/s"), "", ">= 2000/s"))
        if "postgresql" in ours:
            with berth(folder / f"{name}-2", ours, secrets=server.home / "secrets.key") as second:
                rows += _two(submit, (server, second), median(mine.seen.per_second for _, mine in pairs))
    show(f"Durable submissions over HTTP, {name}", rows)


def cost(load: Load, pid: int) -> Cost:
    """Run a load and see what it takes from the server with this process id."""
    used = cpu_s(pid)
    (seen,) = run(load)
    return Cost(seen, (cpu_s(pid) - used) / max(1, len(seen.latencies_s)) * 1000)


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used so far, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rates(ours: Sequence[Cost], theirs: Sequence[Cost]) -> list[Row]:
    mine, bare_ones = [one.seen.per_second for one in ours], [one.seen.per_second for one in theirs]
    return [
        Row(
            "one process, 16 connections",
            f"{spread(mine, '/s')}, refused: {sum(one.seen.refused for one in ours)}",
            f"bare: {spread(bare_ones, '/s')}; ratio {median(mine) / median(bare_ones):.2f}",
            "ratio >= 0.5",
        ),
        Row(
            "CPU of the server for one",
            spread([one.cpu_ms for one in ours], "ms"),
            f"bare: {spread([one.cpu_ms for one in theirs], 'ms')}",
        ),
    ]


def _two(submit: Load, servers: tuple[Server, Server], alone: float) -> list[Row]:
    """Two processes at once, and who had the cores meanwhile; ``alone`` is the rate of one process by itself."""
    used = [cpu_s(server.pid) for server in servers]
    seen = run(*(replace(submit, url=f"{server.url}/v3/jobs/submit") for server in servers))
    berth_s = sum(cpu_s(server.pid) - before for server, before in zip(servers, used, strict=True))
    elapsed, rate = max(each.seconds for each in seen), sum(each.per_second for each in seen)
    done = max(1, sum(len(each.latencies_s) for each in seen))
    cores = f"Berth {berth_s / elapsed:.2f}, load {sum(each.cpu_s for each in seen) / elapsed:.2f}"
    return [
        Row("two processes, 16 connections each", f"{rate:.0f}/s", f"one: {alone:.0f}/s", "scales with cores"),
        Row(
            "CPU of both for one; cores that they had",
            f"{berth_s / done * 1000:.2f} ms; {cores}",
            f"of {os.cpu_count()} cores; the rest: database, and others on this machine",
        ),
    ]


@contextlib.contextmanager
def berth(home: Path, url: str, secrets: Path | None = None) -> Iterator[Server]:
    """``berth api`` on a database; ``secrets``: the key of the process that it shares the database with."""
    home.mkdir(parents=True)
    if secrets is not None:
        (home / "secrets.key").write_bytes(secrets.read_bytes())
        (home / "secrets.key").chmod(0o600)
    if url.startswith("postgresql") and secrets is None:
        from migrations import run as migrations

        migrations.upgrade(url)
    server = Server(home, command="api", database_url=url, log_level="warning")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def peer(url: str) -> Iterator[tuple[str, int]]:
    """The bare application in a process of its own; its URL and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=_serve_bare, args=(url, port), daemon=True)
    process.start()
    base = f"http://127.0.0.1:{port}/"
    try:
        for attempt in range(200):
            try:
                _post(f"{base}setup", {}, {})
                break
            except OSError:
                if attempt == 199:
                    raise
                time.sleep(0.05)
        assert process.pid is not None
        yield base, process.pid
    finally:
        process.terminate()
        process.join()


def _serve_bare(url: str, port: int) -> None:
    config = uvicorn.Config(bare.create(url), port=port, log_level="warning", loop="uvloop", http="httptools")
    asyncio.run(uvicorn.Server(config).serve())


def prepare(server: Server) -> dict[str, str]:
    """Log in and register the system and app that the jobs name; the headers of a submission."""
    login = {"username": "admin", "password": ADMIN_PASSWORD, "grant_type": "password"}
    token = _post(f"{server.url}/v3/oauth2/tokens", login, {})["result"]["access_token"]["access_token"]
    headers = {"X-Tapis-Token": token}
    _post(f"{server.url}/v3/systems?skipCredentialCheck=true", SYSTEM, headers)
    _post(f"{server.url}/v3/systems/credential/bench/user/admin?skipCredentialCheck=true", KEY, headers)
    _post(f"{server.url}/v3/apps", APP, headers)
    return headers


def batch(server: Server, headers: dict[str, str], jobs: Sequence[dict[str, Any]]) -> float:
    """Seconds for many jobs in one request."""
    began = time.perf_counter()
    made = _post(f"{server.url}/v3/jobs/submit/batch", {"jobs": jobs}, headers)["result"]["jobs"]
    assert len(made) == len(jobs)
    return time.perf_counter() - began


def _post(url: str, body: Any, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
