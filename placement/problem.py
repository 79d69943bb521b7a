"""What placement is asked and what it answers: plain data, so that the same problem always gives the same plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from placement.experience import Experience
from placement.forecasts import Forecasts
from placement.kept import Kept
from placement.policy import Tariff, tariff
from scheduler.model.images import PinnedImage
from scheduler.model.jobs import FinishedRun, Job, JobSpec
from scheduler.model.plan import Decision, Term
from scheduler.model.runs import JobType, Resources
from scheduler.model.snapshots import NodeKind, PartitionState, SystemSnapshot, VisibleJob
from scheduler.model.systems import UNLIMITED, LogicalQueue, System
from scheduler.model.verdicts import ImageAsk, ImageVerdict

if TYPE_CHECKING:
    from placement.own_runs import OwnRuns

ANYONE = frozenset({"*"})
"""A set of owners that holds everyone; for systems that need no credential, and for tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A job that waits for a place."""

    job_uuid: str
    owner: str
    spec: JobSpec
    waiting_since: datetime
    behind_weight: float = 0.0
    """Weights of the jobs that wait for this one to end."""
    image: PinnedImage | None = None
    """What its image's name means; None where nobody has found that out."""

    @classmethod
    def of(cls, job: Job, behind_weight: float = 0.0) -> Ask:
        return cls(
            job_uuid=job.uuid,
            owner=job.owner,
            spec=job.spec,
            waiting_since=job.created_at,
            behind_weight=behind_weight,
            image=job.image,
        )


class PlaceKey(NamedTuple):
    """One place by name: a system and a logical queue of it; no queue for jobs that run at once on the host."""

    system_id: str
    queue: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A job of ours that already has a place. It counts as load until a snapshot is young enough to show it."""

    queue: str | None
    resources: Resources
    placed_at: datetime
    submitted_at: datetime | None = None
    tasks: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """A place that broke our last jobs at once: it takes one at a time, and that after a pause, until one survives."""

    broken_count: int
    next_trial_at: datetime
    on_trial_count: int = 0
    trials_left: int = 0
    """Jobs that may be sent there now: one when the pause is over and none is on trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The images that lie on a system. present: by the login whose store has it, and the digest of its manifest.

    paces_bytes_per_s: of the last images that were brought there, from the fetch to the last byte in the store, for
    each byte that there was to fetch.
    """

    present: frozenset[tuple[str, str]] = frozenset()
    paces_bytes_per_s: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SystemView:
    """A system as placement sees it: its definition, the newest look at it, and what is ours there.

    may_execute, has_credential: owners who may run jobs here, and who can log in (``ANYONE`` where none is needed).
    active: our jobs that have not ended, by (queue, owner), for the limits on numbers of jobs.
    breakers: those that are open, by queue; None: of the system as a whole.
    image_verdicts: whether images run on the nodes here, by queue in the same way. What is not there is not known.
    stores: the images that lie here; None where the system keeps none.
    """

    system: System
    snapshot: SystemSnapshot | None = None
    may_execute: frozenset[str] = ANYONE
    has_credential: frozenset[str] = ANYONE
    active: Mapping[tuple[str | None, str], int] = field(default_factory=dict)
    committed: tuple[Committed, ...] = ()
    breakers: Mapping[str | None, Breaker] = field(default_factory=dict)
    image_verdicts: Mapping[tuple[ImageAsk, str | None], ImageVerdict] = field(default_factory=dict)
    stores: Stores | None = None

    @cached_property
    def host_place(self) -> PlaceOption:
        """Its host, for jobs that run at once."""
        return PlaceOption(self)

    @cached_property
    def queue_places(self) -> tuple[PlaceOption, ...]:
        """Its queues, by name."""
        return tuple(PlaceOption(self, queue) for queue in sorted(self.system.queues, key=lambda queue: queue.name))

    @cached_property
    def speed_factor(self) -> float:
        """How much faster than the reference this system runs jobs; 1.0 when not (sensibly) said in its notes."""
        return _positive(self.system.berth_notes.get("speedFactor"), 1.0)

    @cached_property
    def tariff(self) -> Tariff:
        """What it costs to use it, as its notes say."""
        return tariff(self.system)

    def active_jobs(self, queue: str | None = None, owner: str | None = None) -> int:
        """Our jobs here that have not ended: in one queue or in all, of one owner or of all."""
        return sum(
            count
            for (its_queue, its_owner), count in self.active.items()
            if queue in (None, its_queue) and owner in (None, its_owner)
        )


_HOST = LogicalQueue(name="", partition="", min_nodes=0, min_cores_per_node=0, min_walltime_s=0)
"""A host takes what its nodes hold."""


class Bounds(NamedTuple):
    """Least and most that a job may ask for in a place, on each node but for nodes and walltime; None: no limit."""

    nodes: tuple[int, int | None]
    cores: tuple[int, int | None]
    memory_mib: tuple[int, int | None]
    walltime_s: tuple[int, int | None]


@dataclass(frozen=True)
class PlaceOption:
    """A system with one of its queues; ``queue`` None: the job runs at once on the host (FORK)."""

    view: SystemView
    queue: LogicalQueue | None = None

    @cached_property
    def key(self) -> PlaceKey:
        return PlaceKey(self.view.system.id, self.queue.name if self.queue else None)

    @property
    def breakers(self) -> tuple[Breaker, ...]:
        """Those that stand open here: of the whole system, of this queue."""
        found = self.view.breakers
        return tuple(found[name] for name in dict.fromkeys((None, self.key.queue)) if name in found) if found else ()

    def image_verdict(self, spec: JobSpec) -> ImageVerdict | None:
        """Whether the job's image runs here: on this queue's nodes, or on all of the system; None: not known."""
        known, asked = self.view.image_verdicts, ImageAsk.of(spec) if self.view.image_verdicts else None
        if asked is None:
            return None
        return known.get((asked, self.key.queue)) or known.get((asked, None))

    @property
    def job_type(self) -> JobType:
        return JobType.BATCH if self.queue else JobType.FORK

    @cached_property
    def partition(self) -> PartitionState | None:
        """What the snapshot says of the partition behind this place; None when it does not show it.

        A host without a batch system shows itself as one partition; a cluster says nothing of its login host.
        """
        snapshot = self.view.snapshot
        if snapshot is None or (self.queue is None and self.view.system.can_run_batch):
            return None
        wanted = self.queue.partition if self.queue else None
        return next((state for state in snapshot.partitions if wanted in (None, state.name)), None)

    @cached_property
    def bounds(self) -> Bounds:
        """What one job may ask for here, as the queue is defined and as its nodes are seen."""
        queue, kinds, seen = self.queue or _HOST, self.nodes, self.partition
        total = sum(kind.total for kind in kinds) if kinds else None
        return Bounds(
            nodes=(queue.min_nodes, _tightest(queue.max_nodes, seen.max_nodes if seen else None, total)),
            cores=(
                queue.min_cores_per_node,
                _tightest(queue.max_cores_per_node, max((kind.cores for kind in kinds), default=None)),
            ),
            memory_mib=(
                queue.min_memory_mib,
                _tightest(queue.max_memory_mib, max((kind.memory_mib for kind in kinds), default=None)),
            ),
            walltime_s=(queue.min_walltime_s, _tightest(queue.max_walltime_s, seen.max_walltime_s if seen else None)),
        )

    @cached_property
    def nodes(self) -> tuple[NodeKind, ...]:
        """Nodes that the snapshot shows behind this place; empty when unknown.

        A cluster's nodes say nothing of its login host, where its FORK jobs run.
        """
        if self.view.snapshot is None:
            return ()
        if self.queue is None:
            return () if self.view.system.can_run_batch else self.view.snapshot.nodes
        return tuple(kind for kind in self.view.snapshot.nodes if kind.partition == self.queue.partition)

    @cached_property
    def largest_node_mib(self) -> int | None:
        """Memory of the largest node; None when none is known."""
        return max((kind.memory_mib for kind in self.nodes), default=None)

    @cached_property
    def visible_jobs(self) -> tuple[VisibleJob, ...]:
        """Anyone's jobs that the snapshot shows in this place."""
        if self.view.snapshot is None or (self.queue is None and self.view.system.can_run_batch):
            return ()
        if self.queue is None:
            return self.view.snapshot.jobs
        return self.view.snapshot.jobs_by_partition.get(self.queue.partition, ())

    @cached_property
    def unseen(self) -> tuple[Committed, ...]:
        """Jobs of ours that were sent to this place and that the snapshot cannot show yet, oldest first."""
        ours = (each for each in self.view.committed if each.queue == self.key.queue)
        return tuple(sorted((each for each in ours if not self._shown(each)), key=lambda each: each.placed_at))

    @cached_property
    def unseen_runs(self) -> Mapping[Resources, int]:
        """How many runs of each shape ``unseen`` comes to; thousands of jobs have few shapes."""
        runs: Counter[Resources] = Counter()
        for each in self.unseen:
            runs[each.resources] += max(1, each.tasks)
        return runs

    def _shown(self, job: Committed) -> bool:
        snapshot = self.view.snapshot
        return snapshot is not None and job.submitted_at is not None and job.submitted_at <= snapshot.taken_at


class LearntWaits(Protocol):
    """What looks at a queue taught of its waits; a protocol, so that a problem does not load what learns."""

    def term(self, size: float, walltime_s: float, at_s: float) -> Term | None:
        """The wait of a job that joins now (Unix time), the last look taken as new; None: too little is known."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Everything a plan depends on. ``last_plan`` is only a hint; ``seed`` feeds the solver.

    watched, experience: what the looks at queues taught; read, and never moved, by planning.
    forecasts, own_runs: what was worked out for plans before, of queues and of ``history``.
    """

    now: datetime
    asks: tuple[Ask, ...]
    systems: tuple[SystemView, ...]
    history: tuple[FinishedRun, ...] = ()
    watched: Mapping[PlaceKey, LearntWaits] = field(default_factory=dict)
    experience: Experience = field(default_factory=Experience)
    forecasts: Forecasts = field(default_factory=Forecasts, compare=False, repr=False)
    own_runs: Kept[OwnRuns] = field(default_factory=Kept, compare=False, repr=False)
    last_plan: Mapping[str, PlaceKey] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveLimits:
    """How much thinking a plan may cost."""

    deterministic_time: float = 0.5
    """The solver's own measure of work, the same on any machine; one unit takes a core one to four seconds."""
    max_variables: int = 5_000
    """Beyond this many the solver is given the worst-placed jobs, part by part."""


DEFAULT_LIMITS = SolveLimits()


@dataclass(frozen=True, slots=True)
class Choice:
    """The place of a job, and how long other jobs of ours delay it there."""

    place: PlaceKey
    delay_s: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision for every job asked, by uuid. ``proven_optimal``: no better plan exists for these estimates.

    gap_share: how much dearer it is than if every job were alone, which no plan can be cheaper than.
    solved_share: of the kinds of jobs, those that the solver thought over; the others stay as greedy placed them.
    """

    decisions: Mapping[str, Decision] = field(default_factory=lambda: MappingProxyType({}))
    proven_optimal: bool = True
    gap_share: float = 0.0
    solved_share: float = 1.0


def holds(owners: frozenset[str], owner: str) -> bool:
    """Whether an owner is among the owners, which may be everyone."""
    return owner in owners or not ANYONE.isdisjoint(owners)


def _tightest(*limits: int | None) -> int | None:
    """The tightest of the limits that are set; the wire's ways to write "none" do not count."""
    return min((limit for limit in limits if limit is not None and 0 <= limit < UNLIMITED), default=None)


def _positive(value: object, default: float) -> float:
    """Notes are free text of people: what is no sensible positive number counts as not said."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 1e-6 < value < 1e6:
        return float(value)
    return default
