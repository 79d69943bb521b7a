"""Records of images and hosts as JSON and back, with the version of their format."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from scheduler.model.errors import Problem, SpecInvalid

FORMAT = 1
"""Raised by any change after which an older reader would misread a record."""

MAX_BYTES = 4 * 1024 * 1024

_T = TypeVar("_T")


def dump(record: Any) -> str:
    """``record`` as JSON text; what has its default is written, too. SpecInvalid for text that is no Unicode."""
    kind: Any = type(record)
    try:
        document = _adapter(kind).dump_python(record, mode="json", fallback=dict, warnings=False)
        return to_json({"format": FORMAT, **document}).decode()
    except (PydanticSerializationError, UnicodeError) as error:
        raise SpecInvalid.of(kind.__name__.lower(), f"cannot be written: {error}", "use valid Unicode") from None


def load(kind: type[_T], text: str | bytes) -> _T:
    """The record of type ``kind`` that ``dump`` wrote; SpecInvalid for anything else, another format included."""
    name, adapter = kind.__name__.lower(), _adapter(cast(Any, kind))
    if len(text) > MAX_BYTES:
        raise SpecInvalid.of(name, f"the record is longer than {MAX_BYTES} bytes", "inspect the image again")
    try:
        document = from_json(text)
    except ValueError as error:
        raise SpecInvalid.of(name, f"is no JSON: {error}", "give the record as it was exported") from None
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise SpecInvalid.of(f"{name}.format", f"is not {FORMAT}", "make the record with this version of Berth")
    try:
        record: _T = adapter.validate_json(to_json(document), extra="forbid")
    except ValidationError as error:
        raise SpecInvalid(*(_problem(name, each) for each in error.errors(include_input=False)[:20])) from None
    return record


def _problem(name: str, error: Any) -> Problem:
    where = ".".join(map(str, (name, *error["loc"])))
    if error["type"] == "unexpected_keyword_argument":
        return Problem(where, "is not known to this version of Berth", "a newer one wrote it: upgrade, or remove it")
    return Problem(where, error["msg"])


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
