"""The fields of a pod as its request writes them, checked one by one: what can be said before anything is merged.

Shapes (texts, numbers, lists) are checked at the edge; here are the rules. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from images.reference import parse_reference
from scheduler.model.errors import Problem, SpecInvalid
from scheduler.model.pods import NetProtocol
from scheduler.services.pod_mounts import mount_problems
from scheduler.services.pod_names import NET_NAME, parse_template

Fields = Mapping[str, Any]
"""Fields of a pod by the wire's names; one that is left out is not said."""

MOST_NETS = 3
MOST_DESCRIPTION = 255
LEAST_TIME_S, NEVER_S = 300, -1
MOST_VARIABLES = 500
MOST_RESOURCES: Mapping[str, tuple[int, int]] = {
    "cpu_request": (1, 1_000_000),
    "cpu_limit": (1, 1_000_000),
    "mem_request": (1, 100_000_000),
    "mem_limit": (1, 100_000_000),
    "ephemeral_storage_request": (1, 100_000_000),
    "ephemeral_storage_limit": (1, 100_000_000),
    "gpus": (0, 1024),
}
"""The least and the most of each: millicores, MiB, and whole GPUs."""

UNREADABLE = "self"
"""A name that clients of Tapis cannot read back in an answer."""

REQUEST_LIMIT = (
    ("cpu_request", "cpu_limit"),
    ("mem_request", "mem_limit"),
    ("ephemeral_storage_request", "ephemeral_storage_limit"),
)
"""What must not be more than what."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,160}")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
_HEADER_VALUE = re.compile(r"[^\x00-\x20\x7f]([^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?")
_NO_VALUE, _AS_VALUE = "is no value of a header", "leave out control characters, and blanks at either end"
_HTTP_ONLY = ("tapis_auth", "cors_allow_origins", "cors_allow_methods", "cors_allow_headers", "cors_allow_credentials")


def newest_names(fields: Fields) -> dict[str, Any]:
    """The fields with ``pod_template`` of old clients said as ``template`` or ``image``.

    SpecInvalid when both are said, or ``data_requests`` or ``roles_required`` hold something: they mean nothing here.
    """
    newest = dict(fields)
    problems = [
        Problem(name, "is of an older Pods API and not supported", "leave it out or empty")
        for name in ("data_requests", "roles_required")
        if newest.pop(name, None)
    ]
    old = newest.pop("pod_template", None)
    if old:
        if newest.get("image") or newest.get("template"):
            problems.append(Problem("pod_template", "is said beside image or template", "send one of them"))
        elif old.startswith("template/"):
            newest["template"] = old.removeprefix("template/")
        else:
            newest["image"] = old
    if problems:
        raise SpecInvalid(*problems)
    return newest


def check(fields: Fields, where: str = "") -> None:
    """SpecInvalid naming everything that is wrong with fields of a pod. where: before each name, as in ``a.``."""
    problems = [
        problem for name, rule in RULES.items() if fields.get(name) is not None for problem in rule(name, fields[name])
    ]
    if problems:
        raise SpecInvalid(*(Problem(where + problem.field, problem.wrong, problem.fix) for problem in problems))


def _image(name: str, image: str) -> Iterator[Problem]:
    if image:
        yield from _spoken(name, lambda: parse_reference(image))


def _template(name: str, template: str) -> Iterator[Problem]:
    if template:
        yield from _spoken(name, lambda: parse_template(template))


def _spoken(name: str, parse: Callable[[], object]) -> Iterator[Problem]:
    """What a parser says, under the field's own name."""
    try:
        parse()
    except SpecInvalid as wrong:
        yield from (Problem(name, problem.wrong, problem.fix) for problem in wrong.problems)


def _description(name: str, text: str) -> Iterator[Problem]:
    if not text.isascii():
        yield Problem(name, "must be ASCII", "leave other characters out")
    if len(text) > MOST_DESCRIPTION:
        yield Problem(name, f"has {len(text)} characters", f"write at most {MOST_DESCRIPTION}")


def _environment(name: str, variables: Mapping[str, str]) -> Iterator[Problem]:
    if len(variables) > MOST_VARIABLES:
        yield Problem(name, f"holds {len(variables)} variables", f"send at most {MOST_VARIABLES}")
    for variable in variables:
        if _VARIABLE.fullmatch(variable) is None or variable == UNREADABLE:
            fix = "use letters, digits and _, not beginning with a digit"
            yield Problem(name, f"'{variable[:80]}' is not the name of a variable", fix)


def _time_to_stop(name: str, seconds: int) -> Iterator[Problem]:
    if seconds != NEVER_S and seconds < LEAST_TIME_S:
        yield Problem(name, f"is {seconds}", f"send {NEVER_S} for never, or at least {LEAST_TIME_S} seconds")


def _queue(name: str, queue: str) -> Iterator[Problem]:
    if _QUEUE.fullmatch(queue) is None:
        yield Problem(name, f"'{queue[:80]}' is no queue", "write default, <system> or <system>.<queue>")


def _resources(name: str, resources: Mapping[str, int | None]) -> Iterator[Problem]:
    for part, (least, most) in MOST_RESOURCES.items():
        asked = resources.get(part)
        if asked is not None and not least <= asked <= most:
            yield Problem(f"{name}.{part}", f"is {asked}", f"send {least} to {most}")


def _networking(name: str, nets: Mapping[str, Mapping[str, Any] | None]) -> Iterator[Problem]:
    if len(nets) > MOST_NETS:
        yield Problem(name, f"has {len(nets)} entries", f"send at most {MOST_NETS}")
    for key, net in nets.items():
        if NET_NAME.fullmatch(key) is None or key == UNREADABLE:
            yield Problem(name, f"'{key[:80]}' is no name of a net", "use up to 30 small letters and digits")
        if net is not None:
            yield from _net(f"{name}.{key}", net)


def _net(where: str, net: Mapping[str, Any]) -> Iterator[Problem]:
    protocol, port = str(net.get("protocol") or "http").lower(), net.get("port", 5000)
    if protocol not in list(NetProtocol):
        yield Problem(f"{where}.protocol", f"'{protocol[:80]}' is none", f"use one of {', '.join(NetProtocol)}")
    if not 1 <= port <= 65535:
        yield Problem(f"{where}.port", f"is {port}", "send 1 to 65535")
    for address in net.get("ip_allow_list") or ():
        if not _is_network(address):
            yield Problem(f"{where}.ip_allow_list", f"'{address[:80]}' is no address", "write 10.0.0.0/8")
    if protocol != NetProtocol.HTTP and any(net.get(part) for part in _HTTP_ONLY):
        yield Problem(f"{where}.protocol", f"is {protocol}, and tapis_auth and cors_* are for http", "leave them out")
    for header, value in (net.get("tapis_auth_response_headers") or {}).items():
        if _HEADER.fullmatch(header) is None or header == UNREADABLE:
            yield Problem(f"{where}.tapis_auth_response_headers", f"'{header[:80]}' is no header", "use letters and -")
        elif value and _HEADER_VALUE.fullmatch(value) is None:
            yield Problem(f"{where}.tapis_auth_response_headers.{header}", _NO_VALUE, _AS_VALUE)
    for part in ("cors_allow_methods", "cors_allow_headers"):
        if any(_HEADER_VALUE.fullmatch(word) is None for word in net.get(part) or ()):
            yield Problem(f"{where}.{part}", f"holds a word that {_NO_VALUE}", _AS_VALUE)
    for path in ("tapis_auth_return_path", "tapis_ui_uri"):
        if (net.get(path) or "/")[:1] != "/" or (net.get(path) or "/")[:2] in ("//", "/\\"):
            yield Problem(f"{where}.{path}", "is no path", "write a path of the pod that begins with one /")


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _mounts(name: str, mounts: Mapping[str, Mapping[str, Any] | None]) -> Iterator[Problem]:
    return mount_problems(name, mounts)


RULES: Mapping[str, Callable[[str, Any], Iterator[Problem]]] = {
    "image": _image,
    "template": _template,
    "description": _description,
    "environment_variables": _environment,
    "time_to_stop_default": _time_to_stop,
    "time_to_stop_instance": _time_to_stop,
    "compute_queue": _queue,
    "resources": _resources,
    "networking": _networking,
    "volume_mounts": _mounts,
}
