"""Durations as a median and a 90th percentile, and as draws that are equally likely: one from the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from statistics import NormalDist

from scheduler.model.plan import Term

ROOT = 4
"""Durations are taken to be normal in their fourth root: between a logarithm, which knows no zero, and the plain."""

_NORMAL = NormalDist()
_P90 = _NORMAL.inv_cdf(0.9)


def drawn(term: Term, draw_count: int, order_step: int = 1) -> tuple[float, ...]:
    """So many draws of a duration in seconds, spread evenly over its quantiles.

    order_step: which of them comes next, counted from the last; other durations, to be drawn beside, take another one.
    """
    middle = max(0.0, term.p50_s) ** (1 / ROOT)
    spread = (max(term.p90_s, term.p50_s, 0.0) ** (1 / ROOT) - middle) / _P90
    return tuple(max(0.0, middle + spread * sigma) ** ROOT for sigma in _sigmas(draw_count, order_step))


@lru_cache(maxsize=10_000)
def mean_s(p50_s: float, p90_s: float, draw_count: int) -> float:
    """The mean of such draws."""
    return sum(drawn(Term(p50_s, p90_s), draw_count)) / draw_count


def summed_up(draws_s: Sequence[float]) -> tuple[float, float]:
    """Their median and 90th percentile, between the two draws that are nearest to it."""
    ordered = sorted(draws_s)
    if len(ordered) == 1:
        return ordered[0], ordered[0]
    return _tenth(ordered, 5), _tenth(ordered, 9)


def _tenth(ordered: Sequence[float], number: int) -> float:
    """As ``statistics.quantiles`` with the method "inclusive", which works out all of them."""
    first, beyond = divmod(number * (len(ordered) - 1), 10)
    return (ordered[first] * (10 - beyond) + ordered[first + 1] * beyond) / 10


def as_many(draws_s: Sequence[float], draw_count: int) -> tuple[float, ...]:
    """The same draws, some of them more than once where there are too few."""
    return tuple(draws_s[n * len(draws_s) // draw_count] for n in range(draw_count))


@cache
def _sigmas(count: int, every: int) -> tuple[float, ...]:
    return tuple(_NORMAL.inv_cdf((n * every % count + 0.5) / count) for n in range(count))
