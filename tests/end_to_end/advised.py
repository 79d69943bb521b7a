"""Queues in which a job waits that would start sooner if it asked for less: for ``test_advice``.

Minutes stand for hours. What is in a job's way says how long it takes and ends earlier, as most jobs do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.slurm_conf import CPUS_PER_NODE
from tests.end_to_end.places import DEMO_IMAGE, SCRIPT

SPARE, TAKEN = "spare", "taken"
"""Licences: one that is free, and one that somebody has."""


@dataclass(frozen=True)
class Load:
    """Somebody's job, which says so many minutes and takes so many seconds."""

    nodes: int
    says_min: int = 20
    takes_s: int = 480
    cores: int = CPUS_PER_NODE
    licence: str = ""

    def script(self, queue: str) -> str:
        size = f"--nodes={self.nodes} --ntasks-per-node=1 --cpus-per-task={self.cores} --mem=100M"
        size += f" --licenses={self.licence}" if self.licence else ""
        job = f"--partition={queue} --time={self.says_min} {size} --output=/dev/null --wrap='sleep {self.takes_s}'"
        return f"runuser -u bob -- sbatch --quiet --chdir=/tmp {job}\n"


@dataclass(frozen=True)
class Window:
    """A minute, in so many of them, for which the first nodes of a queue are kept free."""

    nodes: int
    in_min: int
    flags: str = "MAINT,IGNORE_JOBS"

    def script(self, queue: str, nodes: Sequence[str]) -> str:
        return (
            f"scontrol --quiet create reservation ReservationName={queue} Users=root Flags={self.flags} "
            f"Nodes={','.join(nodes[: self.nodes])} StartTime=now+{self.in_min}minutes Duration=1\n"
        )


@dataclass(frozen=True)
class Case:
    """A queue of so many nodes, what is in it, a job that joins, and what the advice is to change of its request.

    beside: nodes of a second queue, in which nothing runs, and its limits.
    """

    name: str
    queue: str
    queue_nodes: int
    changes: str
    running: tuple[Load, ...] = ()
    in_line: tuple[Load, ...] = ()
    window: Window | None = None
    drained: int = 0
    beside: tuple[int, str] = (0, "")
    nodes: int = 1
    cores: int = CPUS_PER_NODE
    licence: str = ""

    @property
    def queues(self) -> tuple[str, ...]:
        return (self.queue, f"{self.queue}2") if self.beside[0] else (self.queue,)

    def request(self, **change: Any) -> dict[str, Any]:
        """The job as the API takes it; Berth chooses among the queues of the case."""
        names = ", ".join(f"'{name}'" for name in self.queues)
        options = [f"--licenses={self.licence}:1"] if self.licence else []
        return {
            "name": "advised",
            "appId": "berth.image",
            "appVersion": "1",
            "nodeCount": self.nodes,
            "coresPerNode": self.cores,
            "memoryMB": 200,
            "maxMinutes": 30,
            "dynamicExecSystem": True,
            "execSystemConstraints": [f"name IN ({names})"],
            "parameterSet": {"schedulerOptions": [{"name": text, "arg": text} for text in options]},
            "notes": {"berth": {"image": DEMO_IMAGE, "command": ["sh", "-c", SCRIPT]}},
            **change,
        }


SHORT = Load(1, says_min=15, takes_s=360)
"""Leaves a hole of six minutes in what is likely, and of fifteen in what is sure."""

CASES = (
    Case("a hole before a larger job", "hole", 2, "maxMinutes", (SHORT,), (Load(2, 5, 60),)),
    Case("a hole of one node in three", "wide", 3, "maxMinutes", (Load(2, 15, 360),), (Load(3, 5, 60),)),
    Case("a hole of two nodes", "pair", 4, "maxMinutes", (Load(2, 15, 360),), (Load(4, 5, 60),), nodes=2),
    Case("a hole before two larger jobs", "line", 2, "maxMinutes", (SHORT,), (Load(2, 5, 60),) * 2),
    Case("a hole in a node", "cores", 1, "maxMinutes", (Load(1, 15, 360, cores=2),), (Load(1, 5, 60),), cores=2),
    Case("a hole, and a licence that is free", "licence", 2, "maxMinutes", (SHORT,), (Load(2, 5, 60),), licence=SPARE),
    Case("maintenance is ahead", "upkeep", 1, "maxMinutes", window=Window(1, 8)),
    Case("a reservation of others is ahead", "project", 1, "maxMinutes", window=Window(1, 8, "IGNORE_JOBS")),
    Case("maintenance behind a job that ends soon", "soon", 1, "maxMinutes", (Load(1, 1, 50),), window=Window(1, 9)),
    Case("maintenance of one node of two", "half", 2, "maxMinutes", window=Window(1, 8), nodes=2),
    Case("the other node stays open", "other", 2, "nodeCount", window=Window(1, 8), nodes=2),
    Case("two nodes of four are free", "two", 4, "nodeCount", (Load(2),), nodes=4),
    Case("two nodes of three are free", "third", 3, "nodeCount", (Load(1),), nodes=3),
    Case("one node of two is free", "both", 2, "nodeCount", (Load(1),), nodes=2),
    Case("one node of three is free", "lone", 3, "nodeCount", (Load(2),), nodes=3),
    Case("three nodes of four are free", "most", 4, "nodeCount", (Load(1),), nodes=4),
    Case("nodes are held for different times", "ends", 3, "nodeCount", (SHORT, Load(1, 25, 600)), nodes=3),
    Case("a node is drained", "drained", 3, "nodeCount", (Load(1),), drained=1, nodes=2),
    Case("a queue of short jobs is idle", "long", 1, "maxMinutes", (Load(1),), beside=(1, "MaxTime=5")),
    Case("a queue of small jobs is idle", "large", 2, "nodeCount", (Load(2),), beside=(2, "MaxNodes=1"), nodes=2),
)

"""In each following the advice pays."""

NOTHING_HELPS = (
    Case("free cores lie on nodes that are partly used", "pieces", 2, "", (Load(1, cores=3),) * 2, nodes=2, cores=2),
    Case("the licence is taken", "keys", 2, "", (Load(1, licence=TAKEN),), nodes=2, licence=TAKEN),
    Case("everything is taken", "full", 2, "", (Load(2),)),
)


def layout() -> Mapping[str, Sequence[str]]:
    """The nodes of each queue; no two share any."""
    cases = (*CASES, *NOTHING_HELPS)
    sizes = [size for case in cases for size in zip(case.queues, (case.queue_nodes, case.beside[0]), strict=False)]
    found: dict[str, Sequence[str]] = {}
    used = 0
    for queue, size in sizes:
        found[queue] = [f"n{number}" for number in range(used + 1, used + size + 1)]
        used += size
    return found


def partitions() -> str:
    """The queues, for slurm.conf."""
    limits = {case.queues[-1]: case.beside[1] for case in CASES if case.beside[0]}
    lines = [
        f"PartitionName={queue} Nodes={','.join(nodes)} DefMemPerCPU=100 {limits.get(queue) or 'MaxTime=1-0'}"
        for queue, nodes in layout().items()
    ]
    return "\n".join([f"Licenses={SPARE}:1,{TAKEN}:1", *lines])


# -- what an advice says -----------------------------------------------------------------------------------------------

WORDS = re.compile(
    r"(?:(?P<maxMinutes>\d+) min instead of .* of walltime|(?P<nodeCount>\d+) nodes? instead of \d+)"
    r": about (?P<gain>[\d.]+) (?P<unit>s|min|h) earlier, in queue '(?P<queue>\w+)' of '\w+'"
)
UNITS_S = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Advice:
    """An advice as people read it: how the request is to change, and what that gains."""

    words: str
    change: Mapping[str, Any]
    gain_s: float

    @classmethod
    def read(cls, said: Sequence[str], changes: str) -> Advice | None:
        """The one that changes that field of the request; None: nobody advises that."""
        for text in said:
            match = WORDS.match(text)
            if match and match[changes]:
                change = {changes: int(match[changes]), "execSystemLogicalQueue": match["queue"]}
                return cls(text, change, float(match["gain"]) * UNITS_S[match["unit"]])
        return None
