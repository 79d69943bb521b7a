"""What users see of a system's nodes, and how they ask for another look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from images.host import HostFacts
from images.policy import ImagePolicy, policy_of
from scheduler.judge import class_names, nodes_of, policy_there
from scheduler.model.errors import SpecInvalid
from scheduler.model.helper_jobs import HelperJob, HelperPurpose
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.security.authorize import Action
from scheduler.services.systems import readable
from scheduler.store.helper_jobs import HelperJobStore
from scheduler.store.node_facts import NodeFactsStore
from scheduler.store.requests import AuditStore


@dataclass(frozen=True, slots=True)
class NodesSeen:
    """One class of nodes: what is known, the owner's word above the probe's, and how the newest look went."""

    facts: HostFacts
    seen_at: datetime | None = None
    look: HelperJob | None = None


async def facts(ports: Ports, caller: Principal, system_id: str) -> Sequence[NodesSeen]:
    """The classes of nodes of a system that jobs are sent to, and those that something is known of."""
    async with ports.reading() as db:
        system = await readable(db, caller, system_id)
        probed = await NodeFactsStore(db).of_system(caller.tenant, system_id)
        looks = await HelperJobStore(db).newest(caller.tenant, HelperPurpose.NODE_FACTS)
    policy = policy_there(system)
    known = {name: nodes.facts for name, nodes in nodes_of(system, policy, probed).items()}
    names = sorted({*class_names(system), *known}) if policy is not None else sorted(known)
    return [
        NodesSeen(
            known.get(name) or HostFacts(node_class=name),
            probed[name].seen_at if name in probed else None,
            looks.get((system_id, name)),
        )
        for name in names
    ]


async def look_again(ports: Ports, caller: Principal, system_id: str) -> None:
    """Let probes look at all classes of nodes soon, whatever failed before; what is known holds until then."""
    async with ports.transaction() as db:
        system = await readable(db, caller, system_id, Action.MODIFY)
        _demand_probes(policy_of(system))
        await NodeFactsStore(db).look_again(caller.tenant, system_id)
        await HelperJobStore(db).forget_failures(caller.tenant, system_id)
        await AuditStore(db).add(caller.tenant, caller.username, "system.lookAgain", system_id, {}, ports.clock())


def _demand_probes(policy: ImagePolicy | None) -> None:
    if policy is None:
        raise SpecInvalid.of(
            "notes.berth.images",
            "is not said, so that nobody looks at the nodes",
            'write {"store": "/an/absolute/path"}',
        )
    if not policy.may_probe:
        raise SpecInvalid.of("notes.berth.images.probe", "is false", "write true, or say the facts yourself")
