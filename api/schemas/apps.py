"""Apps on the wire."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictInt, model_validator

from api.schemas.base import (
    Body,
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
)
from api.schemas.parameters import (
    FileInputArrayBody,
    FileInputBody,
    ParameterSetBody,
    input_view,
    inputs_of,
    parameters_view,
)
from scheduler.model.apps import App, JobAttributes
from scheduler.model.runs import JobType, Runtime
from scheduler.model.units import zulu

SUMMARY = ("id", "version", "owner")
"""Attributes that a list shows unless ``select`` says otherwise."""

EXAMPLE = {
    "id": "greet",
    "version": "1.0",
    "runtime": "SINGULARITY",
    "containerImage": "docker://registry.example.org/greet:1.0",
    "jobAttributes": {
        "execSystemId": "cedar",
        "memoryMB": 500,
        "parameterSet": {"appArgs": [{"name": "text", "arg": "--text hello", "inputMode": "INCLUDE_BY_DEFAULT"}]},
    },
}

MaxJobs = Annotated[StrictInt, Field(ge=-1, le=2_147_483_647)]
Minutes = Annotated[StrictInt, Field(ge=1, le=35_000_000)]


class JobAttributesBody(Body):
    description: Text | None = None
    dynamicExecSystem: Flag | None = False
    execSystemConstraints: Annotated[list[Line], Field(max_length=100)] | None = None
    execSystemId: Id | Literal[""] | None = None
    execSystemExecDir: Directory | None = None
    execSystemInputDir: Directory | None = None
    execSystemOutputDir: Directory | None = None
    dtnSystemInputDir: Literal["", "!tapis_not_set"] | None = None
    dtnSystemOutputDir: Literal["", "!tapis_not_set"] | None = None
    execSystemLogicalQueue: Word | None = None
    archiveSystemId: Id | Literal[""] | None = None
    archiveSystemDir: Directory | None = None
    archiveOnAppError: Flag | None = True
    archiveMode: Literal["ALWAYS", "SKIP_ON_FAIL", "NEVER"] | None = None
    isMpi: Flag | None = False
    mpiCmd: Line | None = None
    cmdPrefix: Line | None = None
    parameterSet: ParameterSetBody | None = None
    fileInputs: Annotated[list[FileInputBody], Field(max_length=1000)] | None = None
    fileInputArrays: Annotated[list[FileInputArrayBody], Field(max_length=1000)] | None = None
    nodeCount: Count | None = None
    coresPerNode: Count | None = None
    memoryMB: Count | None = None
    maxMinutes: Minutes | None = None
    subscriptions: Annotated[list[Any], Field(max_length=0)] | None = None
    tags: Tags | None = None

    def to_attributes(self) -> JobAttributes:
        return JobAttributes(
            description=self.description,
            dynamic_exec_system=bool(self.dynamicExecSystem),
            constraints=tuple(self.execSystemConstraints or ()),
            exec_system_id=self.execSystemId or None,
            exec_dir=self.execSystemExecDir,
            input_dir=self.execSystemInputDir,
            output_dir=self.execSystemOutputDir,
            queue=self.execSystemLogicalQueue,
            archive_system_id=self.archiveSystemId or None,
            archive_dir=self.archiveSystemDir,
            archive_on_app_error=self.archiveOnAppError is not False,
            archive_mode=self.archiveMode,
            is_mpi=bool(self.isMpi),
            mpi_cmd=self.mpiCmd or None,
            cmd_prefix=self.cmdPrefix or None,
            parameters=(self.parameterSet or ParameterSetBody()).to_parameters(),
            file_inputs=inputs_of(self.fileInputs, self.fileInputArrays),
            nodes=self.nodeCount,
            cores_per_node=self.coresPerNode,
            memory_mib=self.memoryMB,
            walltime_s=self.maxMinutes * 60 if self.maxMinutes else None,
            tags=tuple(self.tags or ()),
        )


class AppBody(Body):
    """One version of an app as it is created or replaced."""

    model_config = showing(EXAMPLE)

    output_only: ClassVar[frozenset[str]] = frozenset(
        {"tenant", "isPublic", "sharedWithUsers", "sharedAppCtx", "uuid", "deleted", "created", "updated"}
    )

    id: Id
    version: Version
    description: Text | None = None
    owner: UserName | Literal["${apiUserId}"] | None = None
    enabled: Flag | None = None
    versionEnabled: Flag | None = None
    locked: Flag | None = None
    runtime: Literal["DOCKER", "SINGULARITY"] | None = "DOCKER"
    runtimeVersion: Line | None = None
    runtimeOptions: Annotated[list[Literal["NONE", "SINGULARITY_RUN"]], Field(max_length=10)] | None = None
    containerImage: Annotated[Line, Field(min_length=1)]
    jobType: Literal["BATCH", "FORK"] | None = None
    maxJobs: MaxJobs | None = -1
    maxJobsPerUser: MaxJobs | None = -1
    strictFileInputs: Flag | None = False
    jobAttributes: JobAttributesBody | None = None
    tags: Tags | None = None
    notes: Notes | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> AppBody:
        if self.containerImage.startswith("-") or " " in self.containerImage:
            raise ValueError(f"containerImage: '{self.containerImage[:80]}' is not an image; write docker://name:tag")
        attributes = self.jobAttributes
        if attributes and (attributes.isMpi or attributes.mpiCmd) and attributes.cmdPrefix:
            raise ValueError("jobAttributes.cmdPrefix: cannot be used with isMpi or mpiCmd; leave one of them out")
        return self

    def to_app(self, *, tenant: str, caller: str, uuid: str) -> App:
        return App(
            tenant=tenant,
            id=self.id,
            version=self.version,
            uuid=uuid,
            owner=caller if self.owner in (None, "${apiUserId}") else self.owner,
            image=self.containerImage,
            description=self.description or "",
            runtime=Runtime(self.runtime or "DOCKER"),
            runtime_version=self.runtimeVersion,
            runtime_options=tuple(self.runtimeOptions or ()),
            job_type=JobType(self.jobType) if self.jobType else None,
            max_jobs=-1 if self.maxJobs is None else self.maxJobs,
            max_jobs_per_user=-1 if self.maxJobsPerUser is None else self.maxJobsPerUser,
            strict_file_inputs=bool(self.strictFileInputs),
            attributes=(self.jobAttributes or JobAttributesBody()).to_attributes(),
            tags=tuple(self.tags or ()),
            notes=self.notes or {},
            enabled=self.enabled is not False,
            version_enabled=self.versionEnabled is not False,
            locked=bool(self.locked),
        )


class AppView(View):
    """One version of an app in an answer."""

    id: str
    version: str
    owner: str
    tenant: str
    uuid: str
    description: str | None
    enabled: bool
    versionEnabled: bool
    locked: bool
    deleted: bool
    isPublic: bool
    runtime: str
    runtimeVersion: str | None
    runtimeOptions: list[str]
    containerImage: str
    jobType: str | None
    maxJobs: int
    maxJobsPerUser: int
    strictFileInputs: bool
    jobAttributes: dict[str, Any]
    tags: list[str]
    notes: dict[str, Any]
    sharedWithUsers: list[str] = Field(default_factory=list)
    sharedAppCtx: str | None = None
    created: str | None
    updated: str | None

    @classmethod
    def of(cls, app: App) -> AppView:
        return cls(
            id=app.id,
            version=app.version,
            owner=app.owner,
            tenant=app.tenant,
            uuid=app.uuid,
            description=app.description,
            enabled=app.enabled,
            versionEnabled=app.version_enabled,
            locked=app.locked,
            deleted=app.deleted,
            isPublic=app.is_public,
            runtime=app.runtime,
            runtimeVersion=app.runtime_version,
            runtimeOptions=list(app.runtime_options),
            containerImage=app.image,
            jobType=app.job_type,
            maxJobs=app.max_jobs,
            maxJobsPerUser=app.max_jobs_per_user,
            strictFileInputs=app.strict_file_inputs,
            jobAttributes=_attributes_view(app.attributes),
            tags=list(app.tags),
            notes=dict(app.notes),
            created=zulu(app.created_at) if app.created_at else None,
            updated=zulu(app.updated_at) if app.updated_at else None,
        )


PATCHABLE: frozenset[str] = frozenset(
    {
        "description",
        "runtime",
        "runtimeVersion",
        "runtimeOptions",
        "containerImage",
        "jobType",
        "maxJobs",
        "maxJobsPerUser",
        "strictFileInputs",
        "jobAttributes",
        "tags",
        "notes",
    }
)
"""What PUT and PATCH may change."""


def definition_of(app: App) -> dict[str, Any]:
    """An app as ``AppBody`` reads it, for a PATCH to change."""
    shown = AppView.of(app).model_dump(mode="json")
    return {name: value for name, value in shown.items() if name in AppBody.model_fields}


def _attributes_view(said: JobAttributes) -> dict[str, Any]:
    return {
        "description": said.description,
        "dynamicExecSystem": said.dynamic_exec_system,
        "execSystemConstraints": list(said.constraints),
        "execSystemId": said.exec_system_id,
        "execSystemExecDir": said.exec_dir,
        "execSystemInputDir": said.input_dir,
        "execSystemOutputDir": said.output_dir,
        "dtnSystemInputDir": None,
        "dtnSystemOutputDir": None,
        "execSystemLogicalQueue": said.queue,
        "archiveSystemId": said.archive_system_id,
        "archiveSystemDir": said.archive_dir,
        "archiveOnAppError": said.archive_on_app_error,
        "archiveMode": said.archive_mode,
        "isMpi": said.is_mpi,
        "mpiCmd": said.mpi_cmd,
        "cmdPrefix": said.cmd_prefix,
        "parameterSet": parameters_view(said.parameters),
        "fileInputs": [input_view(item) for item in said.file_inputs],
        "fileInputArrays": [],
        "nodeCount": said.nodes,
        "coresPerNode": said.cores_per_node,
        "memoryMB": said.memory_mib,
        "maxMinutes": said.walltime_s // 60 if said.walltime_s else None,
        "subscriptions": [],
        "tags": list(said.tags),
    }
