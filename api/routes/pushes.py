"""Images that users give to Berth as files."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from api.context import Caller, ThePorts
from api.envelope import Envelope, answer
from api.lists import Listing, listing, selected
from api.schemas.base import FileName
from api.schemas.pushes import FIELDS, PushedView
from api.strict import StrictRoute
from scheduler.services import pushes

router = APIRouter(prefix="/v3/images/files", tags=["images"], route_class=StrictRoute)

Digest = Annotated[str, Path(max_length=100, description="sha256: and 64 digits, of the file's bytes")]
Name = Annotated[FileName | None, Query(description="What people call it")]

BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


@router.get("", operation_id="getPushedImages", response_model=Envelope[list[dict[str, Any]]])
async def list_pushed(ports: ThePorts, caller: Caller, asked: Annotated[Listing, Depends(listing)]) -> Response:
    """The files that the caller pushed."""
    found = await pushes.list_pushed(ports, caller, asked.page(FIELDS), total=asked.compute_total)
    views = [PushedView.of(each).model_dump() for each in found.items[: asked.most]]
    items = [selected(view, asked.select, tuple(view)) for view in views]
    return answer(items, "files found", metadata=asked.metadata(len(found.items), found.total))


@router.get("/{digest}", operation_id="getPushedImage", response_model=Envelope[PushedView])
async def get_pushed(ports: ThePorts, caller: Caller, digest: Digest) -> Response:
    """One of them, if the caller pushed it and it is there."""
    return answer(PushedView.of(await pushes.get(ports, caller, digest)), "file found")


@router.put(
    "/{digest}", operation_id="pushImage", response_model=Envelope[PushedView], openapi_extra={"requestBody": BYTES}
)
async def push(request: Request, ports: ThePorts, caller: Caller, digest: Digest, name: Name = None) -> Response:
    """Keep a SIF, an OCI archive or an archive of docker save, sent as it is, for the jobs of the caller alone."""
    said = request.headers.get("content-length", "")
    said_bytes = int(said) if said.isdecimal() and len(said) < 19 else None
    image = await pushes.push(ports, caller, digest, name or "", request.stream(), said_bytes)
    return answer(PushedView.of(image), "file kept")


@router.delete("/{digest}", operation_id="removePushedImage", response_model=Envelope[dict[str, Any]])
async def remove(ports: ThePorts, caller: Caller, digest: Digest) -> Response:
    """Forget a file that the caller pushed."""
    await pushes.remove(ports, caller, digest)
    return answer({"changes": 1}, "file removed")
