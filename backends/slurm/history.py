"""What ``sacct`` prints of past jobs, as people save it: columns by the names in the first line, ``|`` between them.

Made by, for example::

    SLURM_TIME_FORMAT=%s sacct --allusers --allocations --parsable2 --starttime=now-30days \\
        --format=JobID,User,Partition,NCPUS,ReqCPUS,TimelimitRaw,Submit,Start,End,State

Versions differ in the names of columns and in the words for what is not known; dumps also in how instants are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo

from backends.slurm.text import state_of
from scheduler.model.errors import SpecInvalid, UnexpectedReply
from scheduler.model.runs import RemoteState
from scheduler.model.snapshots import Sighting
from scheduler.model.systems import UNLIMITED
from scheduler.model.units import parse_walltime_s, utc

SEPARATOR = "|"

COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "id": ("jobid", "jobidraw"),
        "user": ("user", "uid"),
        "partition": ("partition",),
        "cores": ("alloccpus", "ncpus", "reqcpus"),
        "walltime": ("timelimitraw", "timelimit"),
        "submitted": ("submit",),
        "started": ("start",),
        "ended": ("end",),
        "state": ("state",),
    }
)
"""What is read of a job, and the columns that may say it; where several are there, the first that says something."""

MAY_MISS = frozenset({"partition"})
"""What may be said for the whole dump instead."""

_NOT_YET = frozenset({"", "0", "Unknown", "None", "N/A", "Invalid"})
_NO_LIMIT = frozenset({"", "UNLIMITED", "Partition_Limit", "INVALID"})
_JOB_ID = re.compile(r"\d+(?:\+\d+)?(?:_(?:\d+|\[[^\]]*\]))?(?P<step>\.\S+)?")

LONGEST_NUMBER = 9
"""Digits of a number of cores; no machine has more."""

EXAMPLE = (
    "SLURM_TIME_FORMAT=%s sacct -a -X -P --starttime=now-30days "
    "--format=JobID,User,Partition,NCPUS,ReqCPUS,TimelimitRaw,Submit,Start,End,State"
)
"""What to type on a login node."""


def parse_history(
    lines: Iterable[str], seen_at: datetime, zone: ZoneInfo | None = None, partition: str | None = None
) -> list[Sighting]:
    """The jobs of a dump, a job that stands in it twice as it stands last. SpecInvalid names the first bad line.

    zone: of instants that are not written as Unix time. partition: of a dump without that column.
    """
    numbered = ((number, line.rstrip("\r\n")) for number, line in enumerate(lines, start=1))
    rows = ((number, line.split(SEPARATOR)) for number, line in numbered if line.strip())
    where = _places(*next(rows, (1, [""])), partition)
    found: dict[tuple[str, datetime], Sighting] = {}
    for number, fields in rows:
        try:
            seen = _sighting(_Line(fields, where), seen_at, zone, partition or "")
        except (_Wrong, UnexpectedReply, ValueError, OverflowError) as error:
            raise SpecInvalid.of(f"line {number}", str(error), getattr(error, "fix", "")) from None
        if seen is not None:
            found[seen.remote_id, seen.submitted_at] = seen
    return list(found.values())


class _Wrong(Exception):
    """What is wrong with a line, and how to put it right."""

    def __init__(self, wrong: str, fix: str) -> None:
        super().__init__(wrong)
        self.fix = fix


class _Line:
    """One line by what it says."""

    def __init__(self, fields: Sequence[str], where: Mapping[str, Sequence[int]]) -> None:
        if len(fields) <= max(index for indices in where.values() for index in indices):
            raise _Wrong(f"has {len(fields)} columns, fewer than the first line names", "was the dump cut short?")
        self._fields, self._where = fields, where

    def said(self, what: str, nothing: frozenset[str] = frozenset({""})) -> str:
        """The first of the columns for it that says something; empty when none does."""
        texts = (self._fields[index].strip() for index in self._where.get(what, ()))
        return next((text for text in texts if text not in nothing), "")


def _places(number: int, header: Sequence[str], partition: str | None) -> Mapping[str, Sequence[int]]:
    """Where the columns stand, for each thing that is read."""
    names = [name.strip().lower() for name in header]
    where = {what: [names.index(name) for name in among if name in names] for what, among in COLUMNS.items()}
    missing = [among[0] for what, among in COLUMNS.items() if not where[what]]
    if partition is not None:
        missing = [name for name in missing if name not in MAY_MISS]
    if missing:
        fix = f"keep sacct's first line, as {EXAMPLE} prints it"
        raise SpecInvalid.of(f"line {number}", f"names no column {', '.join(missing)}", fix)
    return where


def _sighting(line: _Line, seen_at: datetime, zone: ZoneInfo | None, partition: str) -> Sighting | None:
    """A line as a queue would have shown its job; None for a step, and for a job without a size."""
    job_id = line.said("id")
    match = _JOB_ID.fullmatch(job_id)
    if match is None:
        raise _Wrong(f"'{job_id[:40]}' is not a job id", "keep the lines as sacct printed them")
    cores = _cores(line.said("cores", frozenset({"", "0"})))
    submitted_at = _instant(line.said("submitted"), zone)
    if match["step"] or cores == 0 or submitted_at is None:
        return None
    state, _ = state_of(line.said("state").split(" ", 1)[0])
    started_at, ended_at = (_instant(line.said(what), zone) for what in ("started", "ended"))
    never = started_at is None or (ended_at == started_at and line.said("state").startswith("CANCELLED"))
    return Sighting(
        remote_id=job_id,
        partition=line.said("partition").split(",")[0] or partition,
        cores=cores,
        walltime_s=_walltime_s(line),
        user=line.said("user"),
        submitted_at=submitted_at,
        started_at=None if never or state is RemoteState.QUEUED else started_at,
        ended_at=ended_at if state is RemoteState.ENDED else None,
        seen_at=seen_at,
    )


def _cores(text: str) -> int:
    if text and not (text.isdecimal() and len(text) <= LONGEST_NUMBER):
        raise _Wrong(f"'{text[:40]}' is not a number of cores", "ask sacct for NCPUS and ReqCPUS")
    return int(text or 0)


def _walltime_s(line: _Line) -> int:
    """TimelimitRaw counts minutes; a bare number in Timelimit does so too."""
    text = line.said("walltime", _NO_LIMIT)
    return min(UNLIMITED, parse_walltime_s(text)) if text else UNLIMITED


def _instant(text: str, zone: ZoneInfo | None) -> datetime | None:
    if text in _NOT_YET:
        return None
    if text.isdecimal():
        return utc(int(text))
    at = datetime.fromisoformat(text)
    if at.tzinfo is None and zone is None:
        raise _Wrong(f"'{text[:40]}' is the time of a zone that is not said", "say timeZone, as Europe/Berlin")
    return utc((at if at.tzinfo else at.replace(tzinfo=zone)).timestamp())
