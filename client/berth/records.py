"""What the server answers, as frozen records. ``raw`` is the answer as it came, for what has no field of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from berth.errors import InvalidInput

Raw = Mapping[str, Any]

ENDED = frozenset({"FINISHED", "FAILED", "CANCELLED"})
"""The states that a job does not leave."""

NOT_STARTED = frozenset(
    {"PENDING", "PROCESSING_INPUTS", "STAGING_INPUTS", "STAGING_JOB", "SUBMITTING_JOB", "QUEUED", "BLOCKED", "PAUSED"}
)
"""The states in which no line of a job's log can exist yet, unless the site put it back into its queue."""


def instant(text: Any) -> datetime | None:
    """The aware instant in an ISO-8601 text; None for anything else."""
    if not isinstance(text, str) or not text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job as the server shows it. Instants are aware UTC; None while not known."""

    uuid: str
    name: str
    owner: str
    status: str
    id: int | None = None
    condition: str | None = None
    app_id: str | None = None
    system_id: str | None = None
    queue: str | None = None
    remote_id: str | None = None
    last_message: str = ""
    created_at: datetime | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    remote_ended_at: datetime | None = None
    ended_at: datetime | None = None
    raw: Raw = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, raw: Raw) -> Job:
        """From a job of the wire, whole or as a list shows it."""
        return cls(
            uuid=raw["uuid"],
            name=raw.get("name") or "",
            owner=raw.get("owner") or "",
            status=raw.get("status") or "PENDING",
            id=raw.get("id"),
            condition=raw.get("condition"),
            app_id=raw.get("appId"),
            system_id=raw.get("execSystemId"),
            queue=raw.get("execSystemLogicalQueue"),
            remote_id=raw.get("remoteJobId"),
            last_message=raw.get("lastMessage") or "",
            created_at=instant(raw.get("created")),
            submitted_at=instant(raw.get("remoteSubmitted")),
            started_at=instant(raw.get("remoteStarted")),
            remote_ended_at=instant(raw.get("remoteEnded")),
            ended_at=instant(raw.get("ended")),
            raw=raw,
        )

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def is_array(self) -> bool:
        """Whether it has tasks, each with a log of its own."""
        berth = self.notes.get("berth")
        return isinstance(berth, Mapping) and bool(berth.get("array"))

    @property
    def notes(self) -> Raw:
        """The job's notes; the wire carries them as a JSON text."""
        notes = self.raw.get("notes")
        if isinstance(notes, str):
            try:
                notes = json.loads(notes)
            except ValueError:
                return {}
        return notes if isinstance(notes, Mapping) else {}


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A line of a job's history. ``detail`` is the new status where ``event`` is JOB_NEW_STATUS."""

    event: str
    detail: str
    description: str
    at: datetime | None
    raw: Raw = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, raw: Raw) -> JobEvent:
        return cls(
            raw.get("event") or "",
            raw.get("eventDetail") or "",
            raw.get("description") or "",
            instant(raw.get("created")),
            raw,
        )


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of a job's log from ``offset_bytes`` on. ``complete``: the log ends at ``next_offset_bytes`` for good."""

    data: str
    offset_bytes: int
    next_offset_bytes: int
    complete: bool

    @classmethod
    def of(cls, raw: Raw) -> LogChunk:
        return cls(raw["data"], int(raw["offset"]), int(raw["nextOffset"]), bool(raw["complete"]))


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One name in a job's output. ``path`` is relative to the output directory."""

    path: str
    is_dir: bool
    size_bytes: int
    modified_at: datetime | None
    raw: Raw = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, raw: Raw, folder: str) -> OutputFile:
        """InvalidInput for a name that is none: it would become a path on this machine."""
        name = str(raw["name"])
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise InvalidInput(f"the server names an output file {name!r}, which is no file name")
        return cls(
            f"{folder}/{name}" if folder else name,
            raw.get("type") == "dir",
            int(raw.get("size") or 0),
            instant(raw.get("lastModified")),
            raw,
        )


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job goes where it goes: ``winner`` and ``losers`` are estimates, ``rejections`` the impossible places."""

    sentence: str
    winner: Raw | None
    losers: Sequence[Raw]
    rejections: Sequence[Raw]
    advice: Sequence[str]
    raw: Raw = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, raw: Raw) -> Explanation:
        return cls(
            raw.get("sentence") or "",
            raw.get("winner"),
            tuple(raw.get("losers") or ()),
            tuple(raw.get("rejections") or ()),
            tuple(raw.get("advice") or ()),
            raw,
        )


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What looking at a host found: a definition to review, what showed each fact, and what could not be learnt."""

    definition: Raw
    host_key: str
    evidence: Mapping[str, str]
    warnings: Sequence[str]
    raw: Raw = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, raw: Raw) -> ProbeReport:
        return cls(
            raw["definition"],
            raw.get("hostKey") or "",
            raw.get("evidence") or {},
            tuple(raw.get("warnings") or ()),
            raw,
        )
