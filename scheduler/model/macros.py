"""Macros: the ``${...}`` of Tapis in directories, names and environments, and the place of a job that they resolve to.

Everything here is pure. ``place_of`` is the one function that turns a spec and a system into directories; the API calls
it for the provisional place and the reconciler for the final one.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from scheduler.model.errors import SpecInvalid
from scheduler.model.jobs import JobSpec, Place
from scheduler.model.runs import JobType
from scheduler.model.shared_accounts import JOBS, keeps_apart, may_be_given
from scheduler.model.systems import LogicalQueue, System

_MACRO = re.compile(r"\$\{([^}]*)\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

SHARED_ARCHIVE_DIR = "/jobs/${JobUUID}/archive"
"""Where outputs go on an archive system that was named, when no directory was."""


class MacroUnknown(ValueError):
    """A ``${...}`` that has no meaning where it stands."""

    def __init__(self, name: str, known: Mapping[str, str]) -> None:
        super().__init__(f"${{{name}}} is not a macro that can be used here; known: {', '.join(sorted(known))}")
        self.name = name


class PathRefused(ValueError):
    """A path that is empty where it must not be, leaves its root directory, or holds control characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobIdentity:
    """What is known of a job before it has a place. ``login_user`` is the account it runs as, once known."""

    uuid: str
    tenant: str
    owner: str
    created_at: datetime
    login_user: str | None = None


def expand(text: str, values: Mapping[str, str]) -> str:
    """``text`` with every macro replaced once; what a value holds is not read again. Raises MacroUnknown."""
    if "${" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        try:
            return values[match[1]]
        except KeyError:
            raise MacroUnknown(match[1], values) from None

    return _MACRO.sub(value, text)


def relative_path(text: str) -> str:
    """A path below a root directory in its shortest form, without a leading slash; ``""`` is the root itself.

    Raises PathRefused when it holds control characters or would leave the root.
    """
    if _CONTROL.search(text):
        raise PathRefused("holds a control character")
    path = text.strip("/")
    if "//" not in path and "/." not in path and path[:1] != ".":  # short already, as most are
        return path
    if ".." in path.split("/"):
        raise PathRefused(f"'{text}' holds '..'; write the directory itself")
    return posixpath.normpath("/" + path).lstrip("/")


def login_of(system: System, identity: JobIdentity) -> str:
    """The account that a job runs as, as far as it is known: the credential's, else the one the system names."""
    if identity.login_user:
        return identity.login_user
    return identity.owner if system.is_dynamic_user else system.effective_user_id


def working_dir_of(system: System, identity: JobIdentity) -> str:
    """The system's working directory for this job's owner, relative to its root directory."""
    values = identity_values(identity) | {"EffectiveUserId": login_of(system, identity)}
    return relative_path(expand(system.job_working_dir or "", values | _system_values(system)))


def place_of(spec: JobSpec, system: System, queue: LogicalQueue | None, identity: JobIdentity) -> Place:
    """The place of a job on a system, every directory resolved. ``queue`` matters for BATCH only.

    Raises SpecInvalid naming the directory that cannot be meant.
    """
    values = place_values(spec, system, queue, identity)
    if keeps_apart(system, identity.owner):
        _demand_own(values, system, identity)
    job_type = job_type_of(spec, system)
    used_queue = queue if job_type is JobType.BATCH else None
    return Place(
        system_id=system.id,
        queue=used_queue.name if used_queue else None,
        partition=used_queue.partition if used_queue else None,
        job_type=job_type,
        working_dir=values["JobWorkingDir"].lstrip("/"),
        exec_dir=values["ExecSystemExecDir"].lstrip("/"),
        input_dir=values["ExecSystemInputDir"].lstrip("/"),
        output_dir=values["ExecSystemOutputDir"].lstrip("/"),
        archive_system_id=values["ArchiveSystemId"],
        archive_dir=values["ArchiveSystemDir"].lstrip("/"),
    )


def job_type_of(spec: JobSpec, system: System) -> JobType:
    """What the spec says, else BATCH where the system has a batch scheduler, else FORK."""
    return spec.job_type or (JobType.BATCH if system.can_run_batch else JobType.FORK)


def identity_values(identity: JobIdentity) -> dict[str, str]:
    """The macros that need no place: for names and descriptions."""
    date, _, time = identity.created_at.astimezone(UTC).isoformat(timespec="microseconds")[:26].partition("T")
    return {
        "JobUUID": identity.uuid,
        "Tenant": identity.tenant,
        "JobOwner": identity.owner,
        "JobCreateTime": f"{time[:8]}Z",
        "JobCreateDate": f"{date}Z",
        "JobCreateTimestamp": f"{date}T{time}Z",
    }


def _demand_own(values: Mapping[str, str], system: System, identity: JobIdentity) -> None:
    """SpecInvalid for a directory where others keep files: what runs in it would have theirs."""
    named = ["ExecSystemExecDir", "ExecSystemInputDir", "ExecSystemOutputDir"]
    if values["ArchiveSystemId"] == system.id:
        named.append("ArchiveSystemDir")
    for name in named:
        if not may_be_given(system, values["JobWorkingDir"], identity.uuid, values[name]):
            wrong = f"'{values[name][:200]}' may hold files of others, who share the account of system '{system.id}'"
            fix = f"leave it out, or name a directory below ${{JobWorkingDir}}/{JOBS}/${{JobUUID}}"
            raise SpecInvalid.of(name[0].lower() + name[1:], wrong, fix)


def place_values(spec: JobSpec, system: System, queue: LogicalQueue | None, identity: JobIdentity) -> dict[str, str]:
    """Every macro of a job that has a place. Directories begin with ``/`` and are below the root directory."""
    values = identity_values(identity) | _spec_values(spec) | _system_values(system)
    values["EffectiveUserId"] = login_of(system, identity)
    values["ExecSystemLogicalQueue"] = queue.name if queue else ""
    values["ExecSystemHPCQueue"] = queue.partition if queue else ""
    archive_system_id = spec.archive_system_id or system.id
    values["ArchiveSystemId"] = archive_system_id
    for name, template in (
        ("JobWorkingDir", system.job_working_dir or ""),
        ("ExecSystemExecDir", spec.exec_dir),
        ("ExecSystemInputDir", spec.input_dir),
        ("ExecSystemOutputDir", spec.output_dir),
        ("ArchiveSystemDir", archive_template(spec)),
    ):
        try:
            values[name] = "/" + relative_path(expand(template, values))
        except (MacroUnknown, PathRefused) as refused:
            raise SpecInvalid.of(name[0].lower() + name[1:], str(refused)) from None
    return values


def archive_template(spec: JobSpec) -> str:
    """Where outputs are archived: as asked, else a directory of the archive system named, else where they are."""
    if spec.archive_dir:
        return spec.archive_dir
    return SHARED_ARCHIVE_DIR if spec.archive_system_id else "${ExecSystemOutputDir}"


def environment_of(spec: JobSpec, system: System, queue: LogicalQueue | None, identity: JobIdentity) -> dict[str, str]:
    """The whole environment of a run: the system's variables, over them the job's, and Tapis's ``_tapis...``."""
    system_env = {v.key: v.value for v in system.job_env if v.input_mode in ("FIXED", "INCLUDE_BY_DEFAULT")}
    fixed_env = {v.key: v.value for v in system.job_env if v.input_mode == "FIXED"}
    tapis_env = {f"_tapis{name}": value for name, value in place_values(spec, system, queue, identity).items()}
    return system_env | dict(spec.env) | fixed_env | tapis_env


def _spec_values(spec: JobSpec) -> dict[str, str]:
    return {
        "JobName": spec.name,
        "AppId": spec.app_id,
        "AppVersion": spec.app_version,
        "DynamicExecSystem": _truth(spec.dynamic),
        "ArchiveOnAppError": _truth(spec.archive_on_app_error),
        "StdoutFilename": spec.stdout,
        "StderrFilename": spec.stderr,
        "Nodes": str(spec.resources.nodes),
        "CoresPerNode": str(spec.resources.cores_per_node),
        "MemoryMB": str(spec.resources.memory_mib),
        "MaxMinutes": str(spec.resources.walltime_s // 60),
        "DtnSystemId": "",
        "DtnSystemInputDir": "",
        "DtnSystemOutputDir": "",
    }


def _system_values(system: System) -> dict[str, str]:
    return {
        "ExecSystemId": system.id,
        "SysRootDir": system.root_dir,
        "SysHost": system.host,
        "SysBatchScheduler": system.batch_scheduler or "",
        "SysBucketName": "",
    }


def _truth(value: bool) -> str:
    return "true" if value else "false"
