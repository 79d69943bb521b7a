"""What a site wants of every job that its batch scheduler starts: modules to load, and options to leave out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class HiddenOption(StrEnum):
    """An option that Berth would set, but that the site's scheduler refuses."""

    MEM = "MEM"
    PARTITION = "PARTITION"


@dataclass(frozen=True, slots=True)
class ModuleLoad:
    """A command of the site's module system, given each of ``modules`` in turn; by itself where there are none."""

    command: str
    modules: tuple[str, ...] = ()

    @property
    def calls(self) -> tuple[tuple[str, ...], ...]:
        """The words of each call."""
        words = tuple(self.command.split())
        return tuple((*words, module) for module in self.modules) or (words,)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerProfile:
    """A named profile of a tenant. It never changes: systems and jobs keep what it said when they took it."""

    tenant: str
    name: str
    owner: str
    description: str = ""
    module_loads: tuple[ModuleLoad, ...] = ()
    hidden_options: tuple[HiddenOption, ...] = ()
    created_at: datetime | None = None
