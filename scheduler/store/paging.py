"""From a page of the model to a query: filters, order and window over named columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Boolean, Column, ColumnElement, Integer, Select, not_
from sqlalchemy.types import TypeEngine

from scheduler.model.errors import SpecInvalid
from scheduler.model.pages import Filter, Op, Page
from scheduler.store.columns import Instant

Fields = Mapping[str, Column[Any]]
"""What may be searched and sorted by, by its name."""

MOST = 2**31 - 1
"""Numbers beyond it are cut to it: no list is that long, and no column holds more."""

COMPARISONS: Mapping[Op, Callable[[ColumnElement[Any], Any], ColumnElement[bool]]] = {
    Op.EQ: lambda column, value: column == value,
    Op.NEQ: lambda column, value: column != value,
    Op.GT: lambda column, value: column > value,
    Op.GTE: lambda column, value: column >= value,
    Op.LT: lambda column, value: column < value,
    Op.LTE: lambda column, value: column <= value,
    Op.LIKE: lambda column, value: column.like(value, escape="\\"),
    Op.NLIKE: lambda column, value: not_(column.like(value, escape="\\")),
}


def narrowed(query: Select[Any], fields: Fields, filters: tuple[Filter, ...]) -> Select[Any]:
    """The query with every filter applied; SpecInvalid names an unknown field or a value that does not fit."""
    for condition in filters:
        query = query.where(_clause(_column(fields, condition.field), condition))
    return query


def windowed(query: Select[Any], fields: Fields, page: Page, tie_break: ColumnElement[Any]) -> Select[Any]:
    """The query in the page's order (then by ``tie_break``), cut to its window."""
    if page.start_after is not None:
        if not page.order_by:
            raise SpecInvalid.of("startAfter", "has no order to be after in", "send orderBy too")
        first = page.order_by[0]
        column = _column(fields, first.field)
        value = _value(column, first.field, page.start_after)
        query = query.where(column < value if first.descending else column > value)
    for order in page.order_by:
        column = _column(fields, order.field)
        query = query.order_by(column.desc().nulls_last() if order.descending else column.asc().nulls_last())
    query = query.order_by(tie_break)
    if page.skip > 0:
        query = query.offset(min(page.skip, MOST)).limit(MOST)
    return query if page.limit is None else query.limit(min(page.limit, MOST))


def _column(fields: Fields, name: str) -> Column[Any]:
    try:
        return fields[name]
    except KeyError:
        raise SpecInvalid.of(name, "cannot be searched or sorted by", f"use one of {', '.join(fields)}") from None


def _clause(column: Column[Any], condition: Filter) -> ColumnElement[bool]:
    op, name = condition.op, condition.field
    if op in (Op.LIKE, Op.NLIKE):
        return COMPARISONS[op](column, _pattern(_one(condition)))
    values = [_value(column, name, text) for text in condition.values]
    if op in (Op.IN, Op.NIN):
        return column.in_(values) if op is Op.IN else column.not_in(values)
    if op in (Op.BETWEEN, Op.NBETWEEN):
        if len(values) != 2:
            raise SpecInvalid.of(name, f"{op} takes two values, not {len(values)}", "write field.between.low,high")
        inside = column.between(values[0], values[1])
        return inside if op is Op.BETWEEN else not_(inside)
    _one(condition)
    return COMPARISONS[op](column, values[0])


def _one(condition: Filter) -> str:
    if len(condition.values) != 1:
        raise SpecInvalid.of(condition.field, f"{condition.op} takes one value, not {len(condition.values)}")
    return condition.values[0]


def _pattern(text: str) -> str:
    """The wire's wildcards as SQL's; SQL's own stand for themselves."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("!", "_")


def _value(column: Column[Any], name: str, text: str) -> Any:
    """``text`` as the column's type; SpecInvalid when it is none."""
    for kind, (read, form) in READERS.items():
        if isinstance(column.type, kind):
            try:
                return read(text)
            except (ValueError, OverflowError, KeyError):
                raise SpecInvalid.of(name, f"'{text[:80]}' is not {form}") from None
    words = getattr(column.type, "enums", None)
    if words is not None and text not in words:
        raise SpecInvalid.of(name, f"'{text[:80]}' is none of its values", f"use one of {', '.join(words)}")
    return text


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _whole(text: str) -> int:
    return max(-MOST, min(int(text), MOST))


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


READERS: Mapping[type[TypeEngine[Any]], tuple[Callable[[str], Any], str]] = {
    Instant: (_instant, "an instant; write it as 2026-01-31T12:00:00Z"),
    Integer: (_whole, "a whole number"),
    Boolean: (_truth, "true or false"),
}
