"""Leases of jobs whose nodes have copies of their own: a store that is full takes them back while the jobs run.

The run's own word is the proof, that its nodes read copies now; without it the lease stays. What the job was told is
taken away before its system is asked whether it is still that run: one that begins again later waits on its nodes, and
is given its image again when its system says that it began again. Who dies in between leaves a lease that stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from images import fragment
from images.keeper import Stats
from scheduler.model.jobs import Attempt
from scheduler.model.runs import RemoteState
from scheduler.model.states import A
from scheduler.ports import Ports
from scheduler.reconcile.handing import take_back
from scheduler.reconcile.image_stores import Store
from scheduler.reconcile.on_nodes import outcome_there
from scheduler.store.images import Claimant

log = structlog.get_logger()


class GivenBack:
    """Takes back what running jobs need no more."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def seen(self, stats: Stats, mine: Sequence[Claimant], store: Store) -> Stats:
        """The store's books as they are once ``mine`` hold no more than they need."""
        running = {f"job-{each.attempt.marker}": each.attempt for each in mine if each.attempt.state is A.CLAIMED}
        images = []
        for kept in stats.images:
            given = [name for name in kept.leases if name in running and await self._reads_copies(running[name], store)]
            for name in given:
                await store.keeper.release(kept.digest, name)
                log.info("image given back", holder=name, system=store.side.system.id)
            images.append(replace(kept, leases=tuple(name for name in kept.leases if name not in given)))
        return replace(stats, images=tuple(images))

    async def _reads_copies(self, attempt: Attempt, store: Store) -> bool:
        """Whether its run, and no later one, has copies; from then on a later one waits until it is told again."""
        said = await outcome_there(store.side, attempt.marker, self._ports)
        if said is None or said.read_from != fragment.COPIES or attempt.remote_id is None:
            return False
        await take_back(self._ports, store.side, attempt.marker)
        backend = await store.side.backend(self._ports, attempt.run.job_type)
        seen = (await backend.observe({attempt.remote_id: attempt.marker})).get(attempt.remote_id)
        return seen is not None and seen.state is RemoteState.RUNNING and seen.restarts == said.restarts
