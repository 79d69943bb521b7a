"""What a caller asks for, before an app's defaults are merged in; None means "not said"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from scheduler.model.apps import FileInput, ParameterSet
from scheduler.model.jobs import After, ArchiveMode, Gang
from scheduler.model.runs import ArraySpec, JobType


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A submit request whose every field is already of the right form. ``raw`` is the request as it came.

    ``image`` and the fields after it are Berth's own, from ``notes.berth``.
    """

    name: str
    app_id: str | None = None
    app_version: str | None = None
    owner: str | None = None
    tenant: str | None = None
    description: str | None = None
    job_type: JobType | None = None
    archive_on_app_error: bool | None = None
    archive_mode: ArchiveMode | None = None
    dynamic: bool | None = None
    constraints: tuple[str, ...] = ()
    exec_system_id: str | None = None
    queue: str | None = None
    exec_dir: str | None = None
    input_dir: str | None = None
    output_dir: str | None = None
    archive_system_id: str | None = None
    archive_dir: str | None = None
    nodes: int | None = None
    cores_per_node: int | None = None
    memory_mib: int | None = None
    walltime_s: int | None = None
    file_inputs: tuple[FileInput, ...] = ()
    parameters: ParameterSet = field(default_factory=ParameterSet)
    is_mpi: bool | None = None
    mpi_cmd: str | None = None
    cmd_prefix: str | None = None
    tags: tuple[str, ...] = ()
    notes: Mapping[str, Any] | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    image: str | None = None
    command: tuple[str, ...] = ()
    """What runs in place of the image's entry point; arguments follow it."""
    array: ArraySpec | None = None
    after: tuple[After, ...] = ()
    weight: float = 1.0
    hedge_count: int = 1
    max_price_usd: float | None = None
    needs_network: bool = False
    storage_mib: int = 0
    deadline_at: datetime | None = None
    usd_per_hour: float = 0.0
    usd_per_kwh: float = 0.0
    gang: Gang | None = None
