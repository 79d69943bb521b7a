"""EASY as it is told, without any of the shortcuts of ``placement.easy``: what that is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from placement.easy import NEVER_S, Load


def starts_s(
    cores: int, loads: Sequence[Load], leaves_s: Mapping[str, float] = MappingProxyType({})
) -> dict[str, float]:
    """When each job starts that does, on an empty system; leaves_s: when a job is withdrawn if it still waits.

    Jobs of one rank stand in the order in which they came, those that came at once in the order given.
    """
    came = sorted(loads, key=lambda load: load.submitted_s)
    leaves = sorted((at_s, name) for name, at_s in leaves_s.items())
    line: list[Load] = []
    running: list[tuple[float, float, Load]] = []  # end, end by its ask, job
    started: dict[str, float] = {}
    while came or running or leaves:
        ends_s = [end_s for end_s, _, _ in running]
        now_s = min([*ends_s, *(load.submitted_s for load in came[:1]), *(at_s for at_s, _ in leaves[:1])])
        gone = {name for at_s, name in leaves if at_s <= now_s}
        leaves = [each for each in leaves if each[0] > now_s]
        running = [each for each in running if each[0] > now_s]
        line = [load for load in line if load.id not in gone] + [load for load in came if load.submitted_s <= now_s]
        line.sort(key=lambda load: load.rank_s)
        came = [load for load in came if load.submitted_s > now_s]
        for load in _chosen(line, cores, running, now_s):
            running.append((now_s + load.run_s, now_s + load.asked_s, load))
            started[load.id] = now_s
        line = [load for load in line if load.id not in started]
    return started


def _chosen(
    line: Sequence[Load], cores: int, running: Sequence[tuple[float, float, Load]], now_s: float
) -> Sequence[Load]:
    """Who starts now: the first ones in order, then in order whoever leaves the first that stays its reservation."""
    free = cores - sum(load.cores for _, _, load in running)
    claims = [(claim_s, load.cores) for _, claim_s, load in running]
    chosen: list[Load] = []
    waiting = list(line)
    while waiting and waiting[0].cores <= free:
        chosen.append(waiting.pop(0))
        free -= chosen[-1].cores
        claims.append((now_s + chosen[-1].asked_s, chosen[-1].cores))
    if not waiting:
        return chosen
    shadow_s, spare = _reserved(waiting[0].cores, free, claims)
    for load in waiting[1:]:
        short = now_s + load.asked_s <= shadow_s
        if load.cores <= free and (short or load.cores <= spare):
            chosen.append(load)
            free -= load.cores
            spare -= 0 if short else load.cores
    return chosen


def _reserved(cores: int, free: int, claims: Sequence[tuple[float, int]]) -> tuple[float, int]:
    """When so many cores are free at the latest, and how many more then."""
    for at_s in sorted({claim_s for claim_s, _ in claims}):
        then = free + sum(claimed for claim_s, claimed in claims if claim_s <= at_s)
        if then >= cores:
            return at_s, then - cores
    return NEVER_S, 0
