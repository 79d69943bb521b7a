"""Looks at nodes: on each class of nodes of a system that keeps images a small job tells now and then what they can do.

A look is a helper job with a marker of its own: its intent is a row before the system hears of it, whoever comes back
after a crash asks the system before anything is tried again, and of each login at most one is live.
"""

from __future__ import annotations

import json
import posixpath
from datetime import datetime, timedelta
from importlib import resources

import structlog

from backends.base import Backend
from backends.paths import marker_root
from images.host import HostFacts
from images.policy import ImagePolicy
from images.probe_report import parse_report, refreshed
from scheduler.judge import NodeClass, class_names, classes_of, of_mixed, policy_there
from scheduler.model.errors import (
    FileMissing,
    FileRefused,
    NothingLearnt,
    Stale,
    SubmitError,
    SubmitRejected,
    UnexpectedReply,
)
from scheduler.model.helper_jobs import HelperJob, HelperPurpose, HelperState
from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.pages import WHOLE_LIST
from scheduler.model.runs import (
    Observation,
    RemoteState,
    Resources,
    RunSpec,
    Runtime,
    StagedFile,
    StagePlan,
    SubmitIntent,
)
from scheduler.model.systems import LogicalQueue, System
from scheduler.ports import Ports
from scheduler.reconcile.loop import Crew
from scheduler.reconcile.sides import Side, Target, side_of
from scheduler.reconcile.snapshot import target_for
from scheduler.store.helper_jobs import HelperJobStore
from scheduler.store.learning import SnapshotStore
from scheduler.store.node_facts import NodeFactsStore
from scheduler.store.systems import CredentialStore, SystemStore
from scheduler.store.tenants import TenantStore

log = structlog.get_logger()

FACTS_HOLD = timedelta(days=7)
"""How old facts may be before a probe looks again."""

BACK_OFF = timedelta(hours=1)
"""After a look that failed, until the next."""

NEVER_ARRIVED_WAIT = timedelta(minutes=1)
"""After a look that the system never heard of, until the next."""

GIVEN_UP_AFTER = timedelta(days=1)
"""How long a look may wait in a queue."""

PROBE_LIMIT_S = 30
WALLTIME_S = 300
MEMORY_MIB = 512
"""Libraries of MPI are read whole, and some are large."""

AT_ONCE = 8


class NodeFacts:
    """The loop of looks at nodes."""

    def __init__(self, ports: Ports, *, lease_s: float) -> None:
        self._ports, self._lease_s = ports, lease_s
        self.crew = Crew(AT_ONCE)

    async def tick(self) -> None:
        """Follow the looks that are under way, and begin those that are due."""
        at = self._ports.clock()
        async with self._ports.reading() as db:
            is_any_due = await HelperJobStore(db).is_any_due(at)
            tenants = [tenant.id for tenant in await TenantStore(db).tenants()]
        if is_any_due and self.crew.free > 0:
            async with self._ports.transaction() as db:
                due = await HelperJobStore(db).claim(self._ports.process_id, self._lease_s, self.crew.free, at)
            for job in due:
                self.crew.start(job.login, self._follow(job), system=job.system_id)
        for tenant in tenants:
            await self._begin_all(tenant, at)

    # -- beginning ---------------------------------------------------------------------------------------------------

    async def _begin_all(self, tenant: str, at: datetime) -> None:
        async with self._ports.reading() as db:
            listed = await SystemStore(db).list(tenant, WHOLE_LIST)
            keepers = [(system, policy) for system in listed if (policy := _probed_by(system)) is not None]
            if not keepers:
                return
            seen_at = await NodeFactsStore(db).seen_at(tenant)
            newest = await HelperJobStore(db).newest(tenant, HelperPurpose.NODE_FACTS)
            for system, policy in keepers:
                keys = [(system.id, name) for name in class_names(system)]
                due = {key[1] for key in keys if _is_due(seen_at.get(key), newest.get(key), at)}
                if not due:
                    continue
                snapshot = await SnapshotStore(db).latest(tenant, system.id) if system.can_run_batch else None
                target = await target_for(CredentialStore(db), system, ())
                nodes = next((each for each in classes_of(system, snapshot) if each.name in due), None)
                if target is not None and nodes is not None and target.login not in self.crew and self.crew.free > 0:
                    self.crew.start(target.login, self._begin(system, policy, target, nodes), system=system.id)

    async def _begin(self, system: System, policy: ImagePolicy, target: Target, nodes: NodeClass) -> None:
        at = self._ports.clock()
        side = await side_of(self._ports, system.tenant, system.id, system.owner)
        run = probe_run(side, policy, nodes, target)
        job = HelperJob(
            marker=marker_for(run.job_uuid, 1),
            tenant=system.tenant,
            system_id=system.id,
            owner=target.login.owner,
            purpose=HelperPurpose.NODE_FACTS,
            subject=nodes.name,
            run=run,
            intended_at=at,
            next_look_at=at,
        )
        async with self._ports.transaction() as db:
            if not await HelperJobStore(db).intend(job, self._ports.process_id, self._lease_s):
                return
        try:
            backend = await self._ports.connections.backend(target.login, target.job_type)
            await self._submit(backend, job)
        except FileRefused as error:  # before anything was submitted
            await self._failed(job, str(error), BACK_OFF)
        except NothingLearnt as error:
            await self._later(job, 10, str(error))

    async def _submit(self, backend: Backend, job: HelperJob) -> None:
        program = (resources.files("images") / "programs" / "probe_node.py").read_bytes()
        file = StagedFile(_program_path(job.run), program)
        directories = (job.run.exec_dir, job.run.output_dir)
        await backend.stage(StagePlan(marker=job.marker, directories=directories, files=(file,)))
        intent = SubmitIntent(job.marker, job.run, job.intended_at)
        outcome = (await backend.submit([intent]))[job.marker]
        if isinstance(outcome, SubmitRejected):
            await self._failed(job, f"the system refused it: {outcome}", BACK_OFF)
        elif isinstance(outcome, SubmitError):
            await self._later(job, 10, str(outcome))
        else:
            await self._write(job, state=HelperState.SUBMITTED, remote_id=outcome, next_look_at=self._after(2))

    # -- following ---------------------------------------------------------------------------------------------------

    async def _follow(self, job: HelperJob) -> None:
        try:
            backend = await self._ports.connections.backend(job.login, job.run.job_type)
            if job.state is HelperState.INTENDED:
                await self._find(backend, job)
            else:
                await self._watch(backend, job)
        except (FileMissing, FileRefused, NothingLearnt) as error:
            if self._is_given_up(job):
                await self._failed(job, str(error), BACK_OFF)
            else:
                await self._later(job, 60, str(error))

    async def _find(self, backend: Backend, job: HelperJob) -> None:
        """Whether the system ever heard of it; None is proof that it did not, and never will."""
        remote_id = await backend.find(job.marker, job.intended_at)
        if remote_id is None:
            await self._failed(job, "it never reached the system", NEVER_ARRIVED_WAIT)
        else:
            await self._write(job, state=HelperState.SUBMITTED, remote_id=remote_id, next_look_at=self._after(2))

    async def _watch(self, backend: Backend, job: HelperJob) -> None:
        assert job.remote_id is not None
        seen = (await backend.observe({job.remote_id: job.marker})).get(job.remote_id)
        if seen is not None and seen.state is RemoteState.ENDED:
            await self._ended(backend, job, seen)
            return
        if not self._is_given_up(job):
            waited_s = (self._ports.clock() - job.intended_at).total_seconds()
            await self._later(job, min(300.0, max(2.0, waited_s / 10)), "")
            return
        await backend.cancel(job.remote_id, job.marker)
        await self._failed(job, f"it did not end within {GIVEN_UP_AFTER.days} day", BACK_OFF)

    def _is_given_up(self, job: HelperJob) -> bool:
        return self._ports.clock() - job.intended_at >= GIVEN_UP_AFTER

    async def _ended(self, backend: Backend, job: HelperJob, seen: Observation) -> None:
        assert job.remote_id is not None
        at = self._ports.clock()
        printed = await backend.read_log(job.remote_id, posixpath.join(job.run.output_dir, job.run.stdout), 0)
        try:
            report = parse_report(printed.data.decode("utf-8", "replace"), job.subject, at)
        except UnexpectedReply as error:
            said = await backend.read_log(job.remote_id, posixpath.join(job.run.output_dir, job.run.stderr), 0)
            words = said.data[-500:].decode("utf-8", "replace").strip()
            await self._failed(job, f"{error}; it ended {seen.raw_state or seen.ending} {words}".strip(), BACK_OFF)
            return
        if report.left_out:
            log.warning("facts not understood", system=job.system_id, nodes=job.subject, facts=report.left_out)
        await self._keep(job, report.host, at)

    async def _keep(self, job: HelperJob, found: HostFacts, at: datetime) -> None:
        async with self._ports.transaction() as db:
            await HelperJobStore(db).write(job, state=HelperState.DONE, ended_at=at, message="", next_look_at=None)
            store = NodeFactsStore(db)
            snapshot = await SnapshotStore(db).latest(job.tenant, job.system_id)
            system = await SystemStore(db).get(job.tenant, job.system_id, deleted=True)
            classes = {each.name: each for each in classes_of(system, snapshot)}
            if job.subject in classes and classes[job.subject].is_mixed:
                found = of_mixed(found)
            known = (await store.of_system(job.tenant, job.system_id)).get(job.subject)
            await store.put(job.tenant, job.system_id, refreshed(known.facts, found) if known else found, at)
        await self._clear_away(job)
        self._ports.wake()  # jobs may wait for a place

    # -- writing -----------------------------------------------------------------------------------------------------

    def _after(self, seconds: float) -> datetime:
        return self._ports.clock() + timedelta(seconds=seconds)

    async def _later(self, job: HelperJob, seconds: float, why: str) -> None:
        await self._write(job, next_look_at=self._after(seconds), message=why[:500])

    async def _failed(self, job: HelperJob, why: str, wait: timedelta) -> None:
        at = self._ports.clock()
        log.warning("no look at nodes", system=job.system_id, nodes=job.subject, why=why[:500])
        again_at = at + wait
        await self._write(job, state=HelperState.FAILED, ended_at=at, message=why[:500], next_look_at=again_at)
        await self._clear_away(job)

    async def _write(self, job: HelperJob, **changes: object) -> None:
        try:
            async with self._ports.transaction() as db:
                await HelperJobStore(db).write(job, **changes)
        except Stale as stale:
            log.info("someone else moved the look", marker=job.marker, why=str(stale))

    async def _clear_away(self, job: HelperJob) -> None:
        """Its files are of no use any more; what is left is small and hurts nobody."""
        try:
            side = await side_of(self._ports, job.tenant, job.system_id, job.owner)
            storage = await self._ports.connections.storage(job.login)
            await storage.delete(posixpath.relpath(job.run.exec_dir, posixpath.join("/", side.system.root_dir)))
        except (NothingLearnt, FileMissing, FileRefused) as error:
            log.info("files of a look stay", system=job.system_id, why=str(error))


def probe_run(side: Side, policy: ImagePolicy, nodes: NodeClass, target: Target) -> RunSpec:
    """The job that looks at one node of a class; as small as its queue lets jobs be."""
    uuid, system = new_job_uuid(), side.system
    folder = posixpath.join(posixpath.dirname(marker_root(system, side.login_user)), "helpers", uuid)
    queue = min(
        (queue for queue in system.queues if queue.partition == nodes.partition),
        key=lambda queue: (queue.min_nodes, queue.min_cores_per_node, queue.min_walltime_s, queue.name),
        default=LogicalQueue(name="", partition=""),
    )
    ask = {"scratch": policy.store.root, "limit_s": PROBE_LIMIT_S}
    return RunSpec(
        job_uuid=uuid,
        name="berth-node-facts",
        image="",
        runtime=Runtime.NONE,
        job_type=target.job_type,
        resources=Resources(
            nodes=max(1, queue.min_nodes),
            cores_per_node=max(1, queue.min_cores_per_node),
            memory_mib=max(MEMORY_MIB, queue.min_memory_mib),
            walltime_s=max(WALLTIME_S, queue.min_walltime_s),
            gpus_per_node=1 if nodes.kind is not None and nodes.kind.gpus else 0,
        ),
        partition=nodes.partition,
        scheduler_profile=system.scheduler_profile,
        cmd_prefix="env",  # the first of the nodes tells enough, where a queue insists on several
        exec_dir=folder,
        input_dir=folder,
        output_dir=folder,
        args=("python3", posixpath.join(folder, "probe_node.py"), json.dumps(ask)),
    )


def _program_path(run: RunSpec) -> str:
    return run.args[1]


def _probed_by(system: System) -> ImagePolicy | None:
    """What is said of images where small jobs may look at the nodes; None where they may not."""
    policy = policy_there(system) if system.can_exec and system.enabled else None
    return policy if policy is not None and policy.may_probe else None


def _is_due(seen_at: datetime | None, newest: HelperJob | None, at: datetime) -> bool:
    if seen_at is not None and at - seen_at < FACTS_HOLD:
        return False
    if newest is None or newest.next_look_at is None:
        return True
    return newest.ended_at is not None and newest.next_look_at <= at
