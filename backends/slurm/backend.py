"""A Slurm cluster as one login: the methods of ``Backend`` over one SSH connection.

At most once, in one place: ``submit.py`` and ``find.sh`` meet under a lock in the marker's directory, the job itself
claims the marker before any user code (``backends/container.py``), and no sbatch is ever repeated for a marker whose
first one may have been heard.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from backends.base import LOG_CHUNK_BYTES, Capabilities
from backends.container import DUPLICATE_EXIT_CODE, launch_files
from backends.launchers.words import Claim
from backends.paths import marker_root
from backends.slurm import cluster, observing, offers, sbatch, text
from backends.slurm.observing import ArrayMemory, Traces
from backends.slurm.pacing import Gathering, TokenBucket
from backends.slurm.remote import ask, ask_commands, program, word, words
from backends.ssh.connection import SshConnection
from scheduler.model.errors import (
    BackendUnavailable,
    NothingLearnt,
    SpecInvalid,
    SubmitError,
    SubmitRejected,
    SubmitUncertain,
    UnexpectedReply,
)
from scheduler.model.ids import MARKER_BEGINS, Marker, RemoteId, checked_marker, is_marker
from scheduler.model.runs import LogChunk, Observation, RemoteState, StagePlan, StageStatus, SubmitIntent
from scheduler.model.snapshots import StartProbe, SystemSnapshot
from scheduler.model.systems import System

SBATCH_AT_ONCE = 4
INTENTS_PER_CALL = 200
PLANS_PER_CALL = 200
IDS_PER_CALL = 500
FIND_MARGIN = timedelta(hours=1)
"""How much earlier than the intent accounting is searched: clocks differ, and the intent is older than the job."""

RIGHTS_HOLD = timedelta(hours=1)
"""How long accounts and qualities of service count as known; they change by an administrator's hand."""

ARRAY_MEMORY_HOLDS = timedelta(seconds=60)
"""After a longer pause between looks, accounting is asked which tasks of an array ended meanwhile (MinJobAge)."""


log = logging.getLogger(__name__)


class SlurmBackend:
    """One Slurm cluster as one login. Answers are as fresh as the controller's; nothing is kept that matters."""

    capabilities = Capabilities(
        batch=True, arrays=True, multi_node=True, start_estimates=True, visible_queue=True, pods=True
    )

    def __init__(
        self,
        system: System,
        login_user: str,
        connection: SshConnection,
        *,
        bucket: TokenBucket | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """bucket: what all logins of one system share; of this login alone when None."""
        self._connection = connection
        self._markers_dir = marker_root(system, login_user)
        self._bucket = bucket or TokenBucket(system.berth_notes.get("submitRatePerS"))
        self._pods_share_network = system.pods_share_network
        self._hidden = system.scheduler_profile.hidden_options if system.scheduler_profile else ()
        self._clock = clock
        self._version: tuple[str, tuple[int, int]] | None = None
        self._rights = offers.Rights()
        self._rights_asked_at: datetime | None = None
        self._rows: dict[str, text.QueueRow] = {}
        self._arrays: dict[Marker, ArrayMemory] = {}
        self._submissions = Gathering(self._submit_some, most=INTENTS_PER_CALL, calls_at_once=1)
        self._stagings = Gathering(self._stage_some, most=PLANS_PER_CALL, calls_at_once=2)

    # -- looking -----------------------------------------------------------------------------------------------------

    async def snapshot(self, probes: Sequence[StartProbe] = ()) -> SystemSnapshot:
        """Partitions, kinds of nodes, the jobs of everyone, what the site offers or withholds beside them, and when
        each probe would start; three remote calls at once."""
        shown, starts, (reservations, partitions, licences) = await asyncio.gather(
            self._outputs([text.VERSION_ARGV, cluster.SINFO_ARGV, cluster.SQUEUE_ARGV]),
            self._starts(probes),
            self._offers(),
        )
        version, nodes, jobs = shown
        seen, rights = cluster.snapshot_of(self._clock(), version, nodes, jobs, starts), self._rights
        least_cpus = min((kind.cores for kind in seen.nodes), default=1)
        return replace(
            seen,
            closures=offers.shown(offers.parse_closures, reservations, partitions, least_cpus) or (),
            licences=offers.shown(offers.parse_licences, licences),
            associations=rights.associations,
            qos=rights.qos,
        )

    async def _offers(self) -> tuple[str | None, str | None, str | None]:
        """What the site says of reservations, partitions and licences; None where it hides one of them.

        Now and then it is asked as well what the login may ask for.
        """
        commands: list[Sequence[str]] = [offers.RESERVATIONS_ARGV, offers.PARTITIONS_ARGV, offers.LICENCES_ARGV]
        is_due = self._rights_asked_at is None or self._clock() - self._rights_asked_at > RIGHTS_HOLD
        commands += [offers.ACCOUNTS_ARGV, offers.QOS_ARGV, offers.ALLOCATIONS_ARGV] if is_due else []
        said, _ = await ask_commands(self._connection, commands, each_s=10)
        reservations, partitions, licences, *rights = (one.text if one.exit_status == 0 else None for one in said)
        if is_due:
            self._rights, self._rights_asked_at = offers.rights_of(*rights), self._clock()
        return reservations, partitions, licences

    async def _starts(self, probes: Sequence[StartProbe]) -> tuple[tuple[StartProbe, datetime], ...]:
        if not probes:
            return ()
        commands = [sbatch.test_only_argv(probe.partition, probe.resources, self._hidden) for probe in probes]
        said, _ = await ask_commands(self._connection, commands, each_s=10, both=True)
        starts = ((probe, cluster.parse_test_only(one.text)) for probe, one in zip(probes, said, strict=True))
        return tuple((probe, at) for probe, at in starts if at is not None)

    async def observe(self, ids: Mapping[RemoteId, Marker]) -> Mapping[RemoteId, Observation]:
        """One squeue for all; for what has ended or is not shown, one sacct and one look at the markers."""
        if not ids:
            return {}
        (shown,) = await self._outputs([text.squeue_argv()])
        queue = self._queue_rows(shown, ids)
        doubtful = [job_id for job_id in ids if self._in_doubt(queue.get(job_id, []), ids[job_id])]
        accounts, traces = await self._second_look({job_id: ids[job_id] for job_id in doubtful})
        observations: dict[RemoteId, Observation] = {}
        for job_id, marker in ids.items():
            seen = self._observe_one(
                job_id, marker, queue.get(job_id, []), accounts.get(job_id, []), traces.get(marker, observing.NO_TRACES)
            )
            if seen is not None:
                observations[job_id] = seen
        return await self._follow_strays(ids, observations, traces)

    def _queue_rows(self, shown: str, ids: Mapping[RemoteId, Marker]) -> dict[RemoteId, list[text.QueueRow]]:
        """Rows by job, only those under the right name. A line like one of the last time is not parsed again.

        What is called nothing like a marker is a stranger's, and nothing in it may keep us from seeing our own.
        """
        ours = (line for line in shown.splitlines() if MARKER_BEGINS in line)
        lines = {line: self._rows.get(line) or text.parse_squeue_line(line) for line in ours}
        self._rows = lines
        queue: dict[RemoteId, list[text.QueueRow]] = {}
        for row in lines.values():
            if ids.get(row.job_id) == row.name:
                queue.setdefault(row.job_id, []).append(row)
        return queue

    def _in_doubt(self, rows: Sequence[text.QueueRow], marker: Marker) -> bool:
        if not any(row.state is not RemoteState.ENDED for row in rows):
            return True
        if rows[0].tasks is None:
            return False
        memory = self._arrays.get(marker)
        began = any(row.state is not RemoteState.QUEUED for row in rows)
        if memory is None:
            return began
        return memory.seen_at is None or self._clock() - memory.seen_at > ARRAY_MEMORY_HOLDS

    async def _second_look(
        self, ids: Mapping[RemoteId, Marker]
    ) -> tuple[dict[RemoteId, list[text.AccountRow]], dict[Marker, Traces]]:
        accounts: dict[RemoteId, list[text.AccountRow]] = {}
        traces: dict[Marker, Traces] = {}
        asked = list(ids)
        for start in range(0, len(asked), IDS_PER_CALL):
            some = asked[start : start + IDS_PER_CALL]
            rows, left = await asyncio.gather(self._accounts(some), self._traces(ids[job_id] for job_id in some))
            traces |= left
            for row in rows:
                if ids.get(row.job_id) == row.name:
                    accounts.setdefault(row.job_id, []).append(row)
        return accounts, traces

    async def _accounts(self, ids: Sequence[RemoteId]) -> list[text.AccountRow]:
        """What sacct knows; nothing when it does not answer, since squeue and the jobs' own traces still do."""
        row = text.dialect((await self._slurm_version())[1])
        (said,), _ = await ask_commands(self._connection, [text.sacct_argv(row, ids)])
        return text.parse_sacct(row, said.text) if said.exit_status == 0 else []

    async def _traces(self, markers: Iterable[Marker]) -> dict[Marker, Traces]:
        stdin = b"".join(word(self._marker_dir(marker)) for marker in markers)
        return dict(observing.parse_traces(await ask(self._connection, "markers", stdin=stdin)))

    def _observe_one(
        self,
        job_id: RemoteId,
        marker: Marker,
        queue: list[text.QueueRow],
        accounts: list[text.AccountRow],
        traces: Traces,
    ) -> Observation | None:
        shown = [row.tasks for row in queue] + [row.tasks for row in accounts]
        is_array = marker in self._arrays or any(tasks is not None for tasks in shown)
        if not is_array:
            if observing.waits_for_accounting(queue, accounts[0] if accounts else None, self._clock()):
                return None
            return observing.observe_job(job_id, queue, accounts[0] if accounts else None, traces)
        memory = self._arrays.setdefault(marker, ArrayMemory())
        memory.learn(job_id, queue, accounts, traces)
        memory.seen_at = self._clock()
        seen = observing.observe_array(queue, accounts, memory)
        if seen is None or seen.state is RemoteState.ENDED:
            del self._arrays[marker]
        return seen

    async def _follow_strays(
        self,
        ids: Mapping[RemoteId, Marker],
        observations: dict[RemoteId, Observation],
        traces: Mapping[Marker, Traces],
    ) -> Mapping[RemoteId, Observation]:
        """Where a duplicate of ours found its marker claimed by another job of it, that other job is the run."""
        strays: dict[RemoteId, RemoteId] = {}
        for job_id, seen in observations.items():
            owner = observing.stray_of(job_id, traces.get(ids[job_id], observing.NO_TRACES))
            if owner is not None and seen.exit_code == DUPLICATE_EXIT_CODE:
                strays[job_id] = owner
        if strays:
            real = await self.observe({owner: ids[job_id] for job_id, owner in strays.items()})
            for job_id, owner in strays.items():
                observations.pop(job_id)
                if owner in real:
                    observations[job_id] = real[owner]
        return observations

    # -- doing -------------------------------------------------------------------------------------------------------

    async def stage(self, plan: StagePlan) -> StageStatus:
        """Directories and small files, in one remote call for all who ask at the same time."""
        complaint = await self._stagings.ask(plan)
        if complaint:
            raise BackendUnavailable(complaint)
        return StageStatus(done=True)

    async def _stage_some(self, plans: Sequence[StagePlan]) -> Sequence[str]:
        """What went wrong, for each plan; when a call for several fails, each is tried alone to know whose it was."""
        directories = [_base64(directory) for plan in plans for directory in plan.directories]
        files = [(_base64(file.path), file.mode, _base64(file.content)) for plan in plans for file in plan.files]
        stdin = json.dumps({"directories": directories, "files": files}).encode()
        complaint = (await ask(self._connection, "python", [program("stage.py")], stdin)).strip()
        if not complaint or len(plans) == 1:
            return [complaint] * len(plans)
        return [(await self._stage_some([plan]))[0] for plan in plans]

    async def submit(self, intents: Sequence[SubmitIntent]) -> Mapping[Marker, RemoteId | SubmitError]:
        """Start each run at most once per marker; intents of all who ask at the same time go in one remote call."""
        frames: dict[Marker, bytes] = {}
        answers: dict[Marker, RemoteId | SubmitError] = {}
        for intent in intents:
            try:
                frames[intent.marker] = self._frame(intent)
            except SpecInvalid as error:
                answers[intent.marker] = SubmitRejected(str(error))
        said = await asyncio.gather(*(self._submissions.ask(item) for item in frames.items()))
        return answers | dict(zip(frames, said, strict=True))

    def _frame(self, intent: SubmitIntent) -> bytes:
        directory = self._marker_dir(intent.marker)
        files = launch_files(
            intent.run, marker_dir=directory, claim=Claim.SLURM, shared_network=self._pods_share_network
        )
        fields = (directory, intent.run.exec_dir, intent.run.output_dir, str(intent.fence), files.script, files.env)
        command = sbatch.sbatch_argv(intent.run, intent.marker)
        if any("\0" in field for field in (*fields, *command)):
            raise SpecInvalid.of("request", "holds a NUL character", "remove it")
        return b"".join(map(word, fields)) + words(command)

    async def _submit_some(self, frames: Sequence[tuple[Marker, bytes]]) -> Sequence[RemoteId | SubmitError]:
        await self._bucket.take(len(frames))
        stdin = b"".join(dict(frames).values())  # one marker twice is one submission
        try:
            args = [program("submit.py"), str(SBATCH_AT_ONCE)]
            said = await ask(self._connection, "python", args, stdin, timeout_s=240)
        except NothingLearnt as error:
            return [SubmitUncertain(str(error))] * len(frames)
        verdicts = {line.partition(text.US)[0]: line.split(text.US) for line in said.splitlines()}
        return [_verdict(verdicts.get(marker)) for marker, _ in frames]

    async def find(self, marker: Marker, intended_at: datetime) -> RemoteId | None:
        """Under the marker's lock: its files, then squeue and sacct, which must both answer before it is absent."""
        since_s = int((self._clock() - intended_at + FIND_MARGIN).total_seconds())
        stdin = words(text.squeue_argv(name=marker)) + words(text.sacct_named_argv(marker, max(since_s, 3600)))
        said = await ask(self._connection, "find", [self._marker_dir(marker)], stdin, timeout_s=90)
        verdict, _, rest = said.partition(text.US)
        match verdict:
            case "id" if rest.isdigit():
                return RemoteId(rest)
            case "absent":
                return None
            case "jobs":
                if found := text.parse_named(marker, rest):
                    return min(found, key=int)
                raise UnexpectedReply("jobs of another name were shown", rest)
            case "busy":
                raise BackendUnavailable("a submission under this marker is under way")
            case "unanswered" | "broken":
                raise BackendUnavailable(rest.strip())
        raise UnexpectedReply("the search for a marker was not understood", said)

    async def unended(self) -> Mapping[Marker, RemoteId]:
        """One squeue; what runs beside the queue on the login node is told by the login's ``SshBackend``."""
        (shown,) = await self._outputs([text.squeue_argv()])
        rows = (text.parse_squeue_line(line) for line in shown.splitlines() if MARKER_BEGINS in line)
        return {
            Marker(row.name): row.job_id for row in rows if is_marker(row.name) and row.state is not RemoteState.ENDED
        }

    async def cancel(self, remote_id: RemoteId, marker: Marker) -> bool:
        """``scancel`` by id and name together, so that an id issued again for another's job is left alone.

        Then the marker is given up: a controller that comes back with an older state may start the job once more.
        """
        (said,), _ = await ask_commands(self._connection, [text.scancel_argv(remote_id, marker)], both=True)
        if said.exit_status != 0 and not text.already_gone(said.text):
            raise BackendUnavailable(said.text.strip() or f"scancel ended with {said.exit_status}")
        return await self._end_of_marker("void", marker) == "begun"

    async def withdraw(self, remote_id: RemoteId, marker: Marker) -> bool:
        """The claim that the job would make is taken first: whoever has it, has the marker. Then ``scancel``.

        The proof needs no controller. A job that scancel does not reach starts in vain, and ends at once.
        """
        if await self._end_of_marker("withdraw", marker) == "begun":
            return False
        try:
            await ask_commands(self._connection, [text.scancel_argv(remote_id, marker)], both=True)
        except NothingLearnt as error:
            log.info("%s is withdrawn and stays in the queue: %s", marker, error)
        return True

    async def _end_of_marker(self, program: str, marker: Marker) -> str:
        match (await ask(self._connection, program, [self._marker_dir(marker)])).partition(text.US):
            case ("begun" | "unbegun") as verdict, _, "":
                return verdict
            case "broken", _, why:
                raise BackendUnavailable(why.strip())
            case answer:
                raise UnexpectedReply("the end of a marker was not understood", "".join(answer))

    async def read_log(self, remote_id: RemoteId, path: str, offset_bytes: int) -> LogChunk:
        """At most LOG_CHUNK_BYTES from an offset on."""
        args = [path, str(offset_bytes), str(LOG_CHUNK_BYTES)]
        said = (await ask(self._connection, "log", args)).encode("utf-8", "surrogateescape")
        return LogChunk(said, offset_bytes, offset_bytes + len(said))

    async def aclose(self) -> None:
        """Nothing to let go of: the connection belongs to whoever opened it."""

    # -- pieces ------------------------------------------------------------------------------------------------------

    def _marker_dir(self, marker: Marker) -> str:
        return posixpath.join(self._markers_dir, checked_marker(marker))

    async def _outputs(self, commands: Sequence[Sequence[str]]) -> list[str]:
        """What commands said that must all succeed."""
        said, complaint = await ask_commands(self._connection, commands)
        for argv, one in zip(commands, said, strict=True):
            if one.exit_status != 0:
                raise BackendUnavailable(f"{argv[0]}: {complaint or f'exit status {one.exit_status}'}")
        return [one.text for one in said]

    async def _slurm_version(self) -> tuple[str, tuple[int, int]]:
        if self._version is None:
            (shown,) = await self._outputs([text.VERSION_ARGV])
            self._version = text.parse_version(shown)
        return self._version


def _base64(data: str | bytes) -> str:
    """Bytes, or a path, for a program that reads JSON."""
    return base64.b64encode(os.fsencode(data)).decode()


def _verdict(fields: Sequence[str] | None) -> RemoteId | SubmitError:
    match fields:
        case [_, "id", job_id] if job_id.isdigit():
            return RemoteId(job_id)
        case [_, "failed", said]:
            status, _, words_ = said.replace("\x1d", "\n").partition(" ")
            refusal = sbatch.refusal_of(int(status) if status.isdigit() else 124, words_)
            return SubmitRejected(refusal) if refusal else SubmitUncertain(words_.strip() or "sbatch was cut off")
        case [_, "void", *_]:
            return SubmitUncertain("this marker was given up")
        case [_, "stale", fence]:
            return SubmitUncertain(f"a newer process holds this job (fence {fence})")
        case [_, "busy", *_]:
            return SubmitUncertain("a submission under this marker is under way")
        case [_, ("broken" | "untried"), why]:
            return SubmitUncertain(why.replace("\x1d", "\n").strip())
    return SubmitUncertain("no answer came for this submission")
