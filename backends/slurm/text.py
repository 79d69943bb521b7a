"""Slurm's commands as pure pairs: the argv that asks, and the parser of what it answers.

Every column is asked for by name and ends with a control character, times are asked for in epoch seconds, and a line
with another number of columns raises UnexpectedReply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType

from scheduler.model.errors import UnexpectedReply
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.runs import Ending, RemoteState
from scheduler.model.units import parse_memory_mib, utc

US = "\x1f"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between Slurm versions for us; the newest row not newer than the cluster holds."""

    since: tuple[int, int]
    sacct_restarts: bool
    """Whether ``sacct`` has the column Restarts."""


DIALECTS = (
    Dialect((0, 0), sacct_restarts=False),
    Dialect((23, 2), sacct_restarts=True),
)

R, G = RemoteState, Ending

SLURM_STATES: Mapping[str, tuple[RemoteState, Ending | None]] = MappingProxyType(
    {
        "PENDING": (R.QUEUED, None),
        "CONFIGURING": (R.QUEUED, None),  # its nodes are being made ready
        "POWER_UP_NODE": (R.QUEUED, None),
        "REQUEUED": (R.QUEUED, None),
        "REQUEUE_FED": (R.QUEUED, None),
        "REQUEUE_HOLD": (R.QUEUED, None),
        "EXPEDITING": (R.QUEUED, None),
        "RESV_DEL_HOLD": (R.QUEUED, None),
        "SPECIAL_EXIT": (R.QUEUED, None),  # requeued and held, by the user's wish
        "RUNNING": (R.RUNNING, None),
        "SUSPENDED": (R.RUNNING, None),
        "STOPPED": (R.RUNNING, None),
        "SIGNALING": (R.RUNNING, None),
        "RESIZING": (R.RUNNING, None),
        "COMPLETING": (R.RUNNING, None),  # its nodes are being cleaned; how it ended is not said yet
        "STAGE_OUT": (R.RUNNING, None),
        "UPDATE_DB": (R.RUNNING, None),
        "COMPLETED": (R.ENDED, G.COMPLETED),
        "FAILED": (R.ENDED, G.FAILED),
        "TIMEOUT": (R.ENDED, G.TIMEOUT),
        "OUT_OF_MEMORY": (R.ENDED, G.OUT_OF_MEMORY),
        "CANCELLED": (R.ENDED, G.CANCELLED),
        "REVOKED": (R.ENDED, G.CANCELLED),  # a federation started its sibling
        "DEADLINE": (R.ENDED, G.DEADLINE),
        "NODE_FAIL": (R.ENDED, G.NODE_FAILURE),
        "PREEMPTED": (R.ENDED, G.PREEMPTED),
        "BOOT_FAIL": (R.ENDED, G.LAUNCH_FAILURE),
        "LAUNCH_FAILED": (R.ENDED, G.LAUNCH_FAILURE),
        "RECONFIG_FAIL": (R.ENDED, G.LAUNCH_FAILURE),
    }
)
"""Slurm's words for the state of a job, in ours. A word that is not here raises UnexpectedReply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """A line of squeue: a job, a task of an array, or the tasks of an array that still wait together."""

    job_id: RemoteId
    """Of the array where it is one."""
    name: str
    state: RemoteState
    ending: Ending | None
    raw_state: str
    reason: str
    submitted_at: datetime | None
    starts_at: datetime | None
    """When it started, or when Slurm expects it to."""
    ended_at: datetime | None
    nodes: str
    tasks: range | tuple[int, ...] | None
    """Indices of an array; None when the job is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """What accounting keeps of a job or a task of an array, its steps folded in."""

    job_id: RemoteId
    name: str
    state: RemoteState
    ending: Ending | None
    raw_state: str
    exit_code: int
    signal: int
    submitted_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    nodes: str
    restarts: int
    max_rss_mib: int | None
    tasks: range | tuple[int, ...] | None


def dialect(version: tuple[int, int]) -> Dialect:
    """The row of DIALECTS for a cluster's version."""
    return max((row for row in DIALECTS if row.since <= version), key=lambda row: row.since)


VERSION_ARGV = ("squeue", "--version")


def parse_version(text: str) -> tuple[str, tuple[int, int]]:
    """``slurm-wlm 24.11.5`` as the text and the numbers that matter."""
    match = re.search(r"slurm\S*\s+((\d+)\.(\d+)[\w.-]*)", text)
    if match is None:
        raise UnexpectedReply("squeue --version was not understood", text)
    return match[1], (int(match[2]), int(match[3]))


# -- squeue --------------------------------------------------------------------------------------------------------

_SQUEUE = ("%F", "%K", "%j", "%T", "%r", "%V", "%S", "%e", "%N")


def squeue_argv(*, name: Marker | None = None) -> list[str]:
    """Every job of this login that the controller still knows, ended ones included; or those of one name."""
    argv = ["squeue", "--me", "--noheader", "--states=all", "--format=" + US.join(_SQUEUE)]
    return [*argv, f"--name={name}"] if name else argv


def parse_squeue_line(line: str) -> QueueRow:
    """One line of ``squeue_argv``."""
    job_id, tasks, name, word, reason, submitted, starts, ends, nodes = columns("squeue", line, len(_SQUEUE))
    state, ending = state_of(word)
    return QueueRow(
        job_id=_job_id("squeue", job_id),
        name=name,
        state=state,
        ending=ending,
        raw_state=word,
        reason="" if reason == "None" else reason,
        submitted_at=instant(submitted),
        starts_at=instant(starts),
        ended_at=instant(ends) if state is RemoteState.ENDED else None,
        nodes=nodes,
        tasks=_tasks(tasks),
    )


def parse_squeue(text: str) -> list[QueueRow]:
    """The answer to ``squeue_argv``."""
    return [parse_squeue_line(line) for line in text.splitlines()]


# -- sacct ---------------------------------------------------------------------------------------------------------

_SACCT = ("JobID", "JobName", "State", "ExitCode", "Submit", "Start", "End", "NodeList", "MaxRSS")
_JOB_ID = re.compile(r"(?P<job>\d+)(?:_(?:(?P<task>\d+)|\[(?P<tasks>[^\]]*)\]))?(?P<step>\.\S+)?")


def sacct_argv(row: Dialect, ids: Iterable[RemoteId]) -> list[str]:
    """What accounting knows of these jobs, their tasks and steps."""
    columns = (*_SACCT, *(("Restarts",) if row.sacct_restarts else ()))
    return [*_SACCT_ARGV, "--format=" + ",".join(columns), "--jobs=" + ",".join(ids)]


def sacct_named_argv(name: Marker, since_s: int) -> list[str]:
    """The jobs of one name that accounting has seen in the last ``since_s`` seconds (by the site's clock)."""
    argv = [*_SACCT_ARGV, "--allocations", "--format=JobID,JobName", f"--name={name}"]
    return [*argv, f"--starttime=now-{since_s}seconds"]


_SACCT_ARGV = ("sacct", "--noheader", "--parsable2", f"--delimiter={US}")


def parse_sacct(row: Dialect, text: str) -> list[AccountRow]:
    """The answer to ``sacct_argv``. The steps tell how much memory was used and whether it ran out."""
    count = len(_SACCT) + row.sacct_restarts
    jobs: list[AccountRow] = []
    for line in text.splitlines():
        job_id, name, state_text, exit_text, submitted, started, ended, nodes, rss, *restarts = columns(
            "sacct", line, count
        )
        match = _match_job_id("sacct", job_id)
        word = state_text.split(" ", 1)[0]  # "CANCELLED by 2001"
        state, ending = state_of(word)
        if match["step"]:
            jobs[-1:] = [_with_step(job, ending, _rss_mib(rss)) for job in jobs[-1:]]
            continue
        code, _, signal = exit_text.partition(":")
        if not (code.isdigit() and signal.isdigit()):
            raise UnexpectedReply(f"sacct: '{exit_text[:40]}' is not an exit code", line)
        jobs.append(
            AccountRow(
                job_id=RemoteId(match["job"]),
                name=name,
                state=state,
                ending=ending,
                raw_state=state_text,
                exit_code=int(code),
                signal=int(signal),
                submitted_at=instant(submitted),
                started_at=instant(started),
                ended_at=instant(ended),
                nodes="" if nodes == "None assigned" else nodes,
                restarts=int(restarts[0]) if restarts and restarts[0].isdigit() else 0,
                max_rss_mib=_rss_mib(rss),
                tasks=(int(match["task"]),) if match["task"] else _tasks(match["tasks"] or ""),
            )
        )
    return jobs


def parse_named(marker: Marker, text: str) -> set[RemoteId]:
    """Ids of the jobs that are really called ``marker``, in lines of ``squeue_argv`` or ``sacct_named_argv``."""
    found: set[RemoteId] = set()
    for line in text.splitlines():
        found_columns = line.split(US)
        if len(found_columns) == len(_SQUEUE):
            job_id, name = found_columns[0], found_columns[2]
        elif len(found_columns) == 2:
            job_id, name = found_columns
        elif len(found_columns) == 1:  # a tool's warning
            continue
        else:
            raise UnexpectedReply(f"{len(found_columns)} columns where a job of one name was asked for", line)
        if name == marker:
            found.add(RemoteId(_match_job_id("find", job_id)["job"]))
    return found


def _with_step(job: AccountRow, ending: Ending | None, rss_mib: int | None) -> AccountRow:
    out_of_memory = ending is Ending.OUT_OF_MEMORY and job.ending is Ending.FAILED
    return replace(
        job,
        ending=Ending.OUT_OF_MEMORY if out_of_memory else job.ending,
        max_rss_mib=max(filter(None, (job.max_rss_mib, rss_mib)), default=None),
    )


# -- scancel ------------------------------------------------------------------------------------------------------


def scancel_argv(remote_id: RemoteId, marker: Marker) -> list[str]:
    """Cancel this job if it is called ``marker``; one called otherwise is left alone."""
    return ["scancel", f"--name={marker}", remote_id]


def already_gone(said: str) -> bool:
    """Whether scancel's complaint says that there is nothing left to cancel."""
    return re.search(r"invalid job id|already complet|job/step already", said, re.IGNORECASE) is not None


# -- pieces ----------------------------------------------------------------------------------------------------------


def state_of(word: str) -> tuple[RemoteState, Ending | None]:
    """Slurm's word for a state in ours; UnexpectedReply for a word that we do not know."""
    try:
        return SLURM_STATES[word]
    except KeyError:
        raise UnexpectedReply(f"Slurm says '{word[:40]}', a state that is not known here", word) from None


def parse_indices(text: str) -> range | tuple[int, ...]:
    """The tasks in ``0-4,7,10-20:2%3``; UnexpectedReply when it is none of that."""
    pieces: list[range] = []
    for piece in text.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", piece)
        if match is None or int(match[3] or 1) == 0:
            raise UnexpectedReply(f"'{text[:80]}' is not a set of array tasks", text)
        first = int(match[1])
        pieces.append(range(first, int(match[2] or first) + 1, int(match[3] or 1)))
    return pieces[0] if len(pieces) == 1 else tuple(index for piece in pieces for index in piece)


def _tasks(text: str) -> range | tuple[int, ...] | None:
    return None if text in ("", "N/A") else parse_indices(text.strip("[]"))


def columns(tool: str, line: str, count: int) -> Sequence[str]:
    """The columns of a line; UnexpectedReply when there are not ``count``."""
    found = line.split(US)
    if len(found) != count:
        raise UnexpectedReply(f"{tool} answered {len(found)} columns where {count} were asked for", line)
    return found


def _job_id(tool: str, text: str) -> RemoteId:
    if not text.isdigit():
        raise UnexpectedReply(f"{tool}: '{text[:40]}' is not a job id", text)
    return RemoteId(text)


def _match_job_id(tool: str, text: str) -> re.Match[str]:
    match = _JOB_ID.fullmatch(text)
    if match is None:
        raise UnexpectedReply(f"{tool}: '{text[:40]}' is not a job id", text)
    return match


def oneliners(text: str) -> list[dict[str, str]]:
    """What ``scontrol --oneliner`` shows: ``Key=value`` words, one thing a line. A line without any is no thing."""
    found = (dict(word.split("=", 1) for word in line.split() if "=" in word) for line in text.splitlines())
    return [fields for fields in found if fields]


def instant(text: str) -> datetime | None:
    """An instant in epoch seconds; None for the words that tools write for "not yet"."""
    if text.isdigit():
        return utc(int(text)) if text != "0" else None
    if text in ("", "N/A", "Unknown", "None", "NONE"):
        return None
    raise UnexpectedReply(f"'{text[:40]}' is not an epoch time", text)


def _rss_mib(text: str) -> int | None:
    try:
        return parse_memory_mib(text) if text else None
    except ValueError:
        return None  # a bare number of bytes with fractions; only a hint, so never worth losing a job's end over
