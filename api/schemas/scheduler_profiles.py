"""Scheduler profiles on the wire."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from api.schemas.base import Body, Id, Line, Text, UserName, View, showing
from scheduler.model.scheduler_profiles import HiddenOption, ModuleLoad, SchedulerProfile
from scheduler.model.units import zulu

EXAMPLE = {
    "name": "cedar-apptainer",
    "description": "Apptainer is a module on cedar, and memory goes with the cores",
    "moduleLoads": [{"moduleLoadCommand": "module load", "modulesToLoad": ["apptainer/1.4"]}],
    "hiddenOptions": ["MEM"],
}


class ModuleLoadBody(Body):
    """A command that loads modules, called once for each of them."""

    moduleLoadCommand: Annotated[Line, Field(min_length=1, max_length=80)]
    modulesToLoad: Annotated[list[Line], Field(max_length=50)] | None = None


class SchedulerProfileBody(Body):
    """A new profile; it cannot be changed later."""

    model_config = showing(EXAMPLE)
    output_only: ClassVar[frozenset[str]] = frozenset({"tenant", "uuid", "created", "updated"})

    name: Id
    description: Text | None = None
    owner: UserName | None = None
    moduleLoads: Annotated[list[ModuleLoadBody], Field(max_length=20)] | None = None
    hiddenOptions: Annotated[list[HiddenOption], Field(max_length=10)] | None = None

    def to_profile(self, tenant: str, caller: str) -> SchedulerProfile:
        """The profile that is meant; the caller's where no owner is named."""
        return SchedulerProfile(
            tenant=tenant,
            name=self.name,
            owner=self.owner or caller,
            description=self.description or "",
            module_loads=tuple(
                ModuleLoad(load.moduleLoadCommand, tuple(load.modulesToLoad or ())) for load in self.moduleLoads or ()
            ),
            hidden_options=tuple(dict.fromkeys(self.hiddenOptions or ())),
        )


class SchedulerProfileView(View):
    tenant: str
    name: str
    owner: str
    description: str
    moduleLoads: list[dict[str, Any]]
    hiddenOptions: list[HiddenOption]
    created: str | None

    @classmethod
    def of(cls, profile: SchedulerProfile) -> SchedulerProfileView:
        return cls(
            tenant=profile.tenant,
            name=profile.name,
            owner=profile.owner,
            description=profile.description,
            moduleLoads=[
                {"moduleLoadCommand": load.command, "modulesToLoad": list(load.modules)}
                for load in profile.module_loads
            ],
            hiddenOptions=list(profile.hidden_options),
            created=zulu(profile.created_at) if profile.created_at else None,
        )
