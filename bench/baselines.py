"""What others do, as brokers of the protocol: the rows that the engine is printed beside."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from statistics import median
from typing import Any

from placement.easy import NEVER_S, Cluster, Load

Message = Mapping[str, Any]


class LeastLoaded:
    """The system with the least work asked for per core."""

    def __call__(self, message: Message) -> Message:
        if message["type"] == "init":
            self._cores = {s["name"]: s["procs"] for s in message["systems"]}
            return {}
        return {"submit": [min(message["job"]["options"], key=lambda n: (self._load_s(n, message), n))]}

    def _load_s(self, name: str, message: Message) -> float:
        shown, now = message["systems"][name], message["now"]
        left = sum(j[1] * max(0.0, j[4] + j[2] - now) for j in shown["running"])
        return (left + sum(j[1] * j[2] for j in shown["waiting"])) / self._cores[name]


class MedianWait:
    """The system with the least median of the latest waits, run included."""

    def __call__(self, message: Message) -> Message:
        if message["type"] == "init":
            self._waits: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=200))
            return {}
        for name, shown in message["systems"].items():
            self._waits[name].extend(j[4] - j[3] for j in shown["finished"])
        options = message["job"]["options"]
        return {"submit": [min(options, key=lambda n: (median(self._waits[n] or [0.0]) + options[n]["req"], n))]}


class Everywhere:
    """A copy in every system."""

    def __call__(self, message: Message) -> Message:
        return {} if message["type"] == "init" else {"submit": sorted(message["job"]["options"])}


class BelievesRequests:
    """EASY on what everybody asks for, as ``--test-only`` does: the earliest end."""

    def __call__(self, message: Message) -> Message:
        if message["type"] == "init":
            self._cores = {s["name"]: s["procs"] for s in message["systems"]}
            return {}
        return {"submit": [min(message["job"]["options"], key=lambda n: (self._end_s(n, message), n))]}

    def _end_s(self, name: str, message: Message) -> float:
        now, job, shown = message["now"], message["job"], message["systems"][name]
        option = job["options"][name]
        cluster = Cluster(self._cores[name], now)
        for id_, cores, asked_s, submitted_s, started_s, *_ in shown["running"]:
            cluster.run(Load(id_, cores, asked_s, asked_s, submitted_s, 0.0), started_s)
        for n, (id_, cores, asked_s, submitted_s, *_) in enumerate(shown["waiting"]):
            cluster.enter(Load(id_, cores, asked_s, asked_s, submitted_s, float(n)), now)
        at_s = now + option["stage"]
        cluster.enter(Load(job["id"], job["procs"], option["req"], option["req"], at_s, NEVER_S), at_s)
        while cluster.next_s < NEVER_S:
            for start in cluster.step():
                if start.load.id == job["id"]:
                    return start.at_s + option["req"]
        return NEVER_S


BASELINES = {
    "least-loaded": LeastLoaded,
    "hist-median": MedianWait,
    "redundant": Everywhere,
    "sim-ect": BelievesRequests,
}
