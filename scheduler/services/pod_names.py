"""Names of pods and of what stands around them, and how a template is named. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.model.errors import SpecInvalid
from scheduler.model.pod_names import label_of
from scheduler.model.pods import PodNet

RESERVED = frozenset(
    {"catalog", "catalogs", "snapshot", "snapshots", "volume", "volumes", "admin", "image", "images", "template"}
    | {"templates", "secrets", "stacks", "nodes"}
)
"""Words that stand in paths where a pod's id would."""

MOST_LABEL = 63

NET_NAME = re.compile(r"[a-z0-9]{1,30}")

_POD_ID = re.compile(r"[a-z][a-z0-9]{2,63}")
_TEMPLATE_ID = re.compile(r"[a-z][a-z0-9._-]{1,79}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{2}:[0-9]{2}:[0-9]{2}")


def check_pod_id(text: str, field: str = "pod_id") -> str:
    """``text`` as the id of a new pod, volume or snapshot: it stands in URLs, paths and host names."""
    if _POD_ID.fullmatch(text) is None:
        raise SpecInvalid.of(
            field, f"'{text[:80]}' is not an id", "use 3 to 64 small letters and digits, a letter first"
        )
    if text in RESERVED:
        raise SpecInvalid.of(field, f"'{text}' is a reserved word", "choose another")
    return text


def check_host_names(pod_id: str, nets: Sequence[PodNet]) -> None:
    """SpecInvalid when a net's name outside would be longer than a label of a host name can be."""
    for net in nets:
        if net.is_outside and len(label_of(pod_id, net.name)) > MOST_LABEL:
            raise SpecInvalid.of(
                f"networking.{net.name}", f"its host name is longer than {MOST_LABEL}", "use a shorter pod_id or name"
            )


def check_template_id(text: str) -> str:
    """``text`` as the id of a new template."""
    if _TEMPLATE_ID.fullmatch(text) is None or text == "tags":
        raise SpecInvalid.of(
            "template_id",
            f"'{text[:80]}' is not an id",
            "use small letters, digits and . _ -, a letter first",
        )
    return text


def check_tag(text: str) -> str:
    """``text`` as a tag of a template."""
    if _TAG.fullmatch(text) is None:
        raise SpecInvalid.of("tag", f"'{text[:80]}' is not a tag", "use letters, digits and . _ -")
    return text


@dataclass(frozen=True, slots=True)
class TemplateName:
    """``id``, ``id:tag`` or ``id:tag@timestamp``, which alone never changes its meaning."""

    id: str
    tag: str = "latest"
    timestamp: str = ""

    def __str__(self) -> str:
        return f"{self.id}:{self.tag}" + (self.timestamp and f"@{self.timestamp}")


def parse_template(text: str, field: str = "template") -> TemplateName:
    """How a request names a template; ``template/`` before it, as old clients write, is dropped."""
    name, _, timestamp = text.removeprefix("template/").partition("@")
    template_id, _, tag = name.partition(":")
    known = (
        _TEMPLATE_ID.fullmatch(template_id)
        and (not tag or _TAG.fullmatch(tag))
        and (not timestamp or _TIMESTAMP.fullmatch(timestamp))
    )
    if not known or text.endswith((":", "@")):
        raise SpecInvalid.of(
            field, f"'{text[:120]}' names no template", "write name, name:tag or name:tag@2024-06-10-17:20:27"
        )
    return TemplateName(template_id, tag or "latest", timestamp)
