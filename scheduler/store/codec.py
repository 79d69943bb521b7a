"""Records of the model as JSON text and back. Unknown fields, as a newer version may write them, are ignored."""

from __future__ import annotations

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
        text = to_json(record, inf_nan_mode="constants")
        from_json(text)
    except (PydanticSerializationError, ValueError) as error:
        raise SpecInvalid.of(
            "request", f"cannot be stored: {error}", "send valid Unicode, nested less deeply"
        ) from None
    return text.decode()


def load(kind: Any, text: str) -> Any:
    """The record of type ``kind`` that ``dump`` wrote."""
    return _adapter(kind).validate_json(text)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
