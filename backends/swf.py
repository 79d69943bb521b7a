"""Job logs in the Standard Workload Format: a job a line in 18 numbers, -1 for what is not known, headers behind ``;``.

Source: the Parallel Workloads Archive's definition of version 2.2 of the format.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from scheduler.model.errors import SpecInvalid
from scheduler.model.snapshots import Sighting
from scheduler.model.units import utc

FIELDS = 18

MOST = 1e10
"""No number of a log is larger: seconds of 300 years, and what adds up to instants that calendars know."""

ORIGIN = "swf"
"""Begins the ids of a log's jobs: its numbers are not the site's."""


@dataclass(frozen=True, slots=True)
class SwfJob:
    """One line; instants in seconds from the log's beginning, -1 where something is not known."""

    number: int
    submit_s: float
    wait_s: float
    run_s: float
    used_cores: int
    asked_cores: int
    asked_s: float
    user: int

    @property
    def cores(self) -> int:
        """What it asked for, else what it used."""
        return self.asked_cores if self.asked_cores > 0 else self.used_cores


@dataclass(frozen=True, slots=True)
class SwfLog:
    """The jobs as they stand in the log, and what its header says; None where it does not."""

    jobs: tuple[SwfJob, ...]
    cores: int | None = None
    began_at: datetime | None = None


def parse_swf(lines: Iterable[str]) -> SwfLog:
    """A whole log. SpecInvalid names the first line that is none of the format."""
    jobs: list[SwfJob] = []
    header: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if line.startswith(";"):
            label, _, value = line[1:].partition(":")
            header.setdefault(label.strip(), value.strip())
        elif line.strip():
            jobs.append(_job(number, line.split()))
    cores, began = _whole(header.get("MaxProcs")), _whole(header.get("UnixStartTime"))
    return SwfLog(tuple(jobs), cores or None, utc(began) if began else None)


def sightings(log: SwfLog, partition: str, seen_at: datetime) -> list[Sighting]:
    """The jobs that ran, as a queue would have shown them; who never had a start or a size teaches nothing of waits."""
    if log.began_at is None:
        fix = "add the header '; UnixStartTime: SECONDS', the Unix time of the log's beginning"
        raise SpecInvalid.of("text", "the log does not say when it began", fix)
    began_s = log.began_at.timestamp()
    return [
        Sighting(
            remote_id=f"{ORIGIN}-{job.number}",
            partition=partition,
            cores=job.cores,
            walltime_s=int(job.asked_s if job.asked_s > 0 else job.run_s),
            user=str(job.user),
            submitted_at=utc(began_s + job.submit_s),
            started_at=utc(began_s + job.submit_s + job.wait_s),
            ended_at=utc(began_s + job.submit_s + job.wait_s + job.run_s),
            seen_at=seen_at,
        )
        for job in log.jobs
        if job.cores > 0 and min(job.submit_s, job.wait_s) >= 0 and job.run_s > 0
    ]


def _job(number: int, fields: list[str]) -> SwfJob:
    if len(fields) != FIELDS:
        wrong = f"has {len(fields)} fields where the Standard Workload Format has {FIELDS}"
        raise SpecInvalid.of(f"line {number}", wrong, "write -1 for what is not known; headers begin with ';'")
    try:
        values = [float(field) for field in fields[:12]]
    except ValueError:
        values = []
    if not values or not all(abs(value) <= MOST for value in values):
        raise SpecInvalid.of(f"line {number}", "has a field that is no number", "write -1 for what is not known")
    job, submit_s, wait_s, run_s, used, _, _, asked, asked_s, _, _, user = values
    return SwfJob(int(job), submit_s, wait_s, run_s, int(used), int(asked), asked_s, int(user))


def _whole(text: str | None) -> int | None:
    first = (text or "").split(" ", 1)[0]
    return int(first) if first.isdecimal() and int(first) <= MOST else None
