"""How a job's image came to its nodes, as they reported it: told in the history once the run has ended."""

from __future__ import annotations

import json
import posixpath

from images.broadcast import REPORT_NAME, Outcome, outcome_of
from images.staging import Policy
from scheduler.judge import policy_there
from scheduler.model.errors import FileMissing, FileRefused
from scheduler.model.ids import Marker, marker_for
from scheduler.model.jobs import HistoryEvent, Job
from scheduler.model.units import format_size
from scheduler.ports import Ports
from scheduler.reconcile.handing import broadcast_folder
from scheduler.reconcile.sides import Side, exec_side
from scheduler.reconcile.steps import Hands

MOST_BYTES = 4 * 2**20
"""Of a report: a thousand nodes write one."""


async def image_on_nodes(job: Job, hands: Hands) -> HistoryEvent | None:
    """None for a job whose nodes had no copies made."""
    if job.image is None or job.attempt == 0:
        return None
    side = await exec_side(hands.ports, job)
    outcome = await outcome_there(side, marker_for(job.uuid, job.attempt), hands.ports)
    if outcome is None:
        return None
    return HistoryEvent(
        event="JOB_USER_EVENT", detail="IMAGE_ON_NODES", description=in_words(outcome), at=hands.ports.clock()
    )


async def outcome_there(side: Side, marker: Marker, ports: Ports) -> Outcome | None:
    """What nodes reported so far of a broadcast; None where there was none."""
    policy = policy_there(side.system)
    if policy is None or policy.delivery is Policy.SHARED:
        return None
    folder = broadcast_folder(side, marker)
    path = posixpath.relpath(posixpath.join(folder, REPORT_NAME), posixpath.join("/", side.system.root_dir))
    storage = await side.storage(ports)
    try:
        report = b"".join([piece async for piece in storage.read(path, length_bytes=MOST_BYTES)])
    except (FileMissing, FileRefused):
        return None
    return outcome_of(report.decode("utf-8", "replace"))


def in_words(outcome: Outcome) -> str:
    """The line of history, as JSON: a sentence and figures."""
    troubles = "; ".join(f"{node}: {why}" for node, why in sorted(outcome.troubles.items())[:3])
    if outcome.read_from != "copies":
        sentence = "nodes read the image from the store" + (f", as copies failed ({troubles})" if troubles else "")
    elif outcome.ready_s is None:
        sentence = "Slurm's broadcast brought the image to the nodes" + (
            f", not the relay ({troubles})" if troubles else ""
        )
    else:
        moved = format_size(outcome.moved_bytes)
        sentence = f"{outcome.nodes} nodes had copies after {outcome.ready_s:.1f} s; {moved} moved between them"
    figures = {"nodes": outcome.nodes, "ready_s": outcome.ready_s, "moved_bytes": outcome.moved_bytes}
    return json.dumps({"sentence": sentence, "read_from": outcome.read_from, **figures})
