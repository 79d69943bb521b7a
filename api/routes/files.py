"""Files of systems: list, send, fetch, move, delete."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from api.archives import zipped
from api.context import Caller, ThePorts
from api.downloads import members, streamed
from api.envelope import Envelope, answer, told
from api.lists import MOST_ITEMS
from api.schemas.base import Body, Directory
from api.schemas.jobs import FileView
from api.strict import StrictRoute
from api.uploads import described, form_of, pieces_of
from scheduler.model.errors import SpecInvalid
from scheduler.model.runs import FileKind
from scheduler.services import files

router = APIRouter(prefix="/v3/files", tags=["files"], route_class=StrictRoute)

SystemId = Annotated[str, Path(max_length=80)]
FilePath = Annotated[str, Path(max_length=4096)]
Asked = Annotated[int, Query(ge=-1, le=2_147_483_647)]
Skipped = Annotated[int, Query(ge=0, le=2_147_483_647)]
Pattern = Annotated[str, Query(max_length=0, description="Not supported; choose from what is listed")]


class NewDirectory(Body):
    path: Directory


class MoveOrCopy(Body):
    operation: Literal["MOVE", "COPY"]
    newPath: Directory


ACTS = {"MOVE": files.move, "COPY": files.copy}


@router.get("/ops/{systemId}", operation_id="listFilesOfRoot", response_model=Envelope[list[FileView]])
@router.get("/ops/{systemId}/{path:path}", operation_id="listFiles", response_model=Envelope[list[FileView]])
async def list_files(
    ports: ThePorts,
    caller: Caller,
    systemId: SystemId,
    path: str = "",
    pattern: Pattern = "",
    limit: Asked = 1000,
    offset: Skipped = 0,
    recurse: bool = False,
) -> Response:
    """The entries of a directory by name, or the one file; with ``recurse`` everything below."""
    where = await files.place(ports, caller, systemId, path)
    most = limit if 0 < limit <= MOST_ITEMS else MOST_ITEMS
    found = await files.entries(where, most, offset, recurse=recurse)
    metadata: dict[str, Any] = {"recordCount": len(found), "recordLimit": limit, "recordsSkipped": offset}
    return answer([FileView.of(each, systemId) for each in found], "FILES_LISTED", metadata=metadata)


@router.post("/ops/{systemId}", operation_id="mkdir", response_model=Envelope[str])
async def mkdir(ports: ThePorts, caller: Caller, systemId: SystemId, body: NewDirectory) -> Response:
    """Make a directory and those above it; already there is success."""
    await files.make_directory(await files.place(ports, caller, systemId, body.path))
    return told(f"directory '{body.path}' made")


@router.post(
    "/ops/{systemId}/{path:path}",
    operation_id="insert",
    response_model=Envelope[str],
    openapi_extra=dict(described()),
)
async def insert(request: Request, ports: ThePorts, caller: Caller, systemId: SystemId, path: FilePath) -> Response:
    """Write a file, seen under its name only when complete; directories above it are made."""
    where = await files.place(ports, caller, systemId, path)
    file, _ = await form_of(request)
    return told(f"{await files.write(where, pieces_of(file))} bytes written to '{path}'")


@router.put("/ops/{systemId}/{path:path}", operation_id="moveCopy", response_model=Envelope[str])
async def move_or_copy(
    ports: ThePorts, caller: Caller, systemId: SystemId, path: FilePath, body: MoveOrCopy
) -> Response:
    """Move or copy a file or a tree on its system."""
    await ACTS[body.operation](await files.place(ports, caller, systemId, path), body.newPath)
    return told(f"{body.operation} of '{path}' to '{body.newPath}' done")


@router.delete("/ops/{systemId}/{path:path}", operation_id="delete", response_model=Envelope[str])
async def delete(ports: ThePorts, caller: Caller, systemId: SystemId, path: FilePath) -> Response:
    """Delete a file or a tree; never the root directory."""
    await files.delete(await files.place(ports, caller, systemId, path))
    return told(f"'{path}' deleted")


@router.get("/content/{systemId}/{path:path}", operation_id="getContents", response_model=None)
async def get_contents(
    ports: ThePorts,
    caller: Caller,
    systemId: SystemId,
    path: FilePath,
    as_zip: Annotated[bool, Query(alias="zip", description="As a zip archive; the way to fetch a directory")] = False,
) -> Response:
    """A file's bytes, or a zip archive."""
    where = await files.place(ports, caller, systemId, path)
    info = await where.storage.stat(where.path)
    name = info.name or systemId
    if as_zip:
        return streamed(zipped(members(where.storage, where.path, info), where.storage.read), f"{name}.zip")
    if info.kind is not FileKind.FILE:
        raise SpecInvalid.of("path", f"is no file but of type '{info.kind}'", "send zip=true for a directory")
    return streamed(where.storage.read(where.path), name)
