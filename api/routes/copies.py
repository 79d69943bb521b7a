"""Copies of images on systems: list them, have one brought, keep it, remove it, make room."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response

from api.context import Caller, ThePorts
from api.envelope import Envelope, answer
from api.lists import Listing, listing, selected
from api.schemas.copies import FIELDS, SUMMARY, CollectBody, CollectedView, CopyView, StageBody
from api.strict import StrictRoute
from scheduler.services import copies

router = APIRouter(prefix="/v3/images", tags=["images"], route_class=StrictRoute)

CopyId = Annotated[int, Path(ge=1, le=2**63 - 1, description="As GET /v3/images lists it")]


@router.get("", operation_id="getImages", response_model=Envelope[list[dict[str, Any]]])
async def list_copies(ports: ThePorts, caller: Caller, asked: Annotated[Listing, Depends(listing)]) -> Response:
    """Images in the stores of systems or on their way there: those that the caller's jobs would use, and all on the
    caller's own systems."""
    found = await copies.list_copies(ports, caller, asked.page(FIELDS), total=asked.compute_total)
    views = [CopyView.of(each.copy, each.waiting_count) for each in found.items[: asked.most]]
    items = [selected(view.model_dump(), asked.select, SUMMARY) for view in views]
    return answer(items, "images found", metadata=asked.metadata(len(found.items), found.total))


@router.post("/stage", operation_id="stageImage", response_model=Envelope[list[CopyView]])
async def stage(ports: ThePorts, caller: Caller, body: StageBody) -> Response:
    """Have an image brought to systems before a job asks for it. It may be sent again: what is there, stays."""
    found = await copies.stage(ports, caller, body.reference, body.systems)
    return answer([CopyView.of(copy) for copy in found], f"staged on {len(found)} systems")


@router.post("/gc", operation_id="collectImages", response_model=Envelope[CollectedView])
async def collect(ports: ThePorts, caller: Caller, body: CollectBody) -> Response:
    """Make room in the caller's store on a system: images that nobody needs go where it is fuller than it should."""
    done = await copies.collect(ports, caller, body.systemId)
    return answer(CollectedView.of(done), f"{len(done.trashed)} images let go")


@router.get("/{imageId:int}", operation_id="getImage", response_model=Envelope[CopyView])
async def get_copy(ports: ThePorts, caller: Caller, imageId: CopyId) -> Response:
    """One image on one system, and who uses it."""
    used = await copies.get(ports, caller, imageId)
    return answer(CopyView.of(used.copy, used.waiting_count, used.jobs_count, used.own_jobs), "image found")


@router.delete("/{imageId:int}", operation_id="removeImage", response_model=Envelope[dict[str, Any]])
async def remove(ports: ThePorts, caller: Caller, imageId: CopyId) -> Response:
    """Let one image go from a system now, where no job may still read it. Those who may: the user of that store, and
    the owner of the system."""
    await copies.remove(ports, caller, imageId)
    return answer({"changes": 1}, "image removed")


@router.post("/{imageId:int}/pin", operation_id="pinImage", response_model=Envelope[CopyView])
async def pin(ports: ThePorts, caller: Caller, imageId: CopyId) -> Response:
    """Keep it on the system though no job uses it."""
    return answer(CopyView.of(await copies.pin(ports, caller, imageId, pinned=True)), "image pinned")


@router.post("/{imageId:int}/unpin", operation_id="unpinImage", response_model=Envelope[CopyView])
async def unpin(ports: ThePorts, caller: Caller, imageId: CopyId) -> Response:
    """Let it go when nobody uses it and room is needed."""
    return answer(CopyView.of(await copies.pin(ports, caller, imageId, pinned=False)), "image unpinned")
