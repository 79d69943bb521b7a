"""What placement is told, gathered in one place: facts from the store, and what looks at the queues taught.

What was learnt is kept by each process for itself and can always be made again: it is brought back from the rows of
everyone's jobs when a system is first met, and moved by every look from then on. All of it happens in one thread of its
own, one piece after the other, so that neither loops nor requests wait for it; until it is done nothing is known. There
the forecasts of queues are played, too, as soon as a look is learnt from: plans find them at hand.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any

import structlog

from placement.evidence import foresee
from placement.experience import Experience, learn, recall
from placement.forecasts import Forecasts
from placement.kept import Kept
from placement.own_runs import OwnRuns
from placement.problem import Ask, LearntWaits, PlaceKey, Problem, SystemView
from placement.visible import look_of, queue_name, remembered
from scheduler.judge import Judge
from scheduler.model.jobs import FinishedRun
from scheduler.model.plan import Term
from scheduler.model.snapshots import Sighting, SystemSnapshot
from scheduler.store.facts import HISTORY, PlacementFacts
from scheduler.store.learning import RunStore, SightingStore

if TYPE_CHECKING:
    from placement.watched import WatchedQueue

log = structlog.get_logger()

RECALLED = 30_000
"""Jobs of one system that are brought back, the newest: weeks of most sites."""

OTHER_LOGIN = timedelta(hours=1)
"""After so long without a look by the login whose looks were learnt from, those of another are."""

Reading = Callable[[], AbstractAsyncContextManager[Any]]


class Watched:
    """A watched queue that one thread moves while others ask."""

    def __init__(self, queue: WatchedQueue) -> None:
        self._queue, self._lock = queue, Lock()

    def term(self, size: float, walltime_s: float, at_s: float) -> Term | None:
        with self._lock:
            return self._queue.term(size, walltime_s, at_s)

    def look(self, snapshot: SystemSnapshot) -> None:
        with self._lock:
            self._queue.look(snapshot)
        self._refit(snapshot.taken_at.timestamp())

    def replay(self, past: Sequence[Sighting]) -> None:
        self._queue.replay(past)
        if past:
            self._refit(max(row.seen_at for row in past).timestamp())

    def _refit(self, at_s: float) -> None:
        """Seconds, in which others may go on asking: what is fitted takes the old one's place at the end."""
        if self._queue.model.wants_refit(at_s):
            self._queue.model.refit(at_s)


@dataclass(slots=True)
class Followed:
    """One system. newest: the last look that is learnt from, or will be; queues: by partition."""

    newest: SystemSnapshot | None = None
    queues: dict[str, Watched] = field(default_factory=dict)
    recalled: bool = False


class Knowledge:
    """What one process knows of all systems. ``aclose`` ends what is under way; nothing is lost by it."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._looks: dict[str, dict[str, SystemSnapshot]] = defaultdict(dict)
        self._views: dict[str, Mapping[str, SystemView]] = defaultdict(dict)
        self._experience: dict[str, Experience] = defaultdict(Experience)
        self._forecasts: dict[str, Forecasts] = defaultdict(Forecasts)
        self._own_runs: dict[str, Kept[OwnRuns]] = defaultdict(Kept)
        self._runs: dict[str, Mapping[int, FinishedRun]] = defaultdict(dict)
        self._followed: dict[tuple[str, str], Followed] = {}
        self._judge = Judge()
        self._recalling: set[asyncio.Task[None]] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="learning")

    async def problem(self, tenant: str, asks: Sequence[Ask], now: datetime) -> Problem:
        """The question of where these jobs go, with all that is known."""
        async with self._reading() as db:
            runs = await RunStore(db).recent_by_id(tenant, HISTORY, self._runs[tenant])
            asked = await PlacementFacts(db).problem(tenant, asks, now, self._looks[tenant], runs.values())
            asked = await self._judge.judged(db, tenant, asked)
        self._runs[tenant] = runs
        self._views[tenant] = {view.system.id: view for view in asked.systems}
        self._looks[tenant] = {id_: look for id_, look in self._looks[tenant].items() if id_ in self._views[tenant]}
        for view in asked.systems:
            if view.snapshot is not None:
                self.look(tenant, view.system.id, view.snapshot)
        watched = {key: queue for view in asked.systems for key, queue in self._watched(tenant, view)}
        return replace(
            asked,
            experience=self._experience[tenant],
            watched=watched,
            forecasts=self._forecasts[tenant],
            own_runs=self._own_runs[tenant],
        )

    def look(self, tenant: str, system_id: str, snapshot: SystemSnapshot) -> None:
        """Learn from a look, soon; one that is not newer than the last is passed over.

        So is one by another login, which may be shown other jobs, unless the first has not looked for long.
        """
        at_hand = self._looks[tenant].get(system_id)
        if at_hand is None or at_hand.taken_at < snapshot.taken_at:
            self._looks[tenant][system_id] = snapshot
        followed = self._followed.get((tenant, system_id))
        if followed is None:
            followed = self._followed[tenant, system_id] = Followed()
            task = asyncio.create_task(self._recall(tenant, system_id, followed), name=f"recalling {system_id}")
            self._recalling.add(task)
            task.add_done_callback(self._recalling.discard)
        if followed.newest is None or _follows(snapshot, followed.newest):
            followed.newest = snapshot
            if followed.recalled:
                self._thread.submit(self._guarded, self._learn, tenant, system_id, followed, snapshot)

    def forget(self, tenant: str, system_id: str) -> None:
        """Its rows have changed: with the next look they are brought back anew."""
        self._followed.pop((tenant, system_id), None)

    async def settle(self) -> None:
        """Wait until all that was seen so far is learnt."""
        while self._recalling:
            await asyncio.wait(self._recalling)
        await asyncio.wrap_future(self._thread.submit(lambda: None))

    async def aclose(self) -> None:
        for task in self._recalling:
            task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    # -- in the thread of learning -----------------------------------------------------------------------------------

    async def _recall(self, tenant: str, system_id: str, followed: Followed) -> None:
        """Bring back what the store remembers of a system; then its newest look."""
        async with self._reading() as db:
            rows = await SightingStore(db).recent(tenant, system_id, RECALLED)
        bring_back = self._thread.submit(self._guarded, self._bring_back, tenant, system_id, followed, rows)
        await asyncio.wrap_future(bring_back)
        followed.recalled = True
        if followed.newest is not None:
            self._thread.submit(self._guarded, self._learn, tenant, system_id, followed, followed.newest)

    def _bring_back(self, tenant: str, system_id: str, followed: Followed, rows: Sequence[Sighting]) -> None:
        past: dict[str, list[Sighting]] = defaultdict(list)
        for row in rows:
            past[row.partition].append(row)
        looks = {queue_name(system_id, partition): remembered(part, system_id) for partition, part in past.items()}
        self._experience[tenant] = recall(self._experience[tenant], looks)
        for partition, part in past.items():
            queue = watched(partition)
            queue.replay(part)
            followed.queues[partition] = queue

    def _learn(self, tenant: str, system_id: str, followed: Followed, snapshot: SystemSnapshot) -> None:
        partitions = [state.name for state in snapshot.partitions]
        looks = {queue_name(system_id, name): look_of(snapshot, system_id, name) for name in partitions}
        self._experience[tenant] = learn(self._experience[tenant], looks)
        for name in partitions:
            followed.queues.setdefault(name, watched(name)).look(snapshot)
        self._foresee(tenant, system_id, snapshot)

    def _foresee(self, tenant: str, system_id: str, snapshot: SystemSnapshot) -> None:
        """Play what the next plan will ask for, if none of our jobs is sent there until then."""
        view = self._views[tenant].get(system_id)
        for place in replace(view, snapshot=snapshot).queue_places if view is not None else ():
            forecast = foresee(place, self._experience[tenant], self._forecasts[tenant])
            if forecast is not None:
                forecast.play()

    def _guarded(self, work: Callable[..., None], tenant: str, system_id: str, *rest: Any) -> None:
        """What goes wrong here costs what would have been learnt, and nothing else."""
        try:
            work(tenant, system_id, *rest)
        except Exception:
            log.exception("nothing learnt from a look", tenant=tenant, system=system_id)

    # -- for a problem -----------------------------------------------------------------------------------------------

    def _watched(self, tenant: str, view: SystemView) -> Sequence[tuple[PlaceKey, LearntWaits]]:
        followed = self._followed.get((tenant, view.system.id))
        queues: Mapping[str, Watched] = followed.queues if followed is not None else {}
        return [
            (place.key, queues[place.queue.partition])
            for place in view.queue_places
            if place.queue is not None and place.queue.partition in queues
        ]


def _follows(snapshot: SystemSnapshot, last: SystemSnapshot) -> bool:
    since = snapshot.taken_at - last.taken_at
    return since > (timedelta(0) if snapshot.seen_by == last.seen_by else OTHER_LOGIN)


def watched(partition: str) -> Watched:
    """A queue that nothing is known of; what learns is loaded when there is something to learn from."""
    from placement.watched import WatchedQueue

    return Watched(WatchedQueue(partition))
