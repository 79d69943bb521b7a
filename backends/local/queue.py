"""The queue of this machine: slots by cores and memory, fair between owners, and wholly on disk.

Each run is one file named by its marker. The directory that holds it is its state (``waiting``, ``started`` or
``ended``), so a state changes by one rename and no crash can leave two. Every change is made under one lock of the
directory, so any number of processes may share a queue.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import TypeAdapter

from scheduler.model.errors import SubmitError, SubmitRejected
from scheduler.model.ids import Marker, RemoteId, checked_marker
from scheduler.model.runs import Resources, SubmitIntent


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """What may be used at once."""

    cores: int
    memory_mib: int

    def hold(self, resources: Resources) -> bool:
        """Whether a run of this size fits when nothing else runs."""
        return resources.cores <= self.cores and resources.memory_mib <= self.memory_mib

    def minus(self, runs: Iterable[Resources]) -> Slots:
        """What these runs leave free; may be negative when the slots were made fewer."""
        used = tuple(runs)
        return Slots(
            cores=self.cores - sum(run.cores for run in used),
            memory_mib=self.memory_mib - sum(run.memory_mib for run in used),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run in the queue. ``number`` counts submissions; ``not_run`` says why a run ended without starting."""

    number: int
    owner: str
    intent: SubmitIntent
    submitted_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cancelled: bool = False
    not_run: str = ""

    @property
    def id(self) -> RemoteId:
        return RemoteId(f"local-{self.number}")

    @property
    def resources(self) -> Resources:
        return self.intent.run.resources


@dataclass(frozen=True, slots=True)
class Line:
    """The queue at one moment: what runs, and what waits in the order of its turns."""

    started: Sequence[Entry] = ()
    waiting: Sequence[Entry] = ()

    def startable(self, slots: Slots) -> list[Entry]:
        """The waiting runs that may start now: strictly in turn, so that a large one is never overtaken for ever."""
        free, ready = slots.minus(entry.resources for entry in self.started), []
        for entry in self.waiting:
            if not free.hold(entry.resources):
                break
            free = free.minus([entry.resources])
            ready.append(entry)
        return ready

    def starts(self, slots: Slots, now: datetime, more: Sequence[Resources] = ()) -> list[datetime]:
        """When each waiting run, then each of ``more`` alone behind them, starts if all take their whole walltime."""
        ends = [((entry.started_at or now) + _walltime(entry.resources), entry.resources) for entry in self.started]
        heap = [(max(end, now), index, run) for index, (end, run) in enumerate(ends)]
        heapq.heapify(heap)
        free, at = slots.minus(run for _, run in ends), now
        starts: list[datetime] = []
        for entry in self.waiting:
            free, at = _wait_for(entry.resources, free, at, heap)
            free = free.minus([entry.resources])
            heapq.heappush(heap, (at + _walltime(entry.resources), len(ends) + len(starts), entry.resources))
            starts.append(at)
        return starts + [_wait_for(run, free, at, list(heap))[1] for run in more]


def in_turn(waiting: Iterable[Entry], started: Iterable[Entry]) -> list[Entry]:
    """Round robin over owners, first come first served within one; who already runs something waits for the others."""
    ahead = Counter(entry.owner for entry in started)
    turns = []
    for entry in sorted(waiting, key=lambda entry: entry.number):
        turns.append((ahead[entry.owner], entry.number, entry))
        ahead[entry.owner] += 1
    return [entry for _, _, entry in sorted(turns, key=lambda turn: turn[:2])]


def _wait_for(
    run: Resources, free: Slots, at: datetime, ends: list[tuple[datetime, int, Resources]]
) -> tuple[Slots, datetime]:
    while not free.hold(run) and ends:
        end, _, ended = heapq.heappop(ends)
        free = Slots(cores=free.cores + ended.cores, memory_mib=free.memory_mib + ended.memory_mib)
        at = max(at, end)
    return free, at


def _walltime(resources: Resources) -> timedelta:
    return timedelta(seconds=resources.walltime_s)


class Queue:
    """The queue in one directory. All methods are short, blocking, and raise OSError when the disk fails."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cache: dict[tuple[str, str], Entry] = {}

    def accept(
        self, intents: Sequence[SubmitIntent], owner: str, at: datetime
    ) -> Mapping[Marker, RemoteId | SubmitError]:
        """Put runs into the line, each marker once."""
        answers: dict[Marker, RemoteId | SubmitError] = {}
        with self._lock():
            for intent in intents:
                known = self._find(intent.marker)
                if known is not None:
                    answers[intent.marker] = known.id
                elif (self._directory / "void" / checked_marker(intent.marker)).exists():
                    answers[intent.marker] = SubmitRejected("this marker was given up; it can start nothing")
                else:
                    entry = Entry(number=self._next_number(), owner=owner, intent=intent, submitted_at=at)
                    self._write("waiting", entry)
                    answers[intent.marker] = entry.id
        return answers

    def find(self, marker: Marker) -> RemoteId | None:
        """The id under a marker; None only after the marker was made unable to start anything."""
        with self._lock():
            known = self._find(marker)
            if known is None:
                void = self._directory / "void" / checked_marker(marker)
                void.touch()
                _sync(void.parent)
            return known.id if known else None

    def entries(self, markers: Iterable[Marker]) -> Mapping[Marker, Entry]:
        """What the queue knows of these markers."""
        found = {marker: self._find(marker) for marker in markers}
        return {marker: entry for marker, entry in found.items() if entry is not None}

    def line(self) -> Line:
        """What runs and what waits."""
        started, waiting = self._all("started"), self._all("waiting")
        return Line(started, in_turn(waiting, started))

    def take(self, slots: Slots, at: datetime) -> Sequence[Entry]:
        """Move what may start now from waiting to started."""
        with self._lock():
            ready = [replace(entry, started_at=at) for entry in self.line().startable(slots)]
            for entry in ready:
                self._move(entry, "waiting", "started")
            return ready

    def end(self, markers: Iterable[Marker], at: datetime, not_run: str = "") -> None:
        """What was started has ended, or with ``not_run`` could not be started, and why."""
        with self._lock():
            for marker in markers:
                if (entry := self._read("started", marker)) is not None:
                    self._move(replace(entry, ended_at=at, not_run=not_run), "started", "ended")

    def withdraw(self, marker: Marker, remote_id: RemoteId, at: datetime) -> bool:
        """End a run that still waits. False when it does not wait: it was started, has ended or is another's."""
        with self._lock():
            entry = self._read("waiting", marker)
            if entry is None or entry.id != remote_id:
                return False
            self._move(replace(entry, ended_at=at, cancelled=True), "waiting", "ended")
            return True

    # -- files -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        for state in ("waiting", "started", "ended", "void"):
            (self._directory / state).mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _find(self, marker: Marker) -> Entry | None:
        # In the order in which a run moves, so that one that moves meanwhile is not missed.
        for state in ("waiting", "started", "ended"):
            if (entry := self._read(state, marker)) is not None:
                return entry
        return None

    def _all(self, state: str) -> list[Entry]:
        try:
            names = {path.name for path in (self._directory / state).iterdir()}
        except FileNotFoundError:
            return []
        self._cache = {key: entry for key, entry in self._cache.items() if key[0] != state or key[1] in names}
        found = (self._read(state, Marker(name)) for name in names if not name.startswith("."))
        return [entry for entry in found if entry is not None]

    def _read(self, state: str, marker: Marker) -> Entry | None:
        path = self._directory / state / checked_marker(marker)
        if state != "ended" and (state, marker) in self._cache and path.exists():
            return self._cache[state, marker]
        try:
            entry = _ENTRY.validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        if state != "ended":
            self._cache[state, marker] = entry
        return entry

    def _write(self, state: str, entry: Entry) -> None:
        folder = self._directory / state
        fresh = folder / f".{entry.intent.marker}"
        with open(fresh, "wb", opener=_private) as file:
            file.write(_ENTRY.dump_json(entry))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(folder / entry.intent.marker)
        _sync(folder)

    def _move(self, entry: Entry, source: str, target: str) -> None:
        """Change the content where it is, then the state by one rename. What has ended keeps no secrets."""
        if target == "ended":
            entry = replace(entry, intent=replace(entry.intent, run=replace(entry.intent.run, env={})))
        self._write(source, entry)
        self._cache.pop((source, entry.intent.marker), None)
        (self._directory / source / entry.intent.marker).rename(self._directory / target / entry.intent.marker)
        _sync(self._directory / target)

    def _next_number(self) -> int:
        counter = self._directory / "counter"
        number = json.loads(counter.read_text()) + 1 if counter.exists() else 1
        fresh = self._directory / ".counter"
        fresh.write_text(json.dumps(number))
        fresh.rename(counter)
        return number


_ENTRY = TypeAdapter(Entry)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
