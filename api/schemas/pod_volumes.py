"""Volumes and snapshots of pods on the wire. Sizes are whole MB, rounded up."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, StrictInt

from api.schemas.base import Body, Line, View, showing
from api.schemas.pods import naive
from scheduler.model.pod_catalog import PodSnapshot, PodVolume
from scheduler.model.runs import FileInfo
from scheduler.model.units import zulu
from scheduler.pod_files import MIB

SizeLimit = Annotated[StrictInt, Field(ge=1, le=1024 * 1024)]
Description = Annotated[Line, Field(max_length=2048)]
Cron = Annotated[Line, Field(max_length=200)]
Policy = Annotated[Line, Field(max_length=40)]
Path = Annotated[Line, Field(max_length=1024)]
SHOWN = frozenset({"size", "status", "message", "system_id", "creation_ts", "update_ts"})


class NewVolume(Body):
    """A directory that pods share."""

    model_config = showing({"volume_id": "mydata", "description": "Our data", "size_limit": 2048})
    output_only: ClassVar[frozenset[str]] = SHOWN

    volume_id: Line
    description: Description = ""
    size_limit: SizeLimit = 1024


class UpdateVolume(Body):
    """What is to change of a volume."""

    output_only: ClassVar[frozenset[str]] = SHOWN | {"volume_id"}

    description: Description | None = None
    size_limit: SizeLimit | None = None

    def changes(self) -> dict[str, Any]:
        """What was said, by the names of the record."""
        return renamed(self.model_dump(exclude_none=True))


class NewSnapshot(Body):
    """Copies of a path of a volume: one, or one at each instant of ``cron`` (UTC)."""

    model_config = showing(
        {
            "snapshot_id": "nightly",
            "source_volume_id": "mydata",
            "source_volume_path": "/",
            "cron": "0 3 * * *",
            "retention_policy": "7",
        }
    )
    output_only: ClassVar[frozenset[str]] = SHOWN

    snapshot_id: Line
    source_volume_id: Line
    source_volume_path: Path
    destination_path: Path = ""
    description: Description = ""
    size_limit: SizeLimit = 1024
    cron: Cron = ""
    retention_policy: Policy = ""


class UpdateSnapshot(Body):
    """What is to change of a snapshot."""

    output_only: ClassVar[frozenset[str]] = SHOWN | {
        "snapshot_id",
        "source_volume_id",
        "source_volume_path",
        "destination_path",
    }

    description: Description | None = None
    size_limit: SizeLimit | None = None
    cron: Cron | None = None
    retention_policy: Policy | None = None

    def changes(self) -> dict[str, Any]:
        """What was said, by the names of the record."""
        return renamed(self.model_dump(exclude_none=True))


def renamed(said: dict[str, Any]) -> dict[str, Any]:
    """With the record's name for the limit."""
    return {"size_limit_mib" if name == "size_limit" else name: value for name, value in said.items()}


class VolumeView(View):
    volume_id: str
    description: str
    size_limit: int
    size: int
    status: str
    message: str
    system_id: str
    creation_ts: str
    update_ts: str

    @classmethod
    def of(cls, volume: PodVolume) -> VolumeView:
        return cls(
            volume_id=volume.id,
            description=volume.description,
            size_limit=volume.size_limit_mib,
            size=-(-volume.size_bytes // MIB),
            status=volume.status,
            message=volume.message,
            system_id=volume.system_id,
            creation_ts=str(naive(volume.created_at)),
            update_ts=str(naive(volume.updated_at)),
        )


class SnapshotView(View):
    snapshot_id: str
    source_volume_id: str
    source_volume_path: str
    destination_path: str
    description: str
    size_limit: int
    cron: str
    retention_policy: str
    size: int
    status: str
    message: str
    system_id: str
    creation_ts: str
    update_ts: str

    @classmethod
    def of(cls, snapshot: PodSnapshot) -> SnapshotView:
        return cls(
            snapshot_id=snapshot.id,
            source_volume_id=snapshot.source_volume_id,
            source_volume_path=snapshot.source_path,
            destination_path=snapshot.destination_path,
            description=snapshot.description,
            size_limit=snapshot.size_limit_mib,
            cron=snapshot.cron,
            retention_policy=snapshot.retention_policy,
            size=-(-snapshot.size_bytes // MIB),
            status=snapshot.status,
            message=snapshot.message,
            system_id=snapshot.system_id,
            creation_ts=str(naive(snapshot.created_at)),
            update_ts=str(naive(snapshot.updated_at)),
        )


class PodFileView(View):
    path: str
    name: str
    type: str
    size: int
    lastModified: str
    nativePermissions: str

    @classmethod
    def of(cls, path: str, info: FileInfo) -> PodFileView:
        return cls(
            path=path,
            name=info.name,
            type="file",
            size=info.size_bytes,
            lastModified=zulu(info.modified_at),
            nativePermissions=info.permissions,
        )
