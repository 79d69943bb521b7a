"""Durable submissions over HTTP beside a bare FastAPI that commits two rows, in one run, on both databases.

``python -m bench.http [--seconds 5] [--rounds 3]``. The load comes from a process of its own on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
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


def compare(name: str, folder: Path, ours: str, theirs: str, seconds: float, rounds: int) -> None:
    """Measure both in turn, then latency at half the bare rate, batches, and two processes where the store allows."""
    with berth(folder / name, ours) as server, peer(theirs) as bare_url:
        token = prepare(server)
        submit = Load(f"{server.url}/v3/jobs/submit", json.dumps(JOB).encode(), token, seconds=seconds)
        two_rows = Load(bare_url, json.dumps(JOB).encode(), {}, seconds=seconds)
        pairs = [(run(two_rows), run(submit)) for _ in range(rounds)]
        bare_rate = median(seen.per_second for seen, _ in pairs)
        half = Load(submit.url, submit.body, token, seconds=2 * seconds, rate=bare_rate / 2)
        calm, batch_s = run(half), [batch(server, token) for _ in range(3)]
        rows = [
            _rates("one process, 16 connections", [seen for _, seen in pairs], [seen for seen, _ in pairs]),
            Row(
                f"latency at {bare_rate / 2:.0f}/s: p50, p99",
                f"{calm.quantile_ms(0.5):.0f} ms, {calm.quantile_ms(0.99):.0f} ms",
                f"refused: {calm.refused}",
                "p99 < 150 ms",
            ),
            Row(f"{BATCH} jobs in one request", spread([BATCH / s for s in batch_s], "/s"), "", ">= 2000/s"),
        ]
        if "postgresql" in ours:
            with berth(folder / f"{name}-2", ours, secrets=server.home / "secrets.key") as second:
                both = _both(submit, Load(f"{second.url}/v3/jobs/submit", submit.body, token, seconds=seconds))
                rows.append(Row("two processes, 16 connections each", f"{both:.0f}/s", "", "scales with cores"))
    show(f"Durable submissions over HTTP, {name}", rows)


def _rates(what: str, ours: Sequence[Seen], theirs: Sequence[Seen]) -> Row:
    mine, bare_ones = [seen.per_second for seen in ours], [seen.per_second for seen in theirs]
    share = median(mine) / median(bare_ones)
    return Row(
        what,
        f"{spread(mine, '/s')}, refused: {sum(s.refused for s in ours)}",
        f"bare: {spread(bare_ones, '/s')}; ratio {share:.2f}",
        "ratio >= 0.5",
    )


def _both(first: Load, second: Load) -> float:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        from bench.load import _measure

        return sum(seen.per_second for seen in pool.map(_measure, (first, second)))


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
def peer(url: str) -> Iterator[str]:
    """The bare application in a process of its own; its URL."""
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
        yield base
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


def batch(server: Server, headers: dict[str, str]) -> float:
    """Seconds for a thousand jobs in one request."""
    began = time.perf_counter()
    made = _post(f"{server.url}/v3/jobs/submit/batch", {"jobs": [JOB] * BATCH}, headers)["result"]["jobs"]
    assert len(made) == BATCH
    return time.perf_counter() - began


def _post(url: str, body: Any, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
