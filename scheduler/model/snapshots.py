"""What a system shows of itself at one moment: nodes, queues, and the jobs that are visible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from scheduler.model.runs import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeKind:
    """Nodes of one partition that are alike; memory and cores are of one node."""

    partition: str
    cores: int
    memory_mib: int
    total: int
    free: int
    """Nodes with nothing on them, ready to take a job."""
    planned_nodes: int = 0
    """Nodes with nothing on them that the site keeps for a job that waits; who ends before it starts may have them."""
    down: int = 0
    free_cores: int = 0
    """Free cores on all nodes of this kind together."""
    gpus: int = 0
    gpu_model: str | None = None
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """A partition's limits and whether it takes and starts jobs."""

    name: str
    up: bool
    is_default: bool = False
    max_walltime_s: int | None = None
    default_walltime_s: int | None = None
    max_nodes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleJob:
    """A job of anyone on the system, as far as we may see it. Instants aware UTC; durations seconds."""

    remote_id: str
    partition: str
    running: bool
    nodes: int
    cores: int
    walltime_s: int
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    expected_start_at: datetime | None = None
    priority: float = 0.0
    user: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One job of anyone, as far as looks at the queue, or an import of a site's records, have shown it.

    started_at: None while it waits, and for ever where no start was seen. ended_at: when it left; without a start it
    was withdrawn, or ran unseen. seen_at: the look, or the import, that said so.
    """

    remote_id: str
    partition: str
    cores: int
    walltime_s: int
    user: str
    submitted_at: datetime
    seen_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """Nodes of a partition that a reservation of the site keeps from ordinary jobs from one instant to another."""

    reservation: str
    partition: str
    nodes: int
    starts_at: datetime
    ends_at: datetime
    maintenance: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """A licence that the site's scheduler counts: how many there are, and how many nobody uses now."""

    name: str
    total: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """An account that the login may charge, and the qualities of service it may ask for there.

    ``partition`` None: in every partition. ``default_qos`` None: the site's own. ``core_minutes_left``: what is left of
    the allocation, None where it has no limit or none is shown.
    """

    account: str
    partition: str | None = None
    qos: tuple[str, ...] = ()
    default_qos: str | None = None
    core_minutes_left: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QosLimit:
    """What a quality of service allows one job or one user; None where it sets no limit."""

    name: str
    max_walltime_s: int | None = None
    max_cores_per_user: int | None = None


@dataclass(frozen=True, slots=True)
class StartProbe:
    """A question to the site's own scheduler: when would a job of this shape start in this partition?"""

    partition: str
    resources: Resources


@dataclass(frozen=True, kw_only=True)
class SystemSnapshot:
    """One look at a system. ``starts`` answers the probes asked; a probe without an answer is left out.

    ``jobs`` is cut where a queue is very long; ``jobs_total`` is how many there are, None when not counted.
    ``licences``, ``associations`` and ``qos`` are None where the site does not show them. ``associations`` are those of
    the login that looked, which is Berth's user ``seen_by`` (or the one account that all share).
    """

    taken_at: datetime
    partitions: tuple[PartitionState, ...] = ()
    nodes: tuple[NodeKind, ...] = ()
    jobs: tuple[VisibleJob, ...] = ()
    jobs_total: int | None = None
    starts: tuple[tuple[StartProbe, datetime], ...] = ()
    scheduler_version: str = ""
    closures: tuple[Closure, ...] = ()
    licences: tuple[Licence, ...] | None = None
    associations: tuple[Association, ...] | None = None
    qos: tuple[QosLimit, ...] | None = None
    seen_by: str = ""

    @cached_property
    def jobs_by_partition(self) -> Mapping[str, tuple[VisibleJob, ...]]:
        """The jobs of each partition that shows any, in the order of ``jobs``."""
        found: dict[str, list[VisibleJob]] = {}
        for job in self.jobs:
            found.setdefault(job.partition, []).append(job)
        return {partition: tuple(jobs) for partition, jobs in found.items()}

    @property
    def is_whole(self) -> bool:
        """Whether every job is in ``jobs``, so that one that is missing is gone."""
        return self.jobs_total is None or self.jobs_total <= len(self.jobs)
