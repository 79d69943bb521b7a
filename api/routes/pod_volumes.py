"""Volumes of pods and snapshots of volumes, and the files in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.archives import zipped
from api.context import Caller, ThePorts
from api.envelope import Envelope, answer, told
from api.permissions import permission_routes
from api.schemas.pod_volumes import (
    NewSnapshot,
    NewVolume,
    PodFileView,
    SnapshotView,
    UpdateSnapshot,
    UpdateVolume,
    VolumeView,
)
from api.strict import StrictRoute
from api.uploads import described, form_of, pieces_of, said_bytes
from scheduler.model.errors import SpecInvalid
from scheduler.model.pod_catalog import PodKind, PodLevel, PodSnapshot, PodVolume
from scheduler.model.runs import FileKind
from scheduler.ports import Ports
from scheduler.services import pod_volumes

router = APIRouter(prefix="/v3/pods", tags=["pods"], route_class=StrictRoute)

VolumeId = Annotated[str, Path(max_length=120)]
SnapshotId = Annotated[str, Path(max_length=120)]
FilePath = Annotated[str, Path(max_length=4096)]
Zip = Annotated[bool, Query(alias="zip", description="As a zip archive; directories can be had in no other way")]


@router.get("/volumes", operation_id="list_volumes", response_model=Envelope[list[VolumeView]])
async def list_volumes(ports: ThePorts, caller: Caller) -> Response:
    """The volumes that the caller may READ."""
    return answer([VolumeView.of(each) for each in await pod_volumes.list_volumes(ports, caller)], "volumes found")


@router.post("/volumes", operation_id="create_volume", response_model=Envelope[VolumeView])
async def create_volume(ports: ThePorts, caller: Caller, body: NewVolume) -> Response:
    """Make a directory that pods may share."""
    volume = await pod_volumes.create_volume(
        ports, caller, body.volume_id, description=body.description, size_limit_mib=body.size_limit
    )
    return answer(VolumeView.of(volume), f"volume '{volume.id}' created")


@router.get("/volumes/{volume_id}", operation_id="get_volume", response_model=Envelope[VolumeView])
async def get_volume(ports: ThePorts, caller: Caller, volume_id: VolumeId) -> Response:
    """A volume. READ."""
    return answer(VolumeView.of(await pod_volumes.get_volume(ports, caller, volume_id)), "volume found")


@router.put("/volumes/{volume_id}", operation_id="update_volume", response_model=Envelope[VolumeView])
async def update_volume(ports: ThePorts, caller: Caller, volume_id: VolumeId, body: UpdateVolume) -> Response:
    """Change a volume's description or limit. USER."""
    newer = await pod_volumes.update_volume(ports, caller, volume_id, body.changes())
    return answer(VolumeView.of(newer), f"volume '{volume_id}' changed")


@router.delete("/volumes/{volume_id}", operation_id="delete_volume", response_model=Envelope[str])
async def delete_volume(ports: ThePorts, caller: Caller, volume_id: VolumeId) -> Response:
    """Delete a volume and its files; 409 while a pod has it. ADMIN."""
    await pod_volumes.remove_volume(ports, caller, volume_id)
    return told(f"volume '{volume_id}' is being deleted")


@router.get("/volumes/{volume_id}/list", operation_id="list_volume_files", response_model=Envelope[list[PodFileView]])
async def list_volume_files(ports: ThePorts, caller: Caller, volume_id: VolumeId) -> Response:
    """Every file of a volume. READ."""
    return await _listed(ports, await pod_volumes.get_volume(ports, caller, volume_id))


@router.get("/volumes/{volume_id}/contents", response_model=None, include_in_schema=False)
async def get_whole_volume(ports: ThePorts, caller: Caller, volume_id: VolumeId, as_zip: Zip = False) -> Response:
    """The path as clients write the root: as nothing."""
    return await get_volume_contents(ports, caller, volume_id, "", as_zip)


@router.get("/volumes/{volume_id}/contents/{path:path}", operation_id="get_volume_contents", response_model=None)
async def get_volume_contents(
    ports: ThePorts, caller: Caller, volume_id: VolumeId, path: FilePath, as_zip: Zip = False
) -> Response:
    """A file's bytes, or a zip archive. USER."""
    return await _contents(
        ports, await pod_volumes.get_volume(ports, caller, volume_id, PodLevel.USER), path, as_zip=as_zip
    )


@router.post(
    "/volumes/{volume_id}/upload/{path:path}",
    operation_id="upload_to_volume",
    response_model=Envelope[str],
    openapi_extra=dict(described()),
)
async def upload_to_volume(
    request: Request, ports: ThePorts, caller: Caller, volume_id: VolumeId, path: FilePath
) -> Response:
    """Write a file into a volume, as far as its limit lets. USER."""
    await pod_volumes.get_volume(ports, caller, volume_id, PodLevel.USER)
    file, _ = await form_of(request)
    written_bytes = await pod_volumes.upload(ports, caller, volume_id, path, pieces_of(file), said_bytes(request))
    return told(f"{written_bytes} bytes written to '{path}'")


permission_routes(router, PodKind.VOLUME, "/volumes/{name}")


@router.get("/snapshots", operation_id="list_snapshots", response_model=Envelope[list[SnapshotView]])
async def list_snapshots(ports: ThePorts, caller: Caller) -> Response:
    """The snapshots that the caller may READ."""
    found = await pod_volumes.list_snapshots(ports, caller)
    return answer([SnapshotView.of(each) for each in found], "snapshots found")


@router.post("/snapshots", operation_id="create_snapshot", response_model=Envelope[SnapshotView])
async def create_snapshot(ports: ThePorts, caller: Caller, body: NewSnapshot) -> Response:
    """Copy a path of a volume: soon, and then at each instant of ``cron``. USER on the volume."""
    asked = partial(pod_volumes.new_snapshot, ports, caller, body.snapshot_id, body.source_volume_id)
    snapshot = await pod_volumes.create_snapshot(
        ports,
        caller,
        asked(
            source_path=body.source_volume_path,
            destination_path=body.destination_path,
            description=body.description,
            size_limit_mib=body.size_limit,
            cron=body.cron,
            retention_policy=body.retention_policy,
        ),
    )
    return answer(SnapshotView.of(snapshot), f"snapshot '{snapshot.id}' is asked for")


@router.get("/snapshots/{snapshot_id}", operation_id="get_snapshot", response_model=Envelope[SnapshotView])
async def get_snapshot(ports: ThePorts, caller: Caller, snapshot_id: SnapshotId) -> Response:
    """A snapshot. READ."""
    return answer(SnapshotView.of(await pod_volumes.get_snapshot(ports, caller, snapshot_id)), "snapshot found")


@router.put("/snapshots/{snapshot_id}", operation_id="update_snapshot", response_model=Envelope[SnapshotView])
async def update_snapshot(ports: ThePorts, caller: Caller, snapshot_id: SnapshotId, body: UpdateSnapshot) -> Response:
    """Change a snapshot's schedule, limit or what is kept. USER."""
    newer = await pod_volumes.update_snapshot(ports, caller, snapshot_id, body.changes())
    return answer(SnapshotView.of(newer), f"snapshot '{snapshot_id}' changed")


@router.delete("/snapshots/{snapshot_id}", operation_id="delete_snapshot", response_model=Envelope[str])
async def delete_snapshot(ports: ThePorts, caller: Caller, snapshot_id: SnapshotId) -> Response:
    """Delete a snapshot and all its copies; 409 while a pod has it. ADMIN."""
    await pod_volumes.remove_snapshot(ports, caller, snapshot_id)
    return told(f"snapshot '{snapshot_id}' is being deleted")


@router.get(
    "/snapshots/{snapshot_id}/list", operation_id="list_snapshot_files", response_model=Envelope[list[PodFileView]]
)
async def list_snapshot_files(ports: ThePorts, caller: Caller, snapshot_id: SnapshotId) -> Response:
    """Every file of every copy. READ."""
    return await _listed(ports, await pod_volumes.get_snapshot(ports, caller, snapshot_id))


@router.get("/snapshots/{snapshot_id}/contents", response_model=None, include_in_schema=False)
async def get_whole_snapshot(ports: ThePorts, caller: Caller, snapshot_id: SnapshotId, as_zip: Zip = False) -> Response:
    """The path as clients write the root: as nothing."""
    return await get_snapshot_contents(ports, caller, snapshot_id, "", as_zip)


@router.get("/snapshots/{snapshot_id}/contents/{path:path}", operation_id="get_snapshot_contents", response_model=None)
async def get_snapshot_contents(
    ports: ThePorts, caller: Caller, snapshot_id: SnapshotId, path: FilePath, as_zip: Zip = False
) -> Response:
    """A file's bytes, or a zip archive. USER."""
    return await _contents(
        ports, await pod_volumes.get_snapshot(ports, caller, snapshot_id, PodLevel.USER), path, as_zip=as_zip
    )


permission_routes(router, PodKind.SNAPSHOT, "/snapshots/{name}")


async def _listed(ports: Ports, one: PodVolume | PodSnapshot) -> Response:
    found = await pod_volumes.files(ports, one)
    return answer([PodFileView.of(path, info) for path, info in found], "files found")


async def _contents(ports: Ports, one: PodVolume | PodSnapshot, path: str, *, as_zip: bool) -> Response:
    found = await pod_volumes.find(ports, one, path)
    name = found.info.name or one.id
    if as_zip:
        pieces = zipped(pod_volumes.members(ports, found), partial(pod_volumes.read, ports, found))
        return _stream(pieces, f"{name}.zip")
    if found.info.kind is not FileKind.FILE:
        raise SpecInvalid.of("path", "is a directory", "send zip=true")
    return _stream(pod_volumes.read(ports, found), name)


def _stream(pieces: AsyncIterator[bytes], name: str) -> Response:
    disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    headers = {"Content-Disposition": disposition}
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)
