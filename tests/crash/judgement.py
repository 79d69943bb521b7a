"""What a crash campaign found, and what is wrong with it. Pure: the evidence comes from Berth, the file and sacct.

A job may end FINISHED or FAILED (a controller that lost its state may have killed it as an orphan), but it ends once,
and its payload never runs twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from backends.container import DUPLICATE_EXIT_CODE
from tests.end_to_end.wire import TERMINAL

MOST_FAILED_SHARE = 0.05
"""Jobs that may fail by what was done to the cluster; more means that Berth gives up what it could save."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one job, as Berth and the file that its payload wrote to tell."""

    uuid: str
    state: str
    endings: int
    """How often its history shows a final state."""
    runs: int
    """Lines that its payload wrote."""
    attempts: int = 1
    message: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that a campaign found. ``strikes`` counts what was done to the system, by kind."""

    fates: Sequence[Fate]
    jobs_by_attempt: Mapping[str, int]
    """Slurm jobs that ran user code, by the marker of the attempt."""
    strangers: frozenset[str]
    """What ran or is listed without having been answered to anybody, like a request that was taken twice."""
    strikes: Mapping[str, int]
    seconds: float

    def __str__(self) -> str:
        states = Counter(fate.state for fate in self.fates)
        shown = ", ".join(f"{name} {count}" for name, count in [*sorted(states.items()), *sorted(self.strikes.items())])
        again = sum(fate.attempts > 1 for fate in self.fates)
        return f"{len(self.fates)} jobs in {self.seconds:.0f} s: {shown}; {again} jobs needed more than one attempt"


def faults(verdict: Verdict) -> Sequence[str]:
    """Every broken promise, in words; nothing when all were kept."""
    found = [fault for fate in verdict.fates for fault in _faults_of(fate)]
    found += [f"attempt {name}: {jobs} Slurm jobs ran" for name, jobs in verdict.jobs_by_attempt.items() if jobs > 1]
    found += [f"job {uuid} was made and answered to nobody" for uuid in sorted(verdict.strangers)]
    failed = [fate for fate in verdict.fates if fate.state == "FAILED"]
    if len(failed) > MOST_FAILED_SHARE * len(verdict.fates):
        found.append(f"{len(failed)} of {len(verdict.fates)} jobs failed: {'; '.join(fate.message for fate in failed)}")
    return found


def _faults_of(fate: Fate) -> Iterable[str]:
    if fate.state not in TERMINAL:
        yield f"job {fate.uuid} never ended: {fate.state}, {fate.message}"
    elif fate.endings != 1:
        yield f"job {fate.uuid} ended {fate.endings} times"
    if fate.state == "CANCELLED":
        yield f"job {fate.uuid} was cancelled, which nobody asked for: {fate.message}"
    if fate.runs > 1:
        yield f"job {fate.uuid} ran {fate.runs} times"
    if fate.runs == 0 and fate.state == "FINISHED":
        yield f"job {fate.uuid} is FINISHED and never ran"
    if fate.state == "FAILED" and not fate.message:
        yield f"job {fate.uuid} FAILED and does not say why"


def jobs_by_attempt(sacct: str) -> Mapping[str, int]:
    """Slurm jobs that ran user code by job name, from sacct's lines ``JobName|JobID|Start|State|ExitCode``.

    A stray that found its marker claimed says so by its exit code. A controller that lost its state may start one job
    twice under the same id; that is one job, whose second start is such a stray.
    """
    ran: dict[str, set[str]] = defaultdict(set)
    for line in sacct.splitlines():
        name, job_id, start, state, exit_code = line.split("|")
        began = start not in ("Unknown", "None") and state != "PENDING"
        if name.startswith("berth-") and began and exit_code.partition(":")[0] != str(DUPLICATE_EXIT_CODE):
            ran[name].add(job_id)
    return {name: len(ids) for name, ids in ran.items()}
