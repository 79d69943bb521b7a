"""Pods: make, see, change, start, stop and remove them; what they wrote, their secrets, commands inside them.

Nothing here reaches a place but ``logs``, ``execute`` and ``upload``: what is wanted is written down, and the
reconciler sees to it.
"""

from __future__ import annotations

import asyncio
import posixpath
import secrets
import string
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from backends.base import PodHost
from backends.k8s.site import site_of
from backends.tails import newest
from scheduler.model.errors import IllegalMove, NothingLearnt, SpecInvalid
from scheduler.model.ids import new_job_uuid
from scheduler.model.pages import FIRST_PAGE, Page
from scheduler.model.pod_catalog import PodKind, PodLevel
from scheduler.model.pod_names import label_of
from scheduler.model.pods import (
    AT_REST,
    Desired,
    Executed,
    InstanceState,
    Pod,
    PodCredentials,
    PodDefinition,
    PodEvent,
    PodInstance,
    PodRequest,
    PodStatus,
    stop_time,
)
from scheduler.model.systems import BackendKind
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.services.idempotency import Names, Repeatable, once
from scheduler.services.pod_grants import begin, demand, visible
from scheduler.store.pods import PodStore, shown_status
from scheduler.store.requests import AuditStore
from scheduler.store.systems import SystemStore

PASSWORD_LETTERS = string.ascii_letters + string.digits
PASSWORD_LENGTH = 30

LOGS_SHOWN_BYTES = 10 * 1024 * 1024
"""Most that is shown of what a running pod wrote, the newest."""

CHANGEABLE = frozenset({"asked", "definition", "description", "template"})
"""What ``update`` may change of a pod."""

Change = Callable[[Any, Pod], Awaitable[Mapping[str, Any]]]
"""From a pod as it is when it is written to the fields that change (``CHANGEABLE``); none: nothing is written."""

_GRACE_S = 5.0
"""Beyond a command's own limit, for the way there and back."""

_UPLOAD = 'set -e; case $1 in */*) mkdir -p -- "${1%/*}/";; esac; cat > "$1.part"; mv -f -- "$1.part" "$1"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A command inside a pod. ``executed`` None: it did not come to its end, and ``message`` says why."""

    command: tuple[str, ...]
    executed: Executed | None
    took_s: float
    message: str = ""

    @property
    def succeeded(self) -> bool:
        return self.executed is not None and self.executed.exit_code == 0


# -- to make, see and change -------------------------------------------------------------------------------------


async def create(ports: Ports, caller: Principal, request: PodRequest, *, repeatable: Repeatable | None = None) -> Pod:
    """Write a pod down, with secrets made for it; its creator gets ADMIN. AlreadyExists."""
    now = ports.clock()
    is_on = request.desired is not Desired.OFF
    pod = Pod(
        tenant=caller.tenant,
        id=request.pod_id,
        uuid=new_job_uuid(),
        owner=caller.username,
        asked=request.asked,
        definition=request.definition,
        description=request.description,
        template=request.template,
        desired=Desired.ON if is_on else Desired.OFF,
        status=PodStatus.REQUESTED if is_on else PodStatus.STOPPED,
        created_at=now,
        updated_at=now,
        wanted_at=now if is_on else None,
        next_look_at=now if is_on else None,
    )
    made = PodCredentials(user_password=new_password(), service_password=new_password())

    async def add(db: Any) -> Names:
        store = PodStore(db)
        await store.add(pod, made)
        await begin(db, caller.tenant, PodKind.POD, pod.id, caller.username)
        await store.tell(pod.uuid, f"Pod object created by '{caller.username}'", now)
        await _audit(db, caller, "create", pod, now)
        return {"id": pod.id}

    names = await once(ports, caller, repeatable, add)
    ports.wake()
    return await get(ports, caller, str(names["id"]))


async def get(ports: Ports, caller: Principal, pod_id: str, level: PodLevel = PodLevel.READ) -> Pod:
    """A pod of which the caller holds this level. Its status is true now: see ``shown_status``."""
    async with ports.reading() as db:
        return await _true_now(db, await _demanded(db, caller, pod_id, level), ports.clock())


async def list_pods(ports: Ports, caller: Principal, page: Page = FIRST_PAGE) -> Sequence[Pod]:
    """The pods that the caller may READ."""
    async with ports.reading() as db:
        store, names = PodStore(db), await visible(db, caller, PodKind.POD)
        found = await store.list(caller.tenant, page, ids=names)
        behind = await store.current([pod.uuid for pod in found])
        now = ports.clock()
        return [replace(pod, status=shown_status(pod, behind.get(pod.uuid), now)) for pod in found]


async def containers(ports: Ports, pods: Sequence[Pod]) -> Mapping[str, Mapping[str, Any]]:
    """The wire's ``status_container`` of pods that the caller was given, by uuid."""
    async with ports.reading() as db:
        behind = await PodStore(db).current([pod.uuid for pod in pods])
    return {pod.uuid: container_status(behind[pod.uuid]) if pod.uuid in behind else {} for pod in pods}


def container_status(instance: PodInstance) -> Mapping[str, Any]:
    """Where an instance is and what its place last said of it."""
    where = {"system": instance.system_id, "queue": instance.queue or "", "instance": instance.number}
    phase = {"phase": instance.state.value.title(), "message": instance.message}
    ended = {} if instance.exit_code is None else {"exit_code": instance.exit_code}
    return {**phase, **instance.seen, **where, **ended}


async def update(ports: Ports, caller: Principal, pod_id: str, change: Change) -> Pod:
    """Change a pod. What runs stays as it is until its next start, but for when it stops.

    IllegalMove for a name that is to be closed, where it stays open in spite of us: see ``_demand_closable``.
    """
    now = ports.clock()
    async with ports.transaction() as db:
        pod = await _changeable(db, caller, pod_id, PodLevel.ADMIN)
        changes = await change(db, pod)
        if unknown := changes.keys() - CHANGEABLE:
            raise ValueError(f"not to be changed of a pod: {', '.join(sorted(unknown))}")
        if not changes:
            return await _true_now(db, pod, now)
        definition: PodDefinition = changes.get("definition", pod.definition)
        await _demand_closable(db, pod, definition)
        stops: dict[str, Any] = {}
        if pod.started_at is not None and pod.status not in AT_REST:
            stops = {"stop_at": stop_time(definition, pod.started_at), "next_look_at": now}
        pod = await PodStore(db).note(pod, now, f"Pod updated by '{caller.username}'", **changes, **stops)
        await _audit(db, caller, "update", pod, now)
        pod = await _true_now(db, pod, now)
    ports.wake()
    return pod


async def want(
    ports: Ports, caller: Principal, pod_id: str, desired: Desired, *, definition: PodDefinition | None = None
) -> Pod:
    """Start (ON), stop (OFF) or restart a pod; all answer at once. IllegalMove for a start of what is not at rest.

    definition: what it is from its next start on, where its template says something newer.
    """
    now = ports.clock()
    async with ports.transaction() as db:
        pod = await _changeable(db, caller, pod_id, PodLevel.USER)
        at_rest = pod.status in AT_REST
        if desired is Desired.ON and not at_rest:
            fix = "restart it instead" if pod.desired is Desired.ON else "wait until it is STOPPED"
            raise IllegalMove(f"pod '{pod_id}' is {pod.status} and can be started only from rest; {fix}")
        newer: dict[str, Any] = {} if definition is None else {"definition": definition}
        words = f"Pod {VERBS[desired]} requested by '{caller.username}'"
        if at_rest and desired is not Desired.OFF:
            begun: dict[str, Any] = {
                "desired": Desired.ON,
                "wanted_at": now,
                "started_at": None,
                "stop_at": None,
                "held_until": None,
            }
            begun |= {"next_look_at": now, **newer}
            pod = await PodStore(db).move(pod, PodEvent.WANTED, now, words, **begun)
        elif at_rest:
            pod = await PodStore(db).note(pod, now, words, desired=Desired.OFF, **newer)
        else:
            pod = await PodStore(db).note(pod, now, words, desired=desired, next_look_at=now, **newer)
        await _audit(db, caller, VERBS[desired], pod, now)
        pod = await _true_now(db, pod, now)
    ports.wake()
    return pod


VERBS: Mapping[Desired, str] = {Desired.ON: "start", Desired.OFF: "stop", Desired.RESTART: "restart"}


async def remove(ports: Ports, caller: Principal, pod_id: str) -> Pod:
    """Remove a pod: at once where nothing of it runs, else when that is proven. Asking again is no error."""
    now = ports.clock()
    async with ports.transaction() as db:
        store = PodStore(db)
        pod = await _demanded(db, caller, pod_id, PodLevel.ADMIN)
        await _audit(db, caller, "delete", pod, now)
        if pod.status in AT_REST and not any(one.is_live for one in await store.instances(pod.uuid)):
            await store.remove(pod, now)
            return pod
        if pod.delete_requested_at is None:
            words = f"Pod deletion requested by '{caller.username}'"
            asked: dict[str, Any] = {"delete_requested_at": now, "desired": Desired.OFF, "next_look_at": now}
            pod = await store.note(pod, now, words, **asked)
    ports.wake()
    return pod


# -- what it wrote, and its secrets --------------------------------------------------------------------------------


async def logs(ports: Ports, caller: Principal, pod_id: str) -> tuple[str, Sequence[str]]:
    """The newest of what a pod's instance wrote, standard output before error, and what was done with the pod.

    Of an instance that has ended, the end was kept, and is shown until the next writes something. Of one whose place
    does not answer, the log says so.
    """
    async with ports.reading() as db:
        store = PodStore(db)
        pod = await _demanded(db, caller, pod_id, PodLevel.READ)
        actions = [str(line) for line in await store.actions(pod.uuid)]
        instance = (await store.current([pod.uuid])).get(pod.uuid)
        if instance is None:
            return "", actions
        kept = await store.log(pod.uuid, instance.number - instance.is_live)
    if not instance.is_live:
        return kept, actions
    try:
        return await _growing(ports, instance) or kept, actions
    except NothingLearnt as error:
        return f"[{instance.system_id} does not tell what the pod wrote: {error}]\n", actions


async def _growing(ports: Ports, instance: PodInstance) -> str:
    if instance.remote_id is None:
        return ""
    backend = await ports.connections.backend(instance.login, instance.job_type)
    run, texts = instance.run, []
    for name in (run.stdout, run.stderr):
        data = await newest(backend, instance.remote_id, posixpath.join(run.output_dir, name), LOGS_SHOWN_BYTES // 2)
        texts.append(data.decode("utf-8", "replace"))
    return "".join(texts)


async def credentials(ports: Ports, caller: Principal, pod_id: str) -> PodCredentials:
    """What Berth made up for the pod."""
    async with ports.reading() as db:
        pod = await _demanded(db, caller, pod_id, PodLevel.USER)
        return await PodStore(db).credentials(pod.uuid)


def new_password() -> str:
    """A password that needs no quoting anywhere."""
    return "".join(secrets.choice(PASSWORD_LETTERS) for _ in range(PASSWORD_LENGTH))


# -- inside it -----------------------------------------------------------------------------------------------------


async def execute(
    ports: Ports,
    caller: Principal,
    pod_id: str,
    commands: Sequence[Sequence[str]],
    *,
    total_timeout_s: float,
    command_timeout_s: float,
    fail_on_non_success: bool,
) -> Sequence[Ran]:
    """Run commands inside a pod, one after the other. fail_on_non_success: none after one that failed.

    IllegalMove while nothing of the pod runs; NothingLearnt when its place does not answer.
    """
    host, instance = await _inside(ports, caller, pod_id)
    began, loop = asyncio.get_running_loop().time(), asyncio.get_running_loop()
    ran: list[Ran] = []
    for command in commands:
        left_s = total_timeout_s - (loop.time() - began)
        if left_s <= 0:
            ran.append(Ran(command=tuple(command), executed=None, took_s=0.0, message="no time was left for it"))
        else:
            ran.append(await _run_inside(host, instance, tuple(command), min(command_timeout_s, left_s)))
        if fail_on_non_success and not ran[-1].succeeded:
            break
    return ran


async def upload(ports: Ports, caller: Principal, pod_id: str, path: str, content: bytes) -> None:
    """Write a file inside a pod, seen under its name only when complete. SpecInvalid for a path that is none.

    The image must have a shell with ``mkdir``, ``cat`` and ``mv``.
    """
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise SpecInvalid.of("dest_path", f"'{path[:200]}' is no file", "name a file by its absolute path in the pod")
    host, instance = await _inside(ports, caller, pod_id)
    ran = await _run_inside(host, instance, ("sh", "-c", _UPLOAD, "sh", path), 300.0, stdin=content)
    if not ran.succeeded:
        words = ran.message if ran.executed is None else ran.executed.stderr.decode("utf-8", "replace").strip()
        raise SpecInvalid.of("dest_path", f"'{path[:200]}' could not be written: {words[:500]}", "choose another path")


async def _run_inside(
    host: PodHost, instance: PodInstance, command: tuple[str, ...], timeout_s: float, stdin: bytes = b""
) -> Ran:
    loop = asyncio.get_running_loop()
    began, message, executed = loop.time(), "", None
    if instance.remote_id is None:
        raise ValueError(f"instance {instance.marker} runs without an id")
    try:
        async with asyncio.timeout(timeout_s + _GRACE_S):
            executed = await host.execute(
                instance.remote_id, instance.marker, command, stdin=stdin, timeout_s=timeout_s
            )
    except TimeoutError:
        message = f"it did not end within {timeout_s:g} seconds"
    return Ran(command=command, executed=executed, took_s=loop.time() - began, message=message)


async def _inside(ports: Ports, caller: Principal, pod_id: str) -> tuple[PodHost, PodInstance]:
    async with ports.reading() as db:
        pod = await _demanded(db, caller, pod_id, PodLevel.ADMIN)
        instance = (await PodStore(db).current([pod.uuid])).get(pod.uuid)
    if instance is None or instance.state is not InstanceState.RUNNING or instance.remote_id is None:
        raise IllegalMove(f"nothing of pod '{pod_id}' runs: it is {pod.status}")
    host = await ports.connections.pod_host(instance.login)
    return host, instance


# -- below ---------------------------------------------------------------------------------------------------------


async def _demanded(db: Any, caller: Principal, pod_id: str, level: PodLevel, *, to_change: bool = False) -> Pod:
    """NotFound when there is none or even that is not for the caller to know; Forbidden for the level only."""
    pod = await PodStore(db).get(caller.tenant, pod_id, to_change=to_change)
    await demand(db, caller, PodKind.POD, pod_id, level)
    return pod


async def _changeable(db: Any, caller: Principal, pod_id: str, level: PodLevel) -> Pod:
    pod = await _demanded(db, caller, pod_id, level, to_change=True)
    if pod.delete_requested_at is not None:
        raise IllegalMove(f"pod '{pod_id}' is being deleted")
    return pod


async def _demand_closable(db: Any, pod: Pod, definition: PodDefinition) -> None:
    """IllegalMove where a cluster's own proxy lets anyone in by a name that shall not be open to anyone any more: what
    was made there for an instance stays until that ends."""
    stay_open = {label_of(pod.id, net.name) for net in definition.nets if net.is_plain_web}
    for one in await PodStore(db).instances(pod.uuid):
        closing = sorted({way.web_name for way in one.run.ways if way.web_name} - stay_open)
        if one.is_live and closing and await _has_own_names(db, one):
            raise IllegalMove(
                f"the proxy of '{one.system_id}' itself lets anyone in to pod '{pod.id}' as {', '.join(closing)} until "
                "the pod stops: stop it, change it, and start it again"
            )


async def _has_own_names(db: Any, instance: PodInstance) -> bool:
    """Whether pods have names at the place of an instance that do not lead by way of Berth."""
    system = await SystemStore(db).get(instance.tenant, instance.system_id, deleted=True)
    if system.backend is not BackendKind.K8S:
        return False
    site = site_of(system)
    return site.ingress is not None or site.gateway is not None


async def _true_now(db: Any, pod: Pod, at: datetime) -> Pod:
    if pod.status is not PodStatus.AVAILABLE:
        return pod
    return replace(pod, status=shown_status(pod, (await PodStore(db).current([pod.uuid])).get(pod.uuid), at))


async def _audit(db: Any, caller: Principal, what: str, pod: Pod, at: datetime) -> None:
    await AuditStore(db).add(caller.tenant, caller.username, f"pod.{what}", pod.id, {"uuid": pod.uuid}, at)
