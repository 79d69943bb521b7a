"""Scheduler profiles: who may make and remove them, and who takes what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from scheduler.model.errors import Forbidden, NotFound, Problem, SpecInvalid
from scheduler.model.jobs import JobSpec
from scheduler.model.scheduler_profiles import ModuleLoad, SchedulerProfile
from scheduler.model.systems import System
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.services.idempotency import Names, Repeatable, once
from scheduler.services.scheduler_options import PROFILE
from scheduler.store.requests import AuditStore
from scheduler.store.scheduler_profiles import SchedulerProfileStore

MOST_OF_OWNER = 100

LOAD_COMMANDS = (
    *("module load", "module add", "module try-load", "module unload", "module restore", "module purge"),
    *("module reset", "ml", "ml load", "ml unload", "ml restore", "ml purge", "ml reset", "spack load"),
)
"""How modules are loaded: by Lmod, Environment Modules or Spack.

Whoever uses a profile runs its commands under an account of their own. So a command is one of this table, and modules
are named as the site lists them: by a path it could load what the maker of the profile wrote.
"""

_MODULE = re.compile(r"(?=.{1,255}$)[A-Za-z0-9_][A-Za-z0-9_.+@=~%-]*(/[A-Za-z0-9_+@=~%-][A-Za-z0-9_.+@=~%-]*)*")


async def create(ports: Ports, caller: Principal, profile: SchedulerProfile, repeatable: Repeatable | None) -> str:
    """Keep a new profile; its name. SpecInvalid for what loads no modules, AlreadyExists for a name that is taken."""
    if profile.owner != caller.username and not caller.is_admin:
        raise Forbidden(f"only an admin may make a scheduler profile for another owner ('{profile.owner}')")
    loads = enumerate(profile.module_loads)
    if problems := [problem for at, load in loads for problem in _wrong(f"moduleLoads[{at}]", load)]:
        raise SpecInvalid(*problems)
    now = ports.clock()

    async def add(db: Any) -> Names:
        store = SchedulerProfileStore(db)
        if await store.count(caller.tenant, profile.owner) >= MOST_OF_OWNER:
            raise SpecInvalid.of("name", f"would be one more than {MOST_OF_OWNER}", "delete one that is not used")
        await store.add(replace(profile, created_at=now))
        await _audit(db, caller, "create", profile.name, now)
        return {"name": profile.name}

    return str((await once(ports, caller, repeatable, add))["name"])


async def profiles(ports: Ports, caller: Principal) -> Sequence[SchedulerProfile]:
    """Those of the tenant, by name: whoever may use a system must see what it does to jobs."""
    async with ports.reading() as db:
        return await SchedulerProfileStore(db).list(caller.tenant)


async def get(ports: Ports, caller: Principal, name: str) -> SchedulerProfile:
    """One of the tenant's."""
    async with ports.reading() as db:
        return await SchedulerProfileStore(db).get(caller.tenant, name)


async def remove(ports: Ports, caller: Principal, name: str) -> None:
    """Forget a profile, as its owner or an admin; systems and jobs that took it go on with what it said."""
    async with ports.transaction() as db:
        store = SchedulerProfileStore(db)
        profile = await store.get(caller.tenant, name)
        if profile.owner != caller.username and not caller.is_admin:
            raise Forbidden(f"only '{profile.owner}' and admins may delete the scheduler profile '{name}'")
        await store.remove(caller.tenant, name)
        await _audit(db, caller, "delete", name, ports.clock())


async def taken_by_system(db: Any, system: System, before: System | None = None) -> System:
    """``system`` with what the profile that it names says now; of one deleted since, what ``before`` had of it."""
    name = system.scheduler_profile_name
    if name is None:
        return replace(system, scheduler_profile=None)
    try:
        return replace(system, scheduler_profile=await SchedulerProfileStore(db).get(system.tenant, name))
    except NotFound:
        if before is not None and before.scheduler_profile_name == name:
            return replace(system, scheduler_profile=before.scheduler_profile)
        raise _unknown("batchSchedulerProfile", name) from None


async def taken_by_job(db: Any, tenant: str, spec: JobSpec) -> JobSpec:
    """``spec`` with the profile that its options name, in place of the option; the last one counts."""
    names = [option.value or "" for option in spec.scheduler_options if option.name == PROFILE]
    if not names:
        return spec
    try:
        profile = await SchedulerProfileStore(db).get(tenant, names[-1])
    except NotFound:
        raise _unknown(f"parameterSet.schedulerOptions {PROFILE}", names[-1]) from None
    others = tuple(option for option in spec.scheduler_options if option.name != PROFILE)
    return replace(spec, scheduler_options=others, scheduler_profile=profile)


def _wrong(where: str, load: ModuleLoad) -> Iterator[Problem]:
    if " ".join(load.command.split()) not in LOAD_COMMANDS:
        wrong = f"'{load.command[:80]}' is no command that loads modules"
        yield Problem(f"{where}.moduleLoadCommand", wrong, f"write one of: {', '.join(LOAD_COMMANDS)}")
    for at, module in enumerate(load.modules):
        if _MODULE.fullmatch(module) is None:
            wrong = f"'{module[:80]}' is not the name of a module"
            yield Problem(f"{where}.modulesToLoad[{at}]", wrong, "write it as the site lists it, as in apptainer/1.4")


def _unknown(field: str, name: str) -> SpecInvalid:
    return SpecInvalid.of(field, f"there is no scheduler profile '{name}'", "see GET /v3/systems/schedulerProfile")


async def _audit(db: Any, caller: Principal, what: str, name: str, at: Any) -> None:
    await AuditStore(db).add(caller.tenant, caller.username, f"schedulerProfile.{what}", name, {}, at)
