"""Templates of pods: those that come with Berth, and those that users make and share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scheduler.model.errors import AlreadyExists, Forbidden, NotFound, SpecInvalid
from scheduler.model.pod_catalog import PodKind, PodLevel, PodTemplate, TemplateTag
from scheduler.model.pods import Pod
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.services import pod_grants
from scheduler.services.pod_built_in import built_in
from scheduler.services.pod_definitions import Layer, unsaid
from scheduler.services.pod_fields import check, newest_names
from scheduler.services.pod_names import TemplateName, check_tag, check_template_id, parse_template
from scheduler.store.pod_catalog import PodTemplateStore
from scheduler.store.requests import AuditStore

KIND = PodKind.TEMPLATE


@dataclass(frozen=True, slots=True)
class Resolved:
    """A template as it stands now: its name with tag and timestamp, and what it and the one below it say."""

    name: str
    layers: tuple[Layer, ...]


NO_TEMPLATE = Resolved("", ())


async def list_templates(ports: Ports, caller: Principal) -> Sequence[PodTemplate]:
    """Every template that the caller may read, by id."""
    async with ports.reading() as db:
        own = await PodTemplateStore(db).list(caller.tenant, await pod_grants.visible(db, caller, KIND))
    return sorted([*(each.template for each in built_in().values()), *own], key=lambda template: template.id)


async def get(ports: Ports, caller: Principal, template_id: str) -> PodTemplate:
    """NotFound where the caller may not read it."""
    async with ports.reading() as db:
        return await _readable(db, caller, template_id)


async def add(ports: Ports, caller: Principal, template: PodTemplate) -> PodTemplate:
    """Make a template without a definition yet. AlreadyExists when the name is taken, also by a built-in one."""
    check_template_id(template.id)
    if template.id in built_in():
        raise AlreadyExists("template", template.id)
    now = ports.clock()
    made = replace(template, tenant=caller.tenant, owner=caller.username, created_at=now, updated_at=now)
    async with ports.transaction() as db:
        await PodTemplateStore(db).add(made)
        await pod_grants.begin(db, caller.tenant, KIND, made.id, caller.username)
        await AuditStore(db).add(caller.tenant, caller.username, "template.add", made.id, {}, now)
    return made


async def update(ports: Ports, caller: Principal, template_id: str, changes: Mapping[str, Any]) -> PodTemplate:
    """Change what describes a template: ``description``, ``metatags``, ``archive_message``."""
    async with ports.transaction() as db:
        template = await _changeable(db, caller, template_id, PodLevel.USER)
        newer = replace(template, **changes, updated_at=ports.clock())
        await PodTemplateStore(db).replace(newer)
    return newer


async def remove(ports: Ports, caller: Principal, template_id: str) -> None:
    """Forget a template. Pods that were made from it stay what they are."""
    async with ports.transaction() as db:
        await _changeable(db, caller, template_id, PodLevel.ADMIN)
        await PodTemplateStore(db).remove(caller.tenant, template_id)
        await pod_grants.end(db, caller.tenant, KIND, template_id)
        await AuditStore(db).add(caller.tenant, caller.username, "template.remove", template_id, {}, ports.clock())


async def tags(ports: Ports, caller: Principal, template_id: str) -> Sequence[TemplateTag]:
    """All that was kept under a template, the newest first."""
    async with ports.reading() as db:
        return await _tags(db, await _readable(db, caller, template_id))


async def tag(ports: Ports, caller: Principal, template_id: str, named: str) -> Sequence[TemplateTag]:
    """What was kept under one tag, the newest first; under ``tag@timestamp``, that alone. NotFound when nothing was."""
    found = [each for each in await tags(ports, caller, template_id) if named in (each.tag, each.tag_timestamp)]
    if not found:
        raise NotFound("template tag", f"{template_id}:{named}")
    return found


async def all_tags(ports: Ports, caller: Principal) -> Sequence[tuple[PodTemplate, Sequence[TemplateTag]]]:
    """Every template that the caller may read, with its tags."""
    templates = await list_templates(ports, caller)
    own = [template.id for template in templates if not template.is_built_in]
    async with ports.reading() as db:
        kept = await PodTemplateStore(db).tags(caller.tenant, own)
    return [
        (
            template,
            built_in()[template.id].tags
            if template.is_built_in
            else [each for each in kept if each.template_id == template.id],
        )
        for template in templates
    ]


async def add_tag(
    ports: Ports,
    caller: Principal,
    template_id: str,
    tag: str,
    fields: Mapping[str, Any],
    commit_message: str,
    is_stateful: bool | None = None,
) -> TemplateTag:
    """Keep a definition under a tag. A template that it names is kept as it stands now.

    SpecInvalid when the template that it stands on stands on another itself.
    """
    definition = newest_names(fields)
    check(definition, "pod_definition.")
    now = ports.clock()
    async with ports.transaction() as db:
        await _changeable(db, caller, template_id, PodLevel.USER)
        below = await resolve(db, caller, str(definition.get("template") or ""), "pod_definition.template")
        if len(below.layers) > 1:
            raise SpecInvalid.of(
                "pod_definition.template", f"'{below.name}' stands on a template itself", "stand on that one"
            )
        made = TemplateTag(
            tenant=caller.tenant,
            template_id=template_id,
            tag=check_tag(tag),
            definition={**definition, "template": below.name} if below.name else definition,
            commit_message=commit_message,
            added_by=caller.username,
            created_at=now.replace(microsecond=0),
            is_stateful=is_stateful,
        )
        await PodTemplateStore(db).add_tag(made)
        detail = {"tag": made.tag_timestamp}
        await AuditStore(db).add(caller.tenant, caller.username, "template.tag", template_id, detail, now)
    return made


async def resolve(db: Any, caller: Principal, text: str, field: str = "template", *, anyone: bool = False) -> Resolved:
    """The template that a request names, as far as the caller may read it; nothing for an empty text.

    SpecInvalid names ``field`` when there is none. anyone: whoever may read it.
    """
    if not text:
        return NO_TEMPLATE
    first = await _named(db, caller, parse_template(text, field), field, anyone=anyone)
    layers = [Layer(first.definition, first.is_stateful)]
    if first.definition.get("template"):
        # Whoever may read a template has what it stands on, as its author had when it was made.
        below = await _named(db, caller, parse_template(first.definition["template"], field), field, anyone=True)
        layers.append(Layer(below.definition, below.is_stateful))
    return Resolved(f"{first.template_id}:{first.tag_timestamp}", tuple(layers))


async def resolve_made(db: Any, caller: Principal, pod: Pod) -> Resolved:
    """The template from which a pod was made. Whoever may change the pod has it, as its creator had.

    Where it, or what it stands on, was removed: what the pod has of it, without what the pod says otherwise.
    """
    try:
        return await resolve(db, caller, pod.template, anyone=True)
    except SpecInvalid:
        left = Layer(unsaid(pod.definition, pod.asked), pod.definition.is_stateful)
        return Resolved(pod.template, (left,))


async def _named(db: Any, caller: Principal, name: TemplateName, field: str, *, anyone: bool = False) -> TemplateTag:
    try:
        template = (
            await PodTemplateStore(db).get(caller.tenant, name.id)
            if anyone and name.id not in built_in()
            else await _readable(db, caller, name.id)
        )
    except NotFound:
        raise SpecInvalid.of(
            field, f"there is no template '{name.id}'", "GET /v3/pods/templates lists those that there are"
        ) from None
    wanted = f"{name.tag}@{name.timestamp}" if name.timestamp else name.tag
    found = await _tags(db, template, name.tag)
    for each in found:
        if wanted in (each.tag, each.tag_timestamp):
            return each
    raise SpecInvalid.of(
        field, f"'{name.id}' has no tag '{wanted}'", f"GET /v3/pods/templates/{name.id}/tags lists those that it has"
    )


async def _tags(db: Any, template: PodTemplate, tag: str | None = None) -> Sequence[TemplateTag]:
    if template.is_built_in:
        return built_in()[template.id].tags
    return await PodTemplateStore(db).tags(template.tenant, [template.id], tag)


async def _readable(db: Any, caller: Principal, template_id: str) -> PodTemplate:
    if template_id in built_in():
        return built_in()[template_id].template
    await pod_grants.demand(db, caller, KIND, template_id, PodLevel.READ)
    return await PodTemplateStore(db).get(caller.tenant, template_id)


async def _changeable(db: Any, caller: Principal, template_id: str, level: PodLevel) -> PodTemplate:
    if template_id in built_in():
        raise Forbidden(f"template '{template_id}' comes with Berth; make one of your own that stands on it")
    await pod_grants.demand(db, caller, KIND, template_id, level)
    return await PodTemplateStore(db).get(caller.tenant, template_id)
