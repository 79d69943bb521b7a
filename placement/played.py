"""One draw of a queue's future, played on as far as anybody asks: who starts when, and what room is left when."""

from __future__ import annotations

from dataclasses import dataclass

from placement.easy import NEVER_S, Cluster, Load


@dataclass(frozen=True, slots=True)
class Room:
    """What is free from an instant on, until the next: cores, and what a job that is last in line may do with them.

    shadow_s: until then all of them may be used, for the first in line cannot start sooner; spare: so many for longer.
    """

    since_s: float
    cores: int
    shadow_s: float
    spare: int


class Played:
    """A system as one draw has it. ``world`` stays at the instant of the look; copies of it are played."""

    def __init__(self, world: Cluster) -> None:
        self.world = world
        in_line = [*world.waiting, *(load for _, load in world.entering)]
        self.last_rank_s = max((load.rank_s for load in in_line), default=-NEVER_S)
        self._ahead = world.copy()
        self._rooms = [self._room()]
        self._starts: dict[str, float] = {load.id: world.now_s for load, _ in world.running}

    def start_s(self, load_id: str, until_s: float) -> float:
        """When a job that is in line already starts; ``until_s`` where later."""
        while load_id not in self._starts and self._ahead.next_s < until_s:
            self._step()
        return min(self._starts.get(load_id, until_s), until_s)

    def start_behind_all_s(self, cores: int, asked_s: float, ready_s: float, until_s: float) -> float:
        """When a job would start that gets in line at ``ready_s`` and stays the last; ``until_s`` where later.

        It delays nobody before it starts, so that the draw goes on as it would without it.
        """
        index = 0
        while True:
            if index == len(self._rooms):
                if self._ahead.next_s >= until_s:
                    return until_s
                self._step()
            room = self._rooms[index]
            closes_s = self._rooms[index + 1].since_s if index + 1 < len(self._rooms) else self._ahead.next_s
            at_s = max(room.since_s, ready_s)
            if at_s < closes_s and cores <= room.cores and (at_s + asked_s <= room.shadow_s or cores <= room.spare):
                return min(at_s, until_s)
            index += 1

    def start_among_s(self, load: Load, ready_s: float, until_s: float) -> float:
        """When a job starts that has its own rank among those in line; ``until_s`` where later."""
        twin = self.world.copy()
        twin.enter(load, ready_s)
        while twin.next_s < until_s:
            for start in twin.step():
                if start.load.id == load.id:
                    return start.at_s
        return until_s

    def _step(self) -> None:
        for start in self._ahead.step():
            self._starts[start.load.id] = start.at_s
        self._rooms.append(self._room())

    def _room(self) -> Room:
        free, shadow_s, spare = self._ahead.room
        return Room(self._ahead.now_s, free, shadow_s, spare)
