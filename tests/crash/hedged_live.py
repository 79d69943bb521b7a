"""Jobs that wait in two queues of a real cluster at once, while Berth is killed and either link is cut.

The cluster is known to Berth as two systems, each behind a link of its own. All nodes are busy until every job waits in
both, and then are free at once, so that leads and copies start side by side. The site holds some leads back, and lets
them go one by one: their copies start first, or at the same time. Payloads write to a file of their own.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from testbed import Cluster
from testbed.server import Server
from tests.crash.link import Link
from tests.end_to_end.wire import TERMINAL, Wire

RUNS = "/shared/hedged/runs"
PAYLOAD = f'echo "$_tapisJobUUID $_tapisExecSystemId $SLURM_JOB_ID" >> {RUNS}; sleep 1'
SYSTEMS: Mapping[str, str] = {"north": "cpu", "south": "debug"}
"""Berth's name of each half, and the partition that it may use."""

START_S = 240.0
"""How long a killed Berth may take to come back on a machine that does much else."""

SETTINGS = {"lost_after_s": "30", "watch_min_s": "1", "watch_max_s": "3", "lease_s": "15", "snapshot_interval_s": "15"}
OCCUPY = (
    "sbatch --parsable --partition=cpu --nodes=4 --exclusive --time=30 --chdir=/ --output=/dev/null --wrap='sleep 1800'"
)


@dataclass
class HedgedLive:
    """``jobs`` hedged jobs; the disorder begins when all wait, and lasts until most have ended."""

    cluster: Cluster
    server: Server
    jobs: int = 50
    seed: int = 1
    wait_s: float = 300.0
    struck: Counter[str] = field(default_factory=Counter)
    held: list[str] = field(default_factory=list)
    """Slurm's ids of the leads that are held back."""

    def run(self) -> Mapping[str, Any]:
        """What was found: lines of the payloads by job, states by job, attempts that waited, strikes."""
        self.cluster.sh("login", f"mkdir -p {Path(RUNS).parent} && : > {RUNS} && chmod 777 {Path(RUNS).parent} {RUNS}")
        blocker = self.cluster.sh("login", OCCUPY, user="bob").strip()
        info = self.cluster.info()
        target = (info["ssh"]["host"], info["ssh"]["port"])
        with Link(target) as north, Link(target) as south:
            self.server.start(START_S)
            try:
                for link, name in ((north, "north"), (south, "south")):
                    self._register({**info, "ssh": {**info["ssh"], "port": link.port}}, name)
                uuids = [self._submitted(number) for number in range(self.jobs)]
                hedged = self._await_copies(uuids)
                self._hold_back(uuids[::2])
                self.cluster.sh("login", f"scancel {blocker}")
                self._strike_until_over(uuids, (north, south))
                return self._found(uuids, hedged)
            finally:
                self.server.stop()
                self.cluster.sh("login", f"scancel {blocker}", check=False)

    @cached_property
    def _wire(self) -> Wire:
        return Wire(self.server.url)

    def _register(self, info: Mapping[str, Any], name: str) -> None:
        """One half: the queue of its partition alone, and copies are welcome."""
        key = Path(info["ssh"]["users"]["alice"]["key"]).read_text()
        login = {"host": info["ssh"]["host"], "port": info["ssh"]["port"], "loginUser": "alice", "privateKey": key}
        found = self._wire.post("/v3/systems/probe", {**login, "systemId": name})["definition"]
        queues = [one for one in found["batchLogicalQueues"] if one["hpcQueueName"] == SYSTEMS[name]]
        notes = {"berth": {"plainHttpRegistries": ["login:5000"], "allowCopies": True}}
        half = {"id": name, "batchLogicalQueues": queues, "batchDefaultLogicalQueue": queues[0]["name"], "notes": notes}
        self._wire.post("/v3/systems", {**found, **half})
        self._wire.post(f"/v3/systems/credential/{name}/user/admin", {"loginUser": "alice", "privateKey": key})

    def _submitted(self, number: int) -> str:
        words = [{"name": f"w{place}", "arg": word} for place, word in enumerate(("sh", "-c", PAYLOAD))]
        body = {
            "name": f"hedged-{number}",
            "notes": {"berth": {"image": self.cluster.info()["demo_image"]["from_nodes"], "hedge": 2}},
            "memoryMB": 50,
            "maxMinutes": 5,
            "parameterSet": {"appArgs": words, "containerArgs": [{"name": "b", "arg": "--bind /shared"}]},
        }
        return str(self._wire.post("/v3/jobs/submit", body, key=f"{self.seed}-{number}")["uuid"])

    def _await_copies(self, uuids: Sequence[str]) -> int:
        """How many jobs wait in both places, once almost all do."""
        until = time.monotonic() + self.wait_s
        while True:
            waiting = sum(self._waits_twice(uuid) for uuid in uuids)
            if waiting >= 0.95 * len(uuids) or time.monotonic() > until:
                return waiting
            time.sleep(3)

    def _waits_twice(self, uuid: str) -> bool:
        return any(copy["state"] == "QUEUED" for copy in self._wire.get(f"/v3/jobs/{uuid}/why")["copies"])

    def _hold_back(self, uuids: Sequence[str]) -> None:
        self.held = [self._wire.get(f"/v3/jobs/{uuid}")["remoteJobId"] for uuid in uuids]
        self.cluster.sh("login", f"scontrol hold {' '.join(self.held)}")

    def _release(self, most: int) -> None:
        """Let some go that were held; Berth may have withdrawn them by now."""
        some, self.held = self.held[:most], self.held[most:]
        if some:
            self.cluster.sh("login", f"scontrol release {' '.join(some)}", check=False)

    # -- the disorder -----------------------------------------------------------------------------------------------

    def _strike_until_over(self, uuids: Sequence[str], links: Sequence[Link]) -> None:
        calm = threading.Event()
        disorder = threading.Thread(target=self._strike, args=(calm, links))
        disorder.start()
        until = time.monotonic() + self.wait_s
        try:
            while time.monotonic() < until and self._unfinished() > 0.1 * len(uuids):
                time.sleep(1)
        finally:
            calm.set()
            disorder.join()
        self._release(len(self.held))
        until = time.monotonic() + self.wait_s
        while time.monotonic() < until and self._unfinished():
            time.sleep(1)

    def _strike(self, calm: threading.Event, links: Sequence[Link]) -> None:
        chance = random.Random(self.seed)
        while not calm.wait(chance.uniform(1.0, 5.0)):
            self._release(chance.randint(0, 2))
            if chance.random() < 0.5:
                self.struck["berth killed"] += 1
                self.server.kill()
                time.sleep(chance.uniform(0.0, 1.0))
                self.server.start(START_S)
            else:
                link = chance.choice(links)
                self.struck["link cut"] += 1
                link.cut()
                time.sleep(chance.choice((0.0, 0.5, 3.0)))
                link.heal()

    def _unfinished(self) -> int:
        try:
            listed = self._wire.get("/v3/jobs/list", limit=self.jobs + 10)
        except httpx.TransportError:  # it was just killed
            return self.jobs
        return sum(job["status"] not in TERMINAL for job in listed)

    # -- what is found ----------------------------------------------------------------------------------------------

    def _found(self, uuids: Sequence[str], hedged: int) -> Mapping[str, Any]:
        lines = [line.split() for line in self.cluster.sh("login", f"cat {RUNS}").splitlines()]
        runs, places = Counter(line[0] for line in lines), Counter(line[1] for line in lines)
        jobs = {uuid: self._wire.get(f"/v3/jobs/{uuid}") for uuid in uuids}
        details = Counter(
            line["eventDetail"] for uuid in uuids for line in self._wire.get(f"/v3/jobs/{uuid}/history", limit=1000)
        )
        return {
            "runs": {uuid: runs[uuid] for uuid in uuids},
            "strangers": set(runs) - set(uuids),
            "states": Counter(job["status"] for job in jobs.values()),
            "failed": [job["lastMessage"] for job in jobs.values() if job["status"] != "FINISHED"],
            "hedged": hedged,
            "handed_over": details["HANDED_OVER"],
            "places": dict(places),
            "events": dict(details),
            "struck": dict(self.struck),
        }
