"""Systems and credentials on the wire."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, StrictInt, model_validator

from api.schemas.base import (
    Body,
    Directory,
    EnvKey,
    Flag,
    Id,
    Limit,
    Line,
    Lines,
    Notes,
    Tags,
    Text,
    UserName,
    Value,
    View,
    Word,
    showing,
)
from scheduler.model.runs import Runtime
from scheduler.model.systems import (
    UNLIMITED,
    AuthnMethod,
    BackendKind,
    Capability,
    Credential,
    JobEnvVariable,
    LogicalQueue,
    System,
    SystemKind,
    SystemRuntime,
)
from scheduler.model.units import zulu
from scheduler.services.history import LearntRecord

_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*\.?")

SUMMARY = ("id", "systemType", "owner", "host", "effectiveUserId", "defaultAuthnMethod", "canExec")
"""Attributes that a list shows unless ``select`` says otherwise."""

EXAMPLE = {
    "id": "cedar",
    "systemType": "LINUX",
    "host": "login.cedar.example.org",
    "defaultAuthnMethod": "PKI_KEYS",
    "rootDir": "/",
    "canExec": True,
    "canRunBatch": True,
    "batchScheduler": "SLURM",
    "jobRuntimes": [{"runtimeType": "SINGULARITY"}],
    "jobWorkingDir": "scratch/${EffectiveUserId}",
    "batchLogicalQueues": [{"name": "short", "hpcQueueName": "debug", "maxMinutes": 60, "maxNodeCount": 4}],
    "batchDefaultLogicalQueue": "short",
}

PAST_JOBS_EXAMPLE = {
    "format": "SACCT",
    "text": "JobID|User|Partition|NCPUS|TimelimitRaw|Submit|Start|End|State\n"
    "11|ann|debug|16|90|1772362800|1772362860|1772366400|COMPLETED\n",
}

RESERVED = frozenset({"schedulerProfile"})
"""Ids that no system may have: another route answers where it would be read."""

MAX_QUEUE_MINUTES = UNLIMITED // 60


def _host(text: str) -> str:
    if _HOST_NAME.fullmatch(text):
        return text
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a host name or an IP address") from None
    return text


def _root(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("must be an absolute path")
    return text


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(f"'{text}' is no time zone that is known here; write one as Europe/Berlin or UTC") from None
    return text


Host = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_host)]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]
Minimum = Annotated[StrictInt, Field(ge=0, le=UNLIMITED)]
InputMode = Literal["REQUIRED", "FIXED", "INCLUDE_ON_DEMAND", "INCLUDE_BY_DEFAULT"]


class RuntimeBody(Body):
    runtimeType: Literal["DOCKER", "SINGULARITY"]
    version: Line | None = None


class JobEnvBody(Body):
    key: EnvKey
    value: Value = ""
    description: Text = ""
    inputMode: InputMode = "INCLUDE_BY_DEFAULT"
    notes: Notes | None = None


class CapabilityBody(Body):
    category: Literal["SCHEDULER", "OS", "HARDWARE", "SOFTWARE", "JOB", "CONTAINER", "MISC", "CUSTOM"]
    name: Word
    datatype: Literal["STRING", "INTEGER", "BOOLEAN", "NUMBER", "TIMESTAMP"]
    precedence: Annotated[StrictInt, Field(ge=0, le=UNLIMITED)] = 100
    value: Value | None = ""


class QueueBody(Body):
    name: Word
    hpcQueueName: Word
    description: Text | None = ""
    maxJobs: Limit | None = UNLIMITED
    maxJobsPerUser: Limit | None = UNLIMITED
    minNodeCount: Minimum | None = 1
    maxNodeCount: Limit | None = UNLIMITED
    minCoresPerNode: Minimum | None = 1
    maxCoresPerNode: Limit | None = UNLIMITED
    minMemoryMB: Minimum | None = 0
    maxMemoryMB: Limit | None = UNLIMITED
    minMinutes: Minimum | None = 1
    maxMinutes: Limit | None = UNLIMITED

    @model_validator(mode="after")
    def _limits_in_order(self) -> QueueBody:
        for what in ("NodeCount", "CoresPerNode", "MemoryMB", "Minutes"):
            least, most = getattr(self, f"min{what}") or 0, _limit(getattr(self, f"max{what}"))
            if least > most:
                raise ValueError(f"min{what} {least} is above max{what} {most}; lower the one or raise the other")
        return self

    def to_queue(self) -> LogicalQueue:
        return LogicalQueue(
            name=self.name,
            partition=self.hpcQueueName,
            description=self.description or "",
            max_jobs=_limit(self.maxJobs),
            max_jobs_per_user=_limit(self.maxJobsPerUser),
            min_nodes=self.minNodeCount or 0,
            max_nodes=_limit(self.maxNodeCount),
            min_cores_per_node=self.minCoresPerNode or 0,
            max_cores_per_node=_limit(self.maxCoresPerNode),
            min_memory_mib=self.minMemoryMB or 0,
            max_memory_mib=_limit(self.maxMemoryMB),
            min_walltime_s=min(self.minMinutes or 0, MAX_QUEUE_MINUTES) * 60,
            max_walltime_s=UNLIMITED if _limit(self.maxMinutes) > MAX_QUEUE_MINUTES else _limit(self.maxMinutes) * 60,
        )


class CredentialBody(Body):
    """Keys or a password; an empty object asks Berth to make a key pair. ``accessToken``: of a Kubernetes."""

    output_only: ClassVar[frozenset[str]] = frozenset(
        {"authnMethod", "tmsPrivateKey", "tmsPublicKey", "tmsFingerprint"}
    )

    loginUser: UserName | None = None
    password: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    privateKey: Annotated[str, Field(min_length=1, max_length=16_384)] | None = None
    publicKey: Text | None = None
    accessKey: None = None
    accessSecret: None = None
    accessToken: Annotated[str, Field(min_length=1, max_length=16_384, pattern=r"^[\x21-\x7e]+$")] | None = None
    refreshToken: None = None
    certificate: None = None


class SystemBody(Body):
    """A system as it is created or replaced."""

    model_config = showing(EXAMPLE)

    output_only: ClassVar[frozenset[str]] = frozenset(
        {
            "tenant",
            "uuid",
            "deleted",
            "created",
            "updated",
            "isPublic",
            "isDynamicEffectiveUser",
            "sharedWithUsers",
            "hasCredentials",
            "sharedAppCtx",
        }
    )

    id: Id
    systemType: Literal["LINUX"]
    host: Host
    description: Text | None = None
    owner: UserName | Literal["${apiUserId}"] | None = None
    enabled: Flag | None = None
    effectiveUserId: UserName | Literal["${apiUserId}", "${owner}"] | None = "${apiUserId}"
    defaultAuthnMethod: Literal["PKI_KEYS", "PASSWORD", "TOKEN"] = "PKI_KEYS"
    authnCredential: CredentialBody | None = None
    rootDir: Annotated[Directory, AfterValidator(_root)] = "/"
    port: Port | Literal[-1] | None = 22
    useProxy: Literal[False] | None = None
    proxyHost: Literal[""] | None = None
    proxyPort: StrictInt | None = None
    bucketName: Literal[""] | None = None
    dtnSystemId: Literal[""] | None = None
    canExec: Flag
    canRunBatch: Flag | None = False
    enableCmdPrefix: Flag | None = False
    allowChildren: Literal[False] | None = None
    parentId: Literal[""] | None = None
    mpiCmd: Line | None = None
    jobRuntimes: Annotated[list[RuntimeBody], Field(max_length=10)] | None = None
    jobWorkingDir: Directory | None = None
    jobEnvVariables: Annotated[list[JobEnvBody], Field(max_length=1000)] | None = None
    jobMaxJobs: Limit | None = UNLIMITED
    jobMaxJobsPerUser: Limit | None = UNLIMITED
    batchScheduler: Literal["SLURM"] | None = None
    batchLogicalQueues: Annotated[list[QueueBody], Field(max_length=500)] | None = None
    batchDefaultLogicalQueue: Word | None = None
    batchSchedulerProfile: Id | Literal[""] | None = None
    jobCapabilities: Annotated[list[CapabilityBody], Field(max_length=500)] | None = None
    tags: Tags | None = None
    notes: Notes | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> SystemBody:
        problems = list(_contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def to_system(self, *, tenant: str, caller: str, uuid: str) -> System:
        """The system that is meant; ``${apiUserId}`` and ``${owner}`` are resolved where they have one meaning."""
        owner = caller if self.owner in (None, "${apiUserId}") else self.owner
        effective = owner if self.effectiveUserId == "${owner}" else (self.effectiveUserId or "${apiUserId}")
        root = self.rootDir.replace("${apiUserId}", caller).replace("${owner}", owner).replace("${tenant}", tenant)
        return System(
            tenant=tenant,
            id=self.id,
            uuid=uuid,
            owner=owner,
            host=self.host,
            kind=SystemKind(self.systemType),
            description=self.description or "",
            port=self.port if self.port and self.port > 0 else 22,
            effective_user_id=effective,
            default_authn_method=AuthnMethod(self.defaultAuthnMethod),
            root_dir=root,
            can_exec=self.canExec,
            can_run_batch=bool(self.canRunBatch),
            enable_cmd_prefix=bool(self.enableCmdPrefix),
            mpi_cmd=self.mpiCmd,
            runtimes=tuple(SystemRuntime(Runtime(r.runtimeType), r.version) for r in self.jobRuntimes or ()),
            job_working_dir=self.jobWorkingDir,
            job_env=tuple(
                JobEnvVariable(key=v.key, value=v.value, description=v.description, input_mode=v.inputMode)
                for v in self.jobEnvVariables or ()
            ),
            max_jobs=_limit(self.jobMaxJobs),
            max_jobs_per_user=_limit(self.jobMaxJobsPerUser),
            batch_scheduler=self.batchScheduler,
            queues=tuple(queue.to_queue() for queue in self.batchLogicalQueues or ()),
            default_queue=self.batchDefaultLogicalQueue,
            scheduler_profile_name=self.batchSchedulerProfile or None,
            capabilities=tuple(
                Capability(
                    category=c.category, name=c.name, datatype=c.datatype, value=c.value or "", precedence=c.precedence
                )
                for c in self.jobCapabilities or ()
            ),
            tags=tuple(self.tags or ()),
            notes=self.notes or {},
            enabled=self.enabled is not False,
        )


class ProbeBody(Body):
    """A host to look at. Without key and password the stored credential of ``systemId`` is used."""

    host: Host
    port: Port = 22
    loginUser: UserName | None = None
    privateKey: Annotated[str, Field(min_length=1, max_length=16_384)] | None = None
    password: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    systemId: Id | None = None


class PermissionsBody(Body):
    permissions: Annotated[list[Literal["READ", "MODIFY", "EXECUTE"]], Field(min_length=1, max_length=3)]


class PastJobsBody(Body):
    """What a site's own records tell of past jobs. ``queue``: of jobs whose partition is not in the text; ``timeZone``:
    of instants that are not written as Unix time, as ``Europe/Berlin``."""

    model_config = showing(PAST_JOBS_EXAMPLE)

    format: Literal["SACCT", "SWF"]
    text: Lines
    queue: Word | None = None
    timeZone: Annotated[Line, AfterValidator(_zone)] | None = None


class PastJobsView(View):
    """How many jobs the text told of, how many of them are kept, and why others are not."""

    toldJobs: int
    keptJobs: int
    tooOldJobs: int
    otherQueueJobs: int

    @classmethod
    def of(cls, learnt: LearntRecord) -> PastJobsView:
        return cls(
            toldJobs=learnt.told_jobs,
            keptJobs=learnt.kept_jobs,
            tooOldJobs=learnt.too_old_jobs,
            otherQueueJobs=learnt.other_queue_jobs,
        )


class MatchBody(Body):
    match: Annotated[list[Line], Field(max_length=100)]


class QueueView(View):
    name: str
    description: str
    hpcQueueName: str
    maxJobs: int
    maxJobsPerUser: int
    minNodeCount: int
    maxNodeCount: int
    minCoresPerNode: int
    maxCoresPerNode: int
    minMemoryMB: int
    maxMemoryMB: int
    minMinutes: int
    maxMinutes: int

    @classmethod
    def of(cls, queue: LogicalQueue) -> QueueView:
        return cls(
            name=queue.name,
            description=queue.description,
            hpcQueueName=queue.partition,
            maxJobs=queue.max_jobs,
            maxJobsPerUser=queue.max_jobs_per_user,
            minNodeCount=queue.min_nodes,
            maxNodeCount=queue.max_nodes,
            minCoresPerNode=queue.min_cores_per_node,
            maxCoresPerNode=queue.max_cores_per_node,
            minMemoryMB=queue.min_memory_mib,
            maxMemoryMB=queue.max_memory_mib,
            minMinutes=queue.min_walltime_s // 60,
            maxMinutes=UNLIMITED if queue.max_walltime_s >= UNLIMITED else queue.max_walltime_s // 60,
        )


class SystemView(View):
    """A system in an answer."""

    id: str
    systemType: str
    owner: str
    host: str
    effectiveUserId: str
    defaultAuthnMethod: str
    canExec: bool
    tenant: str
    uuid: str
    description: str | None
    enabled: bool
    deleted: bool
    isPublic: bool
    isDynamicEffectiveUser: bool
    bucketName: str | None = None
    rootDir: str
    port: int
    useProxy: bool = False
    proxyHost: str | None = None
    proxyPort: int | None = None
    dtnSystemId: str | None = None
    canRunBatch: bool
    enableCmdPrefix: bool
    allowChildren: bool = False
    parentId: str | None = None
    mpiCmd: str | None
    jobRuntimes: list[dict[str, Any]]
    jobWorkingDir: str | None
    jobEnvVariables: list[dict[str, Any]]
    jobMaxJobs: int
    jobMaxJobsPerUser: int
    batchScheduler: str | None
    batchLogicalQueues: list[QueueView]
    batchDefaultLogicalQueue: str | None
    batchSchedulerProfile: str | None
    jobCapabilities: list[dict[str, Any]]
    tags: list[str]
    notes: dict[str, Any]
    authnCredential: None = None
    hasCredentials: bool | None = None
    sharedWithUsers: list[str] = Field(default_factory=list)
    sharedAppCtx: str | None = None
    created: str | None
    updated: str | None

    @classmethod
    def of(cls, system: System, *, caller: str, has_credentials: bool | None = None) -> SystemView:
        """A system as ``caller`` sees it: a dynamic effective user is the caller."""
        return cls(
            id=system.id,
            systemType=system.kind,
            owner=system.owner,
            host=system.host,
            effectiveUserId=caller if system.is_dynamic_user else system.effective_user_id,
            defaultAuthnMethod=system.default_authn_method,
            canExec=system.can_exec,
            tenant=system.tenant,
            uuid=system.uuid,
            description=system.description,
            enabled=system.enabled,
            deleted=system.deleted,
            isPublic=system.is_public,
            isDynamicEffectiveUser=system.is_dynamic_user,
            rootDir=system.root_dir,
            port=system.port,
            canRunBatch=system.can_run_batch,
            enableCmdPrefix=system.enable_cmd_prefix,
            mpiCmd=system.mpi_cmd,
            jobRuntimes=[{"runtimeType": r.runtime, "version": r.version} for r in system.runtimes],
            jobWorkingDir=system.job_working_dir,
            jobEnvVariables=[
                {"key": v.key, "value": v.value, "description": v.description, "inputMode": v.input_mode, "notes": {}}
                for v in system.job_env
            ],
            jobMaxJobs=system.max_jobs,
            jobMaxJobsPerUser=system.max_jobs_per_user,
            batchScheduler=system.batch_scheduler,
            batchLogicalQueues=[QueueView.of(queue) for queue in system.queues],
            batchDefaultLogicalQueue=system.default_queue,
            batchSchedulerProfile=system.scheduler_profile_name,
            jobCapabilities=[
                {
                    "category": c.category,
                    "name": c.name,
                    "datatype": c.datatype,
                    "precedence": c.precedence,
                    "value": c.value,
                }
                for c in system.capabilities
            ],
            tags=list(system.tags),
            notes=dict(system.notes),
            hasCredentials=has_credentials,
            created=zulu(system.created_at) if system.created_at else None,
            updated=zulu(system.updated_at) if system.updated_at else None,
        )


class CredentialView(View):
    """What may be told of a credential: never a secret."""

    authnMethod: str
    loginUser: str
    publicKey: str | None
    password: None = None
    privateKey: None = None
    accessKey: None = None
    accessSecret: None = None
    certificate: None = None
    verifiedAt: str | None

    @classmethod
    def of(cls, credential: Credential) -> CredentialView:
        return cls(
            authnMethod=credential.method,
            loginUser=credential.login_user,
            publicKey=credential.public_key,
            verifiedAt=zulu(credential.verified_at) if credential.verified_at else None,
        )


def definition_of(system: System) -> dict[str, Any]:
    """A system as ``SystemBody`` reads it, for a PATCH to change."""
    shown = SystemView.of(system, caller="").model_dump(mode="json")
    known = SystemBody.model_fields.keys() - {"authnCredential"}
    return {name: value for name, value in shown.items() if name in known} | {
        "effectiveUserId": system.effective_user_id
    }


PATCHABLE: frozenset[str] = frozenset(
    {
        "description",
        "host",
        "effectiveUserId",
        "defaultAuthnMethod",
        "port",
        "useProxy",
        "proxyHost",
        "proxyPort",
        "dtnSystemId",
        "canRunBatch",
        "enableCmdPrefix",
        "mpiCmd",
        "jobRuntimes",
        "jobWorkingDir",
        "jobEnvVariables",
        "jobMaxJobs",
        "jobMaxJobsPerUser",
        "batchScheduler",
        "batchLogicalQueues",
        "batchDefaultLogicalQueue",
        "batchSchedulerProfile",
        "jobCapabilities",
        "tags",
        "notes",
    }
)
"""What PUT and PATCH may change; Tapis's list."""


def _contradictions(body: SystemBody) -> Iterator[str]:
    """Each thing in a system that does not go together, with the fix."""
    if body.id in RESERVED:
        yield f"id: '{body.id}' is a path of its own below /v3/systems; choose another id"
    if body.canExec and not body.jobRuntimes:
        yield "jobRuntimes: is needed when canExec is true; name DOCKER or SINGULARITY"
    if body.canExec and not body.jobWorkingDir:
        yield "jobWorkingDir: is needed when canExec is true; name a directory below rootDir"
    if body.canRunBatch and not body.canExec:
        yield "canRunBatch: needs canExec true"
    if body.canRunBatch and not body.batchScheduler and not _is_kubernetes(body):
        yield "batchScheduler: is needed when canRunBatch is true; write SLURM"
    names = [queue.name for queue in body.batchLogicalQueues or ()]
    if body.canRunBatch and not names:
        yield "batchLogicalQueues: at least one is needed when canRunBatch is true"
    if len(set(names)) != len(names):
        yield "batchLogicalQueues: two queues have the same name; rename one"
    if names and body.batchDefaultLogicalQueue is None and body.canRunBatch:
        yield f"batchDefaultLogicalQueue: is needed when canRunBatch is true; one of {', '.join(names)}"
    if body.batchDefaultLogicalQueue is not None and body.batchDefaultLogicalQueue not in names:
        yield f"batchDefaultLogicalQueue: '{body.batchDefaultLogicalQueue}' is none of batchLogicalQueues"
    if body.authnCredential is not None and body.effectiveUserId == "${apiUserId}":
        yield "authnCredential: needs a static effectiveUserId; register credentials per user instead"


def _is_kubernetes(body: SystemBody) -> bool:
    """Whether the cluster's own scheduler, which the wire has no word for, is the batch scheduler."""
    berth = (body.notes or {}).get("berth")
    return isinstance(berth, dict) and berth.get("backend") == BackendKind.K8S


def _limit(value: int | None) -> int:
    return UNLIMITED if value is None or value < 0 else value
