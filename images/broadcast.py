"""What a job carries to bring an image to its nodes: the relay and its instructions, and the lines that start it.

The files belong into the job's ``StagePlan``, the lines into its preamble. Names of nodes are known to the preamble
alone, so the instructions leave them out; they stand in a file that it writes.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from images.staging import RelayPlan, SbcastPlan, sbcast_argv, sbcast_block_bytes, sbcast_rounds
from scheduler.model.errors import SpecInvalid
from scheduler.model.runs import StagedFile

PROGRAM = Path(__file__).with_name("programs") / "relay.py"
REPORT_NAME, TOKEN_NAME = "report", "token"
FALLBACK_FANOUT_NODES = 2
LEAST_SHARE = 0.1
"""Of a link's rate: below that a parent is slow, and passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Where one job's broadcast takes place; absolute paths on the system.

    folder: on the shared file system, of this attempt alone. source: the image in the site's store. destination: on
    each node's local disk. index: the chunks of the image, ``<length> <sha256>`` a line, as the store keeps them.
    """

    folder: str
    source: str
    destination: str
    index: str
    order: tuple[str, ...] = ()
    interface: str | None = None
    """Of the cluster's network; None: the one from which the other nodes are reached."""
    link_bytes_per_s: float | None = None

    @property
    def meeting(self) -> str:
        return posixpath.join(self.folder, "meeting")

    @property
    def directories(self) -> tuple[str, ...]:
        """Those that must be there when the job begins."""
        return self.folder, self.meeting

    @property
    def report(self) -> str:
        """What came of it, node by node."""
        return posixpath.join(self.folder, REPORT_NAME)

    def __post_init__(self) -> None:
        for field in ("folder", "source", "destination"):
            if not re.fullmatch(r"(/[^/\0\n]+)+", getattr(self, field)):
                raise SpecInvalid.of(field, "is not an absolute path of a file or directory", "begin it with /")


def errand_files(plan: RelayPlan, errand: Errand, token: str) -> tuple[StagedFile, ...]:
    """The program, its instructions and the one-time token (64 hex digits, fresh for each attempt), all owner-only."""
    if not re.fullmatch(r"[0-9a-f]{64}", token):
        raise SpecInvalid.of("token", "is not 256 bits in hex", "take secrets.token_hex(32)")
    index = errand.index.encode("ascii")
    told = {
        "digest": plan.digest,
        "size_bytes": plan.size_bytes,
        "index_path": _in(errand, "index"),
        "index_digest": "sha256:" + hashlib.sha256(index).hexdigest(),
        "peers_path": _in(errand, "nodes"),
        "order": errand.order,
        "parents": plan.parents,
        "token_path": _in(errand, TOKEN_NAME),
        "meeting_dir": errand.meeting,
        "source": errand.source,
        "destination": errand.destination,
        "interface": errand.interface,
        "least_bytes_per_s": int((errand.link_bytes_per_s or 0) * LEAST_SHARE),
    }
    return (
        StagedFile(_in(errand, "relay.py"), PROGRAM.read_bytes(), 0o500),
        StagedFile(_in(errand, "relay.json"), json.dumps(told).encode(), 0o600),
        StagedFile(_in(errand, "index"), index, 0o600),
        StagedFile(_in(errand, TOKEN_NAME), token.encode("ascii"), 0o600),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What nodes reported of a broadcast. read_from: ``copies`` or ``store``, what they read in the end; else unknown.

    nodes: with a copy by the relay. ready_s: until the last of them had it; None where some had none. moved_bytes:
    between nodes, and from the store to the first. troubles: why a node had none, by its name. restarts: how often the
    run had begun again when it said what it reads.
    """

    read_from: str
    nodes: int
    ready_s: float | None
    moved_bytes: int
    troubles: Mapping[str, str]
    restarts: int | None = None


def outcome_of(report: str) -> Outcome:
    """Read a report; the last word of each node counts, and lines of other programs are passed over."""
    read_from, restarts, last = "", None, {}
    for line in report.splitlines():
        said = _object(line)
        if isinstance(node := said.get("node"), str):
            last[node] = said
        if "read_from" in said:
            read_from, restarts = said["read_from"], said.get("restarts")
    ready_s = [said["ready_s"] for said in last.values() if isinstance(said.get("ready_s"), int | float)]
    arrivals = [said.get("bytes_in") for said in last.values()]
    moved = [count for each in arrivals if isinstance(each, dict) for count in each.values() if isinstance(count, int)]
    return Outcome(
        read_from=read_from if read_from in ("copies", "store") else "",
        nodes=len(ready_s),
        ready_s=max(ready_s) if ready_s and len(ready_s) == len(last) else None,
        moved_bytes=sum(moved),
        troubles={
            node: f"{said.get('outcome')}: {said.get('why', '')}"[:200]
            for node, said in last.items()
            if said.get("outcome") != "ok"
        },
        restarts=restarts if isinstance(restarts, int) else None,
    )


def _object(line: str) -> dict[str, Any]:
    """The JSON object that a line is; empty for any other line."""
    if not line.startswith("{"):
        return {}
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def preamble(plan: RelayPlan | SbcastPlan, errand: Errand) -> str:
    """Lines of ``sh`` that end well once every node of the allocation has the image, whole; they change no settings.

    A relay that did not serve everybody is tried once more, which repairs what is missing; what it cannot do, Slurm's
    own broadcast does, whose copy gets its name only after its digest was seen to be right.
    """
    broadcast = _sbcast_lines(plan, errand)
    if isinstance(plan, SbcastPlan):
        return broadcast + "\n"
    relay = _srun(["python3", "-I", _in(errand, "relay.py"), "run", _in(errand, "relay.json")])
    nodes = f'scontrol show hostnames "$SLURM_JOB_NODELIST" > {quote(_in(errand, "nodes"))}'
    return f"{nodes} &&\n{{ {relay} ||\n{relay} ||\n{{ {broadcast}; }}; }}\n"


def _sbcast_lines(plan: RelayPlan | SbcastPlan, errand: Errand) -> str:
    fanout = plan.fanout_nodes if isinstance(plan, SbcastPlan) else FALLBACK_FANOUT_NODES
    passes = plan.pass_count if isinstance(plan, SbcastPlan) else sbcast_rounds(len(plan.parents), fanout)
    block_bytes = sbcast_block_bytes(passes, errand.link_bytes_per_s)
    arriving = errand.destination + ".sbcast"
    folder = posixpath.dirname(errand.destination)
    wanted = f"{plan.digest.removeprefix('sha256:')}  {arriving}"
    check = f"printf '%s\\n' {quote(wanted)} | sha256sum -c --status -"
    name_it = f"{check} && mv -f {quote(arriving)} {quote(errand.destination)}"
    steps = (
        _srun(["mkdir", "-p", "-m", "700", folder]),
        " ".join(map(quote, sbcast_argv(errand.source, arriving, fanout, block_bytes))),
        _srun(["sh", "-c", name_it]),
    )
    return " &&\n".join(steps)


def _srun(argv: Sequence[str]) -> str:
    """One task on every node; one that fails must not end the others."""
    step = 'srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task=1'
    return f"{step} --kill-on-bad-exit=0 --wait=0 {' '.join(map(quote, argv))} < /dev/null"


def _in(errand: Errand, name: str) -> str:
    return posixpath.join(errand.folder, name)
