"""Jobs, their attempts, and what happens to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from scheduler.model.apps import ArchiveFilter, FileInput
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.images import PinnedImage
from scheduler.model.plan import Decision
from scheduler.model.runs import ArraySpec, JobType, Observation, Resources, RunSpec, Runtime, SchedulerOption
from scheduler.model.scheduler_profiles import SchedulerProfile
from scheduler.model.states import AttemptState, Condition, Event, JobState


class ArchiveMode(StrEnum):
    """When outputs are archived."""

    ALWAYS = "ALWAYS"
    SKIP_ON_FAIL = "SKIP_ON_FAIL"
    NEVER = "NEVER"


@dataclass(frozen=True, slots=True)
class After:
    """A job that must end before this one is placed. ``condition``: ``ok``, ``notok`` or ``any``."""

    uuid: str
    condition: str = "ok"


@dataclass(frozen=True, slots=True)
class Gang:
    """Jobs of one owner that are placed together, in one queue, once all of them wait; ``size``: how many they are."""

    name: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What was asked, with the app's defaults merged in; never changes after submit.

    Directories are templates that may hold macros (``${JobWorkingDir}``); they are resolved when the job has a place.
    ``max_price_usd`` is what one run may cost at most; ``storage_mib`` is the room that its files need where it runs.
    ``raw_request`` is the request as it came, for resubmit.
    """

    name: str
    app_id: str
    app_version: str
    image: str
    runtime: Runtime
    use_entrypoint: bool = True
    job_type: JobType | None = None
    description: str = ""
    dynamic: bool = False
    constraints: tuple[str, ...] = ()
    exec_system_id: str | None = None
    queue: str | None = None
    exec_dir: str = "${JobWorkingDir}/jobs/${JobUUID}"
    input_dir: str = "${JobWorkingDir}/jobs/${JobUUID}"
    output_dir: str = "${JobWorkingDir}/jobs/${JobUUID}/output"
    archive_system_id: str | None = None
    archive_dir: str | None = None
    archive_mode: ArchiveMode = ArchiveMode.ALWAYS
    archive_on_app_error: bool = True
    archive_filter: ArchiveFilter = field(default_factory=ArchiveFilter)
    resources: Resources = field(default_factory=Resources)
    args: tuple[str, ...] = ()
    container_args: tuple[str, ...] = ()
    scheduler_options: tuple[SchedulerOption, ...] = ()
    scheduler_profile: SchedulerProfile | None = None
    """What the options name in place of the system's own."""
    env: Mapping[str, str] = field(default_factory=dict)
    file_inputs: tuple[FileInput, ...] = ()
    stdout: str = "tapisjob.out"
    stderr: str = "tapisjob.err"
    is_mpi: bool = False
    mpi_cmd: str | None = None
    cmd_prefix: str | None = None
    array: ArraySpec | None = None
    after: tuple[After, ...] = ()
    weight: float = 1.0
    hedge_count: int = 1
    """Places in which the job may wait at once; the first start takes it from the others."""
    max_price_usd: float | None = None
    needs_network: bool = False
    storage_mib: int = 0
    deadline_at: datetime | None = None
    usd_per_hour: float = 0.0
    """What an hour sooner is worth to the user, against prices; 0: prices only break ties."""
    usd_per_kwh: float = 0.0
    """What a kWh counts beside the price."""
    gang: Gang | None = None
    tags: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    parameter_set: Mapping[str, Any] = field(default_factory=dict)
    raw_request: Mapping[str, Any] = field(default_factory=dict)

    @property
    def may_be_copied(self) -> bool:
        """Whether it may wait in a further place. Tasks of an array begin one by one: no single claim is theirs.

        Who belongs to a gang stays with it.
        """
        if self.array is not None or self.gang is not None:
            return False
        return self.hedge_count > 1 or self.dynamic or self.exec_system_id is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a job goes, with every macro resolved. Directories are relative to the system's root directory."""

    system_id: str
    queue: str | None
    partition: str | None
    job_type: JobType
    working_dir: str
    exec_dir: str
    input_dir: str
    output_dir: str
    archive_system_id: str
    archive_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of an app, as the store holds it. ``version`` guards every write.

    ``place`` is provisional until PLACED for a job that left the choice to Berth.
    """

    id: int
    uuid: str
    tenant: str
    owner: str
    spec: JobSpec
    state: JobState
    version: int
    created_at: datetime
    updated_at: datetime
    created_by: str = ""
    place: Place | None = None
    decision: Decision | None = None
    condition: Condition | None = None
    last_message: str = ""
    resume_state: JobState | None = None
    blocked_count: int = 0
    attempt: int = 0
    """Number of the lead: the attempt that the job's state speaks of; 0 before the first."""
    last_attempt: int = 0
    """Highest number given to an attempt, copies included; none is given twice."""
    remote_id: RemoteId | None = None
    remote_outcome: str | None = None
    remote_result: str | None = None
    remote_submitted_at: datetime | None = None
    remote_started_at: datetime | None = None
    remote_ended_at: datetime | None = None
    observation: Observation | None = None
    cancel_requested_at: datetime | None = None
    ended_at: datetime | None = None
    visible: bool = True
    tracking_id: str | None = None
    fence: int = 0
    image: PinnedImage | None = None
    """What its image's name meant when it came; None where only the runtime on the system reads it."""


class Role(StrEnum):
    """What an attempt was made as. A copy has a gate, and becomes the lead when the job is handed over to it."""

    LEAD = "LEAD"
    HEDGE = "HEDGE"
    """A copy that takes over when it starts first."""
    MOVE = "MOVE"
    """A copy that takes over as soon as it has its place in the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One submission of a job to one system; ``run`` is frozen before the first remote call.

    It leads when its number is the job's ``attempt``. ``place`` is kept for copies: the job's own while it leads.
    """

    job_id: int
    job_uuid: str
    tenant: str
    owner: str
    number: int
    marker: Marker
    system_id: str
    queue: str | None
    state: AttemptState
    run: RunSpec
    intended_at: datetime
    version: int = 0
    remote_id: RemoteId | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    missing_since: datetime | None = None
    """Since when answering queries no longer show the remote job; None while it is seen."""
    fence: int = 0
    role: Role = Role.LEAD
    place: Place | None = None
    next_look_at: datetime | None = None
    """When the loop of copies looks at it; None: when something happens."""
    unwanted_at: datetime | None = None
    """Since when it is being withdrawn, which goes on until it is proven to run nothing."""
    go_at: datetime | None = None
    """When its gate was opened; only a copy that became the lead has an open gate."""
    awaits_image: str | None = None
    """Manifest digest of the image that is to be brought to it; None once it has it, or where none is brought."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened to a job, with what it changes in the job's row.

    ``changes`` holds fields of Job by name. ``attempt`` holds fields of the leading Attempt by name.
    ``attempt_event`` is the event for the attempt's own table when it differs; ``message`` is for people. ``told`` is a
    line of history that stands before it.
    """

    event: Event
    changes: Mapping[str, Any] = field(default_factory=dict)
    attempt: Mapping[str, Any] = field(default_factory=dict)
    attempt_event: Event | None = None
    message: str = ""
    told: HistoryEvent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEvent:
    """A line of a job's history. ``event`` is Tapis's type (JOB_NEW_STATUS, ...), ``detail`` the new status."""

    event: str
    detail: str
    description: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job about to be stored. ``place`` is provisional for a job that leaves the choice to Berth."""

    tenant: str
    owner: str
    uuid: str
    spec: JobSpec
    at: datetime
    created_by: str = ""
    place: Place | None = None
    decision: Decision | None = None
    tracking_id: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """What watching needs of an attempt between submission and its end, and of its job: both without the specs."""

    attempt_id: int
    number: int
    copy_place: Place | None
    """Of an attempt that was made as a copy."""
    job_id: int
    uuid: str
    tenant: str
    owner: str
    state: JobState
    version: int
    system_id: str
    job_type: JobType
    marker: Marker
    attempt: int
    attempt_state: AttemptState
    attempt_version: int
    remote_id: RemoteId | None
    submitted_at: datetime | None
    expected_start_at: datetime | None
    cancel_requested_at: datetime | None
    missing_since: datetime | None
    queue: str | None
    observation: Observation | None
    """What the system said when it was last written down."""
    last_message: str

    @property
    def is_copy(self) -> bool:
        """Whether it waits beside the lead, of which the job's own fields speak."""
        return self.number != self.attempt

    @property
    def runs_as(self) -> JobType:
        """How this attempt runs where it is."""
        return self.copy_place.job_type if self.is_copy and self.copy_place is not None else self.job_type

    @property
    def versions(self) -> tuple[int, int]:
        """Of the job and of its attempt: while they stay, nothing here has changed."""
        return self.version, self.attempt_version


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """What an ended attempt teaches the estimators; durations in seconds.

    ``broken``: the system ended it, not the run itself; its start is its end when it never started.
    ``told_waits_s``: median and 90th percentile of its wait, as each estimator had it when the place was chosen.
    """

    tenant: str
    owner: str
    app_id: str
    image: str
    system_id: str
    queue: str | None
    resources: Resources
    submitted_at: datetime
    started_at: datetime
    ended_at: datetime
    completed: bool
    broken: bool = False
    told_waits_s: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def wait_s(self) -> float:
        return max(0.0, (self.started_at - self.submitted_at).total_seconds())

    @property
    def run_s(self) -> float:
        return max(0.0, (self.ended_at - self.started_at).total_seconds())
