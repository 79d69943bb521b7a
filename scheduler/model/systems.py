"""Systems, their logical queues and credentials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from scheduler.model.ids import LoginKey
from scheduler.model.runs import JobType, Runtime
from scheduler.model.scheduler_profiles import SchedulerProfile

UNLIMITED = 2_147_483_647
"""How the wire writes "no limit"."""


class SystemKind(StrEnum):
    """Tapis's ``systemType``. This machine is a LINUX system whose notes say ``{"berth": {"backend": "local"}}``; a
    Kubernetes is one whose notes say ``k8s`` there, and ``host`` and ``port`` are its API server's."""

    LINUX = "LINUX"
    S3 = "S3"
    IRODS = "IRODS"
    GLOBUS = "GLOBUS"


class BackendKind(StrEnum):
    """Which of our backends drives a system."""

    LOCAL = "local"
    SSH = "ssh"
    SLURM = "slurm"
    K8S = "k8s"


class AuthnMethod(StrEnum):
    """How a user is known to a system."""

    PASSWORD = "PASSWORD"  # noqa: S105 - the wire's word, not a secret
    PKI_KEYS = "PKI_KEYS"
    ACCESS_KEY = "ACCESS_KEY"
    TOKEN = "TOKEN"  # noqa: S105 - the wire's word, not a secret
    TMS_KEYS = "TMS_KEYS"
    CERT = "CERT"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalQueue:
    """A name and limits in front of a real partition. Limits are per job; memory is per node."""

    name: str
    partition: str
    description: str = ""
    max_jobs: int = UNLIMITED
    max_jobs_per_user: int = UNLIMITED
    min_nodes: int = 1
    max_nodes: int = UNLIMITED
    min_cores_per_node: int = 1
    max_cores_per_node: int = UNLIMITED
    min_memory_mib: int = 0
    max_memory_mib: int = UNLIMITED
    min_walltime_s: int = 60
    max_walltime_s: int = UNLIMITED


@dataclass(frozen=True, slots=True)
class SystemRuntime:
    """A container runtime that a system has."""

    runtime: Runtime
    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnvVariable:
    """A variable that a system sets for its jobs."""

    key: str
    value: str = ""
    description: str = ""
    input_mode: str = "INCLUDE_BY_DEFAULT"


@dataclass(frozen=True, slots=True)
class Verified:
    """A login that was tried and works. host_key: to be pinned; None where there is none.

    warnings: what the login may not do that nothing stops at, but that its users will miss; in words.
    """

    host_key: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """A named fact about a system, for constraints."""

    category: str
    name: str
    datatype: str
    value: str = ""
    precedence: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A host or cluster that runs jobs and/or holds files.

    ``effective_user_id`` may be ``${apiUserId}``: then every user brings a credential of their own.
    ``notes`` is the owner's free object; Berth reads ``notes["berth"]`` (backend, submitRatePerS, plainHttpRegistries,
    speedFactor, pricePerCoreHour, allowCopies) and nothing else. ``host_key`` is pinned at the first verified login.
    """

    tenant: str
    id: str
    uuid: str
    owner: str
    host: str
    kind: SystemKind = SystemKind.LINUX
    description: str = ""
    port: int = 22
    effective_user_id: str = "${apiUserId}"
    default_authn_method: AuthnMethod = AuthnMethod.PKI_KEYS
    root_dir: str = "/"
    can_exec: bool = False
    can_run_batch: bool = False
    enable_cmd_prefix: bool = False
    mpi_cmd: str | None = None
    runtimes: tuple[SystemRuntime, ...] = ()
    job_working_dir: str | None = None
    job_env: tuple[JobEnvVariable, ...] = ()
    max_jobs: int = UNLIMITED
    max_jobs_per_user: int = UNLIMITED
    batch_scheduler: str | None = None
    queues: tuple[LogicalQueue, ...] = ()
    default_queue: str | None = None
    scheduler_profile_name: str | None = None
    scheduler_profile: SchedulerProfile | None = None
    """What the named profile said when this was last written."""
    capabilities: tuple[Capability, ...] = ()
    tags: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True
    deleted: bool = False
    is_public: bool = False
    host_key: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    version: int = 0

    @property
    def berth_notes(self) -> Mapping[str, Any]:
        """What the owner wrote for Berth in the notes; empty when nothing."""
        notes = self.notes.get("berth")
        return notes if isinstance(notes, Mapping) else {}

    @property
    def backend(self) -> BackendKind:
        """Which backend drives this system."""
        for named in (BackendKind.LOCAL, BackendKind.K8S):
            if self.berth_notes.get("backend") == named:
                return named
        return BackendKind.SLURM if self.can_run_batch else BackendKind.SSH

    @property
    def keeps_pods(self) -> bool:
        """Whether pods may be started here: on Berth's own machine always, elsewhere where the owner says so."""
        return self.backend is BackendKind.LOCAL or bool(self.berth_notes.get("pods"))

    @property
    def pods_share_network(self) -> bool:
        """Whether a pod may use its node's own network where it gets none; then others on the node reach its ports."""
        options = self.berth_notes.get("pods")
        return isinstance(options, Mapping) and options.get("sharedNetwork") is True

    @property
    def takes_hedges(self) -> bool:
        """Whether jobs may wait here that wait elsewhere too; the owner must say so."""
        return self.berth_notes.get("allowCopies") is True and self.backend is not BackendKind.K8S

    @property
    def takes_moves(self) -> bool:
        """Whether jobs that wait elsewhere may be moved here; the owner may say no."""
        return self.berth_notes.get("allowCopies") is not False and self.backend is not BackendKind.K8S

    @property
    def is_dynamic_user(self) -> bool:
        """Whether each user runs under an account of their own."""
        return self.effective_user_id == "${apiUserId}"

    @property
    def is_shared_account(self) -> bool:
        """Whether nothing but Berth keeps one user's files there from another: all jobs run under one account."""
        return not (self.is_dynamic_user and self.backend in (BackendKind.SSH, BackendKind.SLURM))

    def credential_user(self, owner: str) -> str:
        """Under whose name the credential lies by which ``owner``'s jobs log in: a static account has one for all."""
        return owner if self.is_dynamic_user else self.effective_user_id

    def queue(self, name: str | None) -> LogicalQueue | None:
        """The logical queue of that name, the default one for None; None when there is none."""
        wanted = name or self.default_queue
        return next((queue for queue in self.queues if queue.name == wanted), None)

    def login_of(self, user: str) -> LoginKey:
        """The login under which ``user`` uses this system: their own, or the one account that all share."""
        return LoginKey(self.tenant, self.id, self.credential_user(user))

    def job_types(self) -> frozenset[JobType]:
        """How jobs may run here."""
        if not self.can_exec:
            return frozenset()
        return frozenset({JobType.FORK, JobType.BATCH}) if self.can_run_batch else frozenset({JobType.FORK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """How one Berth user is known to one system. Never printed; ``repr`` hides the secrets."""

    tenant: str
    system_id: str
    user: str
    login_user: str
    method: AuthnMethod = AuthnMethod.PKI_KEYS
    private_key: str | None = field(default=None, repr=False)
    public_key: str | None = None
    password: str | None = field(default=None, repr=False)
    """The password; a bearer token where ``method`` is TOKEN."""
    verified_at: datetime | None = None
    created_at: datetime | None = None
