"""The life of pods: what is wanted, against what is. Each pod is worked on by one process at a time.

Only this loop moves a pod and decides about its instances; ``pod_watch`` says how the instances are. An instance is
written down before its place hears of it, and ended only when that is proven.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

import structlog

from placement.problem import SolveLimits
from scheduler.model.errors import (
    BackendUnavailable,
    FileMissing,
    FileRefused,
    NotFound,
    NothingLearnt,
    SpecInvalid,
    Stale,
    SubmitError,
    SubmitRejected,
)
from scheduler.model.ids import Marker, RemoteId, marker_for
from scheduler.model.macros import MacroUnknown, PathRefused
from scheduler.model.pod_catalog import files_name
from scheduler.model.pods import (
    Desired,
    InstanceState,
    Pod,
    PodEvent,
    PodInstance,
    PodStatus,
    pod_move,
    stop_time,
)
from scheduler.model.runs import Ending, SubmitIntent
from scheduler.ports import Ports
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.pod_homes import mounted_by, not_there, settled, sources, strange
from scheduler.reconcile.pod_moves import Moves
from scheduler.reconcile.pod_place import NoPlace, Planner, PodPlace, PodPlacing
from scheduler.reconcile.pod_rules import (
    DRAIN,
    HELD_AT_MOST,
    Do,
    Step,
    conclusion,
    next_step,
    place_words,
    standing,
    way,
    words_of,
)
from scheduler.reconcile.pod_runs import pod_run, stage_pod, with_secrets
from scheduler.reconcile.sides import Side, Sides
from scheduler.store.gathering import Gathering
from scheduler.store.pods import PodStore

log = structlog.get_logger()

P, E, I = PodStatus, PodEvent, InstanceState  # noqa: E741 - the house's short names of tables

AGAIN_S, LONGEST_AGAIN_S = 2.0, 60.0
"""Until something of which nothing was learnt is tried again; longer each time."""

CANCEL_AGAIN_S = 5.0
"""Until the end of an instance is asked for again, as long as it is not proven."""

NO_ROOM_AGAIN_S = 15.0
"""Until a place is sought again for a pod that fits, but not now."""

MOST_STEPS = 12
"""Steps of one pod after another, before others have their turn."""

PLACED_TOGETHER = 200
KEPT_INSTANCES = 20
"""Ended instances of which is known how they ended."""

FILES_AGAIN_S = 1.0
"""Until a pod is looked at again whose files are being brought to its place."""

REFUSALS = (FileMissing, FileRefused, MacroUnknown, PathRefused, SpecInvalid, NotFound)
"""What keeps an instance from being handed over, and no retry mends."""


class Known(NamedTuple):
    """A pod as it is held, with its newest instances."""

    pod: Pod
    instances: Sequence[PodInstance]


class Pods:
    """The loop of pods. What it keeps in memory is only how often in a row nothing was learnt, to wait longer."""

    def __init__(
        self, ports: Ports, planner: Planner, limits: SolveLimits, moves: Moves, *, lease_s: float, in_hand: int = 64
    ) -> None:
        self._ports, self._moves, self._lease_s = ports, moves, lease_s
        self._sides = Sides(ports)
        self._placing = PodPlacing(ports, planner, limits)
        self._together = Gathering(self._choose, PLACED_TOGETHER)
        self._misses: Counter[str] = Counter()
        self._new: set[Marker] = set()
        """Instances that this process wrote down, and has not handed over."""
        self.crew = Crew(in_hand)
        self._deeds: Mapping[Do, Callable[[Known, Step], Awaitable[Known | None]]] = MappingProxyType(
            {
                Do.WAIT: self._wait,
                Do.REMOVE: self._remove,
                Do.STOP: self._stop,
                Do.TIME_UP: self._time_up,
                Do.REST: self._rest,
                Do.END: self._end,
                Do.PLACE: self._place,
                Do.SUBMIT: self._submit,
                Do.CONCLUDE: self._conclude,
                Do.FOLLOW: self._follow,
                Do.RETIRE: self._retire,
                Do.REPLACE: self._replace,
            }
        )

    async def tick(self) -> None:
        """Claim the pods for which something is due, and do it, as many as there are hands."""
        at = self._ports.clock()
        if self.crew.free <= 0:
            return
        in_work = [str(uuid) for uuid in self.crew.keys]
        async with self._ports.reading() as db:
            if not await PodStore(db).is_any_due(at, in_work):
                return
        async with self._ports.transaction() as db:
            claimed = await PodStore(db).claim(self._ports.process_id, self._lease_s, self.crew.free, at, in_work)
            behind = await PodStore(db).instances_of([pod.uuid for pod in claimed])
        for pod in claimed:
            self.crew.start(pod.uuid, self._work(Known(pod, behind.get(pod.uuid, ()))), pod=pod.id)
        if len(claimed) > self.crew.free:
            self._ports.wake()  # there may be more than hands were free for

    async def _work(self, known: Known) -> None:
        """Take steps until the pod waits for something."""
        here: Known | None = known
        try:
            for _ in range(MOST_STEPS):
                if here is None:
                    return
                known = here
                step = next_step(known.pod, known.instances, self._ports.clock())
                here = await self._deeds[step.do](known, step)
            if here is not None:
                await self._note(here.pod, next_look_at=self._later(AGAIN_S))
        except Stale as stale:
            self._changed_meanwhile(known.pod, stale)
        except NotFound as gone:
            log.info("the pod is gone", pod=known.pod.id, why=str(gone))
        except NothingLearnt as error:
            await self._nothing_learnt(known, error)
        else:
            self._misses.pop(known.pod.uuid, None)

    async def _nothing_learnt(self, known: Known, error: NothingLearnt) -> None:
        """Say what is waited for, and look again: later each time."""
        self._misses[known.pod.uuid] += 1
        wait_s = min(LONGEST_AGAIN_S, AGAIN_S * 2.0 ** min(self._misses[known.pod.uuid] - 1, 10))
        log.warning("nothing learnt of a pod", pod=known.pod.id, status=known.pod.status, why=str(error))
        try:
            words = f"{error}; being tried again"
            told = {"message": words} if known.pod.message != words else {}
            await self._note(known.pod, next_look_at=self._later(wait_s), **told)
        except Stale as stale:
            self._changed_meanwhile(known.pod, stale)

    def _changed_meanwhile(self, pod: Pod, stale: Stale) -> None:
        """Take it up again at once: whoever wrote it gave the lease back, and made it due."""
        log.info("someone else changed the pod", pod=pod.id, why=str(stale))
        self._ports.wake()

    # -- wanted ------------------------------------------------------------------------------------------------------

    async def _place(self, known: Known, _: Step) -> Known | None:
        """Choose a place and write the instance down: from here on something of it may run, and its files lie there."""
        choice = await self._together.add(known.pod)
        if isinstance(choice, NoPlace):
            return await self._no_place(known, choice)
        pod = known.pod
        side = await self._sides.of(pod.tenant, choice.system_id, pod.owner)
        try:
            async with self._ports.reading() as db:
                words = strange(await mounted_by(db, pod), side)
            if words:
                return await self._no_place(known, NoPlace(words, later=False))
            return await self._intend(known, choice, side)
        except NotFound as gone:
            return await self._no_place(known, NoPlace(f"{gone}; mount another, or none", later=False))

    async def _intend(self, known: Known, choice: PodPlace, side: Side) -> Known:
        """One write: where the files that it mounts lie from now on, and the instance."""
        pod, at = known.pod, self._ports.clock()
        queue = side.system.queue(choice.queue) if choice.queue else None
        number = pod.instance_number + 1
        async with self._ports.transaction() as db:
            files = sources(await settled(db, pod, side, at), side.system)
            run = pod_run(pod, number, side.system, queue, side.login_user, walltime_s=choice.walltime_s, files=files)
            instance = PodInstance(
                pod_uuid=pod.uuid,
                number=number,
                marker=marker_for(pod.uuid, number),
                tenant=pod.tenant,
                system_id=choice.system_id,
                owner=side.login.owner,
                queue=choice.queue,
                run=run,
                intended_at=at,
                wait_p90_s=choice.wait_p90_s,
            )
            words = f"instance {number} goes to {place_words(instance)}: {choice.sentence}"
            store = PodStore(db)
            await store.intend(instance)
            await store.forget_instances(pod, number - KEPT_INSTANCES)
            if pod.status is P.REQUESTED:
                pod = await store.move(pod, E.PLACED, at, words, keep=True, instance_number=number)
            else:
                pod = await store.note(pod, at, words, keep=True, instance_number=number)
        self._new.add(instance.marker)
        return Known(pod, (*known.instances, instance))

    async def _no_place(self, known: Known, choice: NoPlace) -> Known | None:
        pod, at = known.pod, self._ports.clock()
        if choice.later or any(one.is_live for one in known.instances):
            told = choice.words if pod.message != choice.words else ""
            async with self._ports.transaction() as db:
                await PodStore(db).note(pod, at, told, message=choice.words, next_look_at=self._later(NO_ROOM_AGAIN_S))
            return None
        async with self._ports.transaction() as db:
            await PodStore(db).move(pod, E.FAILED, at, choice.words, next_look_at=None)
        return None

    async def _choose(self, pods: Sequence[Pod]) -> Sequence[PodPlace | NoPlace]:
        """Places of pods that need one at the same time; those of a tenant are thought over together."""
        of_tenant: dict[str, list[Pod]] = defaultdict(list)
        for pod in pods:
            of_tenant[pod.tenant].append(pod)
        found: dict[str, PodPlace | NoPlace] = {}
        for group in of_tenant.values():
            found |= await self._placing.choose(group)
        return [found[pod.uuid] for pod in pods]

    async def _submit(self, known: Known, step: Step) -> Known | None:
        """Hand the instance over. Its marker, not our memory, says what became of it: it may have been before."""
        [instance], pod = step.instances, known.pod
        is_new = instance.marker in self._new
        try:
            if words := await self._awaited(pod):
                await self._note(pod, message=words, next_look_at=self._later(FILES_AGAIN_S))
                return None
            self._new.discard(instance.marker)
            outcome = await self._handed_over(pod, instance)
        except REFUSALS as refused:
            self._new.discard(instance.marker)
            outcome = SubmitRejected(str(refused))
        if isinstance(outcome, SubmitRejected):  # so is an instance that runs, or a marker that was given up
            outcome = await self._had_before(instance) or (outcome if is_new else None)
        if isinstance(outcome, SubmitRejected):
            ended = {"state": I.ENDED, "ended_at": self._ports.clock(), "ending": Ending.LAUNCH_FAILURE}
            return await self._write(known, instance, **ended, message=str(outcome)[:2000])
        if outcome is None:
            words = "its place never heard of it"
            return await self._write(known, instance, state=I.ENDED, ended_at=self._ports.clock(), message=words)
        return await self._write(known, instance, state=I.QUEUED, remote_id=outcome)

    async def _awaited(self, pod: Pod) -> str:
        """Which of its files are still being brought to its place, in words; empty when all are there."""
        async with self._ports.reading() as db:
            coming = not_there(await mounted_by(db, pod))
        for one in coming:
            if not await self._moves.there(one):
                return f"{files_name(one)} is being brought to {one.system_id}"
        if not coming:
            return ""
        async with self._ports.reading() as db:
            left = not_there(await mounted_by(db, pod))
        return f"{files_name(left[0])} is being brought to {left[0].system_id}" if left else ""

    async def _handed_over(self, pod: Pod, instance: PodInstance) -> Any:
        """Its id; SubmitRejected; None where it is proven that there is none and never will be."""
        async with self._ports.reading() as db:
            secrets = await PodStore(db).credentials(pod.uuid)
        backend = await self._ports.connections.backend(instance.login, instance.job_type)
        await backend.stage(stage_pod(instance.marker, pod, instance.run, secrets, instance.number))
        run = with_secrets(instance.run, pod, secrets)
        intent = SubmitIntent(instance.marker, run, instance.intended_at, fence=pod.version)
        outcome = (await backend.submit([intent]))[instance.marker]
        if isinstance(outcome, SubmitError) and not isinstance(outcome, SubmitRejected):
            return await backend.find(instance.marker, instance.intended_at)
        return outcome

    async def _had_before(self, instance: PodInstance) -> RemoteId | None:
        """Its id, where an earlier try was taken and only its answer lost; None: it never will be."""
        try:
            backend = await self._ports.connections.backend(instance.login, instance.job_type)
        except REFUSALS as refused:
            raise BackendUnavailable(f"whether instance {instance.number} runs cannot be asked: {refused}") from None
        return await backend.find(instance.marker, instance.intended_at)

    async def _follow(self, known: Known, step: Step) -> Known | None:
        """Bring the pod's status to where its instances are, one row of the table after the other."""
        [newest], pod, at = step.instances, known.pod, self._ports.clock()
        target, words = standing(known.instances, at), words_of(newest)
        changes: dict[str, Any] = {"message": words}
        if target in (P.CREATING, P.AVAILABLE) and pod.started_at is None:
            started_at = newest.started_at or at
            changes |= {"started_at": started_at, "stop_at": stop_time(pod.definition, started_at)}
        if target is P.AVAILABLE:
            changes["held_until"] = None
        events = way(pod.status, target)
        status = pod.status
        for event in events:
            status = pod_move(status, event)
        told = f"{status}: {words}" if events else ""
        async with self._ports.transaction() as db:
            pod = await PodStore(db).note(pod, at, told, keep=True, status=status, **changes)
        self._ports.wake()
        return Known(pod, known.instances)

    async def _retire(self, known: Known, step: Step) -> Known | None:
        """A successor answers: new connections go there, and the old instance ends when those it has may have."""
        leaves_at = self._ports.clock() + DRAIN
        words = f"instance {known.instances[-1].number} answers and takes over"
        return await self._unwanted(known, step.instances, leaves_at, words)

    async def _replace(self, known: Known, step: Step) -> Known | None:
        at = self._ports.clock()
        words = f"instance {step.instances[0].number} is stopped before its time at its place ends; the next follows"
        return await self._unwanted(known, step.instances, at, words, held_until=at + HELD_AT_MOST)

    async def _conclude(self, known: Known, _: Step) -> Known | None:
        """Its only instance ended: it is complete, or has failed, or gets another place."""
        pod, at = known.pod, self._ports.clock()
        found = conclusion(pod, known.instances, at)
        async with self._ports.transaction() as db:
            store = PodStore(db)
            if found.event is E.COMPLETED and pod.status is P.SPAWNER_SETUP:
                pod = await store.move(pod, E.ACCEPTED, at, keep=True)
            pod = await store.move(pod, found.event, at, found.words, next_look_at=found.again_at)
        self._ports.wake()
        return None

    # -- not wanted --------------------------------------------------------------------------------------------------

    async def _time_up(self, known: Known, _: Step) -> Known | None:
        async with self._ports.transaction() as db:
            words = "time_to_stop is reached; the pod is stopped"
            pod = await PodStore(db).note(known.pod, self._ports.clock(), words, keep=True, desired=Desired.OFF)
        return Known(pod, known.instances)

    async def _stop(self, known: Known, _: Step) -> Known | None:
        pod, at = known.pod, self._ports.clock()
        live = [one for one in known.instances if one.is_live]
        async with self._ports.transaction() as db:
            store = PodStore(db)
            left = [await store.write(one, unwanted_at=at) for one in live]
            words = "it is being ended" if live else "nothing of it runs"
            pod = await store.move(pod, E.STOPPING, at, words, keep=True, held_until=None)
        return Known(pod, _with(known.instances, left))

    async def _end(self, known: Known, step: Step) -> Known | None:
        """Ask for the end of instances, again and again: each is ENDED when that is proven, by us or by the watch."""
        here, silent = known, None
        for instance in step.instances:
            try:
                here = await self._end_one(here, instance)
            except NothingLearnt as error:  # its place alone; the others lie elsewhere
                silent = error
        if silent is not None:
            raise silent
        if all(one.is_live for one in here.instances if one.marker in {each.marker for each in step.instances}):
            await self._note(here.pod, next_look_at=self._later(CANCEL_AGAIN_S))
            return None
        return here

    async def _end_one(self, known: Known, instance: PodInstance) -> Known:
        backend = await self._ports.connections.backend(instance.login, instance.job_type)
        if instance.remote_id is None:
            remote_id = await backend.find(instance.marker, instance.intended_at)
            if remote_id is None:
                return await self._write(known, instance, state=I.ENDED, ended_at=self._ports.clock())
            known = await self._write(known, instance, state=I.QUEUED, remote_id=remote_id)
            [instance] = [one for one in known.instances if one.marker == instance.marker]
        assert instance.remote_id is not None
        may_have_begun = await backend.cancel(instance.remote_id, instance.marker)
        if may_have_begun:
            return known
        ended = {"state": I.ENDED, "ended_at": self._ports.clock(), "ending": Ending.CANCELLED}
        return await self._write(known, instance, **ended)

    async def _rest(self, known: Known, _: Step) -> Known | None:
        """Nothing of it runs or ever will: it rests, is gone, or starts anew."""
        pod, at = known.pod, self._ports.clock()
        async with self._ports.transaction() as db:
            store = PodStore(db)
            over: dict[str, Any] = {"stop_at": None, "held_until": None, "next_look_at": None}
            pod = await store.move(pod, E.GONE, at, "the pod is stopped", keep=True, **over)
            if pod.delete_requested_at is not None:
                await store.remove(pod, at)
            elif pod.desired is Desired.RESTART:
                begun: dict[str, Any] = {"desired": Desired.ON, "wanted_at": at, "started_at": None, "next_look_at": at}
                pod = await store.move(pod, E.WANTED, at, "the pod is started again", **begun)
            else:
                await store.note(pod, at)
        self._ports.wake()
        return None

    async def _remove(self, known: Known, _: Step) -> Known | None:
        async with self._ports.transaction() as db:
            await PodStore(db).remove(known.pod, self._ports.clock())
        return None

    # -- below -------------------------------------------------------------------------------------------------------

    async def _wait(self, known: Known, step: Step) -> Known | None:
        await self._note(known.pod, next_look_at=step.until)
        return None

    async def _note(self, pod: Pod, **changes: Any) -> Pod:
        async with self._ports.transaction() as db:
            return await PodStore(db).note(pod, self._ports.clock(), **changes)

    async def _write(self, known: Known, instance: PodInstance, **changes: Any) -> Known:
        async with self._ports.transaction() as db:
            newer = await PodStore(db).write(instance, **changes)
        return Known(known.pod, _with(known.instances, [newer]))

    async def _unwanted(
        self, known: Known, instances: Sequence[PodInstance], from_at: datetime, words: str, **changes: Any
    ) -> Known:
        async with self._ports.transaction() as db:
            store = PodStore(db)
            left = [await store.write(one, unwanted_at=from_at) for one in instances]
            pod = await store.note(known.pod, self._ports.clock(), words, keep=True, **changes)
        return Known(pod, _with(known.instances, left))

    def _later(self, seconds: float) -> datetime:
        return self._ports.clock() + timedelta(seconds=seconds)


def _with(instances: Sequence[PodInstance], newer: Sequence[PodInstance]) -> Sequence[PodInstance]:
    """The instances, some of them as they are now."""
    fresh = {one.marker: one for one in newer}
    return tuple(fresh.get(one.marker, one) for one in instances)
