"""One batch system under EASY: first come first served by rank, and backfilling that never delays the first in line.

The site knows only what jobs ask for, so reservations are made from ``asked_s``; jobs end after ``run_s``, which the
site does not know. A system moves from event to event, for between two events nothing can change.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import NamedTuple

from placement.line import Entry, Line

NEVER_S = float("inf")


class Load(NamedTuple):
    """A job as a simulated site has it; instants and durations in seconds.

    asked_s: walltime, after which the site ends it; run_s: what it really needs, at most ``asked_s``.
    rank_s: its place in line, the least first; the instant of submission where first come is first served.
    """

    id: str
    cores: int
    asked_s: float
    run_s: float
    submitted_s: float
    rank_s: float
    user: str = ""


class Start(NamedTuple):
    """A job began to run."""

    load: Load
    at_s: float


class End(NamedTuple):
    """A job is through."""

    load: Load
    started_s: float
    at_s: float


RunTime = Callable[[Load], float]
"""How long a job runs that begins; the same job always as long."""


class Cluster:
    """The cores of one system, the jobs on them, and the jobs in line."""

    __slots__ = (
        "_arrivals",
        "_arrives_s",
        "_claims",
        "_due",
        "_ends",
        "_entering",
        "_line",
        "_next",
        "_number",
        "_run_s",
        "_shadow_s",
        "_spare",
        "cores",
        "ended",
        "free",
        "now_s",
    )

    def __init__(
        self,
        cores: int,
        now_s: float = 0.0,
        arrivals: Sequence[Load] = (),
        waiting: Iterable[Load] = (),
        run_s: RunTime = attrgetter("run_s"),
    ) -> None:
        """arrivals: jobs that enter by themselves, in order of their ``submitted_s``, none before ``now_s``.

        waiting: jobs in line from the beginning on; those that may start do so with the first step, at ``now_s``.
        """
        self.cores, self.free, self.now_s = cores, cores, now_s
        self.ended: list[End] = []
        self._run_s, self._arrivals, self._next = run_s, arrivals, 0
        self._arrives_s = self._next_arrival_s()
        self._entering: list[tuple[float, int, Load]] = []
        self._line = Line((load.rank_s, number, load) for number, load in enumerate(waiting))
        self._number = len(self._line.entries)
        self._due = self._number > 0
        self._ends: list[tuple[float, int, Load, float]] = []
        self._claims: list[tuple[float, int, int]] = []  # until when the site must count with a running job, by its ask
        self._shadow_s, self._spare = NEVER_S, 0  # when the first in line starts at the latest; cores it then leaves

    def copy(self) -> Cluster:
        """The same system at the same instant, free to go another way. What has ended is forgotten."""
        twin = Cluster.__new__(Cluster)
        twin.cores, twin.free, twin.now_s, twin.ended = self.cores, self.free, self.now_s, []
        twin._run_s, twin._number = self._run_s, self._number
        twin._arrivals, twin._next, twin._arrives_s = self._arrivals, self._next, self._arrives_s
        twin._entering, twin._line, twin._due = self._entering[:], self._line.copy(), self._due
        twin._ends, twin._claims = self._ends[:], self._claims[:]
        twin._shadow_s, twin._spare = self._shadow_s, self._spare
        return twin

    def drawn(self, run_s: RunTime, arrivals: Sequence[Load] = ()) -> Cluster:
        """The same system at the same instant in a world where jobs run so long and these arrive."""
        twin = self.copy()
        twin._run_s, twin._arrivals, twin._next = run_s, arrivals, 0
        twin._arrives_s = twin._next_arrival_s()
        twin._ends = [(started_s + run_s(load), number, load, started_s) for _, number, load, started_s in self._ends]
        heapify(twin._ends)
        return twin

    # -- what it holds -----------------------------------------------------------------------------------------------

    @property
    def in_line(self) -> int:
        """How many jobs wait."""
        return len(self._line.entries)

    @property
    def waiting(self) -> list[Load]:
        """Jobs in line, the first in front."""
        return [load for _, _, load in self._line.entries]

    @property
    def running(self) -> list[tuple[Load, float]]:
        """Jobs on the cores with the instants at which they began, in no particular order."""
        return [(load, started_s) for _, _, load, started_s in self._ends]

    @property
    def entering(self) -> list[tuple[float, Load]]:
        """Jobs that ``enter`` has announced and that are not in line yet, with the instants at which they will be."""
        return [(at_s, load) for at_s, _, load in self._entering]

    @property
    def left_s(self) -> float:
        """Core-seconds until all jobs on the cores are through."""
        return sum(load.cores * (end_s - self.now_s) for end_s, _, load, _ in self._ends)

    @property
    def room(self) -> tuple[int, float, int, float]:
        """Free cores; until when one that is last in line may use all of them, and how many for longer; the rank of the
        first in line, NEVER_S where nobody waits."""
        entries = self._line.entries
        if entries:
            return self.free, self._shadow_s, self._spare, entries[0][0]
        return self.free, NEVER_S, self.free, NEVER_S

    @property
    def next_s(self) -> float:
        """When something happens next."""
        if self._due:
            return self.now_s
        at_s = self._arrives_s
        if self._ends and self._ends[0][0] < at_s:
            at_s = self._ends[0][0]
        if self._entering and self._entering[0][0] < at_s:
            at_s = self._entering[0][0]
        return at_s

    # -- what can be done to it --------------------------------------------------------------------------------------

    def enter(self, load: Load, at_s: float) -> None:
        """Announce a job that gets in line at an instant, now or later."""
        self._number += 1
        heappush(self._entering, (max(at_s, self.now_s), self._number, load))

    def run(self, load: Load, started_s: float) -> None:
        """Put a job on the cores that began in the past: how a system is made from what is seen of a real one."""
        self._number += 1
        self._occupy(load, started_s, self._number)

    def withdraw(self, load_id: str) -> list[Start]:
        """Take a job out of the line, or out of those that will be; what may start then, starts."""
        entry = next((entry for entry in self._line.entries if entry[2].id == load_id), None)
        if entry is None:
            self._entering = sorted(entry for entry in self._entering if entry[2].id != load_id)
            return []
        was_first = entry is self._line.entries[0]
        self._line.remove(entry)
        return self._schedule() if was_first else []

    def advance(self, to_s: float) -> list[Start]:
        """Let everything happen up to and including an instant; the jobs that started."""
        starts: list[Start] = []
        while self.next_s <= to_s:
            starts += self.step()
        self.now_s = max(self.now_s, to_s)
        return starts

    def step(self) -> list[Start]:
        """Go to the next instant at which something happens; the jobs that started then."""
        self.now_s = now_s = self.next_s
        crowded = self._end(now_s) or self._due
        newcomers = self._arrive(now_s) if self._entering or self._arrives_s <= now_s else []
        self._due = False
        if crowded or any(entry is self._line.entries[0] for entry in newcomers):
            return self._schedule()
        return [Start(entry[2], now_s) for entry in sorted(newcomers) if self._squeezed(entry)]

    # -- events ------------------------------------------------------------------------------------------------------

    def _end(self, now_s: float) -> bool:
        ends, claims, any_ended = self._ends, self._claims, False
        while ends and ends[0][0] <= now_s:
            _, number, load, started_s = heappop(ends)
            del claims[bisect_left(claims, (started_s + load.asked_s, number))]
            self.free += load.cores
            self.ended.append(End(load, started_s, now_s))
            any_ended = True
        return any_ended

    def _arrive(self, now_s: float) -> list[Entry]:
        newcomers: list[Entry] = []
        while self._arrives_s <= now_s:
            newcomers.append(self._line_up(self._arrivals[self._next]))
            self._next += 1
            self._arrives_s = self._next_arrival_s()
        while self._entering and self._entering[0][0] <= now_s:
            newcomers.append(self._line_up(heappop(self._entering)[2]))
        return newcomers

    def _next_arrival_s(self) -> float:
        return self._arrivals[self._next].submitted_s if self._next < len(self._arrivals) else NEVER_S

    def _line_up(self, load: Load) -> Entry:
        self._number += 1
        entry = (load.rank_s, self._number, load)
        self._line.add(entry)
        return entry

    # -- scheduling --------------------------------------------------------------------------------------------------

    def _schedule(self) -> list[Start]:
        """One pass over the line: the first ones start in order, later ones in the holes."""
        line, entries, now_s = self._line, self._line.entries, self.now_s
        starts: list[Start] = []
        while entries and entries[0][2].cores <= self.free:
            starts.append(self._start(entries[0]))
        if not entries:
            return starts
        self._shadow_s, self._spare = self._reservation(entries[0][2].cores)
        while self.free and (entry := line.first_fitting(self.free, self._spare, now_s, self._shadow_s)):
            self._spare -= self._taken(entry[2])
            starts.append(self._start(entry))
        return starts

    def _squeezed(self, entry: Entry) -> bool:
        """Start a newcomer at once where that harms nobody; the reservation of the first in line still holds."""
        load = entry[2]
        if load.cores > self.free or (taken := self._taken(load)) > self._spare:
            return False
        self._spare -= taken
        self._start(entry)
        return True

    def _taken(self, load: Load) -> int:
        """Of the cores that the first in line leaves when it starts, how many are gone then if this one starts now."""
        return 0 if self.now_s + load.asked_s <= self._shadow_s else load.cores

    def _reservation(self, cores: int) -> tuple[float, int]:
        """When so many cores are free at the latest, and how many more there are then."""
        free, at_s = self.free, NEVER_S
        for claim_s, _, claimed in self._claims:
            if free >= cores and claim_s > at_s:
                break
            free += claimed
            at_s = claim_s
        return (at_s, free - cores) if free >= cores else (NEVER_S, 0)

    def _start(self, entry: Entry) -> Start:
        self._line.remove(entry)
        _, number, load = entry
        self._occupy(load, self.now_s, number)
        return Start(load, self.now_s)

    def _occupy(self, load: Load, started_s: float, number: int) -> None:
        self.free -= load.cores
        heappush(self._ends, (started_s + self._run_s(load), number, load, started_s))
        insort(self._claims, (started_s + load.asked_s, number, load.cores))
