"""Scheduler profiles: what sites want of jobs, by name."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.context import BaseUrl, Caller, MayRepeat, ThePorts
from api.envelope import Changes, Envelope, Url, answer
from api.schemas.scheduler_profiles import SchedulerProfileBody, SchedulerProfileView
from api.strict import StrictRoute
from scheduler.services import scheduler_profiles

router = APIRouter(prefix="/v3/systems/schedulerProfile", tags=["systems"], route_class=StrictRoute)

Name = Annotated[str, Path(max_length=80)]


@router.get("", operation_id="getSchedulerProfiles", response_model=Envelope[list[SchedulerProfileView]])
async def list_profiles(ports: ThePorts, caller: Caller) -> Response:
    """All of the tenant, by name."""
    found = await scheduler_profiles.profiles(ports, caller)
    return answer([SchedulerProfileView.of(each) for each in found], f"{len(found)} scheduler profiles")


@router.post("", operation_id="createSchedulerProfile", status_code=201, response_model=Envelope[Url])
async def create_profile(
    ports: ThePorts, caller: Caller, base_url: BaseUrl, body: SchedulerProfileBody, repeatable: MayRepeat
) -> Response:
    """Make a profile: modules to load before each job, and options that the site refuses. It cannot be changed."""
    profile = body.to_profile(caller.tenant, caller.username)
    name = await scheduler_profiles.create(ports, caller, profile, repeatable)
    url = f"{base_url}/v3/systems/schedulerProfile/{name}"
    return answer({"url": url}, f"scheduler profile '{name}' created", status_code=201, headers={"Location": url})


@router.get("/{name}", operation_id="getSchedulerProfile", response_model=Envelope[SchedulerProfileView])
async def get_profile(ports: ThePorts, caller: Caller, name: Name) -> Response:
    """One profile."""
    found = await scheduler_profiles.get(ports, caller, name)
    return answer(SchedulerProfileView.of(found), f"scheduler profile '{name}' found")


@router.delete("/{name}", operation_id="deleteSchedulerProfile", response_model=Envelope[Changes])
async def delete_profile(ports: ThePorts, caller: Caller, name: Name) -> Response:
    """Forget a profile; systems and jobs that took it go on with what it said."""
    await scheduler_profiles.remove(ports, caller, name)
    return answer({"changes": 1}, f"scheduler profile '{name}' deleted")
