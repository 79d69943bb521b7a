"""One draw of a queue's future, played once and as far as anybody asks, and when a job sent there would start in it.

A job in line changes nothing for the others until it starts or is the first, so that until then the draw tells, as it
was played without the job, whether it fits. Only from the moment at which it is the first and has to wait, the draw is
played anew, with the job. What is left after ``depth`` starts is not played: it is work, done by all cores together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter

from placement.easy import NEVER_S, Cluster, Load, Start
from placement.pace import Pace

DEPTH = 400
"""Starts in a draw that are played one by one."""

STRIDE = 16
"""Steps that are played in one go."""

STATES, STATE_JOBS = 16, 20_000
"""From how many states a draw can be played anew, and how many jobs in line they hold together, at most."""

MOST_FIRST = 200
"""Starts of jobs that were the first in line, of which no more are remembered."""


Step = tuple[float, int, float, int, float, float]
"""What is left after a step, and at which instant: free cores; until when one that is last in line may use all of them,
and how many for longer; rank of the first in line; the greatest rank of those that started in the step.

``_tells`` has of each step the free cores and the greater of the ranks, ``_strides`` the most of both in a stride.
"""


class Played:
    """A system as one draw has it. ``world`` stays at the instant of the look; a copy of it is played."""

    def __init__(self, world: Cluster, depth: int = DEPTH) -> None:
        self.world, self._left = world, depth
        self._ahead = world.copy()
        self._pace: Pace | None = None
        self._starts: dict[str, float] = {load.id: world.now_s for load, _ in world.running}
        in_line = world.in_line
        self._most_states = max(2, min(STATES, STATE_JOBS // max(1, in_line)))
        self._every = max(16, in_line // 8)
        self._states = [(0, world)]
        self._steps: list[Step] = []
        self._tells: list[tuple[int, float]] = []
        self._strides: list[tuple[int, float]] = []
        self._begun: dict[int, tuple[Load, ...]] = {}
        self._first_starts_s: dict[tuple[int, int, float, float, float], float] = {}
        self._note([])

    def start_s(self, load_id: str, until_s: float) -> float:
        """When a job that is in line already starts; ``until_s`` where later."""
        while load_id not in self._starts and self._play(until_s):
            pass
        if load_id not in self._starts and self._pace is not None:
            behind = next((load for load in self._ahead.waiting if load.id == load_id), None)
            return until_s if behind is None else _paced_s(self._pace, behind, until_s)
        return min(self._starts.get(load_id, until_s), until_s)

    def start_among_s(self, load: Load, ready_s: float, until_s: float) -> float:
        """When a job starts that gets in line at ``ready_s``, at its own rank; ``until_s`` where later."""
        ready_s, rank_s, cores = max(ready_s, self.world.now_s), load.rank_s, load.cores
        if cores > self.world.cores or ready_s >= until_s:
            return until_s
        while self._steps[-1][0] <= ready_s and self._play(until_s):
            pass
        first = bisect_right(self._steps, ready_s, key=_since_s) - 1
        while True:
            for step in self._telling(first, cores, rank_s):
                since_s, _, _, _, first_s, _ = self._steps[step]
                if since_s >= until_s:
                    return until_s
                if self._fits(step, load, ready_s):
                    return max(since_s, ready_s)
                if first_s > rank_s:
                    return self._anew_s(step, load, ready_s, until_s)
            first = len(self._steps)
            if not self._play(until_s) and first == len(self._steps):
                return until_s if self._pace is None else max(_paced_s(self._pace, load, until_s), ready_s)

    def play(self, until_s: float) -> None:
        """All that is played one by one, so that nobody who asks has to wait for it."""
        while self._play(until_s):
            pass

    # -- looking for a start -----------------------------------------------------------------------------------------

    def _telling(self, first: int, cores: int, rank_s: float) -> Iterator[int]:
        """The steps from ``first`` on after which such a job may start: so much is free, or who ranks behind it moves.

        Where that is so of no step of a stride, the stride is passed over as one.
        """
        tells, strides, last = self._tells, self._strides, len(self._tells)
        while first < last:
            behind = min(last, first - first % STRIDE + STRIDE)
            free, most_s = strides[first // STRIDE] if behind % STRIDE == 0 else (cores, rank_s)
            if free >= cores or most_s > rank_s:
                for step, (free, most_s) in enumerate(tells[first:behind], first):
                    if free >= cores or most_s > rank_s:
                        yield step
            first = behind

    def _fits(self, step: int, load: Load, ready_s: float) -> bool:
        """Whether the job starts in or after a step, when its turn comes; later ranks have theirs behind it."""
        since_s, free, shadow_s, spare, first_s, latest_s = self._steps[step]
        if ready_s <= since_s and latest_s > load.rank_s:
            for later in (each for each in self._begun[step] if each.rank_s > load.rank_s):
                free += later.cores
                spare += 0 if since_s + later.asked_s <= shadow_s else later.cores
        if load.cores > free:
            return False
        is_first = first_s > load.rank_s
        return is_first or load.cores <= spare or max(since_s, ready_s) + load.asked_s <= shadow_s

    def _anew_s(self, step: int, load: Load, ready_s: float, until_s: float) -> float:
        """When the job starts that is the first in line at a step and does not fit, however long it asks to run."""
        alike = step, load.cores, load.rank_s, ready_s, until_s
        if alike not in self._first_starts_s:
            if len(self._first_starts_s) >= MOST_FIRST:
                self._first_starts_s.clear()
            self._first_starts_s[alike] = self._played_anew_s(step, load, ready_s, until_s)
        return self._first_starts_s[alike]

    def _played_anew_s(self, step: int, load: Load, ready_s: float, until_s: float) -> float:
        """Play on with it from before that step."""
        twin = self._state(step if ready_s > self._steps[step][0] else max(0, step - 1)).copy()
        twin.enter(load, ready_s)
        while twin.next_s < until_s:
            for start in twin.step():
                if start.load is load:
                    return start.at_s
        return until_s

    def _state(self, step: int) -> Cluster:
        """The draw after a step, kept for others who want to go on from there."""
        index = bisect_right(self._states, step, key=itemgetter(0))
        known, state = self._states[index - 1]
        if known < step:
            state = state.copy()
            for _ in range(step - known):
                state.step()
            self._states.insert(index, (step, state))
            self._thin(2 * self._most_states)
        return state

    def _thin(self, most: int) -> None:
        if len(self._states) > most:
            self._states = self._states[::2]

    # -- playing -----------------------------------------------------------------------------------------------------

    def _play(self, until_s: float) -> bool:
        """Some steps; False where there is none before that instant, or none that is worth it."""
        world = self.world
        for _ in range(STRIDE):
            if self._pace is not None or self._ahead.next_s >= until_s:
                return False
            starts = self._ahead.step()
            self._ahead.ended.clear()
            self._note(starts)
            self._left -= len(starts)
            if self._left <= 0:
                begun = [load for loads in self._begun.values() for load in loads]
                took_s = self._ahead.now_s - world.now_s + (self._ahead.left_s - world.left_s) / world.cores
                self._pace = Pace(self._ahead.now_s, took_s, begun, self._ahead.waiting)
            elif len(self._steps) % self._every == 0:
                self._states.append((len(self._steps) - 1, self._ahead.copy()))
                if len(self._states) > self._most_states:
                    self._every *= 2
                self._thin(self._most_states)
        return True

    def _note(self, starts: Sequence[Start]) -> None:
        latest_s = -NEVER_S
        if starts:
            self._begun[len(self._steps)] = tuple([start.load for start in starts])
            for load, at_s in starts:
                self._starts[load.id] = at_s
                if load.rank_s > latest_s:
                    latest_s = load.rank_s
        free, shadow_s, spare, first_s = self._ahead.room
        self._steps.append((self._ahead.now_s, free, shadow_s, spare, first_s, latest_s))
        self._tells.append((free, max(first_s, latest_s)))
        if len(self._tells) % STRIDE == 0:
            frees, ranks_s = zip(*self._tells[-STRIDE:], strict=True)
            self._strides.append((max(frees), max(ranks_s)))


_since_s = itemgetter(0)


def _paced_s(pace: Pace, load: Load, until_s: float) -> float:
    return min(pace.start_s(load.cores, load.asked_s, load.rank_s), until_s)
