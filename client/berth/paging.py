"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from berth.session import Session

PAGE = 100


def pages(
    session: Session, path: str, *, limit: int | None = None, skip_by: str = "skip", **params: Any
) -> Iterator[Mapping[str, Any]]:
    """The items of a list, page after page, at most ``limit`` of them (None: all).

    skip_by: what the route calls the number of items to leave out; Tapis has two words for it.
    """
    return islice(_items(session, path, PAGE if limit is None else min(PAGE, limit), skip_by, params), limit)


def _items(
    session: Session, path: str, size: int, skip_by: str, params: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    skip = 0
    while size:
        page = session.get(path, **params, limit=size, **{skip_by: skip}) or []
        yield from page
        if len(page) < size:
            return
        skip += len(page)
