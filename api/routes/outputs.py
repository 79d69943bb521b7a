"""What a job wrote: listing, download, logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.archives import ARCHIVES, Archive
from api.context import Caller, TheEdge, ThePorts
from api.downloads import members, streamed
from api.envelope import Envelope, answer
from api.lists import MOST_ITEMS
from api.schemas.base import View
from api.schemas.jobs import FileView
from api.strict import StrictRoute
from scheduler.model.errors import BerthError, SpecInvalid
from scheduler.model.runs import FileKind
from scheduler.model.users import Principal
from scheduler.services import outputs

router = APIRouter(prefix="/v3/jobs/{jobUuid}", tags=["jobs"], route_class=StrictRoute)

HEARTBEAT_S = 15.0
"""A followed log says something at least so often, so that proxies keep it open."""


class LogView(View):
    data: str
    offset: int
    nextOffset: int
    complete: bool


@router.get("/output/list", operation_id="getJobOutputListRoot", response_model=Envelope[list[FileView]])
@router.get("/output/list/{outputPath:path}", operation_id="getJobOutputList", response_model=Envelope[list[FileView]])
async def list_output(
    ports: ThePorts,
    caller: Caller,
    jobUuid: str,
    outputPath: str = "",
    limit: Annotated[int, Query(ge=-1, le=2_147_483_647)] = 1000,
    skip: Annotated[int, Query(ge=0, le=2_147_483_647)] = 0,
    allowIfRunning: bool = False,
) -> Response:
    """The files in a directory of the job's output."""
    _, output = await outputs.find(ports, caller, jobUuid, outputPath, while_running=allowIfRunning)
    most = limit if 0 < limit <= MOST_ITEMS else MOST_ITEMS
    files = await output.entries(most + 1, skip)
    metadata: dict[str, Any] = {"recordCount": min(len(files), most), "recordLimit": limit, "recordsSkipped": skip}
    if len(files) > most:
        metadata["berth"] = {"next": {"skip": skip + most, "limit": limit}}
    items = [FileView.of(file, output.where.system_id) for file in files[:most]]
    return answer(items, "JOBS_OUTPUT_LISTED", metadata=metadata)


DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The file, or an archive of a directory"}
}


@router.get("/output/download", operation_id="getJobOutputDownloadRoot", responses=DOWNLOAD, response_class=Response)
@router.get(
    "/output/download/{outputPath:path}",
    operation_id="getJobOutputDownload",
    responses=DOWNLOAD,
    response_class=Response,
)
async def download(
    ports: ThePorts,
    caller: Caller,
    jobUuid: str,
    outputPath: str = "",
    compress: bool = False,
    format: Literal["zip", "tgz"] = "zip",
    allowIfRunning: bool = False,
) -> Response:
    """A file as it is; a directory, or anything with ``compress=true``, as zip or tgz."""
    _, output = await outputs.find(ports, caller, jobUuid, outputPath, while_running=allowIfRunning)
    name = output.info.name or jobUuid
    if output.info.kind is FileKind.FILE and not compress:
        headers = {"Content-Length": str(output.info.size_bytes)} if not allowIfRunning else {}
        return streamed(output.read(), name, headers)
    return streamed(_packed(output, ARCHIVES[format]), f"{name}.{format}")


async def _packed(output: outputs.Output, archive: Archive) -> AsyncIterator[bytes]:
    async with output.opened() as (storage, path):
        async for piece in archive(members(storage, path, output.info), storage.read):
            yield piece


@router.get("/logs", operation_id="getJobLogs", response_model=Envelope[LogView])
async def logs(
    request: Request,
    edge: TheEdge,
    caller: Caller,
    jobUuid: str,
    stream: Literal["stdout", "stderr"] = "stdout",
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
    task: Annotated[int | None, Query(ge=0, le=2**31, description="Whose log, where the job is an array")] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """A piece of a log from an offset (bytes) on; with ``Accept: text/event-stream``, the log as it grows.

    Events carry the next offset as ``id`` and ``{data, offset}`` as data; the event ``end`` says how the job ended.
    """
    if "text/event-stream" in request.headers.get("accept", ""):
        begin = _offset(last_event_id, offset)
        await outputs.log(edge.ports, caller, jobUuid, stream, begin, task)
        events = _events(edge, caller, jobUuid, stream, begin, task)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    _, piece = await outputs.log(edge.ports, caller, jobUuid, stream, offset, task)
    result = {
        "data": piece.data,
        "offset": piece.offset_bytes,
        "nextOffset": piece.next_offset_bytes,
        "complete": piece.complete,
    }
    return answer(result, "JOBS_LOG_READ")


async def _events(
    edge: TheEdge, caller: Principal, uuid: str, stream: str, offset_bytes: int, task: int | None
) -> AsyncIterator[bytes]:
    """A log as server-sent events. A system that does not answer is waited for; the client sees heartbeats."""
    quiet_s = 0.0
    while True:
        try:
            job, piece = await outputs.log(edge.ports, caller, uuid, stream, offset_bytes, task)
        except BerthError as error:
            yield b": " + str(error).replace("\n", " ").replace("\r", " ").encode() + b"\n\n"
        else:
            if piece.data:
                quiet_s, offset_bytes = 0.0, piece.next_offset_bytes
                data = orjson.dumps({"data": piece.data, "offset": piece.offset_bytes})
                yield b"id: %d\ndata: %s\n\n" % (offset_bytes, data)
            if piece.complete:
                yield b"event: end\ndata: %s\n\n" % orjson.dumps({"status": job.state, "condition": job.condition})
                return
            if piece.data:
                continue
        await asyncio.sleep(edge.options.log_poll_s)
        quiet_s += edge.options.log_poll_s
        if quiet_s >= HEARTBEAT_S:
            quiet_s = 0.0
            yield b": still here\n\n"


def _offset(last_event_id: str | None, offset: int) -> int:
    if last_event_id is None:
        return offset
    if not last_event_id.isdecimal() or int(last_event_id) > 2**53:
        raise SpecInvalid.of("Last-Event-ID", "is not an offset", "send back the id of the last event")
    return int(last_event_id)
