"""What commands print: tables for people, documents for scripts, short messages on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import typer

API_VERSION = "berth/v1"


class Format(StrEnum):
    """How a command prints its result."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    ID = "id"


Output = Annotated[
    Format,
    typer.Option("--output", "-o", metavar="FORMAT", help="table for people; json, yaml or id for scripts."),
]


class Column(NamedTuple):
    """One column of a table: its title, and the text of an item in it."""

    title: str
    text: Callable[[Any], str]


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_COLOURS: Mapping[str, str] = {
    "FINISHED": "green",
    "FAILED": "red",
    "CANCELLED": "yellow",
    "BLOCKED": "yellow",
    "PAUSED": "yellow",
    "RUNNING": "cyan",
    "ok": "green",
    "wrong": "red",
}


def safe(text: Any) -> str:
    """``text`` without control characters: names come from others and must not drive the terminal."""
    return _CONTROL.sub("�", str(text))


def say(message: str) -> None:
    """A message for people: on stderr, so that stdout holds results only."""
    print(safe(message), file=sys.stderr, flush=True)


def draws(stream: Any = None) -> bool:
    """Whether a stream (by default stdout) is a terminal that can be drawn on."""
    stream = stream or sys.stdout
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def document(kind: str, **content: Any) -> dict[str, Any]:
    """A versioned document: scripts can rely on its form."""
    return {"apiVersion": API_VERSION, "kind": kind, **content}


def print_document(value: Any, output: Format) -> None:
    """A value as JSON or YAML on stdout."""
    if output is Format.YAML:
        from berth.documents import write

        print(write(value), end="")
    else:
        print(json.dumps(value, indent=2, ensure_ascii=False))


def print_list(
    kind: str,
    items: Sequence[Mapping[str, Any]],
    columns: Sequence[Column],
    identity: Callable[[Any], str],
    output: Format,
    empty: str = "",
) -> None:
    """A list in the form asked for. ``kind`` is that of one item; ``empty`` is said to people when there is none."""
    if output is Format.ID:
        for item in items:
            print(safe(identity(item)))
    elif output is not Format.TABLE:
        print_document(document(f"{kind}List", items=list(items)), output)
    elif items:
        print_table([column.title for column in columns], [[column.text(item) for column in columns] for item in items])
    elif empty:
        say(empty)


def print_one(
    kind: str,
    item: Mapping[str, Any],
    rows: Iterable[tuple[str, Any]],
    identity: str,
    output: Format,
) -> None:
    """One thing in the form asked for; ``rows`` are its names and values for people, those without a value left out."""
    if output is Format.ID:
        print(safe(identity))
    elif output is not Format.TABLE:
        print_document(document(kind, item=item), output)
    else:
        shown = [(name, safe(value)) for name, value in rows if value not in (None, "", [], {})]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            print(f"{name:<{width}}  {value}")


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that fits the terminal; elsewhere the same columns, whole and plain."""
    cells = [[safe(cell) for cell in row] for row in rows]
    if not draws():
        widths = [max(len(cell) for cell in column) for column in zip(titles, *cells, strict=True)]
        for row in (titles, *cells):
            print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, overflow="fold" if title in ("JOB", "ID") else "ellipsis", no_wrap=title == "JOB")
    for row in cells:
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
    Console().print(table)


def rejection_lines(rejections: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why each place is impossible, a line each."""
    lines = []
    for entry in rejections:
        place = "/".join(str(entry[name]) for name in ("systemId", "queue") if entry.get(name))
        if entry.get("sentence"):
            lines.append(safe(f"  {entry['sentence']}"))
            continue
        asked = f": asked {entry['asked']}" if entry.get("asked") else ""
        limit = f", limit {entry['limit']}" if entry.get("limit") else ""
        lines.append(safe(f"  {place or '(any system)'}  {entry.get('reason', '')}{asked}{limit}"))
    return lines
