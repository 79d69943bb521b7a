"""Forget what nobody asks for any more: answers kept for requests that come again, expired tokens, jobs of others."""

from __future__ import annotations

from datetime import timedelta

import structlog

from scheduler.ports import Ports
from scheduler.store.helper_jobs import HelperJobStore
from scheduler.store.keys import RefreshStore
from scheduler.store.learning import SIGHTINGS_KEPT, SightingStore
from scheduler.store.requests import IdempotencyStore

log = structlog.get_logger()

ANSWERS_KEPT = timedelta(hours=24)
"""How long the same Idempotency-Key gets the same answer."""

HELPERS_KEPT = timedelta(days=30)
"""How long it is known how a helper job ended."""


class Sweep:
    """The loop of forgetting. Several processes may sweep; who comes second finds nothing."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def tick(self) -> None:
        """Sweep once."""
        now = self._ports.clock()
        async with self._ports.transaction() as db:
            answers = await IdempotencyStore(db).sweep(now - ANSWERS_KEPT)
            tokens = await RefreshStore(db).sweep(now)
            sightings = await SightingStore(db).sweep(now - SIGHTINGS_KEPT)
            helpers = await HelperJobStore(db).sweep(now - HELPERS_KEPT)
        if answers or tokens or sightings or helpers:
            log.info("swept", answers=answers, refresh_tokens=tokens, sightings=sightings, helper_jobs=helpers)
