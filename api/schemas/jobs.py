"""Jobs on the wire."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Field, StrictFloat, StrictInt, model_validator

from api.schemas.apps import Minutes
from api.schemas.base import (
    Body,
    CommandWord,
    Count,
    Directory,
    Flag,
    Id,
    Line,
    Notes,
    Tags,
    Text,
    UserName,
    Version,
    View,
    Word,
    showing,
    shown,
)
from api.schemas.parameters import FileInputArrayBody, FileInputBody, ParameterSetBody, input_view, inputs_of
from scheduler.model.jobs import After, ArchiveMode, Gang, HistoryEvent, Job
from scheduler.model.requests import JobRequest
from scheduler.model.runs import ArraySpec, FileInfo, FileKind, JobType
from scheduler.model.units import zulu

SUMMARY = (
    "uuid",
    "name",
    "owner",
    "appId",
    "created",
    "status",
    "condition",
    "remoteStarted",
    "ended",
    "tenant",
    "execSystemId",
    "archiveSystemId",
    "appVersion",
    "lastUpdated",
)
"""Attributes of an item of ``GET /v3/jobs/list``."""

EXAMPLE = {"name": "one", "appId": "greet", "appVersion": "1.0", "maxMinutes": 30}

IMAGE_EXAMPLE = {
    "name": "anywhere",
    "nodeCount": 2,
    "execSystemConstraints": ["canRunBatch = true AND", "maxMinutes >= 60"],
    "parameterSet": {"schedulerOptions": [{"name": "account", "arg": "-A lab"}]},
    "notes": {"berth": {"image": "docker://registry.example.org/greet:1.0", "weight": 2}},
}

MAX_ARRAY_TASKS = 10_000
MAX_BATCH_JOBS = 1_000

_ARRAY = re.compile(r"(?P<ranges>[0-9,:-]{1,2000})(?:%(?P<limit>[1-9]\d{0,5}))?")
_RANGE = re.compile(r"(?P<first>\d{1,7})(?:-(?P<last>\d{1,7})(?::(?P<step>[1-9]\d{0,6}))?)?")
_JOB_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-007")
_SCHEME = re.compile(r"[a-z][a-z0-9+-]*://|(oci|oci-archive|docker-archive):")

JobUuid = Annotated[str, Field(pattern=rf"^{_JOB_UUID.pattern}$")]


def parse_array(text: str) -> ArraySpec:
    """``0-99%10``, ``1,3,5`` or ``0-30:2``: the tasks of an array and how many run at once. Raises ValueError."""
    match = _ARRAY.fullmatch(text.strip())
    indices: set[int] = set()
    for piece in match["ranges"].split(",") if match else ():
        found = _RANGE.fullmatch(piece)
        if found is None:
            match = None
            break
        first, last, step = int(found["first"]), int(found["last"] or found["first"]), int(found["step"] or 1)
        if last < first or (last - first) // step >= MAX_ARRAY_TASKS:
            raise ValueError(f"'{piece}' is not a range of at most {MAX_ARRAY_TASKS} tasks, least first")
        indices.update(range(first, last + 1, step))
    if match is None:
        raise ValueError(f"'{text[:80]}' is not an array; write for example 0-99, 0-99%10 or 1,3,5")
    if len(indices) > MAX_ARRAY_TASKS:
        raise ValueError(f"has {len(indices)} tasks; at most {MAX_ARRAY_TASKS} are allowed")
    return ArraySpec(tuple(sorted(indices)), int(match["limit"]) if match["limit"] else None)


def _array(text: str) -> str:
    parse_array(text)
    return text


def _with_zone(text: str) -> str:
    try:
        if datetime.fromisoformat(text).tzinfo is not None:
            return text
    except ValueError:
        pass
    raise ValueError(f"'{text[:40]}' is no instant with its zone; write for example 2026-03-01T18:00:00Z")


def _image(text: str) -> str:
    if text.startswith("-") or re.search(r"\s", text):
        raise ValueError(f"'{text[:80]}' is not an image; write for example docker://debian:12")
    return text if _SCHEME.match(text) or text.startswith("/") else f"docker://{text}"


Money = Annotated[StrictInt | StrictFloat, Field(ge=0, le=1_000_000_000)]
"""USD."""

MOST_IN_GANG = 50
"""They must all wait at once to be placed."""

MOST_PLACES = 3
"""Queues in which one job may wait at once."""


class AfterBody(Body):
    """A job that must end first: with success, without, or either way."""

    uuid: JobUuid
    condition: Literal["ok", "notok", "any"] = "ok"


class GangBody(Body):
    """Jobs that go together: what their owner calls them, and how many they are."""

    name: Annotated[Line, Field(min_length=1, max_length=64)]
    size: Annotated[StrictInt, Field(ge=2, le=MOST_IN_GANG)]


class BerthBody(Body):
    """What Tapis has no word for: ``notes.berth`` of a submit request."""

    image: Annotated[Line, Field(min_length=1), AfterValidator(_image)] | None = None
    command: Annotated[list[CommandWord], Field(min_length=1, max_length=1000)] | None = None
    array: Annotated[Line, AfterValidator(_array)] | None = None
    after: Annotated[list[AfterBody], Field(max_length=100)] | None = None
    weight: Annotated[StrictInt | StrictFloat, Field(gt=0, le=1_000_000)] | None = None
    hedge: Annotated[StrictInt, Field(ge=1, le=MOST_PLACES)] | None = None
    maxPrice: Money | None = None
    outboundNetwork: Flag | None = None
    storageMB: Annotated[StrictInt, Field(ge=0, le=2**53)] | None = None
    deadline: Annotated[Line, AfterValidator(_with_zone)] | None = None
    valuePerHour: Money | None = None
    pricePerKwh: Money | None = None
    gang: GangBody | None = None


_NO_WORDS, _NO_PARAMETERS = BerthBody(), ParameterSetBody().to_parameters()


class JobSubmit(Body):
    """A job to run: an app, or an image in ``notes.berth.image``."""

    model_config = showing(EXAMPLE, IMAGE_EXAMPLE)

    name: Annotated[Line, Field(min_length=1, max_length=64)]
    appId: Id | None = None
    appVersion: Version | None = None
    owner: UserName | None = None
    tenant: UserName | None = None
    description: Annotated[Text, Field(max_length=2048)] | None = None
    jobType: Literal["FORK", "BATCH"] | None = None
    archiveOnAppError: Flag | None = None
    archiveMode: Literal["ALWAYS", "SKIP_ON_FAIL", "NEVER"] | None = None
    dynamicExecSystem: Flag | None = None
    execSystemConstraints: Annotated[list[Line], Field(max_length=100)] | None = None
    execSystemId: Id | None = None
    execSystemExecDir: Directory | None = None
    execSystemInputDir: Directory | None = None
    execSystemOutputDir: Directory | None = None
    execSystemLogicalQueue: Word | None = None
    archiveSystemId: Id | None = None
    archiveSystemDir: Directory | None = None
    dtnSystemInputDir: Literal["", "!tapis_not_set"] | None = None
    dtnSystemOutputDir: Literal["", "!tapis_not_set"] | None = None
    nodeCount: Count | None = None
    coresPerNode: Count | None = None
    memoryMB: Count | None = None
    maxMinutes: Minutes | None = None
    fileInputs: Annotated[list[FileInputBody], Field(max_length=1000)] | None = None
    fileInputArrays: Annotated[list[FileInputArrayBody], Field(max_length=1000)] | None = None
    parameterSet: ParameterSetBody | None = None
    subscriptions: Annotated[list[Any], Field(max_length=0)] | None = None
    tags: Tags | None = None
    notes: Notes | None = None
    isMpi: Flag | None = None
    mpiCmd: Line | None = None
    cmdPrefix: Line | None = None

    @model_validator(mode="after")
    def _names_what_runs(self) -> JobSubmit:
        berth = self.berth()
        if self.appId is None and berth.image is None:
            raise ValueError("appId: is missing; name an app, or an image in notes.berth.image")
        if self.appId not in (None, "berth.image") and berth.image is not None:
            raise ValueError("appId: cannot stand beside notes.berth.image; leave one of the two out")
        if self.appId == "berth.image" and berth.image is None:
            raise ValueError("notes.berth.image: is missing; the app berth.image runs the image named there")
        if self.appId not in (None, "berth.image") and self.appVersion is None:
            raise ValueError("appVersion: is missing; name the version of the app")
        if berth.command and berth.image is None:
            raise ValueError("notes.berth.command: needs notes.berth.image; an app has its own command")
        return self

    def berth(self) -> BerthBody:
        """``notes.berth``, already checked."""
        said = (self.notes or {}).get("berth")
        return BerthBody.model_validate(said) if said else _NO_WORDS

    def to_request(self, raw: Mapping[str, Any]) -> JobRequest:
        berth = self.berth()
        return JobRequest(
            name=self.name,
            app_id=self.appId,
            app_version=self.appVersion,
            owner=self.owner,
            tenant=self.tenant,
            description=self.description,
            job_type=JobType(self.jobType) if self.jobType else None,
            archive_on_app_error=self.archiveOnAppError,
            archive_mode=ArchiveMode(self.archiveMode) if self.archiveMode else None,
            dynamic=self.dynamicExecSystem,
            constraints=tuple(self.execSystemConstraints or ()),
            exec_system_id=self.execSystemId,
            queue=self.execSystemLogicalQueue,
            exec_dir=self.execSystemExecDir,
            input_dir=self.execSystemInputDir,
            output_dir=self.execSystemOutputDir,
            archive_system_id=self.archiveSystemId,
            archive_dir=self.archiveSystemDir,
            nodes=self.nodeCount,
            cores_per_node=self.coresPerNode,
            memory_mib=self.memoryMB,
            walltime_s=self.maxMinutes * 60 if self.maxMinutes else None,
            file_inputs=inputs_of(self.fileInputs, self.fileInputArrays),
            parameters=self.parameterSet.to_parameters() if self.parameterSet else _NO_PARAMETERS,
            is_mpi=self.isMpi,
            mpi_cmd=self.mpiCmd or None,
            cmd_prefix=self.cmdPrefix or None,
            tags=tuple(self.tags or ()),
            notes=self.notes,
            raw=raw,
            image=berth.image,
            command=tuple(berth.command or ()),
            array=parse_array(berth.array) if berth.array else None,
            after=tuple(After(item.uuid, item.condition) for item in berth.after or ()),
            weight=float(berth.weight) if berth.weight else 1.0,
            hedge_count=berth.hedge or 1,
            max_price_usd=None if berth.maxPrice is None else float(berth.maxPrice),
            needs_network=bool(berth.outboundNetwork),
            storage_mib=berth.storageMB or 0,
            deadline_at=datetime.fromisoformat(berth.deadline) if berth.deadline else None,
            usd_per_hour=float(berth.valuePerHour or 0),
            usd_per_kwh=float(berth.pricePerKwh or 0),
            gang=Gang(berth.gang.name, berth.gang.size) if berth.gang else None,
        )


class BatchSubmit(Body):
    """Many jobs at once: all are taken or none."""

    model_config = showing({"jobs": [EXAMPLE, IMAGE_EXAMPLE]})

    jobs: Annotated[list[JobSubmit], Field(min_length=1, max_length=MAX_BATCH_JOBS)]


class JobView(View):
    """A job in an answer. ``fileInputs``, ``parameterSet``, ... are JSON in a string, as in Tapis."""

    id: int
    name: str
    owner: str
    tenant: str
    description: str
    status: str
    condition: str | None
    lastMessage: str
    created: str
    ended: str | None
    lastUpdated: str
    uuid: str
    appId: str
    appVersion: str
    archiveOnAppError: bool
    archiveMode: str
    dynamicExecSystem: bool
    execSystemId: str | None
    execSystemExecDir: str | None
    execSystemInputDir: str | None
    execSystemOutputDir: str | None
    execSystemLogicalQueue: str | None
    archiveSystemId: str | None
    archiveSystemDir: str | None
    dtnSystemId: str | None = None
    dtnSystemInputDir: str | None = None
    dtnSystemOutputDir: str | None = None
    nodeCount: int
    coresPerNode: int
    memoryMB: int
    maxMinutes: int
    fileInputs: str
    parameterSet: str
    execSystemConstraints: str
    subscriptions: str = "[]"
    blockedCount: int
    remoteJobId: str | None
    remoteJobId2: str | None = None
    remoteOutcome: str | None
    remoteResultInfo: str | None
    remoteQueue: str | None
    remoteSubmitted: str | None
    remoteStarted: str | None
    remoteEnded: str | None
    remoteSubmitRetries: int
    remoteChecksSuccess: int = 0
    remoteChecksFailed: int = 0
    remoteLastStatusCheck: str | None = None
    inputTransactionId: str | None = None
    inputCorrelationId: str | None = None
    archiveTransactionId: str | None = None
    archiveCorrelationId: str | None = None
    stageAppTransactionId: str | None = None
    stageAppCorrelationId: str | None = None
    dtnInputTransactionId: str | None = None
    dtnInputCorrelationId: str | None = None
    dtnOutputTransactionId: str | None = None
    dtnOutputCorrelationId: str | None = None
    tapisQueue: str | None = None
    visible: bool
    createdby: str
    createdbyTenant: str
    tags: list[str]
    jobType: str | None
    mpiCmd: str | None
    cmdPrefix: str | None
    sharedAppCtx: str = ""
    sharedAppCtxAttribs: list[str] = Field(default_factory=list)
    trackingId: str | None
    notes: str
    mpi: bool

    @classmethod
    def of(cls, job: Job) -> JobView:
        spec, place = job.spec, job.place
        return cls.model_construct(
            **_UNSET,
            id=job.id,
            name=spec.name,
            owner=job.owner,
            tenant=job.tenant,
            description=spec.description,
            status=job.state,
            condition=job.condition,
            lastMessage=job.last_message,
            created=zulu(job.created_at),
            ended=_instant(job.ended_at),
            lastUpdated=zulu(job.updated_at),
            uuid=job.uuid,
            appId=spec.app_id,
            appVersion=spec.app_version,
            archiveOnAppError=spec.archive_on_app_error,
            archiveMode=spec.archive_mode,
            dynamicExecSystem=spec.dynamic,
            execSystemId=place.system_id if place else spec.exec_system_id,
            execSystemExecDir=_directory(place.exec_dir if place else None),
            execSystemInputDir=_directory(place.input_dir if place else None),
            execSystemOutputDir=_directory(place.output_dir if place else None),
            execSystemLogicalQueue=place.queue if place else spec.queue,
            archiveSystemId=place.archive_system_id if place else spec.archive_system_id,
            archiveSystemDir=_directory(place.archive_dir if place else None),
            nodeCount=spec.resources.nodes,
            coresPerNode=spec.resources.cores_per_node,
            memoryMB=spec.resources.memory_mib,
            maxMinutes=spec.resources.walltime_s // 60,
            fileInputs=_json([input_view(item) for item in spec.file_inputs]),
            parameterSet=_json(dict(spec.parameter_set)),
            execSystemConstraints=_json(list(spec.constraints)),
            blockedCount=job.blocked_count,
            remoteJobId=job.remote_id,
            remoteOutcome=job.remote_outcome,
            remoteResultInfo=job.remote_result,
            remoteQueue=place.partition if place else None,
            remoteSubmitted=_instant(job.remote_submitted_at),
            remoteStarted=_instant(job.remote_started_at),
            remoteEnded=_instant(job.remote_ended_at),
            remoteSubmitRetries=max(0, job.attempt - 1),
            visible=job.visible,
            createdby=job.created_by or job.owner,
            createdbyTenant=job.tenant,
            tags=list(spec.tags),
            jobType=place.job_type if place else spec.job_type,
            mpiCmd=spec.mpi_cmd,
            cmdPrefix=spec.cmd_prefix,
            trackingId=job.tracking_id,
            notes=_json(dict(spec.notes)),
            mpi=spec.is_mpi,
        )


_UNSET = {
    name: field.get_default(call_default_factory=True)
    for name, field in JobView.model_fields.items()
    if not field.is_required()
}
"""Values of the attributes that Berth never fills, for ``model_construct``: a list of jobs is large and all ours."""


class HistoryView(View):
    event: str
    created: str
    eventDetail: str
    description: str
    transferTaskUuid: str | None = None

    @classmethod
    def of(cls, event: HistoryEvent) -> HistoryView:
        return cls(event=event.event, created=zulu(event.at), eventDetail=event.detail, description=event.description)


class StatusView(View):
    status: str
    condition: str | None


class FileView(View):
    """One file of a job's output."""

    mimeType: str | None
    type: str
    owner: str
    group: str
    nativePermissions: str
    url: str
    lastModified: str
    name: str
    path: str
    size: int

    @classmethod
    def of(cls, file: FileInfo, system_id: str) -> FileView:
        return cls(
            mimeType=mimetypes.guess_type(file.name)[0] if file.kind is FileKind.FILE else None,
            type=file.kind,
            owner=file.owner,
            group=file.group,
            nativePermissions=file.permissions,
            url=f"tapis://{system_id}/{shown(file.path)}",
            lastModified=zulu(file.modified_at),
            name=shown(file.name),
            path=shown(file.path),
            size=file.size_bytes,
        )


def _instant(at: Any) -> str | None:
    return zulu(at) if at else None


def _directory(path: str | None) -> str | None:
    return None if path is None else f"/{path}"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
