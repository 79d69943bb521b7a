"""Lists: the query parameters that Tapis's services share, read into a Page, and what goes beside the items."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Query

from scheduler.model.errors import SpecInvalid
from scheduler.model.pages import Filter, Op, Order, Page

MOST_ITEMS = 10_000
"""Items of one answer at most, also for ``limit=-1``; ``metadata.berth.next`` says where the rest begins."""

_CONDITION = re.compile(r"(?P<field>[A-Za-z][A-Za-z0-9_]*)\.(?P<op>[a-z]+)\.(?P<value>.*)", re.DOTALL)
_ORDER = re.compile(r"(?P<field>[A-Za-z][A-Za-z0-9_]*)(?:\((?P<way>asc|desc)\))?", re.IGNORECASE)
_HUMP = re.compile(r"_([a-z])")

Whole = Annotated[int, Query(ge=-1, le=2_147_483_647)]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list was asked for, still in the wire's words."""

    limit: int
    skip: int
    order_by: str | None
    start_after: str | None
    compute_total: bool
    select: str | None
    search: str | None

    def page(self, fields: Mapping[str, str], conditions: Sequence[tuple[str, str]] = ()) -> Page:
        """The page to read, one item longer than asked so that it shows whether more follows.

        fields: attribute of the wire to field of the record. conditions: ``field.op`` and value, of the query form.
        """
        if self.start_after is not None and self.skip:
            raise SpecInvalid.of("startAfter", "cannot be used with skip", "leave one of the two out")
        filters = [
            *parse_search(self.search or ""),
            *(parse_condition(f"{name}.{value}") for name, value in conditions),
        ]
        return Page(
            limit=self.most + 1,
            skip=self.skip,
            start_after=self.start_after,
            order_by=tuple(replace(o, field=_known(fields, o.field, "orderBy")) for o in parse_order(self.order_by)),
            filters=tuple(replace(f, field=_known(fields, f.field, "search")) for f in filters),
        )

    @property
    def most(self) -> int:
        """How many items the answer may hold."""
        return self.limit if 0 < self.limit <= MOST_ITEMS else MOST_ITEMS

    def metadata(self, found: int, total: int | None) -> dict[str, Any]:
        """What goes beside the items; ``found`` counts what the page of ``page()`` brought."""
        shown = min(found, self.most)
        metadata: dict[str, Any] = {
            "recordCount": shown,
            "recordLimit": self.limit,
            "recordsSkipped": self.skip,
            "orderBy": self.order_by,
            "startAfter": self.start_after,
            "totalCount": -1 if total is None else total,
        }
        if found > shown:
            metadata["berth"] = {"next": {"skip": self.skip + shown, "limit": self.limit}}
        return metadata


async def listing(
    limit: Annotated[int, Query(ge=-2_147_483_648, le=2_147_483_647)] = 100,
    skip: Annotated[int, Query(ge=0, le=2_147_483_647)] = 0,
    orderBy: Annotated[str | None, Query(max_length=1000)] = None,
    startAfter: Annotated[str | None, Query(max_length=1000)] = None,
    computeTotal: bool = False,
    select: Annotated[str | None, Query(max_length=4000)] = None,
    search: Annotated[str | None, Query(max_length=8000)] = None,
) -> Listing:
    """The parameters of a list, as a dependency of its route."""
    return Listing(limit, skip, orderBy or None, startAfter or None, computeTotal, select or None, search or None)


def parse_search(text: str) -> tuple[Filter, ...]:
    """``(attr.op.value)~(attr.op.value)``; the parentheses may be left out around one condition. Raises SpecInvalid."""
    return tuple(parse_condition(piece) for piece in _split(text, "~"))


def parse_condition(text: str) -> Filter:
    """One ``attr.op.value``; the values of in and between are parted by commas, and ``\\`` takes a meaning away."""
    match = _CONDITION.fullmatch(text[1:-1] if text.startswith("(") and text.endswith(")") else text)
    if match is None:
        raise SpecInvalid.of(
            "search", f"'{text[:80]}' is not a condition", "write attribute.operator.value, for example id.eq.stampede"
        )
    try:
        op = Op(match["op"])
    except ValueError:
        raise SpecInvalid.of("search", f"'{match['op']}' is not an operator", f"use one of {', '.join(Op)}") from None
    value = match["value"]
    values = _split(value, ",") if op in (Op.IN, Op.NIN, Op.BETWEEN, Op.NBETWEEN) else [value]
    return Filter(match["field"], op, tuple(_plain(each) for each in values))


def parse_order(text: str | None) -> tuple[Order, ...]:
    """``id(asc),created(desc)``. Raises SpecInvalid."""
    orders = []
    for piece in (text or "").split(",") if text else ():
        match = _ORDER.fullmatch(piece.strip())
        if match is None:
            raise SpecInvalid.of(
                "orderBy", f"'{piece[:80]}' is not an order", "write for example id(asc),created(desc)"
            )
        orders.append(Order(match["field"], descending=(match["way"] or "asc").lower() == "desc"))
    return tuple(orders)


def selected(view: Mapping[str, Any], select: str | None, summary: Sequence[str]) -> Mapping[str, Any]:
    """The attributes that ``select`` asks for: ``allAttributes``, ``summaryAttributes`` or names. None: the summary."""
    wanted: list[str] = []
    for name in (select or "summaryAttributes").split(","):
        name = name.strip()
        if name == "allAttributes":
            return view
        if name == "summaryAttributes":
            wanted.extend(summary)
        elif name.split(".")[0] in view:
            wanted.append(name.split(".")[0])
        else:
            raise SpecInvalid.of("select", f"'{name[:80]}' is not an attribute", f"use any of {', '.join(view)}")
    return {name: view[name] for name in view if name in wanted}


def _known(fields: Mapping[str, str], name: str, where: str) -> str:
    """The record's field for an attribute in camelCase or snake_case."""
    camel = _HUMP.sub(lambda hump: hump[1].upper(), name)
    if camel not in fields:
        raise SpecInvalid.of(where, f"'{name[:80]}' cannot be used here", f"use one of {', '.join(fields)}")
    return fields[camel]


def _split(text: str, separator: str) -> list[str]:
    """Pieces between separators that no backslash protects."""
    if not text:
        return []
    return re.split(rf"(?<!\\){re.escape(separator)}", text)


def _plain(value: str) -> str:
    return re.sub(r"\\([~,()\\])", r"\1", value)
