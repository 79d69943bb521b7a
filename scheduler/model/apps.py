"""Apps: a versioned description of an image and how to run it, and the parameters that apps and jobs share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from scheduler.model.runs import JobType, Runtime

ANONYMOUS_APP_ID = "berth.image"
"""The app of jobs that name an image themselves; it has no row and no owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg:
    """An argument of app, container runtime or scheduler. ``input_mode`` is the app's, ``include`` the job's."""

    name: str
    arg: str | None = None
    description: str = ""
    input_mode: str | None = None
    include: bool | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvVariable:
    """A variable of the job's environment."""

    key: str
    value: str | None = None
    description: str = ""
    input_mode: str | None = None
    include: bool | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFilter:
    """Which output files are archived: globs; everything when there are none."""

    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    include_launch_files: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSet:
    """Arguments, environment and log files of an app or a job."""

    app_args: tuple[Arg, ...] = ()
    container_args: tuple[Arg, ...] = ()
    scheduler_options: tuple[Arg, ...] = ()
    env: tuple[EnvVariable, ...] = ()
    archive_filter: ArchiveFilter = field(default_factory=ArchiveFilter)
    stdout: str | None = None
    stderr: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInput:
    """A file or directory brought to the job's input directory.

    ``source_url``: ``tapis://system/path``, ``tapislocal://exec.tapis/path`` (already there) or ``https://...``.
    """

    name: str | None = None
    source_url: str | None = None
    target_path: str | None = None
    description: str = ""
    env_key: str | None = None
    auto_mount_local: bool = True
    input_mode: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAttributes:
    """An app's defaults for its jobs; None means "not said here"."""

    description: str | None = None
    dynamic_exec_system: bool = False
    constraints: tuple[str, ...] = ()
    exec_system_id: str | None = None
    exec_dir: str | None = None
    input_dir: str | None = None
    output_dir: str | None = None
    queue: str | None = None
    archive_system_id: str | None = None
    archive_dir: str | None = None
    archive_on_app_error: bool = True
    archive_mode: str | None = None
    is_mpi: bool = False
    mpi_cmd: str | None = None
    cmd_prefix: str | None = None
    parameters: ParameterSet = field(default_factory=ParameterSet)
    file_inputs: tuple[FileInput, ...] = ()
    nodes: int | None = None
    cores_per_node: int | None = None
    memory_mib: int | None = None
    walltime_s: int | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """One version of an app. ``enabled`` is per id, ``version_enabled`` and ``locked`` per version."""

    tenant: str
    id: str
    version: str
    uuid: str
    owner: str
    image: str
    description: str = ""
    runtime: Runtime = Runtime.SINGULARITY
    runtime_version: str | None = None
    runtime_options: tuple[str, ...] = ()
    job_type: JobType | None = None
    max_jobs: int = -1
    max_jobs_per_user: int = -1
    strict_file_inputs: bool = False
    attributes: JobAttributes = field(default_factory=JobAttributes)
    tags: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True
    version_enabled: bool = True
    locked: bool = False
    is_public: bool = False
    deleted: bool = False
    created_at: datetime | None = None
    updated_at: datetime | None = None
    row_version: int = 0
