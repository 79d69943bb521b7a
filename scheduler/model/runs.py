"""What is asked of a backend and what it answers: records that backends, images and the reconciler share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from scheduler.model.actions import Action
from scheduler.model.ids import Marker
from scheduler.model.scheduler_profiles import SchedulerProfile
from scheduler.model.states import Condition


class Runtime(StrEnum):
    """What runs the image. NONE runs the command directly, for images that are no images (ZIP apps, helper jobs)."""

    SINGULARITY = "SINGULARITY"
    DOCKER = "DOCKER"
    NONE = "NONE"


class JobType(StrEnum):
    """BATCH goes through the system's queue; FORK runs at once on its host."""

    FORK = "FORK"
    BATCH = "BATCH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one run asks of a system. Memory is per node, as in Tapis."""

    nodes: int = 1
    cores_per_node: int = 1
    memory_mib: int = 100
    walltime_s: int = 600
    gpus_per_node: int = 0
    gpu_model: str | None = None

    @property
    def cores(self) -> int:
        """Cores on all nodes together."""
        return self.nodes * self.cores_per_node


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a run is given for sure of a node, and the most that it may take, where a place gives out parts of cores."""

    request_millicores: int
    limit_millicores: int
    request_memory_mib: int
    limit_memory_mib: int


@dataclass(frozen=True, slots=True)
class Way:
    """A port of a pod that has a name outside.

    web_name: what its host names begin with, where it speaks HTTP and lets in whoever comes; empty: Berth looks at who
    comes, or at how. net: what the pod called it; empty in runs of releases that did not note it.
    """

    port: int
    web_name: str = ""
    net: str = ""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """A job array: one submission, many tasks. ``limit`` tasks at most run at once (None: no limit)."""

    indices: tuple[int, ...]
    limit: int | None = None

    @property
    def ranges(self) -> str:
        """The indices as Slurm and Kubernetes write them: ``0-3,7``."""
        found: list[list[int]] = []
        for index in sorted(set(self.indices)):
            if found and index == found[-1][-1] + 1:
                found[-1][1:] = [index]
            else:
                found.append([index])
        return ",".join("-".join(map(str, ends)) for ends in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountedText:
    """What stands in a small file that is mounted, placeholders of secrets still in it; ``once``: the first instance
    writes it, and no other."""

    content: str
    mode: int
    once: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory or file of the host made visible inside the container; absolute paths on both sides.

    root: the directory that no link may lead ``source`` out of, where others than its owner may have written there.
    text: of a file that is written before the run begins. is_kept: nobody but Berth writes there, so it holds no links.
    claim: of a Kubernetes, of which ``source`` is a path then.
    """

    source: str
    target: str
    read_only: bool = False
    root: str = ""
    text: MountedText | None = None
    is_kept: bool = False
    claim: str = ""


@dataclass(frozen=True, slots=True)
class SchedulerOption:
    """One allowed option of the batch scheduler in its long form, e.g. ``("--account", "lab")``."""

    name: str
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything that a backend needs to run one attempt; frozen with the attempt, before the first remote call.

    Paths are absolute on the system. ``image`` is a reference as the runtime reads it (``docker://...``, a SIF path).
    ``env`` is what the user and Berth set; it reaches the container unchanged and never a command line.
    """

    job_uuid: str
    name: str
    image: str
    runtime: Runtime = Runtime.SINGULARITY
    use_entrypoint: bool = True
    args: tuple[str, ...] = ()
    container_args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    job_type: JobType = JobType.BATCH
    resources: Resources = field(default_factory=Resources)
    partition: str | None = None
    scheduler_options: tuple[SchedulerOption, ...] = ()
    scheduler_profile: SchedulerProfile | None = None
    array: ArraySpec | None = None
    exec_dir: str
    input_dir: str
    output_dir: str
    container_dir: str = "/TapisExec"
    """Where the container's command starts, as the container sees it."""
    stdout: str = "tapisjob.out"
    stderr: str = "tapisjob.err"
    is_mpi: bool = False
    mpi_cmd: str | None = None
    cmd_prefix: str | None = None
    plain_http_registry: bool = False
    gate_s: int = 0
    """How long the run waits, before anything of the user's, for Berth to let it go; 0: it has no gate."""
    image_actions: tuple[Action, ...] = ()
    """What must be done so that the image runs on the nodes of this place; for Apptainer and Singularity."""
    image_wait_s: int = 0
    """How long it waits, once it has nodes, for Berth to say where its image lies; 0: the runtime fetches it."""
    image_is_private: bool = False
    """Whether only a login of Berth's reads the image: then the runtime never fetches it."""
    share: Share | None = None
    """What an instance of a pod asks in place of ``resources``; other places give it whole cores."""
    ports: tuple[int, ...] = ()
    """What it listens to: not empty, it is an instance of a pod. Nobody but Berth may reach them from outside it."""
    ways: tuple[Way, ...] = ()
    """Those of its ports to which Berth lets clients from outside, where a place has ways of its own for them."""

    @property
    def tried_ports(self) -> tuple[int, ...]:
        """Those that must answer: with a name outside, or all where none has one."""
        return tuple(way.port for way in self.ways) or self.ports


@dataclass(frozen=True, slots=True)
class SubmitIntent:
    """One run to be started at most once under one marker. ``fence`` grows with every lease of the job."""

    marker: Marker
    run: RunSpec
    intended_at: datetime
    fence: int = 0


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A small file that Berth writes on the system; the path is absolute."""

    path: str
    content: bytes
    mode: int = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """What must be in place on a system before a run: directories (absolute paths), then files. Repeating it is safe.

    ``image`` is there for the runtime that the plan prepares; bringing images behind the wait fills more in here.
    """

    marker: Marker
    directories: tuple[str, ...] = ()
    files: tuple[StagedFile, ...] = ()
    image: str | None = None


@dataclass(frozen=True, slots=True)
class StageStatus:
    """How far a plan is. ``message`` is for people; bytes are None while unknown."""

    done: bool
    message: str = ""
    done_bytes: int | None = None
    total_bytes: int | None = None


class RemoteState(StrEnum):
    """A system's many words in ours."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    ENDED = "ENDED"


class Ending(StrEnum):
    """How a remote run ended."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    CANCELLED = "CANCELLED"
    DEADLINE = "DEADLINE"
    NODE_FAILURE = "NODE_FAILURE"
    PREEMPTED = "PREEMPTED"
    LAUNCH_FAILURE = "LAUNCH_FAILURE"
    GATE_CLOSED = "GATE_CLOSED"
    """It waited at its gate in vain: nothing of the user's ran, and nothing can under its marker any more."""


CONDITIONS: Mapping[Ending, Condition] = {
    Ending.COMPLETED: Condition.NORMAL_COMPLETION,
    Ending.FAILED: Condition.JOB_REMOTE_OUTCOME_ERROR,
    Ending.TIMEOUT: Condition.SCHEDULER_TIMEOUT,
    Ending.OUT_OF_MEMORY: Condition.SCHEDULER_OUT_OF_MEMORY,
    Ending.CANCELLED: Condition.SCHEDULER_CANCELLED,
    Ending.DEADLINE: Condition.SCHEDULER_DEADLINE,
    Ending.NODE_FAILURE: Condition.SCHEDULER_TERMINATED,
    Ending.PREEMPTED: Condition.SCHEDULER_STOPPED,
    Ending.LAUNCH_FAILURE: Condition.JOB_LAUNCH_FAILURE,
    Ending.GATE_CLOSED: Condition.JOB_LAUNCH_FAILURE,
}
"""What each ending is called on the wire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCounts:
    """Tasks of a job array by state, and the indices that did not complete."""

    queued: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    failed_indices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a system says of one remote job now.

    ``raw_state`` and ``reason`` are the system's own words; while it waits, ``reason_words`` says the reason for people
    and ``decided_by`` who can change it, both empty where the word is not known. Instants are aware UTC, None while not
    known.
    ``ending`` and ``exit_code`` are set when ``state`` is ENDED; ``exit_code`` may stay None when no code was seen.
    A job array is one remote job: QUEUED until a task runs, ENDED when all have.
    """

    state: RemoteState
    raw_state: str
    reason: str = ""
    reason_words: str = ""
    decided_by: str = ""
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    expected_start_at: datetime | None = None
    ending: Ending | None = None
    exit_code: int | None = None
    signal: int | None = None
    nodes: str = ""
    max_rss_mib: int | None = None
    restarts: int = 0
    tasks: TaskCounts | None = None
    is_put_off: bool = False
    """It waits for an instant and not for room: who asked for none was not started by its place, which tries later."""


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of a job's standard output from ``offset_bytes`` on, at most 256 KiB; ``next_offset_bytes`` continues."""

    data: bytes
    offset_bytes: int
    next_offset_bytes: int


class FileKind(StrEnum):
    """What a name in a directory is, as the wire says it."""

    FILE = "file"
    DIRECTORY = "dir"
    LINK = "symbolic_link"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """One name on a system. ``path`` is relative to the system's root directory, without a leading slash."""

    path: str
    kind: FileKind
    size_bytes: int
    modified_at: datetime
    owner: str = ""
    group: str = ""
    permissions: str = ""
    """In ``rwxr-x---`` form."""

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]
