"""From an app and a request to a JobSpec: what is inherited, what is merged, what may not be overridden. Pure.

Every problem of a request is reported at once, each under the field as the caller wrote it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from scheduler.model.apps import (
    ANONYMOUS_APP_ID,
    App,
    ArchiveFilter,
    Arg,
    EnvVariable,
    FileInput,
    JobAttributes,
    ParameterSet,
)
from scheduler.model.errors import Problem, SpecInvalid
from scheduler.model.jobs import ArchiveMode, JobSpec
from scheduler.model.macros import JobIdentity, MacroUnknown, expand, identity_values
from scheduler.model.requests import JobRequest
from scheduler.model.runs import Resources, SchedulerOption
from scheduler.services.scheduler_options import scheduler_options, with_gpus

ANONYMOUS_APP_VERSION = "1"

DEFAULTS = Resources(nodes=1, cores_per_node=1, memory_mib=100, walltime_s=600)
"""What a job asks for when neither request nor app says; Tapis's figures."""

JOB_DIR = "${JobWorkingDir}/jobs/${JobUUID}"
"""Where a job runs when neither request nor app says."""

_UNQUOTED = re.compile(r"[A-Za-z0-9@%+=:,./_ -]*")

T = TypeVar("T")
Parameter = TypeVar("Parameter", Arg, EnvVariable)


class _Problems(list[Problem]):
    """What is wrong so far."""

    def note(self, field: str, wrong: str, fix: str = "") -> None:
        self.append(Problem(field, wrong, fix))


def anonymous_app(tenant: str, owner: str, image: str) -> App:
    """The app that stands for an image by itself."""
    return App(tenant=tenant, id=ANONYMOUS_APP_ID, version=ANONYMOUS_APP_VERSION, uuid="", owner=owner, image=image)


def resolve(request: JobRequest, app: App, identity: JobIdentity) -> JobSpec:
    """The job that is meant, as far as it does not depend on its place. Raises SpecInvalid."""
    said = app.attributes
    problems = _Problems()
    exec_system_id, dynamic = _chosen_system(request, said, problems)
    parameters = _merged_parameters(app, request.parameters, problems)
    resources = Resources(
        nodes=_first(request.nodes, said.nodes, DEFAULTS.nodes),
        cores_per_node=_first(request.cores_per_node, said.cores_per_node, DEFAULTS.cores_per_node),
        memory_mib=_first(request.memory_mib, said.memory_mib, DEFAULTS.memory_mib),
        walltime_s=_first(request.walltime_s, said.walltime_s, DEFAULTS.walltime_s),
    )
    options: tuple[SchedulerOption, ...] = ()
    try:
        options = scheduler_options(parameters.scheduler_options)
        resources = with_gpus(resources, options)
    except SpecInvalid as refused:
        problems.extend(refused.problems)
    mpi_cmd = request.mpi_cmd or (said.mpi_cmd if request.cmd_prefix is None else None)
    cmd_prefix = request.cmd_prefix or (said.cmd_prefix if request.mpi_cmd is None else None)
    is_mpi = _first(request.is_mpi, said.is_mpi, False)
    if (is_mpi or mpi_cmd) and cmd_prefix:
        problems.note("cmdPrefix", "cannot be used with isMpi or mpiCmd", "leave one of them out")
    if request.deadline_at is not None and request.deadline_at <= identity.created_at:
        problems.note("notes.berth.deadline", "lies in the past", "name an instant by which the result can be there")
    spec = JobSpec(
        name=_expanded("name", request.name, identity, app, problems),
        description=_expanded("description", request.description or said.description or "", identity, app, problems),
        app_id=app.id,
        app_version=app.version,
        image=app.image,
        runtime=app.runtime,
        job_type=request.job_type or app.job_type,
        dynamic=dynamic,
        constraints=said.constraints + request.constraints,
        exec_system_id=exec_system_id,
        queue=request.queue or said.queue,
        archive_system_id=request.archive_system_id or said.archive_system_id,
        archive_dir=request.archive_dir or said.archive_dir,
        archive_mode=request.archive_mode or ArchiveMode(said.archive_mode or ArchiveMode.ALWAYS),
        archive_on_app_error=_first(request.archive_on_app_error, said.archive_on_app_error, True),
        archive_filter=parameters.archive_filter,
        resources=resources,
        use_entrypoint=not request.command,
        args=request.command + _words("appArgs", parameters.app_args, app, problems),
        container_args=_words("containerArgs", parameters.container_args, app, problems),
        scheduler_options=options,
        env={variable.key: variable.value or "" for variable in parameters.env},
        file_inputs=_merged_inputs(app, request.file_inputs, problems),
        stdout=parameters.stdout or "tapisjob.out",
        stderr=parameters.stderr or "tapisjob.err",
        is_mpi=bool(is_mpi or mpi_cmd),
        mpi_cmd=mpi_cmd,
        cmd_prefix=cmd_prefix,
        array=request.array,
        after=request.after,
        weight=request.weight,
        hedge_count=request.hedge_count,
        max_price_usd=request.max_price_usd,
        needs_network=request.needs_network,
        storage_mib=request.storage_mib,
        deadline_at=request.deadline_at,
        usd_per_hour=request.usd_per_hour,
        usd_per_kwh=request.usd_per_kwh,
        gang=request.gang,
        tags=tuple(dict.fromkeys(said.tags + request.tags)),
        notes=request.notes if request.notes is not None else app.notes,
        parameter_set=wire_parameters(parameters),
        raw_request=request.raw,
        exec_dir=request.exec_dir or said.exec_dir or JOB_DIR,
        input_dir=request.input_dir or said.input_dir or JOB_DIR,
        output_dir=request.output_dir or said.output_dir or f"{JOB_DIR}/output",
    )
    if problems:
        raise SpecInvalid(*problems)
    return spec


def wire_parameters(parameters: ParameterSet) -> Mapping[str, Any]:
    """A parameter set in Tapis's words, as a job shows it."""

    def args(items: Sequence[Arg]) -> list[dict[str, Any]]:
        return [
            {"name": a.name, "description": a.description, "include": True, "arg": a.arg, "notes": dict(a.notes)}
            for a in items
        ]

    return {
        "appArgs": args(parameters.app_args),
        "containerArgs": args(parameters.container_args),
        "schedulerOptions": args(parameters.scheduler_options),
        "envVariables": [
            {
                "key": v.key,
                "value": v.value or "",
                "description": v.description,
                "include": True,
                "notes": dict(v.notes),
            }
            for v in parameters.env
        ],
        "archiveFilter": {
            "includes": list(parameters.archive_filter.includes),
            "excludes": list(parameters.archive_filter.excludes),
            "includeLaunchFiles": parameters.archive_filter.include_launch_files,
        },
        "logConfig": {
            "stdoutFilename": parameters.stdout or "tapisjob.out",
            "stderrFilename": parameters.stderr or "tapisjob.err",
        },
    }


def _chosen_system(request: JobRequest, said: JobAttributes, problems: _Problems) -> tuple[str | None, bool]:
    """The named system and whether the choice is Berth's. The request's word counts over the app's."""
    if request.exec_system_id and request.dynamic:
        problems.note(
            "dynamicExecSystem", "cannot be true when execSystemId names a system", "leave one of the two out"
        )
    if request.exec_system_id:
        return request.exec_system_id, False
    if request.dynamic or (request.dynamic is None and said.dynamic_exec_system) or not said.exec_system_id:
        return None, True
    return said.exec_system_id, False


def _expanded(field: str, text: str, identity: JobIdentity, app: App, problems: _Problems) -> str:
    if "${" not in text:
        return text
    try:
        return expand(text, identity_values(identity) | {"AppId": app.id, "AppVersion": app.version})
    except MacroUnknown as unknown:
        problems.note(field, str(unknown))
        return text


def _words(kind: str, args: Iterable[Arg], app: App, problems: _Problems) -> tuple[str, ...]:
    """The command line that the arguments make.

    An app's argument is a piece of command line, as in Tapis: blanks part words and quotes keep them together.
    Without an app each argument is one word, exactly.
    """
    words: list[str] = []
    for arg in args:
        if app.id == ANONYMOUS_APP_ID and kind == "appArgs":
            words.append(arg.arg or "")
            continue
        try:
            words.extend(_split(arg.arg or ""))
        except ValueError as unbalanced:
            problems.note(
                f"parameterSet.{kind}[{arg.name}].arg",
                f"cannot be read as a piece of command line ({unbalanced})",
                "balance its quotes",
            )
    return tuple(words)


def _split(text: str) -> list[str]:
    """A piece of command line as words. Where nothing is quoted blanks alone part them, and far sooner."""
    return text.split() if _UNQUOTED.fullmatch(text) else shlex.split(text)


def _merged_parameters(app: App, asked: ParameterSet, problems: _Problems) -> ParameterSet:
    said = app.attributes.parameters
    where = "parameterSet"
    return ParameterSet(
        app_args=_merged_args(f"{where}.appArgs", said.app_args, asked.app_args, problems),
        container_args=_merged_args(f"{where}.containerArgs", said.container_args, asked.container_args, problems),
        scheduler_options=_merged_args(
            f"{where}.schedulerOptions", said.scheduler_options, asked.scheduler_options, problems
        ),
        env=_merged_env(f"{where}.envVariables", said.env, asked.env, problems),
        archive_filter=ArchiveFilter(
            includes=said.archive_filter.includes + asked.archive_filter.includes,
            excludes=said.archive_filter.excludes + asked.archive_filter.excludes,
            include_launch_files=(
                said.archive_filter.include_launch_files and asked.archive_filter.include_launch_files
            ),
        ),
        stdout=asked.stdout or said.stdout,
        stderr=asked.stderr or said.stderr,
    )


def _merged_args(where: str, said: Sequence[Arg], asked: Sequence[Arg], problems: _Problems) -> tuple[Arg, ...]:
    """The app's arguments in their order, then the request's own. One of the same name completes the app's."""
    by_name = {arg.name: arg for arg in asked if arg.name}
    merged: list[Arg] = []
    for default in said:
        ours = by_name.pop(default.name, None)
        value = ours.arg if ours is not None and ours.arg is not None else default.arg
        if _included(f"{where}[{default.name}]", default, ours, value, "INCLUDE_ON_DEMAND", problems):
            merged.append(replace(default, arg=value, notes={**default.notes, **(ours.notes if ours else {})}))
    own = [arg for arg in asked if (not arg.name or arg.name in by_name) and arg.include is not False]
    for arg in own:
        if arg.arg is None:
            problems.note(f"{where}[{arg.name}].arg", "is missing", "the app has no argument of this name to complete")
    return (*merged, *own)


def _merged_env(
    where: str, said: Sequence[EnvVariable], asked: Sequence[EnvVariable], problems: _Problems
) -> tuple[EnvVariable, ...]:
    by_key = {variable.key: variable for variable in asked}
    merged: dict[str, EnvVariable] = {}
    for default in said:
        ours = by_key.get(default.key)
        value = ours.value if ours is not None and ours.value is not None else default.value
        if _included(f"{where}[{default.key}]", default, ours, value, "INCLUDE_BY_DEFAULT", problems):
            merged[default.key] = replace(default, value=value)
    known = {variable.key for variable in said}
    merged.update({v.key: v for v in asked if v.key not in known and v.include is not False})
    return tuple(merged.values())


def _included(
    where: str, default: Parameter, ours: Parameter | None, value: str | None, otherwise: str, problems: _Problems
) -> bool:
    """Whether a parameter of the app takes part, by its input mode and what the request says of it."""
    match default.input_mode or otherwise:
        case "FIXED":
            if ours is not None and value != (default.arg if isinstance(default, Arg) else default.value):
                problems.note(where, "is FIXED by the app", "leave it out of the request")
            return True
        case "REQUIRED":
            if value is None or value == "":
                problems.note(where, "is REQUIRED by the app and has no value", "give it in the request")
            return True
        case "INCLUDE_BY_DEFAULT":
            return ours is None or ours.include is not False
        case _:
            return ours is not None and ours.include is not False


def _merged_inputs(app: App, asked: Sequence[FileInput], problems: _Problems) -> tuple[FileInput, ...]:
    by_name = {item.name: item for item in asked if item.name}
    merged: list[FileInput] = []
    for default in app.attributes.file_inputs:
        where = f"fileInputs[{default.name}]"
        ours = by_name.pop(default.name or "", None)
        if default.input_mode == "FIXED" and ours is not None:
            problems.note(where, "is FIXED by the app", "leave it out of the request")
        item = _completed(default, ours) if ours else default
        if item.source_url:
            merged.append(_with_target(item))
        elif default.input_mode == "REQUIRED" or ours is not None:
            problems.note(f"{where}.sourceUrl", "is missing", "say where the file comes from")
    own = [item for item in asked if not item.name or item.name in by_name]
    for position, item in enumerate(own):
        where = f"fileInputs[{item.name or position}]"
        if app.strict_file_inputs:
            problems.note(where, "is not an input of the app, which takes only its own (strictFileInputs)")
        elif not item.source_url:
            problems.note(f"{where}.sourceUrl", "is missing", "say where the file comes from")
        else:
            merged.append(_with_target(item))
    return tuple(merged)


def _completed(default: FileInput, ours: FileInput) -> FileInput:
    return replace(
        default,
        source_url=ours.source_url or default.source_url,
        target_path=ours.target_path or default.target_path,
        description=ours.description or default.description,
        env_key=ours.env_key or default.env_key,
        auto_mount_local=ours.auto_mount_local,
    )


def _with_target(item: FileInput) -> FileInput:
    """``*`` or nothing as a target means the last piece of the source."""
    if item.target_path and item.target_path != "*":
        return item
    source = (item.source_url or "").split("?")[0].rstrip("/")
    return replace(item, target_path=source.rsplit("/", 1)[-1])


def _first(*values: T | None) -> T:
    """The first value that was said; the last one always is."""
    for value in values:
        if value is not None:
            return value
    raise ValueError("no value was said, not even a default")
