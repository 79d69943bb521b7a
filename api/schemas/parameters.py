"""What apps and jobs share on the wire: arguments, environment, log files, file inputs."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from api.schemas.base import Body, Directory, EnvKey, FileName, Flag, Line, Notes, Text, Value, Word
from scheduler.model.apps import ArchiveFilter, Arg, EnvVariable, FileInput, ParameterSet

_SOURCE_URL = re.compile(r"(tapis://[^/]+/.*|tapislocal://exec\.tapis/.+|https?://.+)")

ArgInputMode = Literal["REQUIRED", "FIXED", "INCLUDE_ON_DEMAND", "INCLUDE_BY_DEFAULT"]
FileInputMode = Literal["OPTIONAL", "REQUIRED", "FIXED"]


def _source_url(text: str) -> str:
    if _SOURCE_URL.fullmatch(text) is None:
        raise ValueError(
            f"'{text[:80]}' is not a source; write tapis://system/path, tapislocal://exec.tapis/path or https://..."
        )
    if ".." in text.split("?")[0].split("/"):
        raise ValueError("holds '..'; write the path itself")
    return text


SourceUrl = Annotated[Line, AfterValidator(_source_url)]
Glob = Annotated[Line, Field(min_length=1)]


class ArgBody(Body):
    """An argument. Apps say ``inputMode``, jobs ``include``."""

    name: Word | None = None
    arg: Value | None = None
    description: Text | None = None
    inputMode: ArgInputMode | None = None
    include: Flag | None = None
    notes: Notes | None = None

    def to_arg(self, position: int) -> Arg:
        return Arg(
            name=self.name or f"unnamed{position + 1}",
            arg=self.arg,
            description=self.description or "",
            input_mode=self.inputMode,
            include=self.include,
            notes=self.notes or {},
        )


class EnvBody(Body):
    key: EnvKey
    value: Value | None = None
    description: Text | None = None
    inputMode: ArgInputMode | None = None
    include: Flag | None = None
    notes: Notes | None = None

    @model_validator(mode="after")
    def _not_ours(self) -> EnvBody:
        if self.key.startswith("_tapis"):
            raise ValueError("key: names that begin with _tapis are set by Berth; choose another name")
        return self

    def to_variable(self) -> EnvVariable:
        return EnvVariable(
            key=self.key,
            value=self.value,
            description=self.description or "",
            input_mode=self.inputMode,
            include=self.include,
            notes=self.notes or {},
        )


class ArchiveFilterBody(Body):
    includes: Annotated[list[Glob], Field(max_length=1000)] | None = None
    excludes: Annotated[list[Glob], Field(max_length=1000)] | None = None
    includeLaunchFiles: Flag | None = True


class LogConfigBody(Body):
    stdoutFilename: FileName | None = None
    stderrFilename: FileName | None = None


class ParameterSetBody(Body):
    appArgs: Annotated[list[ArgBody], Field(max_length=1000)] | None = None
    containerArgs: Annotated[list[ArgBody], Field(max_length=1000)] | None = None
    schedulerOptions: Annotated[list[ArgBody], Field(max_length=1000)] | None = None
    envVariables: Annotated[list[EnvBody], Field(max_length=1000)] | None = None
    archiveFilter: ArchiveFilterBody | None = None
    logConfig: LogConfigBody | None = None

    def to_parameters(self) -> ParameterSet:
        archive = self.archiveFilter or _NO_FILTER
        logs = self.logConfig or _NO_LOG_CONFIG
        return ParameterSet(
            app_args=_args(self.appArgs),
            container_args=_args(self.containerArgs),
            scheduler_options=_args(self.schedulerOptions),
            env=tuple(variable.to_variable() for variable in self.envVariables or ()),
            archive_filter=ArchiveFilter(
                includes=tuple(archive.includes or ()),
                excludes=tuple(archive.excludes or ()),
                include_launch_files=archive.includeLaunchFiles is not False,
            ),
            stdout=logs.stdoutFilename,
            stderr=logs.stderrFilename,
        )


_NO_FILTER, _NO_LOG_CONFIG = ArchiveFilterBody(), LogConfigBody()


class FileInputBody(Body):
    output_only: ClassVar[frozenset[str]] = frozenset({"srcSharedAppCtx", "destSharedAppCtx", "optional"})

    name: Word | None = None
    description: Text | None = None
    inputMode: FileInputMode | None = None
    envKey: EnvKey | None = None
    autoMountLocal: Flag | None = True
    notes: Notes | None = None
    sourceUrl: SourceUrl | None = None
    targetPath: Directory | Literal[""] | None = None

    def to_input(self) -> FileInput:
        return FileInput(
            name=self.name,
            source_url=self.sourceUrl,
            target_path=self.targetPath or None,
            description=self.description or "",
            env_key=self.envKey,
            auto_mount_local=self.autoMountLocal is not False,
            input_mode=self.inputMode,
        )


class FileInputArrayBody(Body):
    """Several sources into one directory; becomes one input for each source."""

    name: Word | None = None
    description: Text | None = None
    inputMode: FileInputMode | None = None
    envKey: EnvKey | None = None
    notes: Notes | None = None
    sourceUrls: Annotated[list[SourceUrl], Field(max_length=1000)] | None = None
    targetDir: Directory | Literal[""] | None = None

    def to_inputs(self) -> tuple[FileInput, ...]:
        directory = "" if self.targetDir in (None, "", "*") else str(self.targetDir).rstrip("/") + "/"
        return tuple(
            FileInput(
                name=f"{self.name}[{position}]" if self.name else None,
                source_url=url,
                target_path=directory + url.split("?")[0].rstrip("/").rsplit("/", 1)[-1],
                description=self.description or "",
                env_key=self.envKey,
                input_mode=self.inputMode,
            )
            for position, url in enumerate(self.sourceUrls or ())
        )


def inputs_of(inputs: list[FileInputBody] | None, arrays: list[FileInputArrayBody] | None) -> tuple[FileInput, ...]:
    """All file inputs, single ones first."""
    single = tuple(item.to_input() for item in inputs or ())
    return single + tuple(item for array in arrays or () for item in array.to_inputs())


def arg_view(arg: Arg) -> dict[str, Any]:
    """An app's argument as the wire shows it."""
    return {
        "name": arg.name,
        "description": arg.description,
        "inputMode": arg.input_mode or "INCLUDE_ON_DEMAND",
        "arg": arg.arg,
        "notes": dict(arg.notes),
    }


def parameters_view(parameters: ParameterSet) -> dict[str, Any]:
    """An app's parameter set as the wire shows it."""
    return {
        "appArgs": [arg_view(arg) for arg in parameters.app_args],
        "containerArgs": [arg_view(arg) for arg in parameters.container_args],
        "schedulerOptions": [arg_view(arg) for arg in parameters.scheduler_options],
        "envVariables": [
            {
                "key": v.key,
                "value": v.value,
                "description": v.description,
                "inputMode": v.input_mode or "INCLUDE_BY_DEFAULT",
                "notes": dict(v.notes),
            }
            for v in parameters.env
        ],
        "archiveFilter": {
            "includes": list(parameters.archive_filter.includes),
            "excludes": list(parameters.archive_filter.excludes),
            "includeLaunchFiles": parameters.archive_filter.include_launch_files,
        },
        "logConfig": {"stdoutFilename": parameters.stdout, "stderrFilename": parameters.stderr},
    }


def input_view(item: FileInput) -> dict[str, Any]:
    """A file input as the wire shows it."""
    return {
        "name": item.name,
        "description": item.description,
        "inputMode": item.input_mode,
        "envKey": item.env_key,
        "autoMountLocal": item.auto_mount_local,
        "notes": {},
        "sourceUrl": item.source_url,
        "targetPath": item.target_path,
    }


def _args(args: list[ArgBody] | None) -> tuple[Arg, ...]:
    return tuple(arg.to_arg(position) for position, arg in enumerate(args or ()))
