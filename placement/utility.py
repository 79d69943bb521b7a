"""What a place costs a job beside the quantiles of its result, in seconds: one row for each reason.

A row is nothing where it was not asked for: a deadline, a value of time. Failures cost always.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import NormalDist

from placement.failures import Failures
from placement.policy import price_usd
from placement.problem import Ask, PlaceOption
from scheduler.model.plan import Estimate

LATE = 10.0
"""What an expected second after the deadline counts beside itself."""

MOST_S = 10**7
"""No cost of one reason is more: absurd prices and deadlines long past must not drown the others."""

_UNIT = NormalDist()

Cost = Callable[[Ask, PlaceOption, Estimate, Failures], float]


def costs(ask: Ask, place: PlaceOption, estimate: Estimate, failures: Failures) -> Mapping[str, float]:
    """Seconds by reason, without those that cost nothing."""
    found: dict[str, float] = {}
    for reason, row in COSTS.items():
        seconds = row(ask, place, estimate, failures)
        if seconds > 0:
            found[reason] = min(seconds, MOST_S)
    return found


def failing(ask: Ask, place: PlaceOption, estimate: Estimate, failures: Failures) -> float:
    """Time lost to failures of the system."""
    return failures.loss_s(place.key, estimate.wait, estimate.run)


def lateness(ask: Ask, place: PlaceOption, estimate: Estimate, failures: Failures) -> float:
    """What the expected time after the deadline counts beside itself."""
    return LATE * expected_late_s(estimate)


def price(ask: Ask, place: PlaceOption, estimate: Estimate, failures: Failures) -> float:
    """The price of the expected run, at what the user says that an hour is worth."""
    if ask.spec.usd_per_hour <= 0:
        return 0.0
    return _worth_s(ask, (price_usd(ask.spec, place.view.tariff) or 0.0) * _used_share(ask, estimate))


def energy(ask: Ask, place: PlaceOption, estimate: Estimate, failures: Failures) -> float:
    """The energy of the expected run, at what the user says that a kWh counts."""
    return _worth_s(ask, ask.spec.usd_per_kwh * kwh(ask, place, estimate)) if ask.spec.usd_per_kwh > 0 else 0.0


def image(ask: Ask, place: PlaceOption, estimate: Estimate, failures: Failures) -> float:
    """What is to be avoided about running the image there: doubt, work to make it run, a slow network."""
    verdict = place.image_verdict(ask.spec)
    return verdict.cost_s if verdict else 0.0


COSTS: Mapping[str, Cost] = {
    "failures": failing,
    "lateness": lateness,
    "price": price,
    "energy": energy,
    "image": image,
}


def expected_late_s(estimate: Estimate) -> float:
    """Expected seconds after the deadline; the time of the result is taken as log-normal through its quantiles."""
    left_s = estimate.deadline_s
    if left_s is None:
        return 0.0
    middle, spread = estimate.log_normal
    if left_s <= 0 or spread <= 0:
        return max(0.0, math.exp(middle + spread**2 / 2) - left_s)
    beyond = (middle - math.log(left_s)) / spread
    mean_s = math.exp(min(middle + spread**2 / 2, 40.0))
    return max(0.0, mean_s * _UNIT.cdf(beyond + spread) - left_s * _UNIT.cdf(beyond))


def later_s(estimate: Estimate, delay_s: float) -> float:
    """What a delay costs by the deadline, beyond the cost without it."""
    if estimate.deadline_s is None:
        return 0.0
    delayed = replace(estimate, deadline_s=estimate.deadline_s - delay_s)
    return LATE * (expected_late_s(delayed) - expected_late_s(estimate))


def kwh(ask: Ask, place: PlaceOption, estimate: Estimate) -> float:
    """Energy of the expected run; 0 where the system says nothing of it."""
    watts = place.view.tariff.watts_per_core
    if watts is None:
        return 0.0
    tasks = max(1, len(ask.spec.array.indices)) if ask.spec.array else 1
    core_hours = ask.spec.resources.cores * tasks * ask.spec.resources.walltime_s / 3600 * _used_share(ask, estimate)
    return watts * core_hours / 1000


def _used_share(ask: Ask, estimate: Estimate) -> float:
    """Share of the asked walltime that the run is expected to use."""
    return min(1.0, max(0.0, estimate.run.p50_s / max(1, ask.spec.resources.walltime_s)))


def _worth_s(ask: Ask, usd: float) -> float:
    """Seconds that so much money is worth to the user; nothing while an hour is worth nothing said."""
    value = ask.spec.usd_per_hour
    return usd / value * 3600 if value > 0 else 0.0
