"""Where jobs would go, and why they go where they go."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.context import Caller, ThePorts
from api.envelope import Envelope, answer
from api.schemas.jobs import JobSubmit
from api.schemas.placement import WhyView
from api.strict import StrictRoute
from scheduler.services import jobs

router = APIRouter(tags=["placement"], route_class=StrictRoute)


@router.post("/v3/placement/plan", operation_id="planJob", response_model=Envelope[WhyView])
async def plan(request: Request, ports: ThePorts, caller: Caller, body: JobSubmit) -> Response:
    """Where this job would go now, what it may expect there, and why not elsewhere. Nothing is stored."""
    decision = await jobs.plan(ports, caller, body.to_request(await request.json()))
    view = WhyView.of(decision)
    return answer(view, view.sentence or "planned")


@router.get("/v3/jobs/{jobUuid}/why", operation_id="getJobWhy", response_model=Envelope[WhyView])
async def why(ports: ThePorts, caller: Caller, jobUuid: str) -> Response:
    """Why the job goes where it goes, and where else it waits."""
    job = await jobs.get(ports, caller, jobUuid)
    view = WhyView.of(job.decision, job, await jobs.waiting_elsewhere(ports, job))
    return answer(view, view.sentence or "decision found")
