"""From what a probe printed on a node to the record of its class; and the owner's word, which stands above it.

The text comes from a machine of others: it is bounded, cleaned of control characters, and each fact is checked by
itself. A fact that is not understood is left out, so that it is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from images.cpu import ARCHITECTURES, best_target
from images.host import FactEvidence, FactSource, HostFacts
from scheduler.model.errors import Problem, SpecInvalid, UnexpectedReply

MAX_BYTES = 256 * 1024
MAX_TEXT_CHARS, MAX_ITEMS, MAX_DEPTH = 2000, 512, 8

_FACTS = frozenset(each.name for each in fields(HostFacts)) - {"node_class", "evidence"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What a probe told. left_out: facts that came in a form that nobody understands."""

    host: HostFacts
    left_out: tuple[str, ...] = ()


def parse_report(text: str, node_class: str, now: datetime) -> ProbeReport:
    """The facts in what ``images/programs/probe_node.py`` printed; other lines, as of a site's profile, are skipped.

    UnexpectedReply where no line is a report. now: facts are dated no later, whatever the node's clock says.
    """
    if len(text) > MAX_BYTES:
        raise UnexpectedReply(f"the probe of {node_class} printed more than {MAX_BYTES} bytes", text)
    document = next(filter(None, map(_report, reversed(text.splitlines()))), None)
    if document is None:
        raise UnexpectedReply(f"the probe of {node_class} printed no report", text)
    seen_at = min(now, datetime.fromtimestamp(document["at"], UTC))
    told: dict[str, Any] = {}
    evidence: dict[str, FactEvidence] = {}
    left_out = []
    for name, fact in _with_cpu(document["facts"]).items():
        try:
            value, why = fact
            told[name] = _adapter(name).validate_python(value, extra="forbid")
            evidence[name] = FactEvidence(source=FactSource.PROBE, detail=str(why), seen_at=seen_at)
        except (ValidationError, ValueError, TypeError, KeyError):
            left_out.append(name)
    host = HostFacts(node_class=node_class, evidence=evidence, **told)
    return ProbeReport(host=host, left_out=tuple(sorted(left_out)))


def edited(host: HostFacts, changes: Mapping[str, Any], owner: str, now: datetime) -> HostFacts:
    """The facts with what the owner says in place of what was probed; None: forget it. SpecInvalid names the field."""
    told: dict[str, Any] = {}
    problems = []
    for name, value in changes.items():
        if name not in _FACTS:
            problems.append(Problem(f"facts.{name}", "is no fact of nodes", f"use {', '.join(sorted(_FACTS))}"))
            continue
        try:
            told[name] = _default(name) if value is None else _adapter(name).validate_python(value, extra="forbid")
        except ValidationError as error:
            wrong = error.errors(include_input=False, include_url=False)[0]
            problems.append(Problem(".".join(map(str, ("facts", name, *wrong["loc"]))), wrong["msg"]))
    if problems:
        raise SpecInvalid(*problems)
    said = FactEvidence(source=FactSource.OWNER, detail=f"set by {owner}", seen_at=now)
    evidence = {**host.evidence, **{name: said for name in told if changes[name] is not None}}
    for name in (name for name in told if changes[name] is None):
        evidence.pop(name, None)
    return replace(host, evidence=evidence, **told)


def refreshed(known: HostFacts, probed: HostFacts) -> HostFacts:
    """The newest probe, with what it did not find from the one before, and with all that the owner said."""
    kept = {
        name: why
        for name, why in known.evidence.items()
        if why.source is FactSource.OWNER or name not in probed.evidence
    }
    facts = {name: getattr(known, name) for name in kept}
    return replace(probed, evidence={**probed.evidence, **kept}, **facts)


# -- reading ------------------------------------------------------------------------------------------------------


def _report(line: str) -> dict[str, Any] | None:
    """The report in a line; None where it is none."""
    if not line.startswith("{"):
        return None
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match document:
        case {"format": 1, "at": int(at), "facts": dict(facts)} if 0 <= at < 2**33:
            return {"at": at, "facts": _clean(facts)}
    return None


def _clean(value: Any, depth: int = 0) -> Any:
    """Data of a size that nodes have, without control characters; what is deeper or more is cut."""
    if isinstance(value, str):
        return "".join(filter(str.isprintable, value[:MAX_TEXT_CHARS]))
    if depth == MAX_DEPTH:
        return None
    if isinstance(value, list):
        return [_clean(each, depth + 1) for each in value[:MAX_ITEMS]]
    if isinstance(value, dict):
        return {_clean(name): _clean(each, depth + 1) for name, each in list(value.items())[:MAX_ITEMS]}
    return value


def _with_cpu(facts: dict[str, Any]) -> dict[str, Any]:
    """The kernel's words for machine and CPU as architecture, and as the target that archspec knows for them."""
    rest = {name: fact for name, fact in facts.items() if name != "cpu"}
    match facts.get("cpu"):
        case [dict(told), why]:
            pass
        case None:
            return rest
        case _:
            return {**rest, "cpu": None}
    texts = {name: value for name, value in told.items() if isinstance(value, str)}
    listed = told.get("flags")
    flags = [flag for flag in listed if isinstance(flag, str)] if isinstance(listed, list) else []
    machine = texts.get("machine", "")
    found = {
        "architecture": ARCHITECTURES.get(machine),
        "cpu_vendor": texts.get("vendor"),
        "cpu_model": texts.get("model"),
        "cpu_flags": flags or None,
        "microarchitecture": best_target(machine, texts.get("vendor"), flags, texts.get("part")) if flags else None,
    }
    return {**rest, **{name: [value, why] for name, value in found.items() if value is not None}}


@cache
def _adapter(fact: str) -> TypeAdapter[Any]:
    """The type of a fact; KeyError for what is none."""
    if fact not in _FACTS:
        raise KeyError(fact)
    return TypeAdapter(get_type_hints(HostFacts, include_extras=True)[fact])


def _default(fact: str) -> Any:
    return getattr(HostFacts(node_class=""), fact)
