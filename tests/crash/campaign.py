"""The crash campaign: many jobs on a real cluster while Berth, the ssh link and slurmctld are killed at random.

Every payload appends one line to a file that Berth does not own; what that file, Berth and accounting say in the end
is judged by ``judgement.faults``.

The disorder comes from one seed, which is printed; the instants at which it strikes are those of a real machine.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from testbed import Cluster
from testbed.server import Server
from tests.crash.judgement import Fate, Verdict, jobs_by_attempt
from tests.crash.link import Link
from tests.end_to_end.wire import TERMINAL, Wire

SYSTEM = "crash"
RUNS = "/shared/crash/runs"
PAYLOAD = f'echo "$_tapisJobUUID $SLURM_JOB_ID" >> {RUNS}; sleep 1'

SETTINGS = {"lost_after_s": "20", "watch_min_s": "1", "watch_max_s": "3", "lease_s": "15", "snapshot_interval_s": "15"}
"""Patience in seconds instead of minutes: the campaign must see what takes ten minutes in production."""

ALMOST_ALL = 0.9
"""The disorder ends when so many of the jobs have ended; the last ones must come to their end by themselves."""

BERTH, LINK, TERM, KILL = STRIKES = ("berth SIGKILL", "link cut", "slurmctld SIGTERM", "slurmctld SIGKILL")

_RESUME = """
for node in $(sinfo --noheader --Node --states=down,drain,fail --format=%n | sort -u); do
    scontrol update nodename="$node" state=resume
done
"""


@dataclass
class Campaign:
    """The disorder lasts ``disorder_s`` at most; what is left then must end within ``finish_within_s``."""

    cluster: Cluster
    server: Server
    jobs: int = 200
    seed: int = 1
    least_strikes: int = 3
    """Of each kind, before the disorder may end."""
    disorder_s: float = 300.0
    finish_within_s: float = 240.0
    strikes: Counter[str] = field(default_factory=Counter)

    def run(self) -> Verdict:
        """Submit, strike, let end, and report what was found."""
        began = time.monotonic()
        self.cluster.sh("login", f"mkdir -p {Path(RUNS).parent} && : > {RUNS} && chmod 777 {Path(RUNS).parent} {RUNS}")
        info = self.cluster.info()
        with Link((info["ssh"]["host"], info["ssh"]["port"])) as link:
            self.server.start()
            try:
                self._wire.register({**info, "ssh": {**info["ssh"], "port": link.port}}, SYSTEM)
                uuids = self._under_fire(link)
                self._await_end()
                return self._found(uuids, time.monotonic() - began)
            finally:
                self.server.stop()

    @cached_property
    def _wire(self) -> Wire:
        """One login for the whole campaign: its token outlives the server's processes."""
        return Wire(self.server.url)

    # -- the jobs ----------------------------------------------------------------------------------------------------

    def _under_fire(self, link: Link) -> Sequence[str]:
        """Submit everything and watch it end, while disorder reigns."""
        calm = threading.Event()
        strikes = (self._kill_berth, lambda chance: self._cut(link, chance), self._hit_slurmctld)
        until = time.monotonic() + self.disorder_s
        with ThreadPoolExecutor(len(strikes)) as pool:
            disorder = [pool.submit(self._strike, calm, *numbered) for numbered in enumerate(strikes)]
            try:
                uuids = [self._submitted(number) for number in range(self.jobs)]
                while time.monotonic() < until and not self._is_enough():
                    time.sleep(1)
            finally:
                calm.set()
        for one in disorder:
            one.result()
        return uuids

    def _submitted(self, number: int) -> str:
        """The uuid of the n-th job: the same request under the same key, until it is answered."""
        words = [{"name": f"w{place}", "arg": word} for place, word in enumerate(("sh", "-c", PAYLOAD))]
        body = {
            "name": f"crash-{number}",
            "notes": {"berth": {"image": self.cluster.info()["demo_image"]["from_nodes"]}},
            "memoryMB": 50,
            "maxMinutes": 2,
            "parameterSet": {"appArgs": words, "containerArgs": [{"name": "b", "arg": "--bind /shared"}]},
        }
        key = f"{self.seed}-{number}"
        return str(_patiently(lambda: self._wire.post("/v3/jobs/submit", body, key=key))["uuid"])

    def _is_enough(self) -> bool:
        struck = min(self.strikes[kind] for kind in STRIKES)
        return struck >= self.least_strikes and self._unfinished() <= self.jobs * (1 - ALMOST_ALL)

    def _unfinished(self) -> int:
        listed = _patiently(lambda: self._wire.get("/v3/jobs/list", limit=self.jobs + 10))
        return sum(job["status"] not in TERMINAL for job in listed)

    def _await_end(self) -> None:
        until = time.monotonic() + self.finish_within_s
        while self._unfinished() and time.monotonic() < until:
            self._slurmctld_back()
            time.sleep(2)

    # -- the disorder ------------------------------------------------------------------------------------------------

    def _strike(self, calm: threading.Event, number: int, strike: Callable[[random.Random], None]) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        while not calm.wait(chance.uniform(2.0, 12.0)):
            strike(chance)

    def _kill_berth(self, chance: random.Random) -> None:
        self.strikes[BERTH] += 1
        self.server.kill()
        time.sleep(chance.uniform(0.0, 1.0))
        self.server.start()

    def _cut(self, link: Link, chance: random.Random) -> None:
        self.strikes[LINK] += 1
        link.cut()
        time.sleep(chance.choice((0.0, 0.0, 0.5, 3.0)))
        link.heal()

    def _hit_slurmctld(self, chance: random.Random) -> None:
        how = chance.choice((TERM, TERM, KILL))
        self.strikes[how] += 1
        (self.cluster.kill if how == KILL else self.cluster.stop)("login", "slurmctld")
        time.sleep(chance.uniform(0.0, 2.0))
        self._slurmctld_back()
        time.sleep(chance.uniform(5.0, 15.0))

    def _slurmctld_back(self) -> None:
        """Start it, and do what its operators do: it drains a node that still knows an id that it issues again."""
        self.cluster.start("login", "slurmctld")
        self.cluster.sh("login", _RESUME, check=False)

    # -- what is found -----------------------------------------------------------------------------------------------

    def _found(self, uuids: Sequence[str], seconds: float) -> Verdict:
        runs = Counter(line.split()[0] for line in self.cluster.sh("login", f"cat {RUNS}").splitlines())
        since = f"now-{seconds + 60:.0f}seconds"
        columns = "JobName%100,JobID,Start,State,ExitCode"
        accounts = self.cluster.sh("login", f"sacct -a -X -n -P -D -S {since} -o {columns}")
        listed = {job["uuid"] for job in self._wire.get("/v3/jobs/list", limit=2 * self.jobs)}
        return Verdict(
            fates=[self._fate(uuid, runs[uuid]) for uuid in uuids],
            jobs_by_attempt=jobs_by_attempt(accounts),
            strangers=frozenset(runs.keys() | listed) - frozenset(uuids),
            strikes=self.strikes,
            seconds=seconds,
        )

    def _fate(self, uuid: str, runs: int) -> Fate:
        job: Mapping[str, Any] = self._wire.get(f"/v3/jobs/{uuid}")
        history = self._wire.get(f"/v3/jobs/{uuid}/history", limit=1000)
        moves = Counter(line["eventDetail"] for line in history if line["event"] == "JOB_NEW_STATUS")
        return Fate(
            uuid=uuid,
            state=job["status"],
            endings=sum(moves[state] for state in TERMINAL),
            runs=runs,
            attempts=moves["SUBMITTING_JOB"],
            message=job["lastMessage"],
        )


def _patiently(ask: Callable[[], Any], timeout_s: float = 120) -> Any:
    """Ask until a server answers: it may be dead at this moment, and be another one at the next."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            return ask()
        except httpx.TransportError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
