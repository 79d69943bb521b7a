"""Jobs in line: who is first, and who is the first that fits into a hole, without asking everybody.

Jobs of one size stand together, in runs of some dozens that know the shortest walltime among them: a hole is offered
only to sizes that fit, and only to runs that hold somebody short enough.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from placement.easy import Load

RUN = 48
"""Jobs in a run, about; twice as many are split."""

Entry = tuple[float, int, "Load"]
"""A job in line: its rank, the number by which it is told from others of that rank, and the job."""

_last = itemgetter(-1)


class Line:
    """Jobs in line. ``entries``: all of them, in rising order, to be read only."""

    __slots__ = ("_by_cores", "_sizes", "entries")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = sorted(entries)
        alike: dict[int, list[Entry]] = {}
        for entry in self.entries:
            alike.setdefault(entry[2].cores, []).append(entry)
        self._by_cores = {cores: _Alike.of(several) for cores, several in alike.items()}
        self._sizes = sorted(alike)

    def copy(self) -> Line:
        """The same jobs in a line of its own."""
        twin = Line.__new__(Line)
        twin.entries, twin._sizes = self.entries[:], self._sizes[:]
        twin._by_cores = {cores: alike.copy() for cores, alike in self._by_cores.items()}
        return twin

    def add(self, entry: Entry) -> None:
        """Let somebody in."""
        insort(self.entries, entry)
        cores = entry[2].cores
        if cores in self._by_cores:
            self._by_cores[cores].add(entry)
        else:
            self._by_cores[cores] = _Alike.of([entry])
            insort(self._sizes, cores)

    def remove(self, entry: Entry) -> None:
        """Take somebody out who is in line."""
        entries = self.entries
        del entries[0 if entries[0] is entry else bisect_left(entries, entry)]
        cores = entry[2].cores
        alike = self._by_cores[cores]
        alike.remove(entry)
        if not alike.runs:
            del self._by_cores[cores]
            del self._sizes[bisect_left(self._sizes, cores)]

    def first_fitting(self, free: int, spare: int, now_s: float, shadow_s: float) -> Entry | None:
        """The first that asks for no more than the free cores, and for no more than the spare ones or will be through
        by ``shadow_s``."""
        best: Entry | None = None
        for cores in self._sizes:
            if cores > free:
                break
            alike = self._by_cores[cores]
            if cores <= spare:
                found: Entry | None = alike.runs[0][0]
            elif now_s + alike.least_s <= shadow_s:
                found = alike.first_within(now_s, shadow_s)
            else:
                continue
            if found is not None and (best is None or found < best):
                best = found
        return best


class _Alike:
    """Jobs of one size: runs of them in rising order. leasts_s: what the shortest of each run asks for, or less;
    least_s: what the shortest of all asks for, or less."""

    __slots__ = ("least_s", "leasts_s", "runs")

    def __init__(self, runs: list[list[Entry]], leasts_s: list[float], least_s: float) -> None:
        self.runs, self.leasts_s, self.least_s = runs, leasts_s, least_s

    @classmethod
    def of(cls, entries: list[Entry]) -> _Alike:
        runs = [entries[n : n + RUN] for n in range(0, len(entries), RUN)]
        leasts_s = [_least_s(run) for run in runs]
        return cls(runs, leasts_s, min(leasts_s))

    def copy(self) -> _Alike:
        return _Alike([run[:] for run in self.runs], self.leasts_s[:], self.least_s)

    def add(self, entry: Entry) -> None:
        index = self._index(entry)
        run = self.runs[index]
        insort(run, entry)
        self.leasts_s[index] = min(self.leasts_s[index], entry[2].asked_s)
        self.least_s = min(self.least_s, entry[2].asked_s)
        if len(run) > 2 * RUN:
            self.runs[index : index + 1] = run[:RUN], run[RUN:]
            self.leasts_s[index : index + 1] = _least_s(run[:RUN]), _least_s(run[RUN:])

    def remove(self, entry: Entry) -> None:
        index = 0 if self.runs[0][0] is entry else self._index(entry)
        run = self.runs[index]
        del run[0 if run[0] is entry else bisect_left(run, entry)]
        if not run:
            del self.runs[index], self.leasts_s[index]

    def first_within(self, now_s: float, end_s: float) -> Entry | None:
        """The first that is through by then if it starts now and takes all of its walltime."""
        for index, least_s in enumerate(self.leasts_s):
            if now_s + least_s <= end_s:
                for entry in self.runs[index]:
                    if now_s + entry[2].asked_s <= end_s:
                        return entry
                self.leasts_s[index] = _least_s(self.runs[index])
        self.least_s = min(self.leasts_s)
        return None

    def _index(self, entry: Entry) -> int:
        """The run in which the entry is or would be."""
        runs = self.runs
        if len(runs) == 1 or entry <= runs[0][-1]:
            return 0
        return min(bisect_left(runs, entry, key=_last), len(runs) - 1)


def _least_s(run: Iterable[Entry]) -> float:
    return min(entry[2].asked_s for entry in run)
