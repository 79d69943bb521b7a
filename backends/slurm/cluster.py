"""From sinfo, squeue and ``sbatch --test-only`` to a SystemSnapshot. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from backends.slurm.text import US, columns, instant, parse_indices, parse_version
from scheduler.model.errors import UnexpectedReply
from scheduler.model.snapshots import NodeKind, PartitionState, StartProbe, SystemSnapshot, VisibleJob
from scheduler.model.systems import UNLIMITED
from scheduler.model.units import parse_walltime_s, utc

VISIBLE_JOBS_MOST = 5000
"""Most jobs of a queue that one snapshot holds: running ones first, then those next in line."""

_SINFO = ("%R", "%P", "%a", "%l", "%L", "%s", "%c", "%m", "%G", "%f", "%D", "%T", "%C")
SINFO_ARGV = ("sinfo", "--all", "--exact", "--noheader", "--format=" + US.join(_SINFO))

_SQUEUE = ("%F", "%K", "%P", "%T", "%D", "%C", "%l", "%V", "%S", "%Q", "%u", "%r")
SQUEUE_ARGV = (
    *("squeue", "--noheader", "--states=RUNNING,COMPLETING,CONFIGURING,SUSPENDED,PENDING", "--sort=-t,-p,i"),
    "--format=" + US.join(_SQUEUE),
)

_DOWN = frozenset(
    {"down", "drained", "draining", "drain", "fail", "failing", "error", "unknown", "maint", "reboot", "perfctrs"}
    | {"future", "powering_down", "inval", "blocked", "no_respond"}
)
_FREE = frozenset({"idle", "powered_down", "powering_up", "powered_up", "power_down"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A line of sinfo: nodes of one partition that are alike and in the same state."""

    partition: str
    is_default: bool
    up: bool
    max_walltime_s: int | None
    default_walltime_s: int | None
    max_nodes: int | None
    cores: int
    memory_mib: int
    gpus: int
    gpu_model: str | None
    features: tuple[str, ...]
    count: int
    free: bool
    planned: bool
    down: bool
    free_cores: int


def parse_sinfo(text: str) -> list[NodeRow]:
    """The answer to ``SINFO_ARGV``."""
    return [_node_row(line) for line in text.splitlines()]


def parse_visible(text: str, most: int = VISIBLE_JOBS_MOST) -> tuple[tuple[VisibleJob, ...], int]:
    """The answer to ``SQUEUE_ARGV``, at most so many jobs, and how many there are. A waiting task is a job."""
    jobs: list[VisibleJob] = []
    total = 0
    for line in text.splitlines():
        job, tasks = _visible_job(line)
        total += tasks
        jobs += [job] * min(tasks, most - len(jobs))
    return tuple(jobs), total


def parse_test_only(text: str) -> datetime | None:
    """When ``sbatch --test-only`` says that a job would start; None when it says something else.

    26.05 writes a stray word after the time.
    """
    match = re.search(r"sbatch: Job \d+ to start at (\d+)\b", text)
    return utc(int(match[1])) if match else None


def snapshot_of(
    taken_at: datetime, version: str, nodes: str, jobs: str, starts: tuple[tuple[StartProbe, datetime], ...]
) -> SystemSnapshot:
    """What the three commands and the probes showed, as one snapshot."""
    rows = parse_sinfo(nodes)
    visible, total = parse_visible(jobs)
    return SystemSnapshot(
        taken_at=taken_at,
        partitions=tuple(_partitions(rows)),
        nodes=tuple(_kinds(rows)),
        jobs=visible,
        jobs_total=total,
        starts=starts,
        scheduler_version=parse_version(version)[0],
    )


def _partitions(rows: Sequence[NodeRow]) -> Iterator[PartitionState]:
    for row in {row.partition: row for row in rows}.values():
        yield PartitionState(
            name=row.partition,
            up=row.up,
            is_default=row.is_default,
            max_walltime_s=row.max_walltime_s,
            default_walltime_s=row.default_walltime_s,
            max_nodes=row.max_nodes,
        )


def _kinds(rows: Sequence[NodeRow]) -> Iterator[NodeKind]:
    kinds: dict[tuple[object, ...], list[NodeRow]] = {}
    for row in rows:
        if row.count:
            key = (row.partition, row.cores, row.memory_mib, row.gpus, row.gpu_model, row.features)
            kinds.setdefault(key, []).append(row)
    for alike in kinds.values():
        yield NodeKind(
            partition=alike[0].partition,
            cores=alike[0].cores,
            memory_mib=alike[0].memory_mib,
            total=sum(row.count for row in alike),
            free=sum(row.count for row in alike if row.free),
            planned_nodes=sum(row.count for row in alike if row.planned),
            down=sum(row.count for row in alike if row.down),
            free_cores=sum(row.free_cores for row in alike if not row.down),
            gpus=alike[0].gpus,
            gpu_model=alike[0].gpu_model,
            features=alike[0].features,
        )


def _node_row(line: str) -> NodeRow:
    name, starred, up, limit, default, size, cores, memory, gres, features, count, state, cpus = columns(
        "sinfo", line, len(_SINFO)
    )
    gpu_model, gpus = _gpus(gres)
    word = state.rstrip("*~#!%$@^-+").lower()
    shares = cpus.split("/")
    if len(shares) != 4:
        raise UnexpectedReply("sinfo: CPUs are not four numbers", line)
    return NodeRow(
        partition=name,
        is_default=starred == f"{name}*",
        up=up == "up",
        max_walltime_s=_walltime_s(limit),
        default_walltime_s=_walltime_s(default),
        max_nodes=_max_nodes(size),
        cores=_number("sinfo", cores, line),
        memory_mib=_number("sinfo", memory, line),
        gpus=gpus,
        gpu_model=gpu_model,
        features=tuple(sorted(filter(None, features.split(",")))) if features != "(null)" else (),
        count=_number("sinfo", count, line),
        free=word in _FREE and "$" not in state and "*" not in state,
        planned=word == "planned" and "*" not in state and "$" not in state,
        down=word in _DOWN or "*" in state or "$" in state,
        free_cores=_number("sinfo", shares[1], line),
    )


def _visible_job(line: str) -> tuple[VisibleJob, int]:
    job_id, tasks, partition, state, nodes, cores, limit, submitted, starts, priority, user, reason = columns(
        "squeue", line, len(_SQUEUE)
    )
    running = state not in ("PENDING", "CONFIGURING")
    starts_at = instant(starts)
    job = VisibleJob(
        remote_id=job_id,
        partition=partition.split(",")[0],
        running=running,
        nodes=_number("squeue", nodes.partition("-")[0], line),
        cores=_number("squeue", cores, line),
        walltime_s=_walltime_s(limit) or UNLIMITED,
        submitted_at=instant(submitted),
        started_at=starts_at if running else None,
        expected_start_at=None if running else starts_at,
        priority=float(priority) if priority.isdigit() else 0.0,
        user=user,
        reason="" if reason == "None" else reason,
    )
    return job, 1 if tasks in ("", "N/A") else len(parse_indices(tasks.strip("[]")))


def _gpus(gres: str) -> tuple[str | None, int]:
    """``gpu:a100:4(S:0-1),fs:1`` as (a100, 4). Several models on one node: the first one's name, all of them."""
    found = re.findall(r"(?:^|,)gpu(?::([^:,()]+(?=:)))?:(\d+)", gres)
    return (found[0][0] or None if found else None), sum(int(count) for _, count in found)


def _walltime_s(text: str) -> int | None:
    if text in ("infinite", "UNLIMITED", "n/a", "NONE", "N/A", "NOT_SET", "INVALID"):
        return None
    try:
        return parse_walltime_s(text)
    except ValueError as error:
        raise UnexpectedReply(str(error), text) from None


def _max_nodes(size: str) -> int | None:
    last = size.rpartition("-")[2]
    return int(last) if last.isdigit() else None


def _number(tool: str, text: str, line: str) -> int:
    try:
        return int(float(text.rstrip("+")))
    except ValueError:
        raise UnexpectedReply(f"{tool}: '{text[:40]}' is not a number", line) from None
