"""This machine as a system: the queue decides when, the runner runs."""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from backends.base import Capabilities
from backends.beside import Commands
from backends.container import Launcher, LaunchFiles, launch_files
from backends.launchers.bubblewrap import UnpackedImage
from backends.launchers.words import Claim
from backends.local.commands import LocalCommands, account_for
from backends.local.images import is_unpackable, unpacked
from backends.local.queue import Entry, Queue, Slots
from backends.local.registries import Registries
from backends.paths import marker_root
from backends.runner.calls import Runner
from scheduler.model.errors import (
    BackendUnavailable,
    NothingLearnt,
    SpecInvalid,
    SubmitError,
    SubmitRejected,
    SubmitUncertain,
)
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.runs import (
    Ending,
    LogChunk,
    Observation,
    RemoteState,
    Resources,
    RunSpec,
    Runtime,
    StagePlan,
    StageStatus,
    SubmitIntent,
)
from scheduler.model.snapshots import NodeKind, PartitionState, StartProbe, SystemSnapshot, VisibleJob
from scheduler.model.systems import System

PARTITION = "local"
"""The one partition of this machine."""

FETCH_TIMEOUT_S = 1800.0
"""How long fetching one image may take."""

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


class LocalBackend:
    """This machine as one owner's login.

    Backends of one system share the queue in ``state_dir``, across owners and across processes. Running jobs and the
    queue outlive Berth: whoever opens the same directory finds them again.

    state_dir: a directory of this system alone. images_dir: where images are unpacked; the account that runs jobs must
    be able to read it. slots: all of this machine when None. registries: how those of images are asked. NotAuthorised
    when no account may run jobs (see ``account_for``).
    """

    capabilities = Capabilities(start_estimates=True, visible_queue=True, pods=True)

    def __init__(
        self,
        system: System,
        state_dir: Path,
        *,
        owner: str = "",
        images_dir: Path | None = None,
        slots: Slots | None = None,
        registries: Registries = Registries(),  # noqa: B008 - frozen
        commands: Commands | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        account = account_for(system.berth_notes.get("runAs"))
        self._commands = commands or LocalCommands(account)
        self._runner = Runner(self._commands, marker_root(system, account.name if account else getpass.getuser()))
        self._queue = Queue(state_dir)
        self._images = images_dir or state_dir / "images"
        self._owner, self._clock = owner, clock
        self._registries = registries
        self._pods_share_network = system.pods_share_network
        self._slots = slots or machine_slots()
        self._turn = asyncio.Lock()

    async def snapshot(self, probes: Sequence[StartProbe] = ()) -> SystemSnapshot:
        """The slots as one node, and the queue; probes are answered as if every run took its whole walltime."""
        line, now = await self._disk(self._queue.line), self._clock()
        free = self._slots.minus(entry.resources for entry in line.started)
        fitting = [probe for probe in probes if not self._too_large(probe.resources)]
        starts = line.starts(self._slots, now, [probe.resources for probe in fitting])
        expected = dict(zip((entry.id for entry in line.waiting), starts, strict=False))
        return SystemSnapshot(
            taken_at=now,
            partitions=(PartitionState(name=PARTITION, up=True, is_default=True, max_nodes=1),),
            nodes=(
                NodeKind(
                    partition=PARTITION,
                    cores=self._slots.cores,
                    memory_mib=self._slots.memory_mib,
                    total=1,
                    free=int(not line.started),
                    free_cores=max(0, free.cores),
                ),
            ),
            jobs=tuple(_visible(entry, expected.get(entry.id)) for entry in (*line.started, *line.waiting)),
            starts=tuple(zip(fitting, starts[len(line.waiting) :], strict=True)),
        )

    async def stage(self, plan: StagePlan) -> StageStatus:
        """Small files only, so it is done when it returns."""
        await self._runner.stage(plan)
        return StageStatus(done=True)

    async def submit(self, intents: Sequence[SubmitIntent]) -> Mapping[Marker, RemoteId | SubmitError]:
        """Put the runs into the queue; an id means that it is on disk there, and starts as soon as it is its turn."""
        refused = {intent.marker: why for intent in intents if (why := self._refusal(intent.run)) is not None}
        good = [intent for intent in intents if intent.marker not in refused]
        answers = await self._disk(self._queue.accept, good, self._owner, self._clock()) if good else {}
        try:
            await self._give_turns()
        except NothingLearnt as error:  # accepted all the same; the next look starts them
            log.warning("queued runs could not be started yet: %s", error)
        return {**answers, **refused}

    async def find(self, marker: Marker, intended_at: datetime) -> RemoteId | None:
        return await self._disk(self._queue.find, marker)

    async def observe(self, ids: Mapping[RemoteId, Marker]) -> Mapping[RemoteId, Observation]:
        """What the queue and the runner know; looking also starts what has its turn."""
        if not ids:
            return {}
        await self._give_turns()
        known = await self._disk(self._queue.entries, list(ids.values()))
        asked = {marker: known[marker] for remote_id, marker in ids.items() if _is(known.get(marker), remote_id)}
        ran = [marker for marker, entry in asked.items() if entry.started_at is not None and not entry.not_run]
        seen = await self._runner.look(ran)
        line = await self._disk(self._queue.line)
        starts = dict(zip((e.id for e in line.waiting), line.starts(self._slots, self._clock()), strict=True))
        return {
            entry.id: _observation(entry, seen.get(marker), starts.get(entry.id)) for marker, entry in asked.items()
        }

    async def unended(self) -> Mapping[Marker, RemoteId]:
        """What the queue holds, and what runs without being in it, as when the queue was lost."""
        line = await self._disk(self._queue.line)
        queued = {entry.intent.marker: entry.id for entry in (*line.waiting, *line.started)}
        return {**await self._runner.unended(), **queued}

    async def cancel(self, remote_id: RemoteId, marker: Marker) -> bool:
        """A waiting run leaves the queue; a started one is ended by its watchdog."""
        if await self._disk(self._queue.withdraw, marker, remote_id, self._clock()):
            return False
        entry = (await self._disk(self._queue.entries, [marker])).get(marker)
        if entry is None or entry.id != remote_id:
            return True
        await self._runner.cancel(marker)
        return entry.started_at is not None

    async def withdraw(self, remote_id: RemoteId, marker: Marker) -> bool:
        """A run that waits leaves the queue; what left it unstarted, now or before, runs nothing."""
        if await self._disk(self._queue.withdraw, marker, remote_id, self._clock()):
            return True
        entry = (await self._disk(self._queue.entries, [marker])).get(marker)
        return entry is not None and entry.id == remote_id and entry.ended_at is not None and entry.started_at is None

    async def read_log(self, remote_id: RemoteId, path: str, offset_bytes: int) -> LogChunk:
        return await self._runner.read_log(path, offset_bytes)

    async def aclose(self) -> None:
        """Nothing is held; the queue and the running jobs stay."""

    # -- turns ---------------------------------------------------------------------------------------------------------

    async def _give_turns(self) -> None:
        """Note what has ended and start what may start now. Safe to repeat after a crash at any point."""
        async with self._turn:
            line = await self._disk(self._queue.line)
            if not line.started and not line.waiting:
                return
            seen = await self._runner.look(entry.intent.marker for entry in line.started)
            ended = [marker for marker, observation in seen.items() if observation.state is RemoteState.ENDED]
            if ended:
                await self._disk(self._queue.end, ended, self._clock())
            # Taken but unknown to the runner: Berth was killed in between. The runner starts each marker once.
            orphans = [entry for entry in line.started if entry.intent.marker not in seen]
            taken = await self._disk(self._queue.take, self._slots, self._clock())
            await self._start([*orphans, *taken])

    async def _start(self, entries: Sequence[Entry]) -> None:
        ready: list[tuple[SubmitIntent, LaunchFiles]] = []
        for entry in entries:
            try:
                ready.append((entry.intent, await self._launch_files(entry.intent)))
            except SpecInvalid as error:
                await self._disk(self._queue.end, [entry.intent.marker], self._clock(), str(error))
        for marker, answer in (await self._runner.submit(ready)).items():
            if isinstance(answer, SubmitRejected):
                await self._disk(self._queue.end, [marker], self._clock(), str(answer))
            elif isinstance(answer, SubmitUncertain):
                log.warning("%s was not started yet: %s", marker, answer)

    async def _launch_files(self, intent: SubmitIntent) -> LaunchFiles:
        launcher, image = launcher_here(intent.run.runtime, for_pod=bool(intent.run.ports)), None
        if launcher is Launcher.BUBBLEWRAP:
            image = await self._unpacked(intent.run)
        marker_dir = self._runner.marker_dir(intent.marker)
        return launch_files(
            intent.run,
            marker_dir=marker_dir,
            claim=Claim.FORK,
            launcher=launcher,
            unpacked=image,
            shared_network=self._pods_share_network,
        )

    async def _unpacked(self, run: RunSpec) -> UnpackedImage:
        """The image as a tree: a local one as it is, one of a registry fetched by skopeo before."""
        if is_unpackable(run.image):
            await self._must("-r", run.image.partition(":")[2], "cannot be read by the account that runs jobs")
            image = await asyncio.to_thread(unpacked, run.image, self._images)
        else:
            fetched = self._images / "fetched" / run.job_uuid
            try:
                await self._fetch(run, fetched)
                image = await asyncio.to_thread(unpacked, f"oci:{fetched}", self._images)
            finally:
                await asyncio.to_thread(shutil.rmtree, fetched, ignore_errors=True)
        await self._must("-x", image.root, "cannot be entered by the account that runs jobs")
        return image

    async def _must(self, test: str, path: str, wrong: str) -> None:
        """SpecInvalid unless the account that runs jobs may do this with the path (``test``'s letter for it)."""
        either = 'test "$1" "$2" || test "$1" "${2%:*}"'  # the latter for oci:DIR:TAG
        if (await self._commands.run(["sh", "-c", either, "sh", test, path])).exit_status != 0:
            raise SpecInvalid.of("image", f"{path[:200]} {wrong}", "check the name and the permissions above it")

    async def _fetch(self, run: RunSpec, target: Path) -> None:
        if run.image.startswith(("/", ".")) or run.image.endswith(".sif"):
            fix = "install Apptainer, or name an OCI image: oci:DIR or docker://NAME"
            raise SpecInvalid.of("image", f"'{run.image[:200]}' is a file that only Apptainer reads", fix)
        if shutil.which("skopeo") is None:
            fix = "install Apptainer, Podman or skopeo, or name an image on this machine: oci:DIR"
            raise SpecInvalid.of("image", f"'{run.image[:200]}' must be fetched from a registry", fix)
        await self._disk(target.parent.mkdir, parents=True, exist_ok=True)
        reference = run.image if run.image.startswith("docker://") else f"docker://{run.image}"
        plain = ["--src-tls-verify=false"] if run.plain_http_registry else []
        conf = target.with_name(f"{target.name}.conf")
        await self._disk(conf.write_text, self._registries.conf())
        argv = ["skopeo", "--registries-conf", str(conf), "copy", "--quiet", *plain]
        try:
            done = await LocalCommands().run([*argv, "--", reference, f"oci:{target}:image"], timeout_s=FETCH_TIMEOUT_S)
        finally:
            await self._disk(conf.unlink, missing_ok=True)
        if done.exit_status != 0:
            words = done.stderr.decode("utf-8", "replace").strip()[-500:]
            raise SpecInvalid.of("image", f"'{run.image[:200]}' cannot be fetched: {words}", "check its name")

    # -- what can be said at once --------------------------------------------------------------------------------------

    def _refusal(self, run: RunSpec) -> SubmitRejected | None:
        too_large = self._too_large(run.resources)
        if too_large:
            return SubmitRejected(too_large)
        if run.array is not None:
            return SubmitRejected("notes.berth.array: this machine runs no job arrays; submit the tasks as jobs")
        try:
            launcher_here(run.runtime, for_pod=bool(run.ports))
        except SpecInvalid as error:
            return SubmitRejected(str(error))
        return None

    def _too_large(self, resources: Resources) -> str:
        if resources.nodes > 1:
            return f"nodeCount: {resources.nodes} nodes were asked; this machine is one"
        if not self._slots.hold(resources):
            offered = f"{self._slots.cores} cores and {self._slots.memory_mib} MiB"
            return f"{resources.cores} cores and {resources.memory_mib} MiB were asked; this machine has {offered}"
        return ""

    async def _disk(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except OSError as error:
            raise BackendUnavailable(f"the queue of this machine cannot be used: {error}") from error


def machine_slots() -> Slots:
    """All cores that this process may use, and all memory."""
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return Slots(cores=len(os.sched_getaffinity(0)), memory_mib=memory_mib)


def launcher_here(runtime: Runtime, *, for_pod: bool = False) -> Launcher:
    """What starts containers on this machine; SpecInvalid, naming the fix, when nothing can.

    for_pod: only what starts them inside a network namespace that is there already.
    """
    if runtime is Runtime.NONE:
        return Launcher.NONE
    for launcher, programs in _PROGRAMS.items():
        if any(shutil.which(program) for program in programs) and not (for_pod and launcher is Launcher.PODMAN):
            return launcher
    raise SpecInvalid.of(
        "runtime",
        f"this machine has no Apptainer{' or' if for_pod else ', Podman or'} bubblewrap",
        f"install one of them, for example {'' if for_pod else _PODMAN_TOO}'apt install bubblewrap skopeo'",
    )


_PODMAN_TOO = "'apt install podman' or "
_PROGRAMS: Mapping[Launcher, tuple[str, ...]] = {
    Launcher.APPTAINER: ("apptainer", "singularity"),
    Launcher.PODMAN: ("podman",),
    Launcher.BUBBLEWRAP: ("bwrap",),
}


def _is(entry: Entry | None, remote_id: RemoteId) -> bool:
    return entry is not None and entry.id == remote_id


def _observation(entry: Entry, ran: Observation | None, expected_start_at: datetime | None) -> Observation:
    """What the runner saw, else where the run stands in the queue."""
    if ran is not None:
        return replace(ran, submitted_at=entry.submitted_at)
    if entry.ended_at is None:
        return Observation(
            state=RemoteState.QUEUED,
            raw_state="WAITING",
            reason="waits for its turn",
            submitted_at=entry.submitted_at,
            expected_start_at=expected_start_at,
        )
    ending = Ending.CANCELLED if entry.cancelled else Ending.LAUNCH_FAILURE
    return Observation(
        state=RemoteState.ENDED,
        raw_state=ending,
        reason="withdrawn while it waited" if entry.cancelled else entry.not_run,
        submitted_at=entry.submitted_at,
        ended_at=entry.ended_at,
        ending=ending,
    )


def _visible(entry: Entry, expected_start_at: datetime | None) -> VisibleJob:
    return VisibleJob(
        remote_id=entry.id,
        partition=PARTITION,
        running=entry.started_at is not None,
        nodes=1,
        cores=entry.resources.cores,
        walltime_s=entry.resources.walltime_s,
        submitted_at=entry.submitted_at,
        started_at=entry.started_at,
        expected_start_at=expected_start_at,
        user=entry.owner,
    )
