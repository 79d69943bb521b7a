"""What is worked out once and kept from plan to plan, while what it is made of stays the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Kept(Generic[Made]):
    """What was made, by name; the newest of each. It saves work and changes no answer."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Sequence[object], Made]] = {}

    def of(self, name: str, made_of: Sequence[object], make: Callable[[], Made]) -> Made:
        """The one that is at hand, if it was made of the same; else a new one."""
        kept = self._made.get(name)
        if kept is None or kept[0] != made_of:
            kept = self._made[name] = made_of, make()
        return kept[1]
