"""Whether images run on the nodes of each system: what images need against what nodes can do, for placement.

Verdicts are kept by what they follow from, and made anew only when that changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import structlog

from images.findings import MatchPolicy
from images.host import HostFacts
from images.matcher import match
from images.needs import Needs
from images.policy import ImagePolicy, policy_of
from images.probe_report import edited
from placement.problem import Problem, SystemView
from scheduler.model.errors import SpecInvalid
from scheduler.model.snapshots import NodeKind, SystemSnapshot
from scheduler.model.systems import System
from scheduler.model.verdicts import ImageAsk, ImageVerdict
from scheduler.store.images import ImageStore
from scheduler.store.node_facts import KnownNodes, NodeFactsStore

log = structlog.get_logger()

HOST_CLASS = "host"
"""The class of a system without a batch system."""

MOST_KEPT = 20_000
"""Verdicts, and records of images, that are remembered."""

OF_THE_SOFTWARE = frozenset(
    {"architecture", "kernel", "user_namespaces", "runtimes", "mpi", "mpi_plugins", "pmix", "translators", "glibc_hook"}
    | {"rooms", "outbound_network"}
)
"""Facts that nodes of several kinds share that were installed alike; a probe sees one kind only."""

_FACTS = [each.name for each in fields(HostFacts) if each.name not in ("node_class", "evidence")]


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Nodes that are taken for alike: a partition, or the host of a system without batch. ``kind``: one of them.

    is_mixed: they are not of one kind, so that only what is installed on them holds for all.
    """

    name: str
    partition: str | None = None
    kind: NodeKind | None = None
    is_mixed: bool = False


@dataclass(frozen=True, slots=True)
class Nodes:
    """What is known of one class. version: changes when anything of it does."""

    facts: HostFacts
    version: tuple[Any, ...]


def class_names(system: System) -> Sequence[str]:
    """The classes of nodes that jobs are sent to."""
    return sorted({queue.partition for queue in system.queues}) if system.can_run_batch else [HOST_CLASS]


def classes_of(system: System, snapshot: SystemSnapshot | None) -> tuple[NodeClass, ...]:
    """The same as far as they were seen."""
    if not system.can_run_batch:
        return (NodeClass(HOST_CLASS),)
    found = []
    for partition in class_names(system):
        kinds = [kind for kind in snapshot.nodes if kind.partition == partition] if snapshot else []
        if kinds:
            several = len({(each.cores, each.memory_mib, each.gpus, each.gpu_model, each.features) for each in kinds})
            found.append(NodeClass(partition, partition, max(kinds, key=lambda each: each.total), several > 1))
    return tuple(found)


def policy_there(system: System) -> ImagePolicy | None:
    """What is said of images there; what this version cannot read is as if it were not said."""
    try:
        return policy_of(system)
    except SpecInvalid as error:
        log.warning("notes on images are not understood", system=system.id, why=str(error))
        return None


def of_mixed(facts: HostFacts) -> HostFacts:
    """What a probe of one node says of all nodes of a partition that has several kinds."""
    bare = HostFacts(node_class=facts.node_class)
    forgotten = {name: getattr(bare, name) for name in _FACTS if name not in OF_THE_SOFTWARE}
    kept = {name: why for name, why in facts.evidence.items() if name in OF_THE_SOFTWARE}
    return replace(facts, **forgotten, evidence=kept)


def nodes_of(system: System, policy: ImagePolicy | None, probed: Mapping[str, KnownNodes]) -> Mapping[str, Nodes]:
    """By class: what probes found, and above it what the owner says."""
    found, said = {}, policy.facts if policy else {}
    for name in sorted({*probed, *said}):
        known = probed.get(name)
        facts = known.facts if known else HostFacts(node_class=name)
        if name in said:
            facts = edited(facts, _said(said[name]), system.owner, system.updated_at or datetime.now(UTC))
        found[name] = Nodes(facts, (system.tenant, system.id, name, system.version, known and known.seen_at))
    return found


class Judge:
    """Makes verdicts, and remembers them and what they are made of. One for the process."""

    def __init__(self) -> None:
        self._needs: dict[str, Needs] = {}
        self._probed: dict[str, tuple[Mapping[tuple[str, str], datetime | None], Mapping[str, Any]]] = {}
        self._verdicts: dict[tuple[Any, ...], ImageVerdict] = {}

    async def judged(self, db: Any, tenant: str, problem: Problem) -> Problem:
        """The problem with verdicts of the images that are known, on systems whose owner speaks of images."""
        named = ((ImageAsk.of(ask.spec), ask.image) for ask in problem.asks)
        asked = {ask: image.manifest_digest for ask, image in named if ask is not None and image is not None}
        policies = {view.system.id: policy_there(view.system) for view in problem.systems} if asked else {}
        if not any(policies.values()):
            return problem
        needs = await self._needs_of(db, asked.values())
        known = {ask: needs[digest] for ask, digest in asked.items() if digest in needs}
        if not known:
            return problem
        probed = await self._probed_of(db, tenant)
        views = (self._view(view, policies[view.system.id], probed, known) for view in problem.systems)
        return replace(problem, systems=tuple(views))

    def verdicts(
        self, view: SystemView, policy: ImagePolicy, nodes: Mapping[str, Nodes], asked: Mapping[ImageAsk, Needs]
    ) -> Mapping[tuple[ImageAsk, str | None], ImageVerdict]:
        """By image and queue; where nothing is known of the nodes there is no verdict."""
        classes = {queue.name: queue.partition for queue in view.system.queues} if view.system.can_run_batch else {}
        found = {}
        for queue, name in [*classes.items(), *([] if classes else [(None, HOST_CLASS)])]:
            for ask, needs in asked.items() if name in nodes else ():
                found[ask, queue] = self._verdict(ask, needs, nodes[name], policy.is_strict)
        return found

    def _view(
        self,
        view: SystemView,
        policy: ImagePolicy | None,
        probed: Mapping[str, Mapping[str, KnownNodes]],
        asked: Mapping[ImageAsk, Needs],
    ) -> SystemView:
        if policy is None:
            return view
        nodes = nodes_of(view.system, policy, probed.get(view.system.id, {}))
        return replace(view, image_verdicts={**view.image_verdicts, **self.verdicts(view, policy, nodes, asked)})

    def _verdict(self, ask: ImageAsk, needs: Needs, nodes: Nodes, is_strict: bool) -> ImageVerdict:
        key = (needs.manifest_digest, *ask[1:], is_strict, nodes.version)
        verdict = self._verdicts.get(key)
        if verdict is None:
            wants = MatchPolicy(
                strict=is_strict,
                wants_gpus=ask.gpus,
                wants_mpi=ask.mpi,
                nodes=2 if ask.several_nodes else 1,
            )
            verdict = match(needs, nodes.facts, wants).verdict
            _keep(self._verdicts, {key: verdict})
        return verdict

    async def _needs_of(self, db: Any, digests: Iterable[str]) -> Mapping[str, Needs]:
        """What is known of an image stays, so that it is read once."""
        missing = {digest for digest in digests if digest not in self._needs}
        if missing:
            _keep(self._needs, await ImageStore(db).needs_of(sorted(missing)))
        return self._needs

    async def _probed_of(self, db: Any, tenant: str) -> Mapping[str, Mapping[str, KnownNodes]]:
        seen_at = await NodeFactsStore(db).seen_at(tenant)
        if self._probed.get(tenant, (None,))[0] != seen_at:
            self._probed[tenant] = seen_at, await NodeFactsStore(db).of_tenant(tenant)
        return self._probed[tenant][1]


def _said(facts: HostFacts) -> Mapping[str, Any]:
    """The facts that a record holds."""
    bare = HostFacts(node_class=facts.node_class)
    return {name: getattr(facts, name) for name in _FACTS if getattr(facts, name) != getattr(bare, name)}


def _keep(kept: dict[Any, Any], more: Mapping[Any, Any]) -> None:
    """Remember; the oldest go when there are too many."""
    kept |= more
    for key in list(islice(kept, max(0, len(kept) - MOST_KEPT))):
        del kept[key]
