"""Images: what they are and what they need."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.context import Caller, ThePorts
from api.envelope import Envelope, answer
from api.schemas.base import Id
from api.schemas.images import ImageView
from api.schemas.verdicts import JudgedView
from api.strict import StrictRoute
from images.findings import MatchPolicy
from images.reference import MOST_CHARACTERS
from scheduler.services import images, verdicts

router = APIRouter(prefix="/v3/images", tags=["images"], route_class=StrictRoute)

ReferenceQuery = Annotated[str, Query(max_length=MOST_CHARACTERS, description="As in docs/images.md: python:3.12")]
SystemQuery = Annotated[Id | None, Query(description="Left out: all where the caller may run jobs")]
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


@router.get("/why", operation_id="whyImage", response_model=Envelope[JudgedView])
async def why(
    ports: ThePorts,
    caller: Caller,
    reference: ReferenceQuery,
    systemId: SystemQuery = None,
    nodes: Annotated[int, Query(ge=1, le=100_000, description="On how many nodes a job would run it")] = 1,
    mpi: Annotated[bool, Query(description="Whether it would be started as an MPI program")] = False,
    gpus: Annotated[bool | None, Query(description="Whether it would ask for GPUs")] = None,
) -> Response:
    """Where an image runs and where not, by class of nodes, each finding with its evidence."""
    wants = MatchPolicy(wants_gpus=gpus, wants_mpi=mpi, nodes=nodes)
    judged = await verdicts.why(ports, caller, reference, systemId, wants)
    return answer(JudgedView.of(judged), "image judged")
