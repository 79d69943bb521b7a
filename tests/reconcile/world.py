"""A small world: one database, one FakeSystem, a clock that tests turn, and the reconciler's loops called by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from placement.engine import place, probes_for, rethink
from placement.problem import SolveLimits
from placement.race import Rules
from scheduler.model.ids import new_job_uuid
from scheduler.model.jobs import Attempt, HistoryEvent, Job, JobSpec, NewJob, Place
from scheduler.model.macros import JobIdentity, place_of
from scheduler.model.runs import Runtime
from scheduler.model.states import JobState
from scheduler.model.systems import Credential, LogicalQueue, System
from scheduler.model.tenants import Site, Tenant
from scheduler.ports import Images, Ports
from scheduler.reconcile.advance import Advance
from scheduler.reconcile.copies import Copies
from scheduler.reconcile.deliver import Deliver
from scheduler.reconcile.fetch import WebRules
from scheduler.reconcile.keep_right import KeepRight
from scheduler.reconcile.place import Placing
from scheduler.reconcile.snapshot import Snapshots
from scheduler.reconcile.submit import Submit
from scheduler.reconcile.watch import Pace, Watch
from scheduler.security.secrets import SecretBox
from scheduler.store.database import Database
from scheduler.store.jobs import JobStore
from scheduler.store.systems import CredentialStore, SystemStore
from scheduler.store.tenants import TenantStore
from tests.fakes.connections import FakeConnections
from tests.fakes.system import FakeSystem

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LEASE_S = 60.0
LOST_AFTER_S = 600.0
SNAPSHOT_INTERVAL_S = 30.0
REVIEW_S = 60.0
RULES = Rules(submissions_per_job=1.3, moves=True)

CLUSTER = System(
    tenant="dev",
    id="cluster",
    uuid="cluster",
    owner="ann",
    host="cluster.example.org",
    effective_user_id="alice",
    root_dir="/",
    job_working_dir="work",
    can_exec=True,
    can_run_batch=True,
    queues=(LogicalQueue(name="normal", partition="fake"),),
    default_queue="normal",
    is_public=True,
)


@dataclass
class World:
    """What outlives a crash: database, system, clock. ``process`` is what does not."""

    database: Database
    system: FakeSystem
    now: datetime = START
    connections: Any = None
    others: Mapping[str, FakeSystem] = field(default_factory=dict)
    """Systems besides ``cluster``, by id."""
    images: Images | None = None
    """What the process reads images with."""
    loops: Process = field(init=False)

    def __post_init__(self) -> None:
        for system in (self.system, *self.others.values()):
            system.clock = self.clock
        systems = {"cluster": self.system, "store": self.system, **self.others}
        self.connections = self.connections or FakeConnections(systems)
        self.loops = Process(self.ports())

    def clock(self) -> datetime:
        return self.now

    def ports(self, **changes: Any) -> Ports:
        return Ports(
            **{
                "transaction": self.database.transaction,
                "reads": self.database.reading,
                "connections": self.connections,
                "clock": self.clock,
                "images": self.images,
                **changes,
            }
        )

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def submit(self, count: int = 1, **changes: Any) -> list[Job]:
        """Jobs as the services store them."""
        async with self.database.transaction() as db:
            return list(await JobStore(db).add([self._new(**changes) for _ in range(count)]))

    def _new(self, **changes: Any) -> NewJob:
        asked = {"name": "a job", "app_id": "hello", "app_version": "1", "image": "docker://busybox"}
        spec = JobSpec(**{**asked, "runtime": Runtime.SINGULARITY, "exec_system_id": "cluster", **changes})
        uuid = new_job_uuid()
        who = JobIdentity(uuid=uuid, tenant="dev", owner="ann", created_at=self.now, login_user="alice")
        return NewJob(tenant="dev", owner="ann", uuid=uuid, spec=spec, place=place_on(spec, who), at=self.now)

    async def job(self, job: Job) -> Job:
        async with self.database.transaction() as db:
            return await JobStore(db).get("dev", job.uuid)

    async def attempts(self, job: Job) -> Sequence[Attempt]:
        async with self.database.transaction() as db:
            return await JobStore(db).attempts(job)

    async def history(self, job: Job) -> list[str]:
        async with self.database.transaction() as db:
            lines: Sequence[HistoryEvent] = await JobStore(db).history("dev", job.uuid)
        return [line.detail for line in lines]

    async def words(self, job: Job) -> list[str]:
        """What people read in a job's history."""
        async with self.database.transaction() as db:
            return [line.description for line in await JobStore(db).history("dev", job.uuid)]

    async def cancel(self, job: Job) -> None:
        async with self.database.transaction() as db:
            await JobStore(db).request_cancel("dev", job.uuid, self.now)

    async def run(self, ticks: int = 1, step_s: float = 3.0) -> None:
        """Every loop once, then time passes; ``ticks`` times."""
        for _ in range(ticks):
            await self.loops.tick()
            self.later(step_s)

    async def run_until(
        self, job: Job, state: JobState, ticks: int = 60, step_s: float = 3.0, each: Callable[[], None] = lambda: None
    ) -> Job:
        for _ in range(ticks):
            now = await self.job(job)
            if now.state is state:
                return now
            await self.run(1, step_s)
            each()
        raise AssertionError(f"job is {now.state} ({now.last_message}), not {state}, after {ticks} ticks")

    def restart(self) -> None:
        """A new process on the same database, after the old one is gone."""
        self.loops = Process(self.ports())


class Process:
    """The loops of one Berth process. ``at_once``: jobs and copies in hand at once."""

    def __init__(self, ports: Ports, *, at_once: int = 16) -> None:
        self.ports = ports
        self.watch = Watch(ports, lost_after_s=LOST_AFTER_S, pace=Pace())
        self.submit = Submit(ports, lease_s=LEASE_S, batch=100, accepted=self.watch.soon)
        self.snapshots = Snapshots(ports, probes_for, interval_s=SNAPSHOT_INTERVAL_S)
        self.place = Placing(ports, place, SolveLimits(), lease_s=LEASE_S, batch=100, refresh=self.snapshots.refresh)
        self.advance = Advance(ports, WebRules(), lease_s=LEASE_S, in_hand=at_once)
        self.keep_right = KeepRight(ports, rethink, RULES, review_s=REVIEW_S)
        self.copies = Copies(ports, WebRules(), lease_s=LEASE_S, at_once=at_once)
        self.deliver = Deliver(ports, lease_s=LEASE_S)

    async def tick(self) -> None:
        await self.place.tick()
        await self.place.pins.settle()
        await self.keep_right.tick()
        for loop in (self.advance, self.submit, self.watch, self.copies, self.deliver):
            await loop.tick()
            await loop.crew.settle()


def place_on(spec: JobSpec, who: JobIdentity) -> Place:
    return place_of(spec, CLUSTER, CLUSTER.queue(spec.queue), who)


@asynccontextmanager
async def database_in(directory: Path) -> AsyncIterator[Database]:
    """An empty database of our own."""
    database = Database(f"sqlite+aiosqlite:///{directory}/berth.sqlite", sealer=SecretBox(bytes(32)))
    await database.create_tables()
    yield database
    await database.aclose()


async def prepared(database: Database, cluster: System = CLUSTER) -> None:
    """A tenant, and the systems ``cluster`` and ``store``."""
    async with database.transaction() as db:
        await TenantStore(db).add_site(Site(id="here", created_at=START))
        await TenantStore(db).add_tenant(Tenant(id="dev", site_id="here", created_at=START))
        await SystemStore(db).add(cluster)
        await CredentialStore(db).put(Credential(tenant="dev", system_id="cluster", user="alice", login_user="alice"))
