"""The crash campaign: many jobs on a real cluster while Berth, the ssh link and slurmctld are killed at random.

Every payload appends one line to a file that Berth does not own. At the end that file holds exactly one line per job,
every job has ended once, and accounting holds at most one Slurm job that ran user code per attempt.

The disorder comes from one seed, which is printed; the instants at which it strikes are those of a real machine.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from testbed import Cluster
from testbed.server import Server
from tests.crash.link import Link
from tests.end_to_end.wire import TERMINAL, Wire

SYSTEM = "crash"
RUNS = "/shared/crash/runs"
STRAY_EXIT = 119
"""How a duplicate ends that found its marker claimed: before any user code."""

PAYLOAD = f'echo "$_tapisJobUUID $SLURM_JOB_ID" >> {RUNS}; sleep 1'

SETTINGS = {"lost_after_s": "20", "watch_min_s": "1", "watch_max_s": "3", "lease_s": "15", "snapshot_interval_s": "15"}
"""Patience in seconds instead of minutes: the campaign must see what takes ten minutes in production."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the campaign found. ``strikes`` counts what was done to the system, by kind.

    strangers: what ran or is listed without having been answered to anybody, like a request that was taken twice.
    """

    states: Mapping[str, Sequence[str]]
    strangers: frozenset[str]
    runs: Mapping[str, int]
    endings: Mapping[str, int]
    ran_user_code: Mapping[str, int]
    attempts: Mapping[str, int]
    strikes: Mapping[str, int]
    seconds: float
    messages: Mapping[str, str]

    def __str__(self) -> str:
        states = ", ".join(f"{state} {len(uuids)}" for state, uuids in self.states.items())
        strikes = ", ".join(f"{kind} {count}" for kind, count in sorted(self.strikes.items()))
        again = sum(count > 1 for count in self.attempts.values())
        return f"{len(self.runs)} jobs in {self.seconds:.0f} s: {states}; {strikes}; {again} jobs needed more attempts"


@dataclass
class Campaign:
    """One campaign. ``calm_after_s`` bounds the disorder; what is left then must still come to its end."""

    cluster: Cluster
    home: Path
    port: int | None = None
    jobs: int = 200
    seed: int = 1
    calm_after_s: float = 600.0
    finish_within_s: float = 300.0
    strikes: Counter[str] = field(default_factory=Counter)

    def run(self) -> Verdict:
        began = time.monotonic()
        self.cluster.sh("login", f"mkdir -p {Path(RUNS).parent} && : > {RUNS} && chmod 777 {Path(RUNS).parent} {RUNS}")
        info = self.cluster.info()
        with Link((info["ssh"]["host"], info["ssh"]["port"])) as link:
            server = Server(self.home, self.port, **SETTINGS)
            server.start()
            try:
                self._register(server, info, link)
                uuids = self._under_fire(server, link)
                self._calm(server, link)
                return self._judge(server, uuids, time.monotonic() - began)
            finally:
                server.stop()

    # -- the jobs ----------------------------------------------------------------------------------------------------

    def _register(self, server: Server, info: Mapping[str, Any], link: Link) -> None:
        through = {**info, "ssh": {**info["ssh"], "port": link.port}}
        Wire(server.url).register(through, SYSTEM)

    def _under_fire(self, server: Server, link: Link) -> Sequence[str]:
        """Submit everything and watch it end, while disorder reigns."""
        stop = threading.Event()
        chaos = [
            threading.Thread(target=self._strike, args=(stop, number, strike))
            for number, strike in enumerate((self._kill_berth(server), self._cut(link), self._hit_slurmctld()))
        ]
        for thread in chaos:
            thread.start()
        try:
            uuids = [self._submitted(server, number) for number in range(self.jobs)]
            until = time.monotonic() + self.calm_after_s
            while time.monotonic() < until and self._unfinished(server, uuids) > self.jobs * 0.1:
                time.sleep(1)
            return uuids
        finally:
            stop.set()
            for thread in chaos:
                thread.join()

    def _submitted(self, server: Server, number: int) -> str:
        """The uuid of the n-th job: the same request under the same key, until it is answered."""
        image = self.cluster.info()["demo_image"]["from_nodes"]
        words = [{"name": f"w{place}", "arg": word} for place, word in enumerate(("sh", "-c", PAYLOAD))]
        body = {
            "name": f"crash-{number}",
            "notes": {"berth": {"image": image}},
            "memoryMB": 50,
            "maxMinutes": 5,
            "parameterSet": {"appArgs": words, "containerArgs": [{"name": "b", "arg": "--bind /shared"}]},
        }
        return str(_patiently(server, lambda wire: _submit(wire, body, f"{self.seed}-{number}"))["uuid"])

    def _unfinished(self, server: Server, uuids: Sequence[str]) -> int:
        listed = _patiently(server, lambda wire: wire.get("/v3/jobs/list", limit=len(uuids) + 10))
        return sum(job["status"] not in TERMINAL for job in listed)

    # -- the disorder ------------------------------------------------------------------------------------------------

    def _strike(self, stop: threading.Event, number: int, strike: Callable[[random.Random], None]) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        while not stop.wait(chance.uniform(1.0, 6.0)):
            strike(chance)

    def _kill_berth(self, server: Server) -> Callable[[random.Random], None]:
        def strike(chance: random.Random) -> None:
            time.sleep(chance.uniform(0.0, 9.0))
            self.strikes["berth SIGKILL"] += 1
            server.kill()
            time.sleep(chance.uniform(0.0, 1.0))
            server.start()

        return strike

    def _cut(self, link: Link) -> Callable[[random.Random], None]:
        def strike(chance: random.Random) -> None:
            self.strikes["link cut"] += 1
            link.cut()
            time.sleep(chance.choice((0.0, 0.0, 0.5, 3.0)))
            link.heal()

        return strike

    def _hit_slurmctld(self) -> Callable[[random.Random], None]:
        def strike(chance: random.Random) -> None:
            time.sleep(chance.uniform(6.0, 16.0))
            how = chance.choice(("SIGTERM", "SIGTERM", "SIGKILL"))
            self.strikes[f"slurmctld {how}"] += 1
            (self.cluster.kill if how == "SIGKILL" else self.cluster.stop)("login", "slurmctld")
            time.sleep(chance.uniform(0.0, 2.0))
            self._slurmctld_back()

        return strike

    def _slurmctld_back(self) -> None:
        """Start it, and do what its operators do: it drains a node that still knows an id that it issues again."""
        self.cluster.start("login", "slurmctld")
        self.cluster.sh("login", "scontrol update nodename=ALL state=resume", check=False)

    def _calm(self, server: Server, link: Link) -> None:
        link.heal()
        self._slurmctld_back()
        with contextlib.suppress(Exception):
            server.stop()
        server.start()

    # -- the judgement -----------------------------------------------------------------------------------------------

    def _judge(self, server: Server, uuids: Sequence[str], seconds: float) -> Verdict:
        wire = Wire(server.url)
        until = time.monotonic() + self.finish_within_s
        while self._unfinished(server, uuids) and time.monotonic() < until:
            self._slurmctld_back()
            time.sleep(2)
        ended = {uuid: wire.get(f"/v3/jobs/{uuid}") for uuid in uuids}
        states: dict[str, list[str]] = {}
        for uuid, job in ended.items():
            states.setdefault(job["status"], []).append(uuid)
        histories = {uuid: wire.get(f"/v3/jobs/{uuid}/history", limit=500) for uuid in uuids}
        moves = {
            uuid: Counter(line["eventDetail"] for line in lines if line["event"] == "JOB_NEW_STATUS")
            for uuid, lines in histories.items()
        }
        runs = Counter(line.split()[0] for line in self.cluster.sh("login", f"cat {RUNS}").splitlines())
        listed = {job["uuid"] for job in wire.get("/v3/jobs/list", limit=2 * self.jobs)}
        return Verdict(
            states=states,
            strangers=frozenset(runs.keys() | listed) - frozenset(uuids),
            runs={uuid: runs[uuid] for uuid in uuids},
            endings={uuid: sum(moves[uuid][state] for state in TERMINAL) for uuid in uuids},
            ran_user_code=self._accounted(),
            attempts={uuid: moves[uuid]["SUBMITTING_JOB"] for uuid in uuids},
            strikes=self.strikes,
            seconds=seconds,
            messages={uuid: job["lastMessage"] for uuid, job in ended.items()},
        )

    def _accounted(self) -> Mapping[str, int]:
        """Slurm jobs per marker that ran user code, as accounting tells: strays say that they were by their exit."""
        since = "now-1hours"
        rows = self.cluster.sh(
            "login", f"sacct -a -X -n -P -S {since} --duplicates -o JobName%100,State,ExitCode,Start", timeout_s=60
        )
        ran: Counter[str] = Counter()
        for name, state, exit_code, start in (row.split("|") for row in rows.splitlines() if row.startswith("berth-")):
            if start not in ("Unknown", "None") and exit_code.split(":")[0] != str(STRAY_EXIT) and state != "PENDING":
                ran[name] += 1
        return ran


def _submit(wire: Wire, body: Mapping[str, Any], key: str) -> Any:
    return wire._result(wire.http.post("/v3/jobs/submit", json=body, headers={"Idempotency-Key": key}))


def _patiently(server: Server, ask: Callable[[Wire], Any], timeout_s: float = 120) -> Any:
    """Ask until a server answers: it may be dead at this moment, and be another one at the next."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            with _wire(server) as wire:
                return ask(wire)
        except httpx.TransportError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


@contextlib.contextmanager
def _wire(server: Server) -> Iterator[Wire]:
    wire = _WIRES.get(server.url)
    if wire is None:
        wire = _WIRES[server.url] = Wire(server.url)
    yield wire


_WIRES: dict[str, Wire] = {}
"""One login per server: its tokens outlive its processes."""
