"""What stands around pods: who may do what with them, templates, the list of allowed images, volumes, snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any


class PodLevel(IntEnum):
    """What a user may do with a pod or what stands around it; each level holds those below."""

    READ = 1
    USER = 2
    ADMIN = 3


class PodKind(StrEnum):
    """Of what permissions are granted."""

    POD = "pod"
    TEMPLATE = "template"
    VOLUME = "volume"
    SNAPSHOT = "snapshot"


EVERYONE = frozenset({"*", "TENANT"})
"""Names in a grant that stand for every user of the tenant. Tenants never see each other, so both mean the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTemplate:
    """A name under which definitions of pods are kept. is_built_in: it comes with Berth, and nobody changes it."""

    tenant: str
    id: str
    owner: str
    description: str = ""
    metatags: tuple[str, ...] = ()
    archive_message: str = ""
    is_built_in: bool = False
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateTag:
    """One definition under a tag of a template. A tag that is set again keeps what it was; the newest counts.

    definition: fields of a pod in the wire's words, checked; what it leaves out comes from the template it names.
    is_stateful: whether pods of it may have one writer only; None: as the template below says, else they may not.
    """

    tenant: str
    template_id: str
    tag: str
    definition: Mapping[str, Any]
    commit_message: str
    added_by: str
    created_at: datetime
    is_stateful: bool | None = None

    @property
    def tag_timestamp(self) -> str:
        """``<tag>@<instant>``, which names this definition alone."""
        return f"{self.tag}@{self.created_at:%Y-%m-%d-%H:%M:%S}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedImage:
    """An image that pods may run, by its name without a tag. tenants: ``*`` or ``**``: all; ``-name``: not this one."""

    tenant: str
    image: str
    tenants: tuple[str, ...]
    description: str = ""
    added_by: str = ""
    created_at: datetime

    def serves(self, tenant: str) -> bool:
        """Whether pods of ``tenant`` may run it."""
        named = set(self.tenants)
        return f"-{tenant}" not in named and not named.isdisjoint({tenant, "*", "**"})


class FilesStatus(StrEnum):
    """Where the files of a volume or a snapshot stand."""

    REQUESTED = "REQUESTED"
    """They are being made."""
    AVAILABLE = "AVAILABLE"
    DELETING = "DELETING"
    """They are being deleted; then the name is free again."""
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodVolume:
    """A directory that pods share. ``uuid`` names its files: a later volume of the same name has others.

    system_id, login_owner, directory: where its files lie, since a pod was placed that mounts it: on which system, by
    whose login they are reached, and where below the system's root directory. Empty: with Berth. moved_at: when they
    were there, whole; until then they are with Berth, and nothing is written.
    """

    tenant: str
    id: str
    uuid: str
    owner: str
    description: str = ""
    size_limit_mib: int = 1024
    size_bytes: int = 0
    status: FilesStatus = FilesStatus.REQUESTED
    message: str = ""
    system_id: str = ""
    login_owner: str = ""
    directory: str = ""
    moved_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    version: int = 0

    @property
    def is_on_its_way(self) -> bool:
        """Whether its files are to be brought to their system."""
        return bool(self.system_id) and self.moved_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSnapshot:
    """Copies of a path of a volume: one, or one at each instant of ``cron`` (UTC). ``uuid`` as of a volume.

    destination_path: where the copy lies in it. retention_policy: which copies of ``cron`` are kept.
    next_at: when the next copy is due; None: none is. Where its files lie is said as of a volume.
    """

    tenant: str
    id: str
    uuid: str
    owner: str
    source_volume_id: str
    source_path: str
    destination_path: str = ""
    description: str = ""
    size_limit_mib: int = 1024
    cron: str = ""
    retention_policy: str = ""
    size_bytes: int = 0
    status: FilesStatus = FilesStatus.REQUESTED
    message: str = ""
    next_at: datetime | None = None
    system_id: str = ""
    login_owner: str = ""
    directory: str = ""
    moved_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    version: int = 0

    @property
    def is_on_its_way(self) -> bool:
        """As of a volume."""
        return bool(self.system_id) and self.moved_at is None


PodFilesOf = PodVolume | PodSnapshot
"""What has files of its own that pods mount."""


def files_name(one: PodFilesOf) -> str:
    """What it is and its name, for people."""
    return f"{'volume' if isinstance(one, PodVolume) else 'snapshot'} '{one.id}'"
