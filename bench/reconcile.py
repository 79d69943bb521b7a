"""Jobs a second from PENDING to QUEUED, with all loops of one process: ``python -m bench.reconcile [--jobs 500]``.

The system is a fake that answers at once, so what is counted is what Berth itself costs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

from bench.report import Row, show, spread
from scheduler.model.states import S
from scheduler.ports import utc_now
from scheduler.reconcile.loop import Bell
from scheduler.reconcile.reconciler import Reconciler
from scheduler.security.secrets import SecretBox
from scheduler.settings import Settings
from scheduler.store.database import Database
from scheduler.store.schema import jobs
from testbed.postgresql import database_in, postgresql
from tests.fakes.system import FakeSystem
from tests.reconcile.world import World, prepared

PLAIN_LOOP = "a plain loop of sbatch: some 100/s"
MOST_S = 300.0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reconcile", description=__doc__)
    parser.add_argument("--jobs", type=int, default=500, help="jobs of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("sqlite", "postgresql"), help="leave the other database out")
    chosen = parser.parse_args(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as folder:
        home = Path(folder)
        if chosen.only != "postgresql":
            files = [f"sqlite+aiosqlite:///{home / f'{number}.sqlite'}" for number in range(chosen.rounds)]
            compare("SQLite", files, home, chosen.jobs)
        if chosen.only != "sqlite":
            with postgresql() as cluster, contextlib.ExitStack() as stack:
                urls = [stack.enter_context(database_in(cluster)) for _ in range(chosen.rounds)]
                compare("PostgreSQL", urls, home, chosen.jobs)


def compare(name: str, urls: Sequence[str], home: Path, count: int) -> None:
    """A round on each of these empty databases, and the table of them."""
    seen = [asyncio.run(measure(url, home, count)) for url in urls]
    rows = [
        Row("jobs/s", spread([count / wall_s for wall_s, _ in seen], "/s"), PLAIN_LOOP, ">= 0.9 of it"),
        Row("CPU of our process, a job", spread([1000 * cpu_s / count for _, cpu_s in seen], "ms"), "", "< 10 ms"),
    ]
    show(f"{count} jobs from PENDING to QUEUED, {name}", rows)


async def measure(url: str, home: Path, count: int) -> tuple[float, float]:
    """Seconds on the clock, and of our processor, until every job is on the system."""
    database = Database(url, sealer=SecretBox(bytes(32)))
    await database.create_tables()
    await prepared(database)
    world = World(database, FakeSystem(), now=utc_now() - timedelta(seconds=1))
    world.system.clock = utc_now
    await world.submit(count)
    bell, stop = Bell(), asyncio.Event()
    reconciler = Reconciler(world.ports(clock=utc_now, wake=bell.ring), Settings(home=home), bell)
    began, used = time.perf_counter(), time.process_time()
    running = asyncio.create_task(reconciler.run(stop))
    while len(world.system.jobs) < count or await _unsettled(database):
        if time.perf_counter() - began > MOST_S:
            raise TimeoutError(f"{len(world.system.jobs)} of {count} jobs after {MOST_S:.0f} s")
        await asyncio.sleep(0.02)
    took_s, used_s = time.perf_counter() - began, time.process_time() - used
    stop.set()
    await running
    await database.aclose()
    return took_s, used_s


async def _unsettled(database: Database) -> bool:
    """Whether a job is not on the system yet, as far as the store knows."""
    query: Any = sa.select(jobs.c.id).where(jobs.c.state != S.QUEUED).limit(1)
    async with database.reading() as db:
        return (await db.execute(query)).first() is not None


if __name__ == "__main__":
    main()
