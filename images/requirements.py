"""The language of ``NVIDIA_REQUIRE_*``: ``cuda>=12.4 brand=tesla,driver>=470,driver<471``.

A space separates alternatives, a comma joins conditions that must hold together, and several variables must all hold.
An unknown property is skipped, as NVIDIA's own tools do. Values that the host does not tell leave the answer open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from images.versions import compare, version_of
from scheduler.model.errors import SpecInvalid

MAX_CHARS = 64 * 1024

Facts = Mapping[str, str | tuple[int, ...] | None]
"""What a host has: ``cuda`` and ``driver`` as versions, ``arch`` (compute capability), ``brand``; None: not known."""

_VERSIONED = frozenset({"cuda", "driver", "arch"})
_WORDS = frozenset({"brand"})
_OPERATORS: Mapping[str, Callable[[int], bool]] = MappingProxyType(
    {
        "!=": lambda order: order != 0,
        "<=": lambda order: order <= 0,
        ">=": lambda order: order >= 0,
        "=": lambda order: order == 0,
        "<": lambda order: order < 0,
        ">": lambda order: order > 0,
    }
)
_CONDITION = re.compile(r"(?P<property>[a-z_]+)(?P<operator>!=|<=|>=|=|<|>)(?P<wanted>[^<>=!]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Condition:
    """``driver>=470``; wanted: a version, or a word for ``brand``."""

    property: str
    operator: str
    wanted: str | tuple[int, ...]

    def holds(self, facts: Facts) -> bool | None:
        """Whether it does on a host; None when the host does not tell."""
        actual = facts.get(self.property)
        if actual is None:
            return None
        if isinstance(actual, tuple) and isinstance(self.wanted, tuple):
            return _OPERATORS[self.operator](compare(actual, self.wanted))
        return _OPERATORS[self.operator](0 if actual == self.wanted else 1)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One variable: alternatives, each of conditions that hold together. No alternatives: it asks for nothing."""

    alternatives: tuple[tuple[Condition, ...], ...]

    def holds(self, facts: Facts) -> bool | None:
        """Whether one of the alternatives does; None when that depends on what the host does not tell."""
        if not self.alternatives:
            return True
        return _any([_all([each.holds(facts) for each in together]) for together in self.alternatives])


def parse(text: str, name: str = "NVIDIA_REQUIRE_CUDA") -> Requirement:
    """The requirement in the value of the variable ``name``; SpecInvalid names the part that cannot be read."""
    if len(text) > MAX_CHARS:
        raise SpecInvalid.of(name, f"is longer than {MAX_CHARS} characters", "correct the variable in the image")
    alternatives = []
    for term in text.split():
        factors = [_condition(factor, name) for factor in term.split(",") if factor]
        known = tuple(each for each in factors if each is not None)
        if known:
            alternatives.append(known)
    return Requirement(tuple(alternatives))


def all_hold(requirements: Sequence[Requirement], facts: Facts) -> bool | None:
    """Whether every one holds; None when that depends on what the host does not tell."""
    return _all([each.holds(facts) for each in requirements])


def _condition(text: str, name: str) -> Condition | None:
    """None for a property that nobody knows."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise SpecInvalid.of(name, f"cannot read {text[:40]!r}", "write conditions such as cuda>=12.4 or brand=tesla")
    subject, operator, wanted = found["property"].lower(), found["operator"], found["wanted"]
    if subject in _WORDS:
        if operator not in ("=", "!="):
            raise SpecInvalid.of(name, f"a {subject} has no order in {text[:40]!r}", f"use {subject}= or {subject}!=")
        return Condition(subject, operator, wanted.lower())
    if subject not in _VERSIONED:
        return None
    try:
        return Condition(subject, operator, version_of(wanted))
    except ValueError as error:
        raise SpecInvalid.of(name, f"{text[:40]!r}: {error}", f"compare {subject} with a version") from None


def _any(answers: Sequence[bool | None]) -> bool | None:
    return True if True in answers else None if None in answers else False


def _all(answers: Sequence[bool | None]) -> bool | None:
    return False if False in answers else None if None in answers else True
