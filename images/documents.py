"""JSON by strangers, as plain text throughout: whatever is read here can be stored, shown and sent on."""

from __future__ import annotations

import json
import re
from typing import Any

_HALF = re.compile(r"[\ud800-\udfff]")
"""Half of a character, which JSON can spell and nothing can write."""


def read_json(raw: bytes) -> Any:
    """The value in ``raw``, where halves of characters have become U+FFFD.

    ValueError for what is no JSON, RecursionError for what is nested beyond measure.
    """
    return _whole(json.loads(raw))


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {_whole(name): _whole(each) for name, each in value.items()}
    return value
