"""Whether an image runs on the nodes of systems, on the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from api.schemas.base import View
from scheduler.model.actions import (
    Action,
    Bind,
    ConvertTo,
    LaunchWith,
    LibraryPathFirst,
    RuntimeEnv,
    Unpack,
    WritableRoot,
)
from scheduler.model.units import zulu
from scheduler.services.verdicts import Judged, OnNodes, Reason

IN_WORDS: Mapping[type[Action], Callable[[Any], str]] = {
    Bind: lambda action: f"bind {action.host_path} of the host to {action.container_path}",
    LibraryPathFirst: lambda action: f"search {action.folder} for libraries first",
    RuntimeEnv: lambda action: f"set {action.name}={action.value} for the runtime",
    LaunchWith: lambda action: f"start it by srun --mpi={action.plugin}" if action.plugin else "start it by mpirun",
    ConvertTo: lambda action: "convert it to " + " with ".join(filter(None, (action.form, action.compressor))),
    Unpack: lambda action: "run it from an unpacked tree",
    WritableRoot: lambda action: "lay a writable layer in memory over it",
}
"""What Berth does so that an image runs, as people are told."""


class FindingView(View):
    """What one rule of docs/images.md found, and what showed it."""

    rule: str
    fit: str
    reason: str
    fix: str
    evidence: list[str]

    @classmethod
    def of(cls, reason: Reason) -> FindingView:
        finding = reason.finding
        return cls(
            rule=finding.rule,
            fit=finding.fit,
            reason=finding.reason,
            fix=finding.fix,
            evidence=list(reason.evidence),
        )


class OnNodesView(View):
    """The verdict for one class of nodes: ``yes``, ``fixable``, ``unknown`` or ``no``.

    ``costSeconds``: how much running there is worth avoiding. ``actions``: what Berth does so that it runs.
    ``seenAt``: when a probe last looked at them.
    """

    systemId: str
    nodeClass: str | None
    fit: str
    reason: str
    fix: str
    costSeconds: float
    warnings: list[str]
    actions: list[str]
    findings: list[FindingView]
    seenAt: str | None

    @classmethod
    def of(cls, judged: OnNodes) -> OnNodesView:
        verdict = judged.verdict
        return cls(
            systemId=judged.system_id,
            nodeClass=judged.node_class,
            fit=verdict.fit,
            reason=verdict.reason,
            fix=verdict.fix,
            costSeconds=verdict.cost_s,
            warnings=list(verdict.warnings),
            actions=[IN_WORDS[type(action)](action) for action in verdict.actions],
            findings=[FindingView.of(reason) for reason in judged.reasons],
            seenAt=zulu(judged.seen_at) if judged.seen_at else None,
        )


class JudgedView(View):
    """An image and where it runs. ``filesSeen``: its needs are known from its files, not from its manifest alone."""

    reference: str
    digests: list[str]
    filesSeen: bool
    nodes: list[OnNodesView]

    @classmethod
    def of(cls, judged: Judged) -> JudgedView:
        return cls(
            reference=str(judged.resolved[0].reference),
            digests=[each.manifest_digest for each in judged.resolved],
            filesSeen=judged.files_seen,
            nodes=[OnNodesView.of(each) for each in judged.on_nodes],
        )
