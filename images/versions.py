"""Version numbers as tuples: ``12.4`` is (12, 4). In JSON they are text, as people write them."""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import Annotated

from annotated_types import Interval, Len
from pydantic import BeforeValidator, PlainSerializer

_NUMBERS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,7}")


def version_of(text: str) -> tuple[int, ...]:
    """The numbers that ``text`` begins with: ``5.10.0-28-amd64`` is (5, 10, 0).

    Raises ValueError where it begins with none.
    """
    found = _NUMBERS.match(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} does not begin with a version number such as 12.4")
    return tuple(map(int, found[0].split(".")))


def version_text(version: tuple[int, ...]) -> str:
    """As people write it."""
    return ".".join(map(str, version))


def at_least(version: tuple[int, ...], floor: tuple[int, ...]) -> bool:
    """Whether a version is the floor or newer; what is not written counts as zero, so 12.0 is 12."""
    return compare(version, floor) >= 0


def compare(version: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Negative, zero or positive as ``version`` is older than, the same as, or newer than ``other``."""
    differences = (mine - its for mine, its in zip_longest(version, other, fillvalue=0))
    return next(filter(None, differences), 0)


def _from_json(value: object) -> object:
    return version_of(value) if isinstance(value, str) else value


_Number = Annotated[int, Interval(ge=0, lt=10**9)]
Version = Annotated[tuple[_Number, ...], Len(1, 8), BeforeValidator(_from_json), PlainSerializer(version_text)]
