"""What users ask about images before a job runs them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from images.bring import needs_of
from images.needs import Needs
from images.platforms import Platform
from images.reference import parse_reference
from images.sources import Resolved
from scheduler.model.errors import SpecInvalid
from scheduler.model.users import Principal
from scheduler.ports import Ports

_PLATFORM = re.compile(r"(?P<os>[a-z0-9]{1,20})/(?P<architecture>[a-z0-9_]{1,20})(/(?P<variant>v[0-9.]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Inspected:
    """An image as its name was resolved, and what it needs."""

    resolved: Resolved[Any]
    needs: Needs


async def inspect(ports: Ports, caller: Principal, reference: str, platform: str, *, deep: bool = False) -> Inspected:
    """What an image is and needs on a platform, such as ``linux/arm64``: as its manifest and config say.

    deep: as its files show, too; Berth fetches and unpacks them. SpecInvalid where the operator does not allow that;
    the errors of ``images.errors`` say why an image cannot be read.
    """
    target = _platform(platform)
    parsed = parse_reference(reference, "reference")
    if ports.images is None:
        raise SpecInvalid.of("reference", "cannot be read: this server reads no images", "ask the operator")
    if deep and ports.images.bringer is None:
        raise SpecInvalid.of(
            "deep",
            "is not allowed on this server",
            "leave it out, or ask the operator for BERTH_IMAGE_UNPACK_LIMIT_MIB",
        )
    source = ports.images.source_for(caller.tenant, caller.username)
    resolved = await source.resolve(parsed, target)
    bringer = await ports.images.bringer_for(parsed, caller.tenant, caller.username) if deep else None
    if bringer is not None:
        return Inspected(resolved, await bringer.learn(resolved, source))
    return Inspected(resolved, needs_of(resolved))


def _platform(text: str) -> Platform:
    match = _PLATFORM.fullmatch(text)
    if match is None:
        raise SpecInvalid.of(
            "platform", f"{text[:40]!r} is no platform", "write linux/amd64, linux/arm64 or linux/arm/v7"
        )
    return Platform(match["os"], match["architecture"], match["variant"])
