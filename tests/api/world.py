"""The world of the API's tests."""

from __future__ import annotations

import asyncio
import posixpath
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from api.app import create_app
from api.context import Edge, Options
from api.schemas.apps import AppBody
from backends.local.storage import LocalStorage
from scheduler.model.ids import marker_for
from scheduler.model.jobs import Attempt, Fact, Job
from scheduler.model.pages import Filter, Op, Page
from scheduler.model.runs import RunSpec, Runtime, SubmitIntent
from scheduler.model.states import AttemptState, Condition, Event, JobState
from scheduler.model.systems import Credential, LogicalQueue, System, SystemRuntime
from scheduler.model.tenants import Site, Tenant
from scheduler.model.users import SigningKey, User
from scheduler.ports import Ports, nothing_to_close
from scheduler.security import passwords
from scheduler.security.secrets import SecretBox
from scheduler.security.tokens import Tokens, new_signing_key
from scheduler.services.presence import Presence
from scheduler.store.apps import AppStore
from scheduler.store.database import Database
from scheduler.store.definitions import Definitions
from scheduler.store.group_commit import GroupCommit
from scheduler.store.jobs import JobStore
from scheduler.store.systems import CredentialStore, SystemStore
from scheduler.store.tenants import TenantStore
from scheduler.store.users import UserStore
from scheduler.wiring import personal_images
from tests.fakes.connections import FakeConnections
from tests.fakes.registry import FakeRegistry, FakeWeb, error
from tests.fakes.system import FakeSystem
from tests.fakes.tenant import World as Registries

PASSWORD = "correct horse"
BASE_URL = "http://berth.test"
BEGIN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

APP = {
    "id": "hello",
    "version": "0.1",
    "runtime": "SINGULARITY",
    "containerImage": "docker://registry.test/hello:0.1",
    "jobAttributes": {
        "execSystemId": "alder",
        "parameterSet": {"appArgs": [{"name": "msg", "arg": "hello", "inputMode": "INCLUDE_BY_DEFAULT"}]},
    },
}

HELLO_LABELS = {"berth.require.cuda": ">=12.2"}

JOB = {"name": "one", "appId": "hello", "appVersion": "0.1"}

IMAGE_JOB = {"name": "any", "notes": {"berth": {"image": "registry.test/hello:0.1"}}}


@dataclass
class Clock:
    """A clock that moves when told to, and a little whenever it is read."""

    now: datetime = BEGIN

    def __call__(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now


@dataclass
class World:
    """Everything that a test may look at or move."""

    ports: Ports
    database: Database
    connections: FakeConnections
    tokens: Tokens
    clock: Clock
    app: FastAPI
    http: httpx.AsyncClient
    registry: FakeRegistry
    """``registry.test``, which holds ``hello:0.1``; other registries hold nothing."""
    web: FakeWeb
    users: dict[str, User] = field(default_factory=dict)
    _runner: asyncio.Task[None] | None = None

    def token(self, username: str = "ada") -> str:
        """An access token of a user."""
        return self.tokens.access(self.users[username], BASE_URL).token

    async def call(
        self, method: str, path: str, body: Any = None, *, user: str | None = "ada", **kwargs: Any
    ) -> httpx.Response:
        """A request as a user; None is nobody."""
        headers = {"X-Tapis-Token": self.token(user)} if user else {}
        headers |= kwargs.pop("headers", {})
        if body is not None:
            kwargs["json"] = body
        return await self.http.request(method, path, headers=headers, **kwargs)

    async def get(self, path: str, **kwargs: Any) -> Any:
        """``result`` of a GET that must succeed."""
        return self._result(await self.call("GET", path, **kwargs))

    async def post(self, path: str, body: Any = None, **kwargs: Any) -> Any:
        """``result`` of a POST that must succeed."""
        return self._result(await self.call("POST", path, body, **kwargs))

    async def change(self, method: str, path: str, body: Any = None, **kwargs: Any) -> Any:
        """``result`` of a PATCH, PUT or DELETE that must succeed."""
        return self._result(await self.call(method, path, body, **kwargs))

    def _result(self, response: httpx.Response) -> Any:
        assert response.is_success, f"{response.status_code}: {response.text}"
        return response.json()["result"]

    async def submit(self, user: str = "ada", **changes: Any) -> Mapping[str, Any]:
        """A job of the app ``hello``, submitted."""
        return await self.post("/v3/jobs/submit", {**JOB, **changes}, user=user)

    async def job(self, uuid: str) -> Job:
        async with self.ports.reading() as db:
            return await JobStore(db).get("dev", uuid)

    async def count_jobs(self) -> int:
        async with self.ports.reading() as db:
            return await JobStore(db).count("dev", None)

    async def stop(self) -> None:
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])

    # -- what the reconciler does, in one go ---------------------------------------------------------------------

    async def start(self, uuid: str, output: bytes = b"") -> Job:
        """Run the job on its provisional place up to RUNNING, with something on its standard output."""
        job = await self.job(uuid)
        assert job.place is not None
        async with self.ports.transaction() as db:
            store = JobStore(db)
            for event in (Event.PLACED, Event.INPUTS_LISTED, Event.INPUTS_READY):
                job = await store.record(job, Fact(event), self.clock())
            attempt = _attempt(job, self.clock())
            job = await store.intend(job, attempt, self.clock())
            system = self.connections.systems[attempt.system_id]
            remote_id = system.accept(SubmitIntent(attempt.marker, attempt.run, self.clock()))
            job = await store.record(job, Fact(Event.ACCEPTED, {"remote_id": remote_id}), self.clock())
            job = await store.record(job, Fact(Event.STARTED), self.clock())
        system.start(attempt.marker)
        system.write_log(attempt.marker, output)
        return job

    def finish_every_job(self, output: bytes) -> None:
        """From now on every job is run to its end as soon as it is submitted."""
        submitted = asyncio.Event()
        self.ports = replace(self.ports, wake=submitted.set)
        self.app.state.edge = replace(self.app.state.edge, ports=self.ports)

        async def run() -> None:
            while True:
                await submitted.wait()
                submitted.clear()
                async with self.ports.reading() as db:
                    pending = Filter("state", Op.EQ, (JobState.PENDING,))
                    jobs = await JobStore(db).list("dev", None, Page(filters=(pending,)))
                for job in jobs:
                    self.connections.systems.setdefault(job.place.system_id, FakeSystem(clock=self.clock))
                    await self.finish(job.uuid, output)

        self._runner = asyncio.create_task(run())

    async def finish(self, uuid: str, output: bytes = b"") -> Job:
        """Run the job to FINISHED."""
        await self.start(uuid)
        return await self.end(uuid, output)

    async def end(self, uuid: str, output: bytes = b"") -> Job:
        """End a running job well; outputs stay where they were written unless an archive is named."""
        job = await self.job(uuid)
        assert job.place is not None
        system = self.connections.systems[job.place.system_id]
        system.end(marker_for(uuid, 1), output=output)
        if job.place.archive_dir != job.place.output_dir:
            source, target = (f"/{path}" for path in (job.place.output_dir, job.place.archive_dir))
            archive = self.connections.systems[job.place.archive_system_id]
            archive.files.make_directory(target)
            for name in system.files.tree(source):
                archive.files.nodes[target + name[len(source) :]] = system.files.nodes[name]
        async with self.ports.transaction() as db:
            store = JobStore(db)
            job = await store.record(job, Fact(Event.ENDED), self.clock())
            changes = {"condition": Condition.NORMAL_COMPLETION, "remote_outcome": "FINISHED"}
            return await store.record(job, Fact(Event.ARCHIVED, changes), self.clock())


def _attempt(job: Job, at: datetime) -> Attempt:
    place, spec = job.place, job.spec
    assert place is not None
    exec_dir, input_dir, output_dir = (
        posixpath.join("/", path) for path in (place.exec_dir, place.input_dir, place.output_dir)
    )
    run = RunSpec(
        job_uuid=job.uuid,
        name=spec.name,
        image=spec.image,
        runtime=spec.runtime,
        job_type=place.job_type,
        resources=spec.resources,
        partition=place.partition,
        exec_dir=exec_dir,
        input_dir=input_dir,
        output_dir=output_dir,
        stdout=spec.stdout,
        stderr=spec.stderr,
    )
    return Attempt(
        job_id=job.id,
        job_uuid=job.uuid,
        tenant=job.tenant,
        owner=job.owner,
        number=1,
        marker=marker_for(job.uuid, 1),
        system_id=place.system_id,
        queue=place.queue,
        state=AttemptState.INTENDED,
        run=run,
        intended_at=at,
    )


@cache
def signing_key() -> SigningKey:
    """One key pair for all tests: making one takes its time."""
    return new_signing_key(BEGIN)


@cache
def _application() -> FastAPI:
    """One application for all worlds: only what it is handed differs."""
    return create_app(None, None)  # type: ignore[arg-type]


@asynccontextmanager
async def open_world(url: str, options: Options | None = None, base_url: str = BASE_URL) -> AsyncIterator[World]:
    """A world on an empty database."""
    clock = Clock()
    database = Database(url, sealer=SecretBox(bytes(32)))
    await database.create_tables()
    connections = FakeConnections({"alder": FakeSystem(clock=clock), "birch": FakeSystem(clock=clock)})
    registries = Registries("registry.test")
    registries.web.elsewhere = lambda _: error(404, "NAME_UNKNOWN")
    registries.registry.push_image("hello", "0.1", Entrypoint=["hello"], Labels=HELLO_LABELS)
    files = tempfile.TemporaryDirectory()
    ports = Ports(
        transaction=database.transaction,
        reads=database.reading,
        group=GroupCommit(database.transaction),
        definitions=Definitions(database.reading),
        connections=connections,
        clock=clock,
        images=personal_images(registries.access.exchange, None, (), database.reading, nothing_to_close),
        volumes=lambda place: LocalStorage(Path(files.name) / place),
    )
    tokens = Tokens([signing_key()], clock)
    app = _application()
    app.state.edge = Edge(ports, tokens, options or Options(log_poll_s=0.01), Presence(ports))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=base_url) as http:
        world = World(ports, database, connections, tokens, clock, app, http, registries.registry, registries.web)
        await _populate(world)
        yield world
        await world.stop()
    await database.aclose()
    files.cleanup()


_hashes: list[str] = []


async def _password_hash() -> str:
    """The hash of everyone's password, made once: it is slow by design."""
    if not _hashes:
        _hashes.append(await passwords.hash(PASSWORD))
    return _hashes[0]


async def _populate(world: World) -> None:
    password_hash = await _password_hash()
    for name in ("admin", "ada", "bob"):
        world.users[name] = User(
            tenant="dev",
            username=name,
            email=f"{name}@example.org",
            password_hash=password_hash,
            is_admin=name == "admin",
            created_at=BEGIN,
        )
    hello = AppBody.model_validate(APP).to_app(tenant="dev", caller="ada", uuid="u-hello")
    async with world.database.transaction() as db:
        tenants = TenantStore(db)
        await tenants.add_site(Site(id="home"))
        await tenants.add_tenant(Tenant(id="dev", site_id="home", created_at=BEGIN))
        for user in world.users.values():
            await UserStore(db).add(user)
        for system in (ALDER, BIRCH):
            await SystemStore(db).add(replace(system, created_at=BEGIN, updated_at=BEGIN))
        for system_id in ("alder", "birch"):
            for user in ("ada", "bob"):
                await CredentialStore(db).put(
                    Credential(tenant="dev", system_id=system_id, user=user, login_user=user, private_key="k")
                )
        await AppStore(db).add(replace(hello, created_at=BEGIN, updated_at=BEGIN))


ALDER = System(
    tenant="dev",
    id="alder",
    uuid="4ac4f5a2-0000-4000-8000-00000000a1de",
    owner="ada",
    host="alder.example.org",
    can_exec=True,
    can_run_batch=True,
    runtimes=(SystemRuntime(Runtime.SINGULARITY),),
    job_working_dir="scratch/${JobOwner}",
    batch_scheduler="SLURM",
    queues=(
        LogicalQueue(name="short", partition="debug", max_walltime_s=3600, max_nodes=2, max_cores_per_node=8),
        LogicalQueue(name="long", partition="normal", max_walltime_s=48 * 3600, max_nodes=16, max_cores_per_node=64),
    ),
    default_queue="short",
)

BIRCH = System(
    tenant="dev",
    id="birch",
    uuid="4ac4f5a2-0000-4000-8000-0000000b19c4",
    owner="ada",
    host="birch.example.org",
    can_exec=True,
    runtimes=(SystemRuntime(Runtime.SINGULARITY),),
    job_working_dir="work",
)
