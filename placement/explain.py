"""Sentences for people: why a place lost, why another won, what would help. Made here, once, in a stable order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from placement.filters import Screening
from placement.words import listed
from scheduler.model.plan import Reason, Rejection

# -- rejections --------------------------------------------------------------------------------------------------


def _where(rejection: Rejection) -> str:
    system = f"'{rejection.system_id}'"
    return system if rejection.queue is None else f"queue '{rejection.queue}' of {system}"


def _allows(rejection: Rejection) -> str:
    return f"{_where(rejection)} allows {rejection.limit} ({rejection.asked} asked)"


def _unknown_queue(rejection: Rejection) -> str:
    offered = f" (it has {rejection.limit})" if rejection.limit else ""
    return f"{_where(rejection)} has no queue" + (f" '{rejection.asked}'{offered}" if rejection.asked else "s")


_SENTENCES: Mapping[Reason, Callable[[Rejection], str]] = {
    Reason.DISABLED: lambda r: f"{_where(r)} is disabled",
    Reason.CANNOT_EXECUTE: lambda r: f"{_where(r)} holds files and runs no jobs",
    Reason.NOT_PERMITTED: lambda r: f"{r.asked} may not run jobs on {_where(r)}",
    Reason.NO_CREDENTIAL: lambda r: f"{r.asked} has no credential for {_where(r)}",
    Reason.NOT_NAMED: lambda r: f"{_where(r)} is not the system asked for, '{r.asked}'",
    Reason.JOB_TYPE: lambda r: f"{_where(r)} runs {r.limit} jobs ({r.asked} asked)",
    Reason.RUNTIME: lambda r: f"{_where(r)} has the container runtime {r.limit} ({r.asked} asked)",
    Reason.QUEUE_UNKNOWN: _unknown_queue,
    Reason.QUEUE_DOWN: lambda r: f"{_where(r)} starts no jobs at the moment",
    Reason.NODES: _allows,
    Reason.CORES: _allows,
    Reason.MEMORY: lambda r: f"{_where(r)} allows {r.limit} of memory ({r.asked} asked)",
    Reason.WALLTIME: lambda r: f"{_where(r)} allows {r.limit} of walltime ({r.asked} asked)",
    Reason.GPUS: lambda r: f"{_where(r)} has {r.limit or 'no GPUs'} ({r.asked} asked)",
    Reason.CONSTRAINT: lambda r: f'{_where(r)} does not meet "{r.asked}" ({r.limit})',
    Reason.ARRAY: lambda r: f"{_where(r)} runs no job arrays",
    Reason.JOB_LIMIT: lambda r: f"{_where(r)} is at its limit of {r.limit}",
    Reason.IMAGE: lambda r: f"{_where(r)} cannot run the image: {r.limit or r.asked}",
}

_ADVICE: Mapping[Reason, Callable[[Rejection], str]] = {
    Reason.NODES: lambda r: f"ask for {r.limit} to use {_where(r)}",
    Reason.CORES: lambda r: f"ask for {r.limit} to use {_where(r)}",
    Reason.MEMORY: lambda r: f"ask for {r.limit} of memory to use {_where(r)}",
    Reason.WALLTIME: lambda r: f"ask for {r.limit} of walltime to use {_where(r)}",
    Reason.NOT_PERMITTED: lambda r: f"ask the owner of {_where(r)} for the permission EXECUTE",
    Reason.NO_CREDENTIAL: lambda r: f"register a credential of {r.asked} for {_where(r)}",
}
"""What a user can change, by what stands in the way."""


def rejection_sentence(rejection: Rejection) -> str:
    """Why one place cannot take the job: "queue 'debug' of 'alder' allows at most 10 min of walltime (24 h asked)"."""
    return _SENTENCES[rejection.reason](rejection)


def refusal(screening: Screening) -> str:
    """Why a job has no place now: one sentence over all systems. Systems that were not meant stay unsaid."""
    if screening.later:
        return "It fits, but not now: " + _all(screening.later)
    if not screening.rejections:
        return "There is no system to run it on"
    meant = [each for each in screening.rejections if each.reason is not Reason.NOT_NAMED]
    return "No system can run it: " + _all(meant or screening.rejections)


def advice(screening: Screening, limit: int = 3) -> tuple[str, ...]:
    """Changes that would open a place in whose way exactly one thing stands."""
    obstacles: dict[tuple[str, str | None], list[Rejection]] = {}
    for each in screening.rejections:
        obstacles.setdefault((each.system_id, each.queue), []).append(each)
    alone = [found[0] for found in obstacles.values() if len(found) == 1]
    return tuple(_ADVICE[each.reason](each) for each in alone if _helps(each))[:limit]


def _helps(rejection: Rejection) -> bool:
    return rejection.reason in _ADVICE and not rejection.limit.startswith("no ")


def _all(rejections: Iterable[Rejection]) -> str:
    return listed([rejection_sentence(each) for each in rejections])
