"""Small worlds for the placement tests: systems that look like the testbed's clusters, and jobs for them."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from placement.problem import Ask, Problem, SystemView
from scheduler.model.jobs import FinishedRun, JobSpec
from scheduler.model.plan import Decision
from scheduler.model.runs import Resources, Runtime
from scheduler.model.snapshots import NodeKind, PartitionState, SystemSnapshot, VisibleJob
from scheduler.model.systems import LogicalQueue, System, SystemRuntime

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SINGULARITY = (SystemRuntime(Runtime.SINGULARITY),)


def queue(name: str = "cpu", **changes: Any) -> LogicalQueue:
    return LogicalQueue(**{"name": name, "partition": name, "max_walltime_s": 86_400, **changes})


def cluster(name: str = "alder", *queues: LogicalQueue, **changes: Any) -> System:
    fields: dict[str, Any] = {
        "tenant": "dev",
        "id": name,
        "uuid": f"uuid-{name}",
        "owner": "admin",
        "host": f"{name}.example.org",
        "can_exec": True,
        "can_run_batch": True,
        "batch_scheduler": "SLURM",
        "job_working_dir": "berth",
        "runtimes": SINGULARITY,
        "queues": queues or (queue(),),
        "default_queue": (queues or (queue(),))[0].name,
    }
    return System(**fields | changes)


def host(name: str = "elm", **changes: Any) -> System:
    fields: dict[str, Any] = {"can_run_batch": False, "queues": (), "default_queue": None, "batch_scheduler": None}
    return replace(cluster(name), **fields | changes)


def nodes(partition: str = "cpu", **changes: Any) -> NodeKind:
    return NodeKind(
        **{"partition": partition, "cores": 4, "memory_mib": 4000, "total": 4, "free": 4, "free_cores": 16, **changes}
    )


def snapshot(*kinds: NodeKind, jobs: tuple[VisibleJob, ...] = (), age_s: float = 10, **changes: Any) -> SystemSnapshot:
    kinds = kinds or (nodes(),)
    partitions = tuple(PartitionState(name=name, up=True) for name in dict.fromkeys(kind.partition for kind in kinds))
    fields: dict[str, Any] = {"partitions": partitions, "nodes": kinds, "jobs": jobs}
    return SystemSnapshot(taken_at=NOW - timedelta(seconds=age_s), **fields | changes)


def view(system: System | None = None, look: SystemSnapshot | None = None, **changes: Any) -> SystemView:
    return SystemView(system=system or cluster(), snapshot=look, **changes)


def spec(**changes: Any) -> JobSpec:
    resources = {name: changes.pop(name) for name in Resources.__slots__ if name in changes}
    fields: dict[str, Any] = {
        "name": "a-job",
        "app_id": "hello",
        "app_version": "1",
        "image": "docker://registry.example.org/hello:1",
        "runtime": Runtime.SINGULARITY,
        "dynamic": True,
        "resources": Resources(**resources),
    }
    return JobSpec(**fields | changes)


def ask(uuid: str = "job-1", owner: str = "alice", waited_s: float = 60, **changes: Any) -> Ask:
    return Ask(job_uuid=uuid, owner=owner, spec=spec(**changes), waiting_since=NOW - timedelta(seconds=waited_s))


def problem(asks: Ask | tuple[Ask, ...] = (), *views: SystemView, **changes: Any) -> Problem:
    return Problem(now=NOW, asks=asks if isinstance(asks, tuple) else (asks,), systems=views, **changes)


def running(cores: int = 4, walltime_s: int = 3600, since_s: float = 600, **changes: Any) -> VisibleJob:
    return _job(True, cores, walltime_s, started_at=NOW - timedelta(seconds=since_s), **changes)


def waiting(cores: int = 4, walltime_s: int = 3600, since_s: float = 600, **changes: Any) -> VisibleJob:
    return _job(False, cores, walltime_s, submitted_at=NOW - timedelta(seconds=since_s), **changes)


def _job(is_running: bool, cores: int, walltime_s: int, **changes: Any) -> VisibleJob:
    fields = {"remote_id": "1", "partition": "cpu", "nodes": max(1, cores // 4), "cores": cores}
    return VisibleJob(**{**fields, "running": is_running, "walltime_s": walltime_s, **changes})


def finished(wait_s: float = 60, run_s: float = 300, **changes: Any) -> FinishedRun:
    ended_at = changes.pop("ended_at", NOW - timedelta(hours=1))
    fields: dict[str, Any] = {
        "tenant": "dev",
        "owner": "alice",
        "app_id": "hello",
        "image": "docker://registry.example.org/hello:1",
        "system_id": "alder",
        "queue": "cpu",
        "resources": Resources(),
        "submitted_at": ended_at - timedelta(seconds=run_s + wait_s),
        "started_at": ended_at - timedelta(seconds=run_s),
        "ended_at": ended_at,
        "completed": True,
    }
    return FinishedRun(**fields | changes)


def advised(decision: Decision) -> list[str]:
    """The advice without how much it gains, which no test can know to the minute: futures are drawn."""
    return [re.sub(r"about .* earlier", "earlier", each) for each in decision.advice]
