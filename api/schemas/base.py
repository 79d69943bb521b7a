"""What every body on the wire has in common: strict types, no unknown fields, hostile text kept out.

Field names are the wire's own (camelCase in systems, apps and jobs, snake_case in tenants and tokens), so that an
error names the field as the caller wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

MAX_NOTES_BYTES = 65_536
MAX_NOTES_DEPTH = 20

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\ud800-\udfff]")
_SHELL = re.compile(r"[&><|;`]")


def _one_line(text: str) -> str:
    found = _CONTROL.search(text)
    if found:
        raise ValueError(f"holds the control character {found[0]!r}; leave it out")
    return text


def _many_lines(text: str) -> str:
    found = _CONTROL_BUT_LINES.search(text)
    if found:
        raise ValueError(f"holds the control character {found[0]!r}; leave it out")
    return text


def _no_shell(text: str) -> str:
    found = _SHELL.search(text)
    if found:
        raise ValueError(f"holds '{found[0]}'; leave out the characters & > < | ; and `")
    return text


def _inside_root(text: str) -> str:
    if ".." in text.split("/"):
        raise ValueError("holds '..'; write the directory itself")
    if "HOST_EVAL(" in text:
        raise ValueError("HOST_EVAL is not supported; write the directory itself")
    return text


def _file_name(text: str) -> str:
    if "/" in text or text in (".", ".."):
        raise ValueError("must be a file name without '/'")
    return text


def _bounded_notes(notes: dict[str, Any]) -> dict[str, Any]:
    if _depth(notes) > MAX_NOTES_DEPTH:
        raise ValueError(f"is nested more than {MAX_NOTES_DEPTH} deep")
    if len(orjson.dumps(notes)) > MAX_NOTES_BYTES:
        raise ValueError(f"is larger than {MAX_NOTES_BYTES} bytes")
    return notes


def _depth(value: Any, limit: int = MAX_NOTES_DEPTH + 1) -> int:
    """How deep objects and lists are nested; stops counting at ``limit``."""
    if limit == 0 or not isinstance(value, dict | list):
        return 0
    children = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(child, limit - 1) for child in children), default=0)


def shown(name: str) -> str:
    """The name of a file as text: what of it is no UTF-8 is replaced. Such a file cannot be asked for by this name."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


Line = Annotated[str, Field(max_length=2048), AfterValidator(_one_line)]
"""Free text of one line."""

Text = Annotated[str, Field(max_length=8192), AfterValidator(_many_lines)]
"""Free text; new lines and tabs are fine."""

Value = Annotated[str, Field(max_length=65_536), AfterValidator(_one_line)]
"""An argument or the value of a variable."""

CommandWord = Annotated[str, Field(max_length=65_536), AfterValidator(_many_lines)]
"""A word of a command, which may be a whole script; new lines and tabs are fine."""

Lines = Annotated[str, Field(min_length=1), AfterValidator(_many_lines)]
"""A whole file of text, as long as a body may be."""

Word = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_one_line), AfterValidator(_no_shell)]
"""A name that people chose: of an argument, a queue, a partition."""

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,79}$")]
"""An id of a system or an app: it stands in URLs."""

Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,63}$")]

UserName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._@-]{0,59}$")]

EnvKey = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")]

Directory = Annotated[
    str, Field(min_length=1, max_length=4096), AfterValidator(_one_line), AfterValidator(_inside_root)
]
"""A directory below a root directory; macros may stand in it."""

FileName = Annotated[
    str,
    Field(min_length=1, max_length=255),
    AfterValidator(_one_line),
    AfterValidator(_no_shell),
    AfterValidator(_file_name),
]

Count = Annotated[StrictInt, Field(ge=1, le=2_147_483_647)]

Limit = Annotated[StrictInt, Field(ge=-1, le=2_147_483_647)]
"""A maximum; -1 and 2147483647 are no limit."""

Flag = StrictBool

Tags = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=126), AfterValidator(_one_line)]], Field(max_length=256)
]

Notes = Annotated[dict[str, Any], AfterValidator(_bounded_notes)]
"""A free object of at most 64 KiB."""


class Body(BaseModel):
    """A request's JSON object. Fields that only answers have may be sent back; they are ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output_only: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _without_output_only(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and not cls.output_only.isdisjoint(data):
            return {name: value for name, value in data.items() if name not in cls.output_only}
        return data


def showing(*examples: dict[str, Any]) -> ConfigDict:
    """A body's configuration with examples for the OpenAPI document."""
    return ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": list(examples)})


class View(BaseModel):
    """An object in an answer. Every documented field is there, null where there is nothing."""

    model_config = ConfigDict(frozen=True)
