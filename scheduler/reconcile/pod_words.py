"""What people are told of an instance, from what was seen of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from placement.explain import place_name
from placement.words import about, duration
from scheduler.model.plan import Estimate, Term
from scheduler.model.pods import PodInstance, PodSeen
from scheduler.model.runs import Observation

SLOW_START = timedelta(seconds=60)
"""A program that listens later than this is asked about."""


def placed_words(winner: Estimate, losers: Sequence[Estimate], walltime_s: int) -> str:
    """Why a place won: when an instance may start there, and how long it may stay. A pod has no result to wait for."""
    soon, late = _start(winner)
    parts = "; ".join(f"{name} {_range(term)} ({term.source})" for name, term in _before_start(winner))
    return (
        f"{place_name(winner.system_id, winner.queue)} may start it in about {about(soon)}, 9 times in 10 within "
        f"{about(late)}: {parts}; it may stay for up to {duration(walltime_s)}. {_against(winner, losers)}"
    )


def queued_words(one: PodInstance, seen: Observation, look: PodSeen | None) -> str:
    """Why it does not run yet, as far as its place says."""
    waits_for = (look.waits_for if look is not None else "") or seen.reason_words or seen.reason
    return f"it waits on {one.system_id}" + (f": {waits_for}" if waits_for else "")


def closed_words(one: PodInstance, port: int, at: datetime) -> str:
    """That nobody listens on a port. The words stay the same while that does, so that they are written once."""
    if waits_for := one.seen.get("waits_for"):
        return f"it waits on {one.system_id}: {waits_for}"
    no_more = f"port {port} does not answer any more"
    if one.answered_at is not None or one.message == no_more:
        return no_more
    if one.started_at is None or at - one.started_at < SLOW_START:
        return f"it runs; port {port} does not answer yet"
    since = f"it runs since {one.started_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{since}, and nobody listens on port {port}: does its program use this port, on 0.0.0.0 or 127.0.0.1?"


def unreachable_words(one: PodInstance, since: datetime, why: str) -> str:
    """That its place does not answer."""
    return f"{one.system_id} has not answered since {since:%Y-%m-%d %H:%M:%S} UTC: {why}"


def seen_of(look: PodSeen) -> Mapping[str, Any]:
    """A look as ``status_container`` shows it."""
    words = {"phase": look.phase, "reason": look.reason, "waits_for": look.waits_for, "node": look.node}
    said = {name: word for name, word in words.items() if word}
    return {**said, "ready": look.is_ready, "restarts": look.restarts, **dict(look.details)}


def _before_start(place: Estimate) -> Sequence[tuple[str, Term]]:
    return ("wait", place.wait), ("staging", place.staging)


def _start(place: Estimate) -> tuple[float, float]:
    """Seconds until an instance may start: in the median, and in nine of ten cases."""
    terms = [term for _, term in _before_start(place)]
    return max(term.p50_s for term in terms), max(term.p90_s for term in terms)


def _range(term: Term) -> str:
    low, high = about(term.p50_s), about(term.p90_s)
    return low if low == high else f"{low}, up to {high}"


def _against(winner: Estimate, losers: Sequence[Estimate]) -> str:
    if not losers:
        return "It is the only place that can take the pod now."
    best = losers[0]
    later_s = _start(best)[0] - _start(winner)[0]
    when = f", about {about(later_s)} later" if later_s >= 1 else ""
    return f"Next best is {place_name(best.system_id, best.queue)}{when}."
