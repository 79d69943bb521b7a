"""What placement says: the winner, what it expects, and why each other place lost. Stored with the job."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


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
    loss_s: float = 0.0
    """Expected time lost to failures of the system, beside the quantiles; it counts when places are compared."""
    notes: tuple[str, ...] = ()

    @property
    def total_p50_s(self) -> float:
        return max(self.wait.p50_s, self.staging.p50_s) + self.run.p50_s + self.archive.p50_s

    @property
    def total_p90_s(self) -> float:
        return max(self.wait.p90_s, self.staging.p90_s) + self.run.p90_s + self.archive.p90_s


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
