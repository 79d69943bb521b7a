"""The templates that come with Berth, read from ``built_in_templates``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from scheduler.model.pod_catalog import PodTemplate, TemplateTag

OWNER = "berth"


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A template and its tags, the newest first."""

    template: PodTemplate
    tags: tuple[TemplateTag, ...]


@cache
def built_in() -> Mapping[str, BuiltIn]:
    """Every template that comes with Berth, by id. They belong to no tenant, and all may read them."""
    files = resources.files("scheduler.services.built_in_templates").iterdir()
    named = {file.name.removesuffix(".json"): file for file in files if file.name.endswith(".json")}
    return MappingProxyType({name: _read(name, json.loads(named[name].read_text())) for name in sorted(named)})


def _read(name: str, said: Mapping[str, Any]) -> BuiltIn:
    tags = tuple(_tag(name, each) for each in said["tags"])
    template = PodTemplate(
        tenant="",
        id=name,
        owner=OWNER,
        description=said["description"],
        metatags=tuple(said["metatags"]),
        is_built_in=True,
        created_at=tags[-1].created_at,
        updated_at=tags[0].created_at,
    )
    return BuiltIn(template, tags)


def _tag(template_id: str, said: Mapping[str, Any]) -> TemplateTag:
    return TemplateTag(
        tenant="",
        template_id=template_id,
        tag=said["tag"],
        definition=said["pod_definition"],
        commit_message=said["commit_message"],
        added_by=OWNER,
        created_at=datetime.fromisoformat(said["created_at"]),
        is_stateful=said["is_stateful"],
    )
