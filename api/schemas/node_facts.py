"""What nodes can do, on the wire."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from api.schemas.base import View
from images.host import HostFacts
from scheduler.model.units import zulu
from scheduler.services.node_facts import NodesSeen

_FACTS = TypeAdapter(HostFacts)


class EvidenceView(View):
    """Why a fact is believed: ``probe`` or ``owner``, what showed it, and when."""

    source: str
    detail: str
    seenAt: str


class LookView(View):
    """How the newest look went: INTENDED, SUBMITTED, DONE or FAILED, and why."""

    state: str
    message: str
    beganAt: str
    remoteJobId: str | None


class NodeFactsView(View):
    """One class of nodes. ``facts``: under the names by which the owner may say them (``notes.berth.images.facts``)."""

    nodeClass: str
    seenAt: str | None
    facts: dict[str, Any]
    evidence: dict[str, EvidenceView]
    look: LookView | None

    @classmethod
    def of(cls, nodes: NodesSeen) -> NodeFactsView:
        told = _FACTS.dump_python(nodes.facts, mode="json", exclude={"evidence", "node_class"}, exclude_none=True)
        look = nodes.look
        return cls(
            nodeClass=nodes.facts.node_class,
            seenAt=None if nodes.seen_at is None else zulu(nodes.seen_at),
            facts={name: value for name, value in told.items() if value != {}},
            evidence={
                name: EvidenceView(source=why.source, detail=why.detail, seenAt=zulu(why.seen_at))
                for name, why in sorted(nodes.facts.evidence.items())
            },
            look=None
            if look is None
            else LookView(
                state=look.state,
                message=look.message,
                beganAt=zulu(look.intended_at),
                remoteJobId=look.remote_id,
            ),
        )
