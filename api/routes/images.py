"""Images: what they are and what they need."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.context import Caller, ThePorts
from api.envelope import Envelope, answer
from api.schemas.images import ImageView
from api.strict import StrictRoute
from images.reference import MOST_CHARACTERS
from scheduler.services import images

router = APIRouter(prefix="/v3/images", tags=["images"], route_class=StrictRoute)

ReferenceQuery = Annotated[str, Query(max_length=MOST_CHARACTERS, description="As in docs/images.md: python:3.12")]
PlatformQuery = Annotated[str, Query(max_length=64, description="Where it is to run: linux/amd64, linux/arm64")]
DeepQuery = Annotated[bool, Query(description="Fetch its layers and look at its files, where the operator allows it")]


@router.get("/inspect", operation_id="inspectImage", response_model=Envelope[ImageView])
async def inspect(
    ports: ThePorts,
    caller: Caller,
    reference: ReferenceQuery,
    platform: PlatformQuery = "linux/amd64",
    deep: DeepQuery = False,
) -> Response:
    """What an image is and what it needs, each need with its evidence; nothing is run."""
    found = await images.inspect(ports, caller, reference, platform, deep=deep)
    return answer(ImageView.of(found), "image inspected")
