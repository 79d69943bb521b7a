"""Records of the model as JSON text and back. Unknown fields, as a newer version may write them, are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError, from_json, to_json

from scheduler.model.errors import SpecInvalid


def dump(record: Any) -> str:
    """``record`` as JSON; defaults are written out, so that changing one in the code changes no stored job.

    Raises SpecInvalid for what JSON could not give back: half surrogates, nesting beyond some 200 levels.
    """
    try:
        text = to_json(record, inf_nan_mode="constants", fallback=_plain)
        from_json(text)
    except (PydanticSerializationError, ValueError) as error:
        raise SpecInvalid.of(
            "request", f"cannot be stored: {error}", "send valid Unicode, nested less deeply"
        ) from None
    return text.decode()


def load(kind: Any, text: str) -> Any:
    """The record of type ``kind`` that ``dump`` wrote."""
    return _adapter(kind).validate_json(text)


def _plain(value: Any) -> Any:
    """Read-only views and other mappings as dictionaries; ValueError for what is no data."""
    if isinstance(value, Mapping):
        return dict(value)
    raise ValueError(f"{type(value).__name__} is no data")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
