"""Jobs: submit, ask, cancel, do again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from api.context import Caller, MayRepeat, ThePorts, TrackingId
from api.envelope import Envelope, Message, answer
from api.lists import Listing, listing, selected
from api.schemas.jobs import SUMMARY, BatchSubmit, HistoryView, JobSubmit, JobView, StatusView
from api.strict import StrictRoute
from scheduler.model.jobs import Job
from scheduler.services import jobs

router = APIRouter(prefix="/v3/jobs", tags=["jobs"], route_class=StrictRoute)

FIELDS: Mapping[str, str] = {
    "id": "id",
    "uuid": "uuid",
    "name": "name",
    "owner": "owner",
    "createdby": "created_by",
    "appId": "app_id",
    "appVersion": "app_version",
    "status": "state",
    "condition": "condition",
    "execSystemId": "system_id",
    "execSystemLogicalQueue": "queue",
    "jobType": "job_type",
    "archiveSystemId": "archive_system_id",
    "lastMessage": "last_message",
    "blockedCount": "blocked_count",
    "remoteJobId": "remote_id",
    "remoteOutcome": "remote_outcome",
    "remoteSubmitted": "remote_submitted_at",
    "remoteStarted": "remote_started_at",
    "remoteEnded": "remote_ended_at",
    "created": "created_at",
    "lastUpdated": "updated_at",
    "ended": "ended_at",
    "trackingId": "tracking_id",
}
"""What jobs may be searched and sorted by."""

NOT_CONDITIONS = frozenset(
    {"limit", "skip", "startAfter", "orderBy", "computeTotal", "select", "listType", "search", "pretty"}
)

ListType = Literal["MY_JOBS", "SHARED_JOBS", "ALL_JOBS"]


@router.post("/submit", operation_id="submitJob", response_model=Envelope[JobView])
async def submit(
    request: Request,
    ports: ThePorts,
    caller: Caller,
    body: JobSubmit,
    repeatable: MayRepeat,
    tracking_id: TrackingId,
) -> Response:
    """Take a job. It is stored when this answers; what the stored facts exclude everywhere is refused."""
    asked = body.to_request(await request.json())
    (job,) = await jobs.submit(ports, caller, [asked], tracking_id=tracking_id, repeatable=repeatable)
    return _submitted(job)


@router.post("/submit/batch", operation_id="submitJobs", response_model=Envelope[dict[str, Any]])
async def submit_batch(
    request: Request,
    ports: ThePorts,
    caller: Caller,
    body: BatchSubmit,
    repeatable: MayRepeat,
    tracking_id: TrackingId,
) -> Response:
    """Take up to 1,000 jobs, all or none; the answer is in the order of the request."""
    raws = (await request.json())["jobs"]
    asked = [each.to_request(raw) for each, raw in zip(body.jobs, raws, strict=True)]
    taken = await jobs.submit(ports, caller, asked, tracking_id=tracking_id, repeatable=repeatable)
    items = [
        {"uuid": job.uuid, "status": job.state, "execSystemId": job.place.system_id if job.place else None}
        for job in taken
    ]
    return answer({"jobs": items}, f"JOBS_SUBMITTED {len(items)} jobs submitted")


@router.get("/list", operation_id="getJobList", response_model=Envelope[list[dict[str, Any]]])
async def list_jobs(
    ports: ThePorts,
    caller: Caller,
    asked: Annotated[Listing, Depends(listing)],
    listType: ListType = "MY_JOBS",
) -> Response:
    """The caller's jobs, newest first, in brief."""
    return await _list(ports, caller, asked, listType, (), "summaryAttributes")


@router.get("/search", operation_id="getJobSearchList", response_model=Envelope[list[dict[str, Any]]])
async def search_jobs(
    request: Request,
    ports: ThePorts,
    caller: Caller,
    asked: Annotated[Listing, Depends(listing)],
    listType: ListType = "MY_JOBS",
) -> Response:
    """The caller's jobs for which every ``field.op=value`` of the query holds, for example ``status.eq=RUNNING``."""
    conditions = [(name, value) for name, value in request.query_params.multi_items() if name not in NOT_CONDITIONS]
    return await _list(ports, caller, asked, listType, conditions, asked.select or "allAttributes")


@router.get("/{jobUuid}", operation_id="getJob", response_model=Envelope[JobView])
async def get_job(ports: ThePorts, caller: Caller, jobUuid: str) -> Response:
    """One job."""
    job = await jobs.get(ports, caller, jobUuid)
    return answer(JobView.of(job), f"JOBS_RETRIEVED job {jobUuid} retrieved")


@router.get("/{jobUuid}/status", operation_id="getJobStatus", response_model=Envelope[StatusView])
async def get_status(ports: ThePorts, caller: Caller, jobUuid: str) -> Response:
    """Where the job stands."""
    job = await jobs.get(ports, caller, jobUuid)
    return answer({"status": job.state, "condition": job.condition}, "JOBS_STATUS_RETRIEVED")


@router.get("/{jobUuid}/history", operation_id="getJobHistory", response_model=Envelope[list[HistoryView]])
async def get_history(
    ports: ThePorts,
    caller: Caller,
    jobUuid: str,
    limit: Annotated[int, Query(ge=-1, le=2_147_483_647)] = 100,
    skip: Annotated[int, Query(ge=0, le=2_147_483_647)] = 0,
) -> Response:
    """What happened to the job, oldest first."""
    asked = Listing(limit, skip, None, None, compute_total=False, select=None, search=None)
    events = await jobs.history(ports, caller, jobUuid, asked.most + 1, skip)
    items = [HistoryView.of(event) for event in events[: asked.most]]
    return answer(items, "JOBS_HISTORY_RETRIEVED", metadata=asked.metadata(len(events), None))


@router.post("/{jobUuid}/cancel", operation_id="cancelJob", response_model=Envelope[Message])
async def cancel(ports: ThePorts, caller: Caller, jobUuid: str) -> Response:
    """Ask for the end of the job; asking twice is as good as once."""
    said = await jobs.cancel(ports, caller, jobUuid)
    return answer({"message": said}, f"JOBS_CANCEL {said}")


@router.post("/{jobUuid}/hide", operation_id="hideJob", response_model=Envelope[Message])
async def hide(ports: ThePorts, caller: Caller, jobUuid: str) -> Response:
    """Leave the job out of lists."""
    await jobs.set_visible(ports, caller, jobUuid, False)
    return answer({"message": f"Job {jobUuid} is hidden."}, "JOBS_HIDDEN")


@router.post("/{jobUuid}/unhide", operation_id="unhideJob", response_model=Envelope[Message])
async def unhide(ports: ThePorts, caller: Caller, jobUuid: str) -> Response:
    """Show the job in lists again."""
    await jobs.set_visible(ports, caller, jobUuid, True)
    return answer({"message": f"Job {jobUuid} is shown."}, "JOBS_UNHIDDEN")


@router.get(
    "/{jobUuid}/resubmit_request", operation_id="getResubmitRequestJson", response_model=Envelope[dict[str, Any]]
)
async def resubmit_request(ports: ThePorts, caller: Caller, jobUuid: str) -> Response:
    """The request that made the job."""
    job = await jobs.get(ports, caller, jobUuid)
    return answer(dict(job.spec.raw_request), "JOBS_RESUBMIT_REQUEST")


@router.post("/{jobUuid}/resubmit", operation_id="resubmitJob", response_model=Envelope[JobView])
async def resubmit(
    ports: ThePorts,
    caller: Caller,
    jobUuid: str,
    repeatable: MayRepeat,
    tracking_id: TrackingId,
) -> Response:
    """Submit the same request again."""
    raw = dict((await jobs.get(ports, caller, jobUuid)).spec.raw_request)
    try:
        asked = JobSubmit.model_validate(raw).to_request(raw)
    except ValidationError as wrong:
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in wrong.errors()]) from None
    (job,) = await jobs.submit(ports, caller, [asked], tracking_id=tracking_id, repeatable=repeatable)
    return _submitted(job)


async def _list(
    ports: ThePorts,
    caller: Caller,
    asked: Listing,
    kind: ListType,
    conditions: list[tuple[str, str]] | tuple[()],
    select: str,
) -> Response:
    page = asked.page(FIELDS, conditions)
    found = await jobs.list_jobs(ports, caller, page, kind=kind, total=asked.compute_total)
    items = [selected(JobView.of(job).__dict__, select, SUMMARY) for job in found.items[: asked.most]]
    return answer(items, "JOBS_LISTED", metadata=asked.metadata(len(found.items), found.total))


def _submitted(job: Job) -> Response:
    return answer(JobView.of(job), f"JOBS_SUBMITTED job {job.uuid} submitted")
