"""Every job that may exist on a system, as the store knows it. Only rows that were written meanwhile are read again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from scheduler.model.jobs import InFlight
from scheduler.model.states import S
from scheduler.ports import Ports
from scheduler.reconcile.sides import Target, Targets
from scheduler.store.jobs import JobStore

PAGE = 1000


class Flights:
    """The jobs to watch. Losing what is kept in memory costs one reading of them all, and nothing else."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._known: dict[int, InFlight] = {}

    async def read(self) -> Mapping[Target, Sequence[InFlight]]:
        """What is submitted and has not ended, by login. Versions tell, whichever process wrote."""
        async with self._ports.reading() as db:
            store = JobStore(db)
            versions = await store.versions_in_flight()
            same = {
                job_id: self._known[job_id]
                for job_id, seen in versions.items()
                if job_id in self._known and self._known[job_id].versions == seen
            }
            fresh = [flight for page in _pages(versions.keys() - same.keys()) for flight in await store.in_flight(page)]
        self._known = same | {flight.job_id: flight for flight in fresh}
        return await self._by_login()

    async def _by_login(self) -> Mapping[Target, Sequence[InFlight]]:
        targets = Targets(self._ports)
        flights: dict[Target, list[InFlight]] = defaultdict(list)
        for flight in self._known.values():
            if flight.remote_id is not None and flight.state is not S.SUBMITTING_JOB:
                target = await targets.of(flight.tenant, flight.system_id, flight.owner, flight.job_type)
                flights[target].append(flight)
        return flights


def _pages(job_ids: set[int]) -> Iterator[Sequence[int]]:
    ordered = sorted(job_ids)
    for start in range(0, len(ordered), PAGE):
        yield ordered[start : start + PAGE]
