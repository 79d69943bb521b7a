"""FakeSystem: a system in memory that keeps real jobs and real files, and fails where it is told to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from backends.base import LOG_CHUNK_BYTES, Capabilities
from backends.container import DUPLICATE_EXIT_CODE, GO_NAME
from scheduler.model.errors import (
    BackendUnavailable,
    NotAuthorised,
    SubmitError,
    SubmitRejected,
    SubmitUncertain,
    UnexpectedReply,
)
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.runs import Ending, LogChunk, Observation, RemoteState, StagePlan, StageStatus, SubmitIntent
from scheduler.model.snapshots import NodeKind, PartitionState, StartProbe, SystemSnapshot, VisibleJob
from scheduler.ports import utc_now
from tests.fakes.files import FakeFiles, FakeStorage
from tests.fakes.pod_host import FakePodHost, FakePods


class Fault(StrEnum):
    """What goes wrong with a call."""

    UNAVAILABLE = "UNAVAILABLE"
    """The system does not answer; nothing happened."""
    BEFORE_ACCEPT = "BEFORE_ACCEPT"
    """The connection is cut before the system took the job; we cannot know."""
    AFTER_ACCEPT = "AFTER_ACCEPT"
    """The connection is cut after the system took the job; we cannot know."""
    UNKNOWN_WORD = "UNKNOWN_WORD"
    """The system says something that our parser has never heard."""
    LOGIN_FAILS = "LOGIN_FAILS"
    """The login is refused."""
    SLOW = "SLOW"
    """The call waits until ``release`` is called."""


@dataclass
class FakeJob:
    """One job of the system, as the system knows it."""

    id: RemoteId
    intent: SubmitIntent
    submitted_at: datetime
    state: RemoteState = RemoteState.QUEUED
    started_at: datetime | None = None
    ended_at: datetime | None = None
    ending: Ending | None = None
    exit_code: int | None = None
    reason: str = ""
    restarts: int = 0
    is_put_off: bool = False
    begun: bool = False
    """Whether it came to the user's code. A copy waits at its gate before; what is withdrawn never does."""
    visible: bool = True
    """False once the system has forgotten it: ``observe`` leaves it out."""

    @property
    def marker(self) -> Marker:
        return self.intent.marker


@dataclass
class FakeSystem:
    """The system behind any number of logins. Tests move its jobs; backends only see them.

    refuse: the words with which the system refuses an intent, or None; for ``sbatch: error: ...``.
    run_at_once: every accepted job ends successfully the first time that it is looked at, for end-to-end tests.
    loses_cancel: whether the scheduler loses a request to end a job.
    """

    clock: Callable[[], datetime] = utc_now
    refuse: Callable[[SubmitIntent], str | None] = lambda intent: None
    run_at_once: bool = False
    loses_cancel: Callable[[], bool] = lambda: False
    nodes: tuple[NodeKind, ...] = (NodeKind(partition="fake", cores=4, memory_mib=4000, total=2, free=2, free_cores=8),)
    partitions: tuple[PartitionState, ...] = (PartitionState(name="fake", up=True, is_default=True),)
    jobs: dict[Marker, FakeJob] = field(default_factory=dict)
    others: tuple[VisibleJob, ...] = ()
    """Jobs of other people, as the queue shows them."""
    next_id: int = 1000
    """The id of the next job; turned back, the system issues ids again, as a controller does that lost its state."""
    files: FakeFiles = field(default_factory=FakeFiles)
    pods: FakePods = field(default_factory=FakePods)
    calls: list[str] = field(default_factory=list)
    """Names of the methods that backends called, in order."""
    runs: list[Marker] = field(default_factory=list)
    """A line for each time that a payload began."""
    marker_root: str = "/work/.berth/markers"
    _withdrawn: set[Marker] = field(default_factory=set)
    _ended_by_us: set[Marker] = field(default_factory=set)
    _at_gate: set[Marker] = field(default_factory=set)
    """What has nodes and has not come to the user's code."""
    _void: set[Marker] = field(default_factory=set)
    _fences: dict[Marker, int] = field(default_factory=dict)
    _faults: dict[str, deque[Fault]] = field(default_factory=dict)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def backend(self) -> FakeBackend:
        return FakeBackend(self)

    def pod_host(self) -> FakePodHost:
        return FakePodHost(self)

    def storage(self, root: str = "/") -> FakeStorage:
        return FakeStorage(self.files, root)

    # -- what the site does ------------------------------------------------------------------------------------------

    def start(self, marker: Marker) -> None:
        """Give a job its nodes. It claims its marker, waits at its gate if it has one, and then begins."""
        job = self.jobs[marker]
        job.state, job.started_at = RemoteState.RUNNING, self.clock()
        if marker in self._withdrawn or marker in self._ended_by_us:
            self.finish(job, Ending.FAILED, DUPLICATE_EXIT_CODE)
        self._at_gate.add(marker)
        self.pass_gates()

    def pass_gates(self) -> None:
        """What has nodes begins where nothing holds it; a copy that waited too long gives up."""
        for job in [self.jobs[marker] for marker in sorted(self._at_gate)]:
            if job.state is not RemoteState.RUNNING or job.started_at is None:
                self._at_gate.discard(job.marker)
            elif not job.intent.run.gate_s or f"{self.marker_root}/{job.marker}/{GO_NAME}" in self.files.nodes:
                self._at_gate.discard(job.marker)
                job.begun = True
                self.runs.append(job.marker)
            elif job.marker in self._ended_by_us or self._waited_s(job) >= job.intent.run.gate_s:
                self.finish(job, Ending.GATE_CLOSED, None)

    def _waited_s(self, job: FakeJob) -> float:
        return 0.0 if job.started_at is None else (self.clock() - job.started_at).total_seconds()

    def finish(self, job: FakeJob, ending: Ending, exit_code: int | None) -> None:
        """The job is over, however it came to that."""
        job.state, job.ended_at, job.ending, job.exit_code = RemoteState.ENDED, self.clock(), ending, exit_code

    def end(self, marker: Marker, exit_code: int = 0, ending: Ending | None = None, output: bytes = b"") -> None:
        """End a job, with what it wrote to its standard output."""
        job = self.jobs[marker]
        if job.started_at is None:
            self.start(marker)
        self.finish(job, ending or (Ending.COMPLETED if exit_code == 0 else Ending.FAILED), exit_code)
        run = job.intent.run
        self.write_log(marker, output)
        self.files.put(f"{run.output_dir}/tapisjob.exitcode", b"%d\n" % exit_code)

    def requeue(self, marker: Marker) -> None:
        job = self.jobs[marker]
        job.state, job.started_at, job.restarts, job.begun = RemoteState.QUEUED, None, job.restarts + 1, False

    def forget(self, marker: Marker) -> None:
        """The system no longer shows the job, as Slurm without accounting after MinJobAge."""
        self.jobs[marker].visible = False

    def write_log(self, marker: Marker, output: bytes) -> None:
        run = self.jobs[marker].intent.run
        path = f"{run.output_dir}/{run.stdout}"
        before = self.files.nodes.get(path)
        self.files.put(path, (before if isinstance(before, bytes) else b"") + output)

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    def fail(self, method: str, fault: Fault, times: int = 1) -> None:
        """The next ``times`` calls of this method meet this fault."""
        self._faults.setdefault(method, deque()).extend([fault] * times)

    def heal(self) -> None:
        """Forget every fault not yet met."""
        self._faults.clear()

    def release(self) -> None:
        """Let every slow call go on."""
        self._released.set()

    async def meet(self, method: str) -> Fault | None:
        """The fault of this call, if any; the ones that are alike for all methods are raised here."""
        self.calls.append(method)
        self.pass_gates()
        faults = self._faults.get(method)
        match faults.popleft() if faults else None:
            case Fault.UNAVAILABLE:
                raise BackendUnavailable("fake: no route to host")
            case Fault.LOGIN_FAILS:
                raise NotAuthorised("fake: permission denied (publickey)")
            case Fault.UNKNOWN_WORD:
                raise UnexpectedReply("fake: unknown state 'GONE_FISHING'", "GONE_FISHING")
            case Fault.SLOW:
                await self._released.wait()
                return None
            case other:
                return other

    # -- what a submission does --------------------------------------------------------------------------------------

    def accept(self, intent: SubmitIntent) -> RemoteId | SubmitError:
        if (job := self.jobs.get(intent.marker)) is not None:
            return job.id
        if intent.marker in self._void:
            return SubmitRejected("this marker was given up; it can start nothing")
        if intent.fence < self._fences.get(intent.marker, 0):
            return SubmitUncertain("a newer lease of this job has been here")
        self._fences[intent.marker] = intent.fence
        if (words := self.refuse(intent)) is not None:
            return SubmitRejected(words)
        job = FakeJob(RemoteId(str(self.next_id)), intent, self.clock())
        self.next_id += 1
        self.jobs[intent.marker] = job
        return job.id

    def give_up(self, marker: Marker) -> None:
        self._void.add(marker)

    def withdraw(self, job: FakeJob) -> bool:
        """Take the claim before the job does."""
        if job.started_at is not None or job.restarts > 0:
            return job.marker in self._withdrawn or job.ending is Ending.GATE_CLOSED
        self._withdrawn.add(job.marker)
        self.end_by_us(job)
        return True

    def end_by_us(self, job: FakeJob) -> None:
        """The marker is given up, and the scheduler told; it may lose that."""
        self._ended_by_us.add(job.marker)
        if job.state is not RemoteState.ENDED and not self.loses_cancel():
            self.finish(job, Ending.CANCELLED, None)


class FakeBackend:
    """The Backend of a FakeSystem, as one login."""

    capabilities = Capabilities(
        batch=True, arrays=True, multi_node=True, start_estimates=True, visible_queue=True, pods=True
    )

    def __init__(self, system: FakeSystem) -> None:
        self._system = system

    async def snapshot(self, probes: Sequence[StartProbe] = ()) -> SystemSnapshot:
        await self._system.meet("snapshot")
        now = self._system.clock()
        jobs = tuple(_visible(job) for job in self._system.jobs.values() if job.state is not RemoteState.ENDED)
        starts = tuple((probe, now) for probe in probes)
        return SystemSnapshot(
            taken_at=now,
            partitions=self._system.partitions,
            nodes=self._system.nodes,
            jobs=jobs + self._system.others,
            starts=starts,
        )

    async def stage(self, plan: StagePlan) -> StageStatus:
        await self._system.meet("stage")
        for directory in plan.directories:
            self._system.files.make_directory(directory)
        for file in plan.files:
            self._system.files.put(file.path, file.content)
        return StageStatus(done=True)

    async def submit(self, intents: Sequence[SubmitIntent]) -> Mapping[Marker, RemoteId | SubmitError]:
        fault = await self._system.meet("submit")
        unknown = {intent.marker: SubmitUncertain("fake: connection lost") for intent in intents}
        if fault is Fault.BEFORE_ACCEPT:
            return unknown
        answers = {intent.marker: self._system.accept(intent) for intent in intents}
        return unknown if fault is Fault.AFTER_ACCEPT else answers

    async def find(self, marker: Marker, intended_at: datetime) -> RemoteId | None:
        await self._system.meet("find")
        if (job := self._system.jobs.get(marker)) is not None:
            return job.id
        self._system.give_up(marker)
        return None

    async def observe(self, ids: Mapping[RemoteId, Marker]) -> Mapping[RemoteId, Observation]:
        await self._system.meet("observe")
        if self._system.run_at_once:
            for job in self._system.jobs.values():
                if job.state is not RemoteState.ENDED:
                    self._system.end(job.marker)
        return {
            job.id: _observation(job)
            for remote_id, marker in ids.items()
            if (job := self._system.jobs.get(marker)) is not None and job.id == remote_id and job.visible
        }

    async def unended(self) -> Mapping[Marker, RemoteId]:
        await self._system.meet("unended")
        there = [job for job in self._system.jobs.values() if job.visible and job.state is not RemoteState.ENDED]
        return {job.marker: job.id for job in there}

    async def cancel(self, remote_id: RemoteId, marker: Marker) -> bool:
        await self._system.meet("cancel")
        job = self._system.jobs.get(marker)
        if job is None or job.id != remote_id:
            return True
        self._system.end_by_us(job)
        return job.started_at is not None or job.restarts > 0

    async def withdraw(self, remote_id: RemoteId, marker: Marker) -> bool:
        await self._system.meet("withdraw")
        job = self._system.jobs.get(marker)
        return job is not None and job.id == remote_id and self._system.withdraw(job)

    async def read_log(self, remote_id: RemoteId, path: str, offset_bytes: int) -> LogChunk:
        await self._system.meet("read_log")
        node = self._system.files.nodes.get(path)
        data = (node if isinstance(node, bytes) else b"")[offset_bytes:][:LOG_CHUNK_BYTES]
        return LogChunk(data, offset_bytes, offset_bytes + len(data))

    async def aclose(self) -> None:
        """Nothing is held."""


def _observation(job: FakeJob) -> Observation:
    return Observation(
        state=job.state,
        raw_state=str(job.ending or job.state),
        reason=job.reason,
        submitted_at=job.submitted_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        ending=job.ending,
        exit_code=job.exit_code,
        nodes="fake1" if job.started_at else "",
        restarts=job.restarts,
        is_put_off=job.is_put_off,
    )


def _visible(job: FakeJob) -> VisibleJob:
    resources = job.intent.run.resources
    return VisibleJob(
        remote_id=job.id,
        partition=job.intent.run.partition or "fake",
        running=job.state is RemoteState.RUNNING,
        nodes=resources.nodes,
        cores=resources.cores,
        walltime_s=resources.walltime_s,
        submitted_at=job.submitted_at,
        started_at=job.started_at,
    )
