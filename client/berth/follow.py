"""A log as it grows: server-sent events, taken up where they broke off."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from berth.errors import ServerFailed, Unreachable
from berth.session import Session

SILENCE_S = 60.0
"""A stream that says nothing for so long is taken for dead and opened again."""
LOST_AFTER_TRIES = 30


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A piece of the log, or its end: then ``status`` is the job's final status and ``data`` is empty."""

    data: str
    next_offset_bytes: int
    status: str | None = None
    condition: str | None = None


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event as the HTML standard defines it. ``id`` None: the event has none."""

    event: str
    data: str
    id: str | None


def parse_events(lines: Iterable[str]) -> Iterator[ServerSentEvent]:
    """The events in the lines of a ``text/event-stream``; an event that the end of the stream cut off is dropped."""
    event, data, id_ = "message", list[str](), None
    for line in lines:
        if not line:
            if data or event != "message":
                yield ServerSentEvent(event, "\n".join(data), id_)
            event, data, id_ = "message", [], None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif name == "id":
            id_ = value


def follow(session: Session, path: str, stream: str, offset_bytes: int, task: int | None = None) -> Iterator[LogEvent]:
    """Log events until the one that says how the job ended. Unreachable after 30 tries in a row without any news."""
    tries_without_news = 0
    while True:
        try:
            for event in _connected(session, path, stream, offset_bytes, task):
                tries_without_news, offset_bytes = 0, event.next_offset_bytes
                yield event
                if event.status is not None:
                    return
        except (Unreachable, ServerFailed):
            if tries_without_news >= LOST_AFTER_TRIES:
                raise
        session.sleep(min(5.0, 0.2 * 1.5 ** min(tries_without_news, 10)))
        tries_without_news += 1


def _connected(session: Session, path: str, stream: str, offset_bytes: int, task: int | None) -> Iterator[LogEvent]:
    """The events of one connection, from ``offset_bytes`` on."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(offset_bytes)}
    asked = {"stream": stream, "offset": offset_bytes, "task": task}
    with session.stream(path, headers=headers, timeout_s=SILENCE_S, **asked) as response:
        for event in parse_events(_lines(response.iter_text())):
            content = json.loads(event.data or "{}")
            if event.event == "end":
                yield LogEvent("", offset_bytes, content.get("status") or "", content.get("condition"))
                return
            if event.event == "message" and "data" in content:
                offset_bytes = int(event.id) if event.id else offset_bytes
                yield LogEvent(content["data"], offset_bytes)


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """Lines that end with a line feed, and no others: a log may hold U+2028, which only looks like an end."""
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from (line.removesuffix("\r") for line in lines)
