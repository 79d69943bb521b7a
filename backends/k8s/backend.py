"""A Kubernetes as one login: the methods of ``Backend`` by Jobs that are named like their markers.

At most once, in one place: a name exists once. ``submit`` creates the Job of that name, and ``find`` takes the name for
ever with a void Job before it says that there is none. Berth's finalizer keeps Jobs and pods from vanishing, so that
what is seen of them is proof, until the end was told and ``keepFinishedS`` have passed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from backends.base import LOG_CHUNK_BYTES, Capabilities
from backends.k8s import arrays, objects
from backends.k8s.api import EVENTS, JOBS, NODES, PODS, SECRETS, Api, Object, Refused, ensured
from backends.k8s.capacity import snapshot_of
from backends.k8s.logs import KeptLogs, log_paths
from backends.k8s.objects import KEPT, MAIN, MANAGED, MARKER, TOLD
from backends.k8s.policies import Guard
from backends.k8s.sight import Sight, by_run, run_of
from backends.k8s.site import Site, site_of
from backends.k8s.states import (
    has_begun,
    instant,
    observation,
    pod_is_over,
)
from backends.k8s.storage import VolumeStorage
from backends.k8s.ways import Ways
from scheduler.model.errors import (
    BackendUnavailable,
    FileMissing,
    FileRefused,
    NotAuthorised,
    NothingLearnt,
    SpecInvalid,
    SubmitError,
    SubmitRejected,
    SubmitUncertain,
    UnexpectedReply,
)
from scheduler.model.ids import Marker, RemoteId, checked_marker, is_marker
from scheduler.model.runs import LogChunk, Observation, RemoteState, RunSpec, StagePlan, StageStatus, SubmitIntent
from scheduler.model.snapshots import StartProbe, SystemSnapshot
from scheduler.model.systems import System

CALLS_AT_ONCE = 8
SINGLE_GETS = 20
"""Up to so many Jobs that the watch does not show are asked for one by one; for more, all are listed."""

COUNTED = frozenset({"Pending", "Running", "Unknown"})
"""Phases of a pod that still takes room on its node for the cluster's scheduler; the log of others may be read."""

SETTLE_S, SETTLE_PAUSE_S = 10.0, 0.1
"""How long the cluster's controller may take to stop making pods of a Job, and how often it is looked at."""

SWEEP_EVERY = timedelta(minutes=10)
VOID_KEPT = timedelta(days=30)
REFUSALS_AFTER, REFUSALS_HOLD = timedelta(seconds=3), timedelta(seconds=30)
"""A Job without a pod for so long is asked why; for how long the answer is used."""

log = logging.getLogger(__name__)


class KubernetesBackend:
    """One namespace of one cluster as one login."""

    capabilities = Capabilities(batch=True, arrays=True, multi_node=True, visible_queue=True, copies=False, pods=True)

    def __init__(
        self,
        system: System,
        api: Api,
        *,
        ways: Ways | None = None,
        sight: Sight | None = None,
        files: VolumeStorage | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """files: those of the system's volume; None where it has none. sight: shared with others; None: its own.
        ways: to ports of pods, which are given back at their end; None: there are none.

        All are closed with the backend.
        """
        self._system, self._api, self._files, self._clock = system, api, files, clock
        self._logs = KeptLogs(api, files, system.root_dir)
        self._site: Site = site_of(system)
        self._arrays = arrays.PlainArrays(api, self._site.queue)
        self._sight = sight or Sight(api)
        self._ways = ways
        self._guard = Guard(api, self._site)
        self._turns = asyncio.Semaphore(CALLS_AT_ONCE)
        self._version: tuple[str, tuple[int, int]] | None = None
        self._refusals: dict[str, tuple[datetime, str]] = {}
        self._swept_at = clock()

    # -- looking -----------------------------------------------------------------------------------------------------

    async def snapshot(self, probes: Sequence[StartProbe] = ()) -> SystemSnapshot:
        """Nodes by kind and the pods on them; of the whole cluster where the login may see it."""
        (version, number), nodes, pods = await asyncio.gather(self._server(), self._visible(NODES), self._visible(PODS))
        return snapshot_of(self._clock(), version, number, nodes, pods, self._site)

    async def observe(self, ids: Mapping[RemoteId, Marker]) -> Mapping[RemoteId, Observation]:
        """From what the watch shows; by a list while there is none. What has ended is looked at once more, alone."""
        if not ids:
            return {}
        found, pods = await self._found(ids)
        seen = await asyncio.gather(
            *(self._observed(found[remote_id], pods.get(remote_id, [])) for remote_id in ids if remote_id in found)
        )
        told = {remote_id: one for remote_id, one in zip(found, seen, strict=True) if one is not None}
        if self._sight.is_live:
            await self._sweep(frozenset(ids), self._sight.jobs.values())
        return told

    async def _found(
        self, ids: Mapping[RemoteId, Marker]
    ) -> tuple[Mapping[RemoteId, Object], Mapping[str, Sequence[Object]]]:
        """The Jobs of these ids in their order, arrays of plain Jobs as one each, and pods by the id of their run."""
        self._sight.start()
        if self._sight.is_live:
            await self._api.version()  # a watch is silent when nothing happens, and when nobody is there
        is_live = self._sight.is_live
        jobs = self._sight.jobs if is_live else {}
        runs = self._sight.pods_by_run() if is_live else {}
        unseen = [marker for remote_id, marker in ids.items() if _uid(jobs.get(marker)) != remote_id]
        if len(unseen) > SINGLE_GETS or not is_live:
            listed, their_pods = await asyncio.gather(self._api.list(JOBS, MANAGED), self._api.list(PODS, MANAGED))
            jobs, runs = {one["metadata"]["name"]: one for one in listed.items}, by_run(their_pods.items)
        elif unseen:
            alone = await asyncio.gather(*(self._in_turn(self._api.get(JOBS, marker)) for marker in unseen))
            jobs = {**jobs, **{marker: one for marker, one in zip(unseen, alone, strict=True) if one is not None}}
        found = {
            remote_id: job
            for remote_id, marker in ids.items()
            if _uid(job := jobs.get(marker)) == remote_id and job is not None and not objects.is_void(job)
        }
        tasks = arrays.tasks_by_head(jobs.values())
        heads = {remote_id: job for remote_id, job in found.items() if arrays.is_head(job)}
        await asyncio.gather(*(self._in_turn(self._arrays.tend(job, tasks[uid])) for uid, job in heads.items()))
        whole = {uid: arrays.joined(job, tasks[uid], runs.get(uid, [])) for uid, job in heads.items()}
        return {**found, **whole}, runs

    async def _observed(self, job: Object, pods: Sequence[Object]) -> Observation | None:
        """None: it has ended, but that could not be noted there yet; the next look tells it."""
        marker = Marker(job["metadata"]["name"])
        refusal = await self._refusal(job) if not pods else ""
        try:
            seen = observation(job, pods, refusal)
        except UnexpectedReply:  # the watch may be behind: ask once more before it is believed
            job = await self._in_turn(self._ours(RemoteId(str(_uid(job))), marker)) or job
            job, pods = await self._in_turn(self._now(job))
            seen = observation(job, pods, refusal)
        if seen.state is not RemoteState.ENDED:
            if "deletionTimestamp" in job["metadata"]:
                await self._end(pods)
            return seen
        job, pods = await self._in_turn(self._now(job))  # the watch of pods may be behind that of Jobs
        seen = observation(job, pods)
        if seen.state is not RemoteState.ENDED:
            return seen
        if not _was_told(job) and not await self._logs.keep(pods):
            return None
        try:
            if "deletionTimestamp" in job["metadata"]:
                await self._let_go([pod for pod in pods if pod.get("status", {}).get("phase") in COUNTED])
            await self._give_back(marker, job)
            await self._note_told(job)
        except NothingLearnt as error:
            log.warning("the end of %s is not told yet: %s", marker, error)
            return None
        return seen

    async def _refusal(self, job: Object) -> str:
        """Why the cluster makes no pod of a Job, in its words; empty where it does not say."""
        about, now = job["metadata"], self._clock()
        created_at = instant(about.get("creationTimestamp")) or now
        if now - created_at < REFUSALS_AFTER or job["spec"].get("suspend"):
            return ""
        asked_at, known = self._refusals.get(about["uid"], (None, ""))
        if asked_at is not None and now - asked_at < REFUSALS_HOLD:
            return known
        of_job = {"involvedObject.uid": about["uid"]}
        if arrays.is_head(job):
            if refusal := self._arrays.refusal(job):
                return refusal
            of_job = {"involvedObject.name": arrays.task_name(job, arrays.indices(job)[0])}
        try:
            found = await self._in_turn(self._api.list(EVENTS, fields={**of_job, "reason": "FailedCreate"}))
        except (NotAuthorised, Refused):
            return ""  # events are a courtesy; the run itself is seen without them
        latest = max(found.items, key=lambda event: str(event.get("lastTimestamp")), default=None)
        said = "" if latest is None else str(latest.get("message", ""))
        self._refusals[about["uid"]] = (now, said)
        return said

    # -- doing -------------------------------------------------------------------------------------------------------

    async def stage(self, plan: StagePlan) -> StageStatus:
        """On the volume; where there is none, a run's directories are made with its pod. SpecInvalid for files then."""
        if self._files is None:
            if plan.files:
                wrong = f"holds small files, and '{self._system.id}' is a Kubernetes that has no volume for them"
                raise SpecInvalid.of("volume_mounts", wrong, "leave config_content out, or let the pod go elsewhere")
            return StageStatus(done=True)
        try:
            for directory in plan.directories:
                await self._files.make_directory(objects.below(self._system.root_dir, directory))
            for file in plan.files:
                await self._files.write(objects.below(self._system.root_dir, file.path), _once(file.content), file.mode)
        except (FileMissing, FileRefused) as error:
            raise SpecInvalid.of("execSystemExecDir", f"cannot be made: {error}", "see the volume's rights") from None
        return StageStatus(done=True)

    async def submit(self, intents: Sequence[SubmitIntent]) -> Mapping[Marker, RemoteId | SubmitError]:
        """A Job for each marker, unless one has the name already."""
        answers = await asyncio.gather(*(self._in_turn(self._submit_one(intent)) for intent in intents))
        return {intent.marker: answer for intent, answer in zip(intents, answers, strict=True)}

    async def _submit_one(self, intent: SubmitIntent) -> RemoteId | SubmitError:
        marker = checked_marker(intent.marker)
        try:
            environment = objects.environment(marker, intent.run)
            job = await self._job(marker, intent.run)
            await self._guard.stand()
        except SpecInvalid as error:
            return await self._rejected(marker, str(error))
        except NothingLearnt as error:
            return SubmitUncertain(str(error))
        try:
            if environment is not None:
                await ensured(self._api, SECRETS, environment)
            made = await self._api.create(JOBS, job)
        except Refused as refused:
            return await self._refused(marker, refused)
        except NothingLearnt as error:
            return SubmitUncertain(str(error))
        if arrays.is_head(made):
            await self._arrays.tend(made, ())
        return RemoteId(str(_uid(made)))

    async def _refused(self, marker: Marker, refused: Refused) -> RemoteId | SubmitError:
        if "exceeded quota" in str(refused) or (refused.code == 409 and not refused.exists):
            return SubmitUncertain(str(refused))  # for now; later there may be room
        if refused.exists:
            return await self._taken(marker) or SubmitUncertain("this marker was given up")
        return await self._rejected(marker, str(refused))

    async def _rejected(self, marker: Marker, words: str) -> RemoteId | SubmitError:
        """A refusal says nothing of an earlier try, whose answer may have been lost: the name tells of that."""
        there = await self._taken(marker)
        if there is not None:
            return there
        await self._forget_environment(marker)
        return SubmitRejected(words)

    async def _taken(self, marker: Marker) -> RemoteId | SubmitError | None:
        """What has the name of this marker; None: nothing has."""
        try:
            there = await self._api.get(JOBS, marker)
        except NothingLearnt as error:
            return SubmitUncertain(str(error))
        if there is None:
            return None
        if objects.is_void(there):
            return SubmitUncertain("this marker was given up")
        if not objects.is_ours(there, marker):
            return SubmitUncertain(f"a Job {marker} is there that is not Berth's")
        return RemoteId(str(_uid(there)))

    async def find(self, marker: Marker, intended_at: datetime) -> RemoteId | None:
        """The Job of this name. Where there is none, a void one takes the name first, so that None stays true."""
        try:
            there = await self._api.get(JOBS, checked_marker(marker))
            if there is None:
                there = await ensured(self._api, JOBS, objects.void_job(marker))
        except Refused as refused:
            raise BackendUnavailable(f"the name {marker} cannot be given up: {refused}") from None
        if objects.is_void(there):
            await self._forget_environment(marker)
            return None
        if not objects.is_ours(there, marker):
            raise UnexpectedReply(f"a Job {marker} is there that is not Berth's", str(there["metadata"]))
        return RemoteId(str(_uid(there)))

    async def unended(self) -> Mapping[Marker, RemoteId]:
        """The Jobs that may yet have a pod. Looking also removes what is done with: nobody observes an empty place."""
        listed = await self._api.list(JOBS, MANAGED)
        tasks = arrays.tasks_by_head(listed.items)
        jobs = [
            job
            for job in listed.items
            if not (objects.is_void(job) or _has_ended(job) or _was_told(job))
            and (not arrays.is_head(job) or arrays.may_run(job, tasks[str(_uid(job))]))
        ]
        await self._sweep(frozenset(str(_uid(job)) for job in jobs), listed.items)
        return {
            Marker(name): RemoteId(str(_uid(job)))
            for job in jobs
            if is_marker(name := job["metadata"]["name"]) and objects.is_ours(job, Marker(name))
        }

    async def cancel(self, remote_id: RemoteId, marker: Marker) -> bool:
        """The Job is deleted, and its pods before it. Whether it may have begun is seen before that."""
        job = await self._ours(remote_id, marker)
        if job is None or _has_ended(job):
            return True
        if self._files is not None:
            await self._logs.keep(await self._pods_of(marker, remote_id))  # its nodes forget them with the pods
        try:
            if arrays.is_head(job):
                begun = await self._arrays.cancel(job)
            else:
                begun = not await self._stopped(marker, remote_id)
                await self._api.delete(JOBS, marker, foreground=True)
            if not begun:
                await self._be_done_with(job)
        except Refused as refused:
            raise BackendUnavailable(str(refused)) from None
        return begun

    async def withdraw(self, remote_id: RemoteId, marker: Marker) -> bool:
        """A Job none of whose pods has a node stops making pods; if one got a node meanwhile, it goes on."""
        job = await self._ours(remote_id, marker)
        if job is None or _has_ended(job) or arrays.is_head(job):
            return False
        if any(_has_node(pod) for pod in await self._pods_of(marker, remote_id)):
            return False
        parallelism = job["spec"].get("parallelism", 1)
        if not await self._stopped(marker, remote_id):
            await self._merge(marker, {"spec": {"parallelism": parallelism}})
            return False
        await self._api.delete(JOBS, marker, foreground=True)
        await self._be_done_with(job)
        return True

    async def _be_done_with(self, job: Object) -> None:
        """A run of which is proven that it never begins is not looked at again: what is kept of it goes now."""
        marker = Marker(job["metadata"]["name"])
        for pod in await self._pods_of(marker, _uid(job)):
            await self._release(PODS, pod)
        await self._give_back(marker, job)
        await self._note_told(job)

    async def _stopped(self, marker: Marker, remote_id: RemoteId) -> bool:
        """Let a Job make no more pods. True is proof that none of those it made ever had a node, or will have.

        A pod that is being deleted is never given a node, and Berth's finalizer keeps each in sight. That the Job's
        controller knows is seen by its count of active pods: it would have made one more otherwise.
        """
        if any(_has_node(pod) for pod in await self._pods_of(marker, remote_id)):
            return False
        await self._merge(marker, {"spec": {"parallelism": 0}})
        for _ in range(int(SETTLE_S / SETTLE_PAUSE_S)):
            job = await self._ours(remote_id, marker)
            if job is None:
                return False
            if _makes_no_pods(job):
                pods = await self._pods_of(marker, remote_id)
                if any(_has_node(pod) for pod in pods):
                    return False
                if all("deletionTimestamp" in pod["metadata"] for pod in pods):
                    return True
            await asyncio.sleep(SETTLE_PAUSE_S)
        return False

    async def read_log(self, remote_id: RemoteId, path: str, offset_bytes: int) -> LogChunk:
        """From the log of the container, which holds both of its streams; once that is over, from the volume."""
        pod = await self._pod_with_log(remote_id, path)
        if pod is None or pod_is_over(pod):
            kept = await self._logs.read(path, offset_bytes, pod)
            if kept is not None:
                return kept
        if pod is None:
            return LogChunk(b"", offset_bytes, offset_bytes)
        try:
            text = await self._api.log(pod["metadata"]["name"], MAIN, offset_bytes + LOG_CHUNK_BYTES)
        except Refused as refused:
            raise BackendUnavailable(f"the log cannot be read: {refused}") from None
        data = text[offset_bytes : offset_bytes + LOG_CHUNK_BYTES]
        return LogChunk(data, offset_bytes, offset_bytes + len(data))

    async def aclose(self) -> None:
        await asyncio.gather(self._sight.aclose(), self._logs.aclose())
        if self._files is not None:
            await self._files.aclose()
        await self._api.aclose()

    # -- pieces ------------------------------------------------------------------------------------------------------

    async def _server(self) -> tuple[str, tuple[int, int]]:
        if self._version is None:
            self._version = await self._api.version()
        return self._version

    async def _visible(self, kind: Any) -> Sequence[Object]:
        """Objects of the whole cluster; of this namespace alone, or none, where the login may see no more."""
        try:
            return (await self._api.list(kind, everywhere=kind is PODS)).items
        except NotAuthorised:
            if kind is PODS:
                return (await self._api.list(kind)).items
            return ()

    async def _job(self, marker: Marker, run: RunSpec) -> Object:
        """The Job that runs this here, or stands for an array. SpecInvalid for what this server cannot be asked for."""
        low_ports = any(port < objects.FIRST_FREE_PORT for port in run.ports)
        if not (low_ports or run.array is not None or run.resources.nodes > 1):
            return objects.job(marker, run, self._site, self._system.root_dir)
        version, number = await self._server()
        opens_low = low_ports and number >= objects.LOW_PORTS_SINCE
        job = objects.job(marker, run, self._site, self._system.root_dir, opens_low_ports=opens_low)
        if run.array is not None and arrays.needs_plain_jobs(run.array, number):
            return arrays.head(job, run.array)
        if run.resources.nodes > 1 and number < objects.MULTI_NODE_SINCE:
            fix = "the cluster needs Kubernetes {}.{} for jobs on several nodes".format(*objects.MULTI_NODE_SINCE)
            raise SpecInvalid.of("nodeCount", f"is more than one, and this is Kubernetes {version}", fix)
        if "completionMode" in job["spec"]:
            await self._demand_kept(job, "nodeCount" if run.array is None else "notes.berth.array")
        return job

    async def _demand_kept(self, job: Object, name: str) -> None:
        """SpecInvalid for what this server would leave out of a Job without a word."""
        try:
            kept = await self._api.create(JOBS, job, only_try=True)
        except Refused:
            return  # the real creation is refused in the same words, or finds the Job
        lost = [
            key for key in ("completionMode", "backoffLimitPerIndex") if kept["spec"].get(key) != job["spec"].get(key)
        ]
        if lost:
            raise SpecInvalid.of(name, f"the cluster does not keep {', '.join(lost)} of a Job", "use another system")

    async def _ours(self, remote_id: RemoteId, marker: Marker) -> Object | None:
        """The Job with this id and name; None where the id is another's or unknown."""
        try:
            job = await self._api.get(JOBS, checked_marker(marker))
        except Refused as refused:
            raise BackendUnavailable(str(refused)) from None
        return job if job is not None and _uid(job) == remote_id and not objects.is_void(job) else None

    async def _now(self, job: Object) -> tuple[Object, list[Object]]:
        """A Job as it is known and the pods of its run as they are; of an array both as they are."""
        pods = await self._pods_of(Marker(job["metadata"]["name"]), _uid(job))
        if not arrays.is_head(job):
            return job, pods
        return arrays.joined(*await self._arrays.seen(job), pods), pods

    async def _pods_of(self, marker: Marker, uid: str | None) -> list[Object]:
        listed = await self._api.list(PODS, {MARKER: marker})
        return [pod for pod in listed.items if run_of(pod) == uid]

    async def _pod_with_log(self, remote_id: RemoteId, path: str) -> Object | None:
        """The newest pod of the run whose log lies under this path, for whoever asks."""
        shown = self._sight.pods.values() if self._sight.is_live else ()
        pods = [pod for pod in shown if run_of(pod) == remote_id]
        for label in ("controller-uid", arrays.TASK_OF):
            pods = pods or list((await self._api.list(PODS, {label: remote_id})).items)
        named = [pod for pod in pods if path in log_paths(pod)]
        begun = [pod for pod in named if has_begun(pod)]
        return max(begun, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)

    async def _merge(self, marker: Marker, changes: Object) -> None:
        try:
            await self._api.merge(JOBS, marker, changes)
        except Refused as refused:
            raise BackendUnavailable(str(refused)) from None

    async def _give_back(self, marker: Marker, job: Object) -> None:
        """What a run that has ended needs no more; its Job may stay for a day."""
        if _was_told(job):
            return
        await self._in_turn(self._forget_environment(marker))
        if self._ways is not None:
            await self._in_turn(self._ways.forget(marker, job))

    async def _note_told(self, job: Object) -> None:
        if _was_told(job):
            return
        noted = {"metadata": {"annotations": {TOLD: self._clock().isoformat()}}}
        await self._in_turn(self._api.merge(JOBS, job["metadata"]["name"], noted))

    async def _forget_environment(self, marker: Marker) -> None:
        try:
            await self._api.delete(SECRETS, marker)
        except NothingLearnt as error:
            log.warning("the secret of %s stays: %s", marker, error)

    async def _let_go(self, pods: Sequence[Object]) -> None:
        """Let pods vanish of which nothing runs any more."""
        over = [pod for pod in pods if pod_is_over(pod) and KEPT in pod["metadata"].get("finalizers", [])]
        await asyncio.gather(*(self._in_turn(self._release(PODS, pod)) for pod in over))

    async def _end(self, pods: Sequence[Object]) -> None:
        """Delete what still runs of a Job that somebody deletes: Berth's finalizer keeps the cluster from doing so."""
        names = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        await asyncio.gather(*(self._in_turn(self._api.delete(PODS, name)) for name in names))

    async def _release(self, kind: Any, one: Object) -> None:
        left = [name for name in one["metadata"].get("finalizers", []) if name != KEPT]
        guard = {"resourceVersion": one["metadata"]["resourceVersion"], "finalizers": left}
        await self._api.merge(kind, one["metadata"]["name"], {"metadata": guard})

    # -- what is done with -------------------------------------------------------------------------------------------

    async def _sweep(self, asked: Collection[str], jobs: Collection[Object]) -> None:
        """Now and then, remove Jobs whose end was told long ago. Whoever asks for one still keeps it."""
        now = self._clock()
        if now - self._swept_at < SWEEP_EVERY:
            return
        self._swept_at = now
        old = [job for job in jobs if _uid(job) not in asked and self._is_old(job, now)]
        for job in old:
            try:
                await self._remove(job)
            except NothingLearnt as error:
                log.info("%s is swept later: %s", job["metadata"]["name"], error)

    def _is_old(self, job: Object, now: datetime) -> bool:
        about = job["metadata"]
        if objects.is_void(job):
            return now - (instant(about["creationTimestamp"]) or now) > VOID_KEPT
        told_at = instant(about.get("annotations", {}).get(TOLD))
        return told_at is not None and now - told_at > timedelta(seconds=self._site.keep_s)

    async def _remove(self, job: Object) -> None:
        marker = Marker(job["metadata"]["name"])
        for pod in await self._pods_of(marker, _uid(job)):
            await self._release(PODS, pod)
        await self._forget_environment(marker)
        tasks = (await self._arrays.seen(job))[1] if arrays.is_head(job) else []
        for name in (*(task["metadata"]["name"] for task in tasks), marker):
            await self._api.delete(JOBS, name)
            if (there := await self._api.get(JOBS, name)) is not None:
                await self._release(JOBS, there)

    async def _in_turn(self, call: Awaitable[Any]) -> Any:
        async with self._turns:
            return await call


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _uid(one: Object | None) -> str | None:
    return None if one is None else str(one["metadata"]["uid"])


def _has_node(pod: Object) -> bool:
    return bool(pod["spec"].get("nodeName"))


def _has_ended(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions") or ()
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)


def _was_told(job: Object) -> bool:
    """Whether its end is proven and told: a Job that was deleted early gets no condition that says so."""
    return TOLD in job["metadata"].get("annotations", {})


def _makes_no_pods(job: Object) -> bool:
    """Whether the controller has seen that this Job shall have no pods."""
    status = job.get("status", {})
    suspended = any(each["type"] == "Suspended" and each["status"] == "True" for each in status.get("conditions") or ())
    return not status.get("active") and bool(status.get("startTime") or suspended)
