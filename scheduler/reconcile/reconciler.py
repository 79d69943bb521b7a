"""All loops of one process: built from ports and settings, run until told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from placement.engine import place, probes_for, rethink
from placement.problem import SolveLimits
from placement.race import Rules
from scheduler.ports import Ports
from scheduler.reconcile.advance import Advance
from scheduler.reconcile.copies import Copies
from scheduler.reconcile.deliver import Deliver
from scheduler.reconcile.fetch import WebRules
from scheduler.reconcile.keep_right import KeepRight
from scheduler.reconcile.loop import Bell, Crew, run_every
from scheduler.reconcile.node_facts import NodeFacts
from scheduler.reconcile.place import Placing
from scheduler.reconcile.pod_files import PodFiles
from scheduler.reconcile.pod_moves import Moves
from scheduler.reconcile.pod_watch import PodWatch
from scheduler.reconcile.pods import Pods
from scheduler.reconcile.snapshot import Snapshots
from scheduler.reconcile.strays import Strays
from scheduler.reconcile.submit import Submit
from scheduler.reconcile.sweep import Sweep
from scheduler.reconcile.watch import Pace, Watch
from scheduler.settings import Settings

MIB = 1024 * 1024

WATCH_TICK_S = 0.5
SNAPSHOT_TICK_S = 5.0
COPIES_TICK_S = 2.0
KEEP_RIGHT_TICK_S = 15.0
NODE_FACTS_TICK_S = 5.0
SWEEP_TICK_S = 3600.0
DELIVER_TICK_S = 1.0
PODS_TICK_S = 1.0
POD_FILES_TICK_S = 10.0
STRAYS_TICK_S = 15.0


class Reconciler:
    """Everything that moves jobs along in this process."""

    def __init__(self, ports: Ports, settings: Settings, bell: Bell) -> None:
        lease_s = settings.lease_s
        web = WebRules(settings.input_private_allow, settings.input_limit_mib * MIB)
        self._settings, self._bell = settings, bell
        self.snapshots = Snapshots(ports, probes_for, interval_s=settings.snapshot_interval_s)
        self.placing = Placing(
            ports,
            place,
            SolveLimits(deterministic_time=settings.solve_limit_s),
            lease_s=lease_s,
            batch=settings.submit_batch,
            refresh=self.snapshots.refresh,
        )
        self.watch = Watch(
            ports, lost_after_s=settings.lost_after_s, pace=Pace(settings.watch_min_s, settings.watch_max_s)
        )
        self.submit = Submit(ports, lease_s=lease_s, batch=settings.submit_batch, accepted=self.watch.soon)
        self.sweep = Sweep(ports)
        self.strays = Strays(ports)
        self.pod_moves = Moves(ports, lease_s=lease_s)
        self.pod_files = PodFiles(ports, self.pod_moves)
        self.node_facts = NodeFacts(ports, lease_s=lease_s)
        self.advance = Advance(ports, web, lease_s=lease_s, in_hand=settings.jobs_in_hand)
        self.keep_right = KeepRight(ports, rethink, Rules(submissions_per_job=settings.submissions_per_job, moves=True))
        self.copies = Copies(ports, web, lease_s=lease_s)
        self.deliver = Deliver(ports, lease_s=lease_s)
        pod_limits = SolveLimits(deterministic_time=settings.solve_limit_s)
        self.pods = Pods(ports, place, pod_limits, self.pod_moves, lease_s=lease_s)
        self.pod_watch = PodWatch(ports, lost_after_s=settings.lost_after_s)

    @property
    def crews(self) -> tuple[Crew, ...]:
        return (
            self.snapshots.crew,
            *self.placing.pins.crews,
            self.advance.crew,
            self.submit.crew,
            self.watch.crew,
            self.copies.crew,
            self.deliver.crew,
            self.node_facts.crew,
            self.pods.crew,
            self.pod_watch.crew,
            self.pod_moves.crew,
            self.strays.crew,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Run every loop until ``stop`` is set; then let go of what is in hand. A kill loses nothing either."""
        settings = self._settings
        moved: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (settings.place_interval_s, self.placing.tick),
            (settings.advance_interval_s, self.advance.tick),
            (settings.advance_interval_s, self.submit.tick),
            (WATCH_TICK_S, self.watch.tick),
            (COPIES_TICK_S, self.copies.tick),
            (KEEP_RIGHT_TICK_S, self.keep_right.tick),
            (PODS_TICK_S, self.pods.tick),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for interval_s, tick in moved:
                    group.create_task(run_every(interval_s, self._bell.listen(), tick, stop))
                # A move makes no look due, only time does, and placement asks for the looks that it needs.
                group.create_task(run_every(SNAPSHOT_TICK_S, asyncio.Event(), self.snapshots.tick, stop))
                # What awaits an image waits behind a queue; and every tick reads all that do.
                group.create_task(run_every(DELIVER_TICK_S, asyncio.Event(), self.deliver.tick, stop))
                group.create_task(run_every(NODE_FACTS_TICK_S, asyncio.Event(), self.node_facts.tick, stop))
                group.create_task(run_every(PODS_TICK_S, asyncio.Event(), self.pod_watch.tick, stop))
                group.create_task(run_every(POD_FILES_TICK_S, asyncio.Event(), self.pod_files.tick, stop))
                group.create_task(run_every(STRAYS_TICK_S, asyncio.Event(), self.strays.tick, stop))
                group.create_task(run_every(SWEEP_TICK_S, asyncio.Event(), self.sweep.tick, stop))
        finally:
            for crew in self.crews:
                await crew.aclose()
            for writer in (self.placing.writer, self.advance.writer, self.submit.writer, self.watch.writer):
                await writer.settle()
