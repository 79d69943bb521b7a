"""Dependencies, kept by Berth: a job waits until others have ended as it asked, or ends when they never can."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.model.errors import NotFound
from scheduler.model.jobs import After, Fact, Job
from scheduler.model.states import TERMINAL, Condition, Event, JobState
from scheduler.ports import Ports
from scheduler.store.jobs import JobStore

MET_BY: Mapping[str, frozenset[JobState]] = {
    "ok": frozenset({JobState.FINISHED}),
    "notok": frozenset({JobState.FAILED, JobState.CANCELLED}),
    "any": TERMINAL,
}


async def waiting_for(job: Job, ports: Ports) -> str | Fact | None:
    """What the job still waits for, in words; a Fact when it waits in vain; None when it may be placed."""
    for one in job.spec.after:
        async with ports.reading() as db:
            try:
                before = (await JobStore(db).get(job.tenant, one.uuid)).state
            except NotFound:
                return _in_vain(f"job {one.uuid}, after which it was to run, does not exist")
        if before not in TERMINAL:
            return f"waiting for job {one.uuid} to end {_wanted(one)}; it is {before}"
        if before not in MET_BY[one.condition]:
            return _in_vain(
                f"job {one.uuid} ended {before}, and this job was to run only after it ended {_wanted(one)}"
            )
    return None


def _in_vain(words: str) -> Fact:
    return Fact(Event.CANCELLED, {"condition": Condition.SCHEDULER_CANCELLED}, message=words)


def _wanted(one: After) -> str:
    return {"ok": "well", "notok": "badly", "any": "in any way"}[one.condition]
