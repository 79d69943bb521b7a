"""The jobs that an image is held for or sent for, and how soon they need it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from images.claims import UNTOLD, Claim, Foreseen, Grade, together
from images.line import Pressing
from scheduler.model.images import ImageCopy
from scheduler.model.states import A
from scheduler.model.systems import System
from scheduler.ports import Ports
from scheduler.store.images import Claimant, ImageStore

KNOWN_FOR_S = 10.0
"""Somebody who sends an image asks the database only so often how soon it is needed."""


async def claimants(ports: Ports, copy: ImageCopy, system: System) -> Sequence[Claimant]:
    """Of the store in which a copy lies, or shall: whoever may read an image of it."""
    async with ports.reading() as db:
        there = await ImageStore(db).claims(copy.tenant, copy.system_id)
    return [each for each in there if system.credential_user(each.attempt.owner) == copy.owner]


def waits(claimant: Claimant) -> bool:
    """Whether it is one job that waits in the queue. Tasks of an array begin one by one, when nobody looks."""
    attempt = claimant.attempt
    return attempt.state is A.QUEUED and attempt.started_at is None and attempt.run.array is None


def starts_in_s(jobs: Sequence[Claimant], now: datetime) -> float:
    """Until one of them begins that wait; inf where there are none."""
    left_s = []
    for each in jobs:
        since = each.attempt.submitted_at or each.attempt.intended_at
        left_s.append(_foreseen(each).starts_in_s((now - since).total_seconds()))
    return together(left_s)


def pressing(ports: Ports, copy: ImageCopy, system: System) -> Pressing:
    """How soon a copy is needed that is being sent: by who awaits it now. Who asked for it without a job has time."""
    known: tuple[float, Claim] | None = None

    async def turn(left_bytes: int) -> float:
        nonlocal known
        if known is None or time.monotonic() - known[0] > KNOWN_FOR_S:
            theirs = await claimants(ports, copy, system)
            mine = [each for each in theirs if each.manifest_digest == copy.manifest_digest]
            known = time.monotonic(), _claim(mine, ports.clock())
        return replace(known[1], size_bytes=left_bytes).turn

    return turn


def _claim(mine: Sequence[Claimant], now: datetime) -> Claim:
    if not mine:
        return Claim("", 0.0, Grade.IDLE, UNTOLD.starts_in_s(0.0))
    if all(waits(each) for each in mine):
        return Claim("", 0.0, Grade.QUEUED, starts_in_s(mine, now))
    return Claim("", 0.0, Grade.BEGUN, 0.0)


def _foreseen(claimant: Claimant) -> Foreseen:
    """The wait that placement told for where the attempt is."""
    decision = claimant.decision
    told = () if decision is None else (decision.winner, *decision.losers)
    for one in told:
        if one is not None and one.system_id == claimant.attempt.system_id:
            return Foreseen(one.wait.p50_s, one.wait.p90_s)
    return UNTOLD
