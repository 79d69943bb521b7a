"""What part of a list is asked for: filters, order and window, by the field names of the records."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Op(StrEnum):
    """Comparisons of the wire's search grammar. LIKE knows ``*`` (any text) and ``!`` (one character)."""

    EQ = "eq"
    NEQ = "neq"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    IN = "in"
    NIN = "nin"
    LIKE = "like"
    NLIKE = "nlike"
    BETWEEN = "between"
    NBETWEEN = "nbetween"


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition. ``values`` are as the caller wrote them: one for most, two for BETWEEN, any number for IN."""

    field: str
    op: Op
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """Sort by a field."""

    field: str
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A window on a list. ``limit`` None is all; ``start_after`` is a value of the first order field, exclusive."""

    limit: int | None = 100
    skip: int = 0
    start_after: str | None = None
    order_by: tuple[Order, ...] = ()
    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose things are asked for; every condition given must hold.

    ``owner``: only theirs. ``visible_to``: what this user owns, was granted something on, or is public.
    ``public``: only public ones. ``deleted``: deleted ones too.
    """

    owner: str | None = None
    visible_to: str | None = None
    public: bool = False
    deleted: bool = False


EVERYTHING = Scope()
FIRST_PAGE = Page()
WHOLE_LIST = Page(limit=None)
