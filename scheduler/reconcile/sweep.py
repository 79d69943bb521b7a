"""Forget what nobody asks for any more: answers kept for requests that come again, expired tokens, jobs of others."""

from __future__ import annotations

from datetime import timedelta

import structlog

from scheduler.ports import Ports
from scheduler.store.helper_jobs import HelperJobStore
from scheduler.store.keys import RefreshStore
from scheduler.store.learning import SIGHTINGS_KEPT, SightingStore
from scheduler.store.requests import IdempotencyStore
from scheduler.store.strays import PodPlaceStore

log = structlog.get_logger()

ANSWERS_KEPT = timedelta(hours=24)
"""How long the same Idempotency-Key gets the same answer."""

HELPERS_KEPT = timedelta(days=30)
"""How long it is known how a helper job ended."""

PLACES_KEPT = timedelta(days=365)
"""How long a pod that is gone is known for ours, should anything of it be seen."""


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
            places = await PodPlaceStore(db).sweep(now - PLACES_KEPT)
        swept = {"answers": answers, "refresh_tokens": tokens, "sightings": sightings, "helper_jobs": helpers}
        if any(swept.values()) or places:
            log.info("swept", **swept, pod_places=places)
