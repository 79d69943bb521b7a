"""What placement says: the winner, what it expects, and why each other place lost. Stored with the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import log
from statistics import NormalDist

from scheduler.model.actions import Action

_UNIT = NormalDist()
_P90 = _UNIT.inv_cdf(0.9)


class Reason(StrEnum):
    """Why a place is impossible for a job: the clause that rejected it."""

    DISABLED = "DISABLED"
    CANNOT_EXECUTE = "CANNOT_EXECUTE"
    NOT_PERMITTED = "NOT_PERMITTED"
    NO_CREDENTIAL = "NO_CREDENTIAL"
    NOT_NAMED = "NOT_NAMED"
    JOB_TYPE = "JOB_TYPE"
    RUNTIME = "RUNTIME"
    QUEUE_UNKNOWN = "QUEUE_UNKNOWN"
    QUEUE_DOWN = "QUEUE_DOWN"
    NODES = "NODES"
    CORES = "CORES"
    MEMORY = "MEMORY"
    WALLTIME = "WALLTIME"
    GPUS = "GPUS"
    CONSTRAINT = "CONSTRAINT"
    ARRAY = "ARRAY"
    JOB_LIMIT = "JOB_LIMIT"
    IMAGE = "IMAGE"
    NODES_DOWN = "NODES_DOWN"
    LICENCE = "LICENCE"
    ACCOUNT = "ACCOUNT"
    ALLOCATION = "ALLOCATION"
    QOS = "QOS"
    BUDGET = "BUDGET"
    NETWORK = "NETWORK"
    STORAGE = "STORAGE"
    POLICY = "POLICY"
    FAILING = "FAILING"
    GANG = "GANG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """One place that cannot take a job, as data; the sentence is made in ``placement.explain``.

    ``asked`` and ``limit`` are as people would write them, with their unit.
    """

    system_id: str
    queue: str | None
    reason: Reason
    asked: str = ""
    limit: str = ""


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the time to solution, in seconds: median and 90th percentile, and where the figure comes from."""

    p50_s: float
    p90_s: float
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The expected time to solution of a job in one place: max(wait, staging) + run + archive."""

    system_id: str
    queue: str | None
    wait: Term
    staging: Term
    run: Term
    archive: Term
    expected_s: float = 0.0
    """Mean of the time to solution, and what the job takes of others of ours: by this places are compared."""
    costs_s: Mapping[str, float] = field(default_factory=dict)
    """What else counts when places are compared, by reason: failures of the system, lateness, price, energy."""
    deadline_s: float | None = None
    """Seconds until the job's deadline, when this was estimated."""
    notes: tuple[str, ...] = ()
    told_waits_s: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Median and 90th percentile of the wait by estimator, with those that were not believed: to score them by."""
    image_actions: tuple[Action, ...] = ()
    """What must be done so that the image runs there."""

    @property
    def total_p50_s(self) -> float:
        return max(self.wait.p50_s, self.staging.p50_s) + self.run.p50_s + self.archive.p50_s

    @property
    def total_p90_s(self) -> float:
        return max(self.wait.p90_s, self.staging.p90_s) + self.run.p90_s + self.archive.p90_s

    @property
    def extra_s(self) -> float:
        """All that counts beside the quantiles."""
        return sum(self.costs_s.values())

    @property
    def log_normal(self) -> tuple[float, float]:
        """Mean and deviation of the logarithm of the time to the result, through both quantiles."""
        p50_s, p90_s = max(1.0, self.total_p50_s), max(1.0, self.total_p90_s)
        return log(p50_s), max(0.0, log(p90_s / p50_s)) / _P90

    @property
    def kept_probability(self) -> float | None:
        """Of the result being there by the deadline; None without one."""
        if self.deadline_s is None:
            return None
        middle, spread = self.log_normal
        if self.deadline_s <= 0 or spread <= 0:
            return 1.0 if self.deadline_s >= self.total_p50_s else 0.0
        return _UNIT.cdf((log(self.deadline_s) - middle) / spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Why a job goes where it goes. ``winner`` None: it fits nowhere now (rejections say why).

    ``losers`` are feasible places in order of expected time to solution. ``sentence`` is the explanation for people.
    """

    winner: Estimate | None
    losers: tuple[Estimate, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    proven_optimal: bool = False
    sentence: str = ""
    decided_at: datetime | None = None
    advice: tuple[str, ...] = field(default=())
