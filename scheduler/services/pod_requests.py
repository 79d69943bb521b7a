"""From what a request says of a pod to a definition: templates looked up, images and volumes allowed, all merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.model.errors import Forbidden, NotFound, SpecInvalid
from scheduler.model.pod_catalog import PodLevel, TemplateTag
from scheduler.model.pod_names import domain_of, host_name
from scheduler.model.pods import AT_REST, Desired, Pod, PodDefinition, PodMount, PodRequest, VolumeKind
from scheduler.model.tenants import Tenant
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.services import pod_grants, pod_images, pod_templates, pods
from scheduler.services.idempotency import Repeatable
from scheduler.services.pod_definitions import defined
from scheduler.services.pod_fields import Fields, check, newest_names
from scheduler.services.pod_names import check_host_names, check_pod_id, parse_template
from scheduler.services.pod_templates import Resolved
from scheduler.services.pod_volumes import MOUNTED
from scheduler.store.pods import PodStore
from scheduler.store.tenants import TenantStore

NOT_KEPT = frozenset({"pod_id", "description", "status_requested", "template"})
"""Fields of a request that the pod keeps by themselves."""

JUPYTER_TEMPLATE = "jupyter"


@dataclass(frozen=True, slots=True)
class Made:
    """What a request comes to."""

    template: Resolved
    definition: PodDefinition


async def create(
    ports: Ports,
    caller: Principal,
    fields: Fields,
    *,
    default_template: str = "",
    repeatable: Repeatable | None = None,
) -> Pod:
    """Make a pod. default_template: for one that names neither template nor image; its action log says so."""
    asked = newest_names(fields)
    pod_id = check_pod_id(str(asked["pod_id"]))
    check(asked)
    is_silent = not asked.get("template") and not asked.get("image")
    if is_silent and default_template:
        asked["template"] = default_template
    async with ports.reading() as db:
        template = await pod_templates.resolve(db, caller, str(asked.get("template") or ""))
        made = await _make(db, caller, pod_id, asked, template)
    request = PodRequest(
        pod_id=pod_id,
        asked={name: value for name, value in asked.items() if name not in NOT_KEPT},
        definition=made.definition,
        description=asked.get("description") or "",
        template=made.template.name,
        desired=Desired.OFF if asked.get("status_requested") == Desired.OFF else Desired.ON,
    )
    pod = await pods.create(ports, caller, request, repeatable=repeatable)
    if is_silent and default_template:
        words = f"neither template nor image was named: made from the default template '{made.template.name}'"
        async with ports.transaction() as db:
            if not any(line.words == words for line in await PodStore(db).actions(pod.uuid)):
                await PodStore(db).tell(pod.uuid, words, ports.clock())
    return pod


async def update(ports: Ports, caller: Principal, pod_id: str, changes: Fields) -> Pod:
    """Change what a request says of a pod; null takes a field back. ``status_requested`` starts, stops or restarts."""
    said = {name: value for name, value in changes.items() if name not in NOT_KEPT}

    async def merged(db: Any, pod: Pod) -> Mapping[str, Any]:
        check(changes)
        if changes.get("template") not in (None, "", pod.template):
            raise SpecInvalid.of("template", f"is '{pod.template}' and cannot be changed", "make a new pod")
        written = {"description": changes["description"] or ""} if "description" in changes else {}
        if not said:
            return written
        asked = {name: value for name, value in {**pod.asked, **said}.items() if value is not None}
        made = await _make(db, caller, pod_id, asked, await pod_templates.resolve_made(db, caller, pod))
        return {**written, "asked": asked, "definition": made.definition}

    pod = await pods.update(ports, caller, pod_id, merged)
    wanted = changes.get("status_requested")
    starts = wanted in (Desired.ON, Desired.RESTART) and pod.status in AT_REST
    if wanted is not None and (starts or wanted != pod.desired):
        pod = await want(ports, caller, pod_id, Desired(wanted))
    return pod


async def restart(ports: Ports, caller: Principal, pod_id: str, *, grab_latest: bool) -> Pod:
    """Stop a pod and start it again. grab_latest: with what stands under its template's tag now."""

    async def latest(db: Any, pod: Pod) -> Mapping[str, Any]:
        if not pod.template:
            return {}
        name = parse_template(pod.template)
        newest = await pod_templates.resolve(db, caller, f"{name.id}:{name.tag}")
        made = await _make(db, caller, pod_id, pod.asked, newest)
        is_newer = made.template.name != pod.template
        return {"template": made.template.name, "definition": made.definition} if is_newer else {}

    if grab_latest:
        await pods.update(ports, caller, pod_id, latest)
    return await want(ports, caller, pod_id, Desired.RESTART)


async def want(ports: Ports, caller: Principal, pod_id: str, desired: Desired) -> Pod:
    """Start, stop or restart a pod. What it mounts may be another's by now: to run, the caller must be allowed it."""
    if desired is not Desired.OFF:
        pod = await pods.get(ports, caller, pod_id, PodLevel.USER)
        async with ports.reading() as db:
            for mount in pod.definition.mounts:
                await _check_mount(db, caller, mount)
    return await pods.want(ports, caller, pod_id, desired)


async def ensure_jupyter(ports: Ports, caller: Principal) -> Pod:
    """The caller's Jupyter pod: made when there is none, started when it is at rest, or once it is."""
    letters = "".join(letter for letter in caller.username.lower() if letter.isascii() and letter.isalnum())
    pod_id = f"jupyter{letters}"[:63]
    try:
        pod = await pods.get(ports, caller, pod_id)
    except NotFound:
        return await create(ports, caller, {"pod_id": pod_id, "template": JUPYTER_TEMPLATE})
    if pod.owner != caller.username:
        raise Forbidden(f"pod '{pod_id}' belongs to {pod.owner}; make one of your own from template 'jupyter'")
    if pod.status in AT_REST:
        return await want(ports, caller, pod_id, Desired.ON)
    if pod.desired is Desired.OFF:  # it is being stopped
        return await want(ports, caller, pod_id, Desired.RESTART)
    return pod


async def save_as_tag(
    ports: Ports, caller: Principal, pod_id: str, template_id: str, tag: str, commit_message: str
) -> TemplateTag:
    """Keep what a pod says under a tag of a template. Its variables are kept as they were written."""
    pod = await pods.get(ports, caller, pod_id, PodLevel.ADMIN)
    fields = {**pod.asked, **({"template": pod.template} if pod.template else {})}
    return await pod_templates.add_tag(
        ports, caller, template_id, tag, fields, commit_message, pod.definition.is_stateful
    )


async def domain(ports: Ports, caller: Principal, pods_domain: str) -> str:
    """The domain below which the pods of the caller's tenant have their names."""
    async with ports.reading() as db:
        return domain_of(await TenantStore(db).get(caller.tenant), pods_domain)


async def names_outside(ports: Ports, tenant: Tenant, pods_domain: str) -> Sequence[str]:
    """The host names of all pods of a tenant."""
    async with ports.reading() as db:
        found = await PodStore(db).open_nets(ports.clock())
    domain = domain_of(tenant, pods_domain)
    return [host_name(each.pod_id, each.net.name, domain) for each in found if each.tenant == tenant.id]


async def _make(db: Any, caller: Principal, pod_id: str, asked: Fields, template: Resolved) -> Made:
    definition = defined(asked, template.layers)
    check_host_names(pod_id, definition.nets)
    await pod_images.check_allowed(db, caller, definition.image)
    for mount in definition.mounts:
        await _check_mount(db, caller, mount)
    return Made(template, definition)


async def _check_mount(db: Any, caller: Principal, mount: PodMount) -> None:
    """Forbidden or SpecInvalid when the caller may not have this in a pod: USER is needed, READ to read only."""
    field = f"volume_mounts.{mount.target}"
    if mount.kind is VolumeKind.PVC and not caller.is_admin:
        raise Forbidden(f"{field}: only an admin may mount a claim of the cluster; use a volume")
    kind = MOUNTED.get(mount.kind)
    if kind is None:
        return
    needed = PodLevel.READ if mount.read_only else PodLevel.USER
    try:
        await pod_grants.demand(db, caller, kind, mount.source, needed)
    except NotFound:
        wrong = f"there is no {kind} '{mount.source}'"
        raise SpecInvalid.of(field, wrong, f"make it first, with create_{kind}") from None
