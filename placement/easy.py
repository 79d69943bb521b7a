"""One batch system under EASY: first come first served by rank, and backfilling that never delays the first in line.

The site knows only what jobs ask for, so reservations are made from ``asked_s``; jobs end after ``run_s``, which the
site does not know. A system moves from event to event, for between two events nothing can change.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

NEVER_S = float("inf")


@dataclass(frozen=True, slots=True)
class Load:
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


@dataclass(frozen=True, slots=True)
class Start:
    """A job began to run."""

    load: Load
    at_s: float


@dataclass(frozen=True, slots=True)
class End:
    """A job is through."""

    load: Load
    started_s: float
    at_s: float


class Cluster:
    """The cores of one system, the jobs on them, and the jobs in line."""

    __slots__ = (
        "_arrivals",
        "_claims",
        "_ends",
        "_entering",
        "_next",
        "_number",
        "_queue",
        "_seats",
        "_shadow_s",
        "_spare",
        "cores",
        "ended",
        "free",
        "now_s",
    )

    def __init__(self, cores: int, now_s: float = 0.0, arrivals: Sequence[Load] = ()) -> None:
        """``arrivals``: jobs that enter by themselves, in order of their ``submitted_s``, none before ``now_s``."""
        self.cores, self.free, self.now_s = cores, cores, now_s
        self.ended: list[End] = []
        self._arrivals, self._next, self._number = arrivals, 0, 0
        self._entering: list[tuple[float, int, Load]] = []
        self._queue: list[tuple[float, int, Load]] = []
        self._seats: dict[str, tuple[float, int]] = {}
        self._ends: list[tuple[float, int, Load, float]] = []
        self._claims: list[tuple[float, int, int]] = []  # until when the site must count with a running job, by its ask
        self._shadow_s, self._spare = NEVER_S, 0  # when the first in line starts at the latest; cores it then leaves

    def copy(self) -> Cluster:
        """The same system at the same instant, free to go another way. What has ended is forgotten."""
        twin = Cluster.__new__(Cluster)
        twin.cores, twin.free, twin.now_s, twin.ended = self.cores, self.free, self.now_s, []
        twin._arrivals, twin._next, twin._number = self._arrivals, self._next, self._number
        twin._entering, twin._queue, twin._seats = self._entering[:], self._queue[:], self._seats.copy()
        twin._ends, twin._claims = self._ends[:], self._claims[:]
        twin._shadow_s, twin._spare = self._shadow_s, self._spare
        return twin

    # -- what it holds -----------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> list[Load]:
        """Jobs in line, the first in front."""
        return [load for _, _, load in self._queue]

    @property
    def running(self) -> list[tuple[Load, float]]:
        """Jobs on the cores with the instants at which they began, in no particular order."""
        return [(load, started_s) for _, _, load, started_s in self._ends]

    @property
    def entering(self) -> list[tuple[float, Load]]:
        """Jobs that ``enter`` has announced and that are not in line yet, with the instants at which they will be."""
        return [(at_s, load) for at_s, _, load in self._entering]

    @property
    def room(self) -> tuple[int, float, int]:
        """Free cores; until when a newcomer may use all of them; how many it may use for longer."""
        return (self.free, self._shadow_s, self._spare) if self._queue else (self.free, NEVER_S, self.free)

    @property
    def next_s(self) -> float:
        """When something happens next."""
        at_s = self._ends[0][0] if self._ends else NEVER_S
        if self._next < len(self._arrivals):
            at_s = min(at_s, self._arrivals[self._next].submitted_s)
        if self._entering:
            at_s = min(at_s, self._entering[0][0])
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
        seat = self._seats.pop(load_id, None)
        if seat is None:
            self._entering = sorted(entry for entry in self._entering if entry[2].id != load_id)
            return []
        index = bisect_left(self._queue, seat)
        del self._queue[index]
        return self._schedule() if index == 0 else []

    def end(self, load_id: str, at_s: float) -> None:
        """Let a running job end at another instant than after its run time: it was stopped, or had to wait."""
        self._ends = [(at_s if entry[2].id == load_id else entry[0], *entry[1:]) for entry in self._ends]
        heapify(self._ends)

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
        crowded = self._end(now_s)
        newcomers = self._arrive(now_s)
        if crowded or any(entry == self._queue[0] for entry in newcomers):
            return self._schedule()
        return [Start(load, now_s) for _, _, load in sorted(newcomers) if self._squeezed(load)]

    # -- events ------------------------------------------------------------------------------------------------------

    def _end(self, now_s: float) -> bool:
        ends, any_ended = self._ends, False
        while ends and ends[0][0] <= now_s:
            _, number, load, started_s = heappop(ends)
            del self._claims[bisect_left(self._claims, (started_s + load.asked_s, number))]
            self.free += load.cores
            self.ended.append(End(load, started_s, now_s))
            any_ended = True
        return any_ended

    def _arrive(self, now_s: float) -> list[tuple[float, int, Load]]:
        newcomers = []
        arrivals = self._arrivals
        while self._next < len(arrivals) and arrivals[self._next].submitted_s <= now_s:
            newcomers.append(self._line_up(arrivals[self._next]))
            self._next += 1
        while self._entering and self._entering[0][0] <= now_s:
            newcomers.append(self._line_up(heappop(self._entering)[2]))
        return newcomers

    def _line_up(self, load: Load) -> tuple[float, int, Load]:
        self._number += 1
        entry = (load.rank_s, self._number, load)
        insort(self._queue, entry)
        self._seats[load.id] = entry[:2]
        return entry

    # -- scheduling --------------------------------------------------------------------------------------------------

    def _schedule(self) -> list[Start]:
        """One pass over the line: the first ones start in order, later ones in the holes."""
        queue, starts = self._queue, []
        while queue and queue[0][2].cores <= self.free:
            starts.append(self._start(0))
        if not queue:
            return starts
        self._shadow_s, self._spare = self._reservation(queue[0][2].cores)
        index = 1
        while self.free and index < len(queue):
            load = queue[index][2]
            if load.cores <= self.free and self._harmless(load):
                starts.append(self._start(index))
            else:
                index += 1
        return starts

    def _squeezed(self, load: Load) -> bool:
        """Start a newcomer at once where that harms nobody; the reservation of the first in line still holds."""
        if load.cores > self.free or not self._harmless(load):
            return False
        self._start(bisect_left(self._queue, self._seats[load.id]))
        return True

    def _harmless(self, load: Load) -> bool:
        """Whether a start now leaves the first in line its reservation; what it takes of the spare cores is noted."""
        if self.now_s + load.asked_s <= self._shadow_s:
            return True
        if load.cores > self._spare:
            return False
        self._spare -= load.cores
        return True

    def _reservation(self, cores: int) -> tuple[float, int]:
        """When so many cores are free at the latest, and how many more there are then."""
        free, at_s = self.free, NEVER_S
        for claim_s, _, claimed in self._claims:
            if free >= cores and claim_s > at_s:
                break
            free += claimed
            at_s = claim_s
        return (at_s, free - cores) if free >= cores else (NEVER_S, 0)

    def _start(self, index: int) -> Start:
        _, number, load = self._queue.pop(index)
        del self._seats[load.id]
        self._occupy(load, self.now_s, number)
        return Start(load, self.now_s)

    def _occupy(self, load: Load, started_s: float, number: int) -> None:
        self.free -= load.cores
        heappush(self._ends, (started_s + load.run_s, number, load, started_s))
        insort(self._claims, (started_s + load.asked_s, number, load.cores))
