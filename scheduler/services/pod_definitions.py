"""From what a pod and its templates say to what is run, and back to the wire's words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.model.errors import Problem, SpecInvalid
from scheduler.model.pods import NetProtocol, PodDefinition, PodMount, PodNet, PodResources
from scheduler.services.pod_fields import MOST_NETS, REQUEST_LIMIT, Fields
from scheduler.services.pod_mounts import by_path, on_the_wire

DEFAULT_TIME_S = 43_200
DEFAULT_NETS: Mapping[str, Mapping[str, Any]] = {"default": {"protocol": "http", "port": 5000}}
DEFAULT_RESOURCES: Mapping[str, int] = {
    "cpu_request": 250,
    "cpu_limit": 2000,
    "mem_request": 256,
    "mem_limit": 3072,
    "gpus": 0,
}
MOST_TEMPLATES = 2
"""A template may stand on one other."""

PARTED = ("environment_variables", "volume_mounts", "networking", "resources")
"""Fields of which templates and pods say parts."""

CORS = ("allow_origins", "allow_methods", "allow_headers", "allow_credentials", "max_age")


@dataclass(frozen=True, slots=True)
class Layer:
    """What one template says. is_stateful: None leaves it to the template below."""

    fields: Fields
    is_stateful: bool | None = None


@dataclass(slots=True)
class _Merged:
    """Fields of several layers, the later over the earlier."""

    plain: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    mounts: dict[str, PodMount] = field(default_factory=dict)
    nets: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    resources: dict[str, int] = field(default_factory=dict)


def defined(asked: Fields, templates: Sequence[Layer] = ()) -> PodDefinition:
    """What is run: the pod's own fields over those of its template, over those of the template below it.

    templates: the pod's own first, at most two. Lists and texts are replaced whole; variables, nets, mounts and
    resources one by one; null takes an inherited net or mount away. SpecInvalid where they do not fit together.
    """
    if len(templates) > MOST_TEMPLATES:
        raise SpecInvalid.of("template", "stands on a template that stands on another", "leave one out")
    merged = _Merged()
    for layer in reversed(templates):
        _lay(merged, layer.fields)
    _lay(merged, asked)
    plain, resources = merged.plain, {**DEFAULT_RESOURCES, **_fitting(merged.resources)}
    _check(plain, merged.nets, resources)
    default_s = plain.get("time_to_stop_default", DEFAULT_TIME_S)
    instance_s = plain.get("time_to_stop_instance")
    return PodDefinition(
        image=plain["image"],
        command=tuple(plain["command"]) if plain.get("command") else None,
        arguments=tuple(plain.get("arguments") or ()),
        environment=merged.environment,
        mounts=tuple(merged.mounts[path] for path in sorted(merged.mounts)),
        nets=tuple(_net(name, net) for name, net in (merged.nets or DEFAULT_NETS).items()),
        resources=PodResources(
            request_millicores=resources["cpu_request"],
            limit_millicores=resources["cpu_limit"],
            request_memory_mib=resources["mem_request"],
            limit_memory_mib=resources["mem_limit"],
            gpus=resources["gpus"],
        ),
        compute_queue=plain.get("compute_queue") or "default",
        time_to_stop_s=default_s if instance_s is None else instance_s,
        time_to_stop_default_s=None if instance_s is None else default_s,
        is_stateful=next((layer.is_stateful for layer in templates if layer.is_stateful is not None), True),
    )


def _lay(merged: _Merged, fields: Fields) -> None:
    """Put the fields of one layer over what is there. What is null or empty says nothing."""
    for name in ("image", "command", "arguments", "compute_queue", "time_to_stop_default", "time_to_stop_instance"):
        if fields.get(name) not in (None, "", []):
            merged.plain[name] = fields[name]
    merged.environment.update(fields.get("environment_variables") or {})
    merged.resources.update({k: v for k, v in (fields.get("resources") or {}).items() if v is not None})
    _over(merged.mounts, by_path(fields.get("volume_mounts") or {}))
    _over(merged.nets, fields.get("networking") or {})


def _over(there: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if value is None:
            there.pop(key, None)
        else:
            there[key] = value


def _fitting(resources: Mapping[str, int]) -> dict[str, int]:
    """The resources that were said; where only one of request and limit was, a default does not contradict it."""
    fitting = dict(resources)
    for request, limit in REQUEST_LIMIT:
        if request in fitting and limit not in fitting:
            fitting[limit] = max(fitting[request], DEFAULT_RESOURCES.get(limit, 0))
        elif limit in fitting and request not in fitting:
            fitting[request] = min(fitting[limit], DEFAULT_RESOURCES.get(request, fitting[limit]))
    return fitting


def _check(plain: Mapping[str, Any], nets: Mapping[str, Any], resources: Mapping[str, int]) -> None:
    problems = []
    if not plain.get("image"):
        problems.append(
            Problem("image", "is missing: neither image nor template names one", "send template= or image=")
        )
    if len(nets) > MOST_NETS:
        problems.append(Problem("networking", f"has {len(nets)} entries", f"at most {MOST_NETS}, inherited ones too"))
    for request, limit in REQUEST_LIMIT:
        if resources.get(request, 0) > resources.get(limit, 0):
            wrong = f"({resources[request]}) is more than {limit} ({resources[limit]})"
            problems.append(Problem(f"resources.{request}", wrong, "ask for no more than the limit"))
    if problems:
        raise SpecInvalid(*problems)


def _net(name: str, net: Mapping[str, Any]) -> PodNet:
    allowed = net.get("tapis_auth_allowed_users")
    return PodNet(
        name=name,
        protocol=NetProtocol((net.get("protocol") or "http").lower()),
        port=net.get("port", 5000),
        ip_allow=tuple(net.get("ip_allow_list") or ()),
        needs_login=bool(net.get("tapis_auth")),
        allowed_users=("*",) if allowed is None else tuple(allowed),
        login_headers=dict(net.get("tapis_auth_response_headers") or {}),
        return_path=net.get("tapis_auth_return_path") or "/",
        cors={f"cors_{part}": net[f"cors_{part}"] for part in CORS if net.get(f"cors_{part}")},
    )


def fields_of(definition: PodDefinition) -> dict[str, Any]:
    """A definition in the wire's words: defining it again gives the same."""
    time_s, default_s = definition.time_to_stop_s, definition.time_to_stop_default_s
    return {
        "image": definition.image,
        "command": list(definition.command) if definition.command else None,
        "arguments": list(definition.arguments) or None,
        "environment_variables": dict(definition.environment),
        "volume_mounts": on_the_wire(definition.mounts),
        "time_to_stop_default": time_s if default_s is None else default_s,
        "time_to_stop_instance": None if default_s is None else time_s,
        "networking": {net.name: net_fields(net) for net in definition.nets},
        "resources": {
            "cpu_request": definition.resources.request_millicores,
            "cpu_limit": definition.resources.limit_millicores,
            "mem_request": definition.resources.request_memory_mib,
            "mem_limit": definition.resources.limit_memory_mib,
            "gpus": definition.resources.gpus,
        },
        "compute_queue": definition.compute_queue,
    }


def unsaid(definition: PodDefinition, asked: Fields) -> dict[str, Any]:
    """The part of a definition, in the wire's words, that the pod's own fields do not say: ``asked`` over it defines
    the same again. What they hide is in no definition."""
    fields = fields_of(definition)
    own: dict[str, Any] = {**asked, "volume_mounts": by_path(asked.get("volume_mounts") or {})}
    left = {name: value for name, value in fields.items() if name in PARTED or own.get(name) in (None, "", [])}
    for name in PARTED:
        said = own.get(name) or {}
        left[name] = {key: value for key, value in fields[name].items() if said.get(key) is None}
    left["resources"] = {k: v for k, v in left["resources"].items() if v != DEFAULT_RESOURCES[k]}
    return left


def net_fields(net: PodNet) -> dict[str, Any]:
    """One entry of ``networking`` without its url, and without ``cors_*`` where nothing was said."""
    return {
        "protocol": net.protocol.value,
        "port": net.port,
        "ip_allow_list": list(net.ip_allow),
        "tapis_auth": net.needs_login,
        "tapis_auth_response_headers": dict(net.login_headers),
        "tapis_auth_allowed_users": list(net.allowed_users),
        "tapis_auth_return_path": net.return_path,
        **net.cors,
    }
