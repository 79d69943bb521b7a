"""Images and what they need, on the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from api.schemas.base import View
from images.needs import Evidence
from images.records import dump
from scheduler.services.images import Inspected

SHOWN_ELSEWHERE = frozenset(
    {
        "format",
        "manifest_digest",
        "platform",
        "download_bytes",
        "unpacked_bytes",
        "command",
        "labels",
        "tree_seen",
        "evidence",
    }
)
"""Members of the record that are no needs, or have a field of their own."""

GROUPS = frozenset({"isa", "cuda", "rocm", "declared"})
"""Members whose own members are needs: ``cuda.requires``."""


class EvidenceView(View):
    """What showed a need: a label, a variable, a file."""

    source: str
    detail: str


class NeedView(View):
    """One thing that is known of what the image needs. An empty list: it was looked for and is not there.

    ``value`` is null where only evidence is there, of something that was not understood.
    """

    need: str
    value: Any
    evidence: list[EvidenceView]


class ImageView(View):
    """An image as its name was resolved. ``digest`` is of the manifest for the platform; sizes are bytes."""

    reference: str
    digest: str
    indexDigest: str | None
    configDigest: str | None
    platform: str | None
    layers: int
    downloadSize: int
    unpackedSize: int | None
    entryPoint: list[str]
    command: list[str]
    environment: dict[str, str]
    workingDir: str
    user: str
    labels: dict[str, str]
    filesSeen: bool
    needs: list[NeedView]

    @classmethod
    def of(cls, inspected: Inspected) -> ImageView:
        resolved, record = inspected.resolved, orjson.loads(dump(inspected.needs))
        command = record["command"] or {}
        return cls(
            reference=str(resolved.reference),
            digest=resolved.manifest_digest,
            indexDigest=resolved.index_digest,
            configDigest=resolved.config_digest if resolved.config else None,
            platform="/".join(filter(None, record["platform"].values())) if record["platform"] else None,
            layers=len(resolved.manifest.layers),
            downloadSize=resolved.manifest.size_bytes,
            unpackedSize=record["unpacked_bytes"],
            entryPoint=command.get("entrypoint", []),
            command=command.get("cmd", []),
            environment=command.get("env", {}),
            workingDir=command.get("working_dir", ""),
            user=command.get("user", ""),
            labels=record["labels"],
            filesSeen=record["tree_seen"],
            needs=_needs(record, inspected.needs.evidence),
        )


def _needs(record: Mapping[str, Any], evidence: tuple[Evidence, ...]) -> list[NeedView]:
    """Every need that is known, in the order of the record, each with what showed it."""
    known = dict(_known(record))
    for each in evidence:
        if each.fact != "platform":
            known.setdefault(each.fact, None)
    shown = {
        name: [EvidenceView(source=each.source, detail=each.detail) for each in evidence if each.fact == name]
        for name in known
    }
    return [NeedView(need=name, value=value, evidence=shown[name]) for name, value in known.items()]


def _known(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if name in GROUPS:
            said = {f"{name}.{inner}": each for inner, each in value.items()}
            yield from ((inner, each) for inner, each in said.items() if _says(each, may_be_empty=name != "declared"))
        elif name not in SHOWN_ELSEWHERE and _says(value, may_be_empty=True):
            yield name, value


def _says(value: Any, *, may_be_empty: bool) -> bool:
    return value not in (None, False, {}, "") and (may_be_empty or value != [])
