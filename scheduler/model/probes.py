"""What looking at a host for the first time asks and finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scheduler.model.systems import Credential


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeAsk:
    """A host to look at, as the user who will run there. ``host_key`` None: learn it and say it."""

    host: str
    port: int = 22
    credential: Credential
    host_key: str | None = None
    system_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What was found, for people to review.

    ``definition`` is a system as ``POST /v3/systems`` takes it. ``evidence`` maps each fact to the command that
    showed it; ``warnings`` say what could not be learnt and what to do about it.
    """

    definition: Mapping[str, Any]
    host_key: str
    evidence: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
