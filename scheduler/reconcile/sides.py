"""Where a job runs and where its files lie: systems with the login that is used there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from backends.base import Backend, Storage
from scheduler.model.errors import NotFound
from scheduler.model.ids import LoginKey
from scheduler.model.jobs import Job, Place
from scheduler.model.runs import JobType
from scheduler.model.systems import System
from scheduler.ports import Ports
from scheduler.store.systems import CredentialStore, SystemStore

SAME_FOR = timedelta(seconds=2)
"""How long jobs that are worked on together take a system's definition and its login for unchanged."""


@dataclass(frozen=True, slots=True)
class Side:
    """A system as one login. ``login_user`` is the account there."""

    system: System
    login: LoginKey
    login_user: str

    async def backend(self, ports: Ports, job_type: JobType) -> Backend:
        return await ports.connections.backend(self.login, job_type)

    async def storage(self, ports: Ports) -> Storage:
        return await ports.connections.storage(self.login)


async def side_of(ports: Ports, tenant: str, system_id: str, user: str) -> Side:
    """A system as ``user`` uses it, deleted ones too: what runs there still has to end. Raises NotFound."""
    async with ports.reading() as db:
        system = await SystemStore(db).get(tenant, system_id, deleted=True)
        login = system.login_of(user)
        try:
            login_user = (await CredentialStore(db).get(tenant, system_id, login.owner)).login_user
        except NotFound:
            login_user = login.owner  # systems without a login, like this machine
    return Side(system, login, login_user)


class Sides:
    """Systems as their users use them, each read once in a while for all the jobs that need it."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._read: dict[tuple[str, str, str], tuple[datetime, Side]] = {}
        self._reading = asyncio.Lock()

    async def of(self, tenant: str, system_id: str, user: str) -> Side:
        """As ``side_of``, and at most SAME_FOR old."""
        key = tenant, system_id, user
        async with self._reading:
            now = self._ports.clock()
            read_at, side = self._read.get(key, (None, None))
            if side is None or read_at is None or now - read_at > SAME_FOR:
                side = await side_of(self._ports, tenant, system_id, user)
                self._read[key] = now, side
            return side


class Target(NamedTuple):
    """A login and how jobs run there: what shares one backend."""

    login: LoginKey
    job_type: JobType


class Targets:
    """The backends' keys of many jobs; each system is read once."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._systems: dict[tuple[str, str], System] = {}
        self._found: dict[tuple[str, str, str, JobType], Target] = {}

    async def of(self, tenant: str, system_id: str, owner: str, job_type: JobType) -> Target:
        key = tenant, system_id, owner, job_type
        if key not in self._found:
            self._found[key] = Target((await self._system(tenant, system_id)).login_of(owner), job_type)
        return self._found[key]

    async def _system(self, tenant: str, system_id: str) -> System:
        system = self._systems.get((tenant, system_id))
        if system is None:
            async with self._ports.reading() as db:
                system = await SystemStore(db).get(tenant, system_id, deleted=True)
            self._systems[tenant, system_id] = system
        return system


async def exec_side(ports: Ports, job: Job) -> Side:
    """Where the job runs."""
    return await side_of(ports, job.tenant, place_of_job(job).system_id, job.owner)


async def archive_side(ports: Ports, job: Job) -> Side:
    """Where the job's outputs are kept."""
    return await side_of(ports, job.tenant, place_of_job(job).archive_system_id, job.owner)


def place_of_job(job: Job) -> Place:
    """The place of a job that has one; every state but PENDING has."""
    if job.place is None:
        raise ValueError(f"job {job.uuid} is {job.state} without a place")
    return job.place
