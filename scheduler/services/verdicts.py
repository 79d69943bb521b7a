"""Why an image runs, or does not, on the nodes of the systems where a user may run jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from images.bring import needs_of
from images.errors import ImageUnusable
from images.findings import Finding, MatchPolicy
from images.host import HostFacts
from images.matcher import evidence_of, match
from images.needs import Needs
from images.platforms import Platform
from images.policy import USUAL_PLATFORM, ImagePolicy
from images.reference import PathReference, Reference, parse_reference
from images.sources import Resolved, Source
from scheduler.judge import nodes_of, policy_there
from scheduler.model.errors import SpecInvalid
from scheduler.model.systems import System
from scheduler.model.users import Principal
from scheduler.model.verdicts import Fit, ImageVerdict
from scheduler.ports import Ports
from scheduler.security.authorize import Action
from scheduler.services.systems import executable, readable
from scheduler.store.images import ImageStore
from scheduler.store.node_facts import KnownNodes, NodeFactsStore

UNSEEN = ImageVerdict(
    fit=Fit.UNKNOWN,
    reason="nothing is known of the nodes",
    fix="let a probe look at them, or let the owner write notes.berth.images.facts",
)


@dataclass(frozen=True, slots=True)
class Reason:
    """What one rule found, and what showed it."""

    finding: Finding
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnNodes:
    """The verdict on one class of nodes of a system; ``node_class`` is None where none is known.

    seen_at: when a probe last looked at them.
    """

    system_id: str
    node_class: str | None
    verdict: ImageVerdict
    reasons: tuple[Reason, ...] = ()
    seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """An image as its name was resolved, by platform, and what became of it on each class of nodes."""

    resolved: Sequence[Resolved[Any]]
    files_seen: bool
    on_nodes: Sequence[OnNodes]


@dataclass(frozen=True, slots=True)
class Known:
    """A system, what its owner says of images, and what probes found of its nodes."""

    system: System
    policy: ImagePolicy | None
    probed: Mapping[str, KnownNodes]

    @property
    def platform(self) -> Platform:
        return self.policy.platform if self.policy else USUAL_PLATFORM

    def facts(self) -> Mapping[str, HostFacts]:
        """By class of nodes; what the owner says stands above what a probe found."""
        return {name: nodes.facts for name, nodes in nodes_of(self.system, self.policy, self.probed).items()}


async def why(ports: Ports, caller: Principal, reference: str, system_id: str | None, wants: MatchPolicy) -> Judged:
    """The verdicts of the matcher on every system where the caller may run jobs, or on the one that is named.

    What the image needs is known from its files where it was brought anywhere before, else from its manifest.
    """
    parsed = parse_reference(reference, "reference")
    if isinstance(parsed, PathReference):
        raise SpecInvalid.of("reference", f"'{reference[:200]}' lies on a system, where only its runtime reads it")
    if ports.images is None:
        raise SpecInvalid.of("reference", "cannot be read: this server reads no images", "ask the operator")
    async with ports.reading() as db:
        systems = await executable(db, caller) if system_id is None else [await _named(db, caller, system_id)]
        probed = await NodeFactsStore(db).of_tenant(caller.tenant, system_id)
    known = [Known(system, policy_there(system), probed.get(system.id, {})) for system in systems if system.can_exec]
    source = ports.images.source_for(caller.tenant, caller.username)
    found = await _resolved(source, parsed, {each.platform for each in known} or {USUAL_PLATFORM})
    there = [each for each in found.values() if isinstance(each, Resolved)]
    async with ports.reading() as db:
        seen = await ImageStore(db).needs_of({each.manifest_digest for each in there})
    judged = [one for each in known for one in _on_nodes(each, found[each.platform], seen, wants)]
    return Judged(there, bool(there) and all(each.manifest_digest in seen for each in there), judged)


async def _resolved(
    source: Source[Any], reference: Reference, platforms: set[Platform]
) -> Mapping[Platform, Resolved[Any] | ImageUnusable]:
    """By platform; for a platform that the image is not built for the error says so, unless it is built for none."""
    found: dict[Platform, Resolved[Any] | ImageUnusable] = {}
    for platform in sorted(platforms, key=str):
        try:
            found[platform] = await source.resolve(reference, platform)
        except ImageUnusable as error:
            found[platform] = error
    errors = [each for each in found.values() if isinstance(each, ImageUnusable)]
    if len(errors) == len(found):
        raise errors[0]
    return found


def _on_nodes(
    known: Known, resolved: Resolved[Any] | ImageUnusable, seen: Mapping[str, Needs], wants: MatchPolicy
) -> Sequence[OnNodes]:
    if isinstance(resolved, ImageUnusable):
        (problem,) = resolved.problems
        verdict = ImageVerdict(fit=Fit.NO, reason=f"it {problem.wrong.partition(' ')[2]}", fix=problem.fix)
        return [OnNodes(system_id=known.system.id, node_class=None, verdict=verdict)]
    needs = seen.get(resolved.manifest_digest) or needs_of(resolved)
    policy = MatchPolicy(
        strict=known.policy is not None and known.policy.is_strict,
        wants_gpus=wants.wants_gpus,
        wants_mpi=wants.wants_mpi,
        nodes=wants.nodes,
    )
    judged = []
    for name, facts in known.facts().items():
        found = match(needs, facts, policy)
        reasons = tuple(Reason(each, evidence_of(each, needs, facts)) for each in found.findings)
        probe = known.probed.get(name)
        judged.append(
            OnNodes(
                system_id=known.system.id,
                node_class=name,
                verdict=found.verdict,
                reasons=reasons,
                seen_at=probe.seen_at if probe else None,
            )
        )
    return judged or [OnNodes(system_id=known.system.id, node_class=None, verdict=UNSEEN)]


async def _named(db: Any, caller: Principal, system_id: str) -> System:
    return await readable(db, caller, system_id, Action.EXECUTE)
