"""Jobs: submit, ask, cancel. Submitting is durable before the answer, and touches no network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from placement.constraints import parse as parse_constraints
from placement.problem import Ask
from scheduler.model.apps import App
from scheduler.model.errors import Forbidden, NotFound, SpecInvalid, StaleJob
from scheduler.model.ids import new_job_uuid
from scheduler.model.jobs import Attempt, Fact, HistoryEvent, Job, JobSpec, NewJob
from scheduler.model.macros import JobIdentity, place_of
from scheduler.model.pages import Page
from scheduler.model.plan import Decision
from scheduler.model.requests import JobRequest
from scheduler.model.states import BEFORE_SUBMISSION, LIVE_ATTEMPTS, TERMINAL, Event, JobState
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.security.authorize import Action, may
from scheduler.services import apps, placement
from scheduler.services.idempotency import Repeatable, SameMeanwhile, earlier, remembering
from scheduler.services.placement import Facts
from scheduler.services.resolve import anonymous_app, resolve
from scheduler.services.scheduler_profiles import taken_by_job
from scheduler.services.systems import Listed
from scheduler.store.apps import AppStore
from scheduler.store.definitions import Current, Definition
from scheduler.store.jobs import JobStore
from scheduler.store.users import UserStore

T = TypeVar("T")

CANCEL_TRIES = 5
"""How often a cancel begins again when a reconciler moved the job in the same instant."""

NOT_YET_REMOTE = BEFORE_SUBMISSION | {JobState.BLOCKED, JobState.PAUSED}
"""States that a cancel ends at once: no remote job can exist."""


async def submit(
    ports: Ports,
    caller: Principal,
    requests: Sequence[JobRequest],
    *,
    tracking_id: str | None = None,
    repeatable: Repeatable | None = None,
) -> Sequence[Job]:
    """Take jobs, all or none, in the order given. Raises SpecInvalid and NoFeasibleSystem; then nothing is stored."""
    while (names := await earlier(ports, caller, repeatable)) is None:
        new = await _prepared(ports, caller, requests, tracking_id)
        made_names = {"uuids": [job.uuid for job in new]}
        try:
            made = await ports.submissions().add(new, remembering(ports, caller, repeatable, made_names))
        except SameMeanwhile:
            continue
        ports.wake()
        return made
    async with ports.reading() as db:
        return [await JobStore(db).get(caller.tenant, uuid) for uuid in names["uuids"]]


async def plan(ports: Ports, caller: Principal, request: JobRequest) -> Decision:
    """Where the job would go now, and why; nothing is stored."""
    async with ports.reading() as db:
        ask = await _Desk(ports, db, caller, {}).ask(request)
    return await placement.plan(ports, _owner(caller, request), ask)


async def get(ports: Ports, caller: Principal, uuid: str) -> Job:
    """A job of the caller's; admins see everyone's. NotFound otherwise."""
    async with ports.reading() as db:
        return await readable(db, caller, uuid)


async def waiting_elsewhere(ports: Ports, job: Job) -> Sequence[Attempt]:
    """Copies of a job that are on their way into a queue, or wait there, beside its lead."""
    if job.last_attempt <= 1:
        return ()
    async with ports.reading() as db:
        attempts = await JobStore(db).attempts(job)
    return [one for one in attempts if one.number != job.attempt and one.state in LIVE_ATTEMPTS]


async def list_jobs(ports: Ports, caller: Principal, page: Page, *, kind: str, total: bool) -> Listed:
    """The caller's jobs, newest first; with ALL_JOBS an admin's list is everyone's."""
    owner = None if caller.is_admin and kind == "ALL_JOBS" else caller.username
    if kind == "SHARED_JOBS":
        return Listed((), 0 if total else None)
    async with ports.reading() as db:
        store = JobStore(db)
        items = await store.list(caller.tenant, owner, page)
        return Listed(items, await store.count(caller.tenant, owner, page) if total else None)


async def history(ports: Ports, caller: Principal, uuid: str, limit: int | None, skip: int) -> Sequence[HistoryEvent]:
    """What happened to a job, oldest first."""
    async with ports.reading() as db:
        await readable(db, caller, uuid)
        return await JobStore(db).history(caller.tenant, uuid, limit, skip)


async def cancel(ports: Ports, caller: Principal, uuid: str) -> str:
    """Ask for the end of a job; what came of it, in words. Before submission it ends at once."""
    said = await _retried(lambda: _cancelled(ports, caller, uuid))
    ports.wake()
    return said


async def set_visible(ports: Ports, caller: Principal, uuid: str, visible: bool) -> None:
    """Hide a job from lists, or show it again."""

    async def change() -> None:
        async with ports.transaction() as db:
            job = await readable(db, caller, uuid)
            if job.visible != visible:
                await JobStore(db).note(job, {"visible": visible}, ports.clock())

    await _retried(change)


async def _cancelled(ports: Ports, caller: Principal, uuid: str) -> str:
    now = ports.clock()
    async with ports.transaction() as db:
        job = await readable(db, caller, uuid)
        if job.state in TERMINAL:
            return f"Job {uuid} has already ended as {job.state}."
        if job.state in NOT_YET_REMOTE:
            message = f"Cancelled by {caller.username} before it was submitted."
            await JobStore(db).record(job, Fact(Event.CANCELLED, message=message), now)
            return f"Job {uuid} is cancelled."
        await JobStore(db).request_cancel(caller.tenant, uuid, now)
    return f"Job {uuid} will be cancelled; it is {job.state} now."


async def _retried(act: Callable[[], Awaitable[T]]) -> T:
    """``act``, begun again when someone else moved the job meanwhile."""
    for _ in range(CANCEL_TRIES - 1):
        try:
            return await act()
        except StaleJob:
            continue
    return await act()


async def readable(db: Any, caller: Principal, uuid: str) -> Job:
    """The same as ``get``, inside a transaction."""
    job = await JobStore(db).get(caller.tenant, uuid)
    if job.owner != caller.username and not caller.is_admin:
        raise NotFound("job", uuid)
    return job


async def _prepared(
    ports: Ports, caller: Principal, requests: Sequence[JobRequest], tracking_id: str | None
) -> Sequence[NewJob]:
    """Each request as the row that it will be. With several, problems say which request they are about."""
    recalled = await _recalled(ports, caller, requests)
    async with ports.reading() as db:
        desk = _Desk(ports, db, caller, recalled)
        new = []
        for position, request in enumerate(requests):
            try:
                new.append(await desk.new_job(request, tracking_id))
            except SpecInvalid as refused:
                if len(requests) == 1:
                    raise
                raise SpecInvalid(
                    *(replace(each, field=f"jobs[{position}].{each.field}") for each in refused.problems)
                ) from None
    return new


async def _recalled(ports: Ports, caller: Principal, requests: Sequence[JobRequest]) -> Mapping[Definition, Current]:
    """Apps and systems that are remembered and still what the database holds: most submissions are alike.

    Asked before a connection is held: a look that many wait for needs one too.
    """
    wanted = {_definition(caller, each) for each in requests if each.image is None and not each.dynamic}
    found = {each: await ports.remembered().current(each) for each in wanted}
    return {each: current for each, current in found.items() if current is not None}


def _app_key(request: JobRequest, owner: Principal) -> tuple[str, str, str]:
    """An app as one owner may use it."""
    return owner.username, request.app_id or "", request.app_version or ""


def _definition(caller: Principal, request: JobRequest) -> Definition:
    return Definition(
        tenant=caller.tenant,
        app_id=request.app_id or "",
        app_version=request.app_version or "",
        system_id=request.exec_system_id,
        owner=request.owner or caller.username,
    )


class _Desk:
    """Takes requests in: finds app and systems, each once, and makes jobs of them."""

    def __init__(self, ports: Ports, db: Any, caller: Principal, recalled: Mapping[Definition, Current]) -> None:
        self._ports, self._db, self._caller, self._recalled = ports, db, caller, recalled
        self._apps: dict[tuple[str, str, str], App] = {}
        self._facts: dict[str, Facts] = {}

    async def new_job(self, request: JobRequest, tracking_id: str | None) -> NewJob:
        """The job of a request with a provisional place."""
        owner = _owner(self._caller, request)
        facts = self._facts.setdefault(owner.username, Facts(self._db, owner))
        self._recall(request, owner, facts)
        ask = await self.ask(request)
        option, waits_for = await placement.screened(facts, ask)
        if option is not None:
            self._ports.remembered().remember_system(option.view.system)
        await self._check_places_named(ask.spec, facts)
        identity = self._identity(ask)
        return NewJob(
            tenant=self._caller.tenant,
            owner=ask.owner,
            created_by=self._caller.username,
            uuid=ask.job_uuid,
            spec=ask.spec,
            place=place_of(ask.spec, option.view.system, option.queue, identity) if option else None,
            at=ask.waiting_since,
            tracking_id=tracking_id,
            message=waits_for or ("Waiting for a place." if ask.spec.dynamic else "Waiting for its turn."),
        )

    def _recall(self, request: JobRequest, owner: Principal, facts: Facts) -> None:
        """Take app and system as recalled, unless the owner may not use that app."""
        key = _app_key(request, owner)
        current = None if key in self._apps else self._recalled.get(_definition(self._caller, request))
        if current is not None and may(owner, Action.EXECUTE, current.app):
            self._apps[key] = current.app
            facts.know(current.system, current.has_credential)

    async def ask(self, request: JobRequest) -> Ask:
        """The request resolved, not yet screened."""
        owner = _owner(self._caller, request)
        if owner.username != self._caller.username:
            await self._check_user(owner.username)
        identity = JobIdentity(
            uuid=new_job_uuid(), tenant=owner.tenant, owner=owner.username, created_at=self._ports.clock()
        )
        spec = resolve(request, await self._app(request, owner), identity)
        spec = await taken_by_job(self._db, owner.tenant, spec)
        parse_constraints(spec.constraints)
        if spec.after:
            await self._check_after(spec, owner)
        return Ask(job_uuid=identity.uuid, owner=owner.username, spec=spec, waiting_since=identity.created_at)

    def _identity(self, ask: Ask) -> JobIdentity:
        return JobIdentity(uuid=ask.job_uuid, tenant=self._caller.tenant, owner=ask.owner, created_at=ask.waiting_since)

    async def _app(self, request: JobRequest, owner: Principal) -> App:
        if request.image is not None:
            return anonymous_app(owner.tenant, owner.username, request.image)
        key = _app_key(request, owner)
        if key not in self._apps:
            try:
                app = await AppStore(self._db).get(owner.tenant, *key[1:])
                self._apps[key] = await apps.readable(self._db, owner, app, Action.EXECUTE)
                self._ports.remembered().remember_app(app)
            except NotFound:
                raise SpecInvalid.of(
                    "appId", f"app '{key[1]}' version '{key[2]}' was not found", "see GET /v3/apps?listType=ALL"
                ) from None
        app = self._apps[key]
        if not (app.enabled and app.version_enabled):
            raise SpecInvalid.of("appId", f"app '{app.id}' version '{app.version}' is disabled", "ask its owner")
        return app

    async def _check_user(self, username: str) -> None:
        try:
            await UserStore(self._db).get(self._caller.tenant, username)
        except NotFound:
            raise SpecInvalid.of("owner", f"there is no user '{username}'") from None

    async def _check_after(self, spec: JobSpec, owner: Principal) -> None:
        for position, after in enumerate(spec.after):
            try:
                await readable(self._db, owner, after.uuid)
            except NotFound:
                raise SpecInvalid.of(
                    f"notes.berth.after[{position}].uuid", f"job '{after.uuid}' was not found"
                ) from None

    async def _check_places_named(self, spec: JobSpec, facts: Facts) -> None:
        """Systems that files come from and go to must be known; a command prefix needs a system that allows it."""
        if spec.archive_system_id:
            await facts.named(spec.archive_system_id, "archiveSystemId")
        for item in spec.file_inputs:
            if item.source_url and item.source_url.startswith("tapis://"):
                system_id = item.source_url.removeprefix("tapis://").split("/")[0]
                await facts.named(system_id, f"fileInputs[{item.name or item.source_url}].sourceUrl")
        if spec.cmd_prefix:
            if not spec.exec_system_id:
                raise SpecInvalid.of("cmdPrefix", "needs a system that allows it", "name it in execSystemId")
            view = await facts.named(spec.exec_system_id, "execSystemId")
            if not view.system.enable_cmd_prefix:
                raise SpecInvalid.of(
                    "cmdPrefix", f"is not allowed by system '{view.system.id}' (enableCmdPrefix)", "leave it out"
                )


def _owner(caller: Principal, request: JobRequest) -> Principal:
    """Whose job it is: the caller's, or the one whom an admin names."""
    if request.tenant not in (None, caller.tenant):
        raise SpecInvalid.of("tenant", f"'{request.tenant}' is not yours", f"leave it out or write '{caller.tenant}'")
    if request.owner in (None, caller.username):
        return caller
    if not caller.is_admin:
        raise Forbidden(f"only an admin may submit jobs for another owner ('{request.owner}')")
    return replace(caller, username=request.owner or "", is_admin=False)
