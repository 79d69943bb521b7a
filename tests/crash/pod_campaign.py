"""The campaign on pods: many lives at one place, while Berth, its proxy and the place are struck at random.

The disorder comes from one seed, which is printed; the instants at which it strikes are those of a real machine.
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.crash.pod_judgement import Life, Verdict
from tests.crash.pod_life import MARK, PORT, SERVE, Client, Door
from tests.crash.pod_places import Place, Strike, children, killed
from tests.end_to_end.pod_stage import PodStage

SETTINGS = {"lost_after_s": "20", "watch_min_s": "1", "watch_max_s": "3", "lease_s": "15", "snapshot_interval_s": "5"}
"""Patience in seconds instead of minutes: the campaign must see what takes ten minutes in production."""

BERTH, PROXY = "berth SIGKILL", "proxy SIGKILL"

ALMOST_ALL = 0.9
"""The disorder ends when so many lives are over; the last ones must come to their end by themselves."""

CLEARED_S = 240.0
"""How long after the last life a place may need until nothing is left there. A controller that was killed may start
what it was told to end; Berth lists that, tells it to end and sees it gone in three looks, a minute apart."""

START_S = 120.0


@dataclass
class Campaign:
    """``lives`` at one place, some of them at once; the first strikes fall while they are made.

    rest_s: between two strikes at Berth, and two at its proxy, at least and at most. The rest: as in ``Client``.
    """

    stage: PodStage
    place: Place
    mark: str
    lives: int = 10
    at_once: int = 5
    seed: int = 1
    changes_of_mind: int = 3
    patience_s: float = 120.0
    rest_s: tuple[float, float] = (5.0, 15.0)
    strikes: Counter[str] = field(default_factory=Counter)

    def run(self) -> Verdict:
        """Lead the lives under fire, let everything come to rest, and tell what was found."""
        began = time.monotonic()
        calm, over = threading.Event(), threading.Event()
        own: Mapping[str, Strike] = {BERTH: self._kill_berth, PROXY: self._kill_proxy}
        hands = [*(({name: strike}, self.rest_s) for name, strike in own.items())]
        hands.append((self.place.strikes, self.place.rest_s))
        with ThreadPoolExecutor(self.at_once) as clients, ThreadPoolExecutor(len(hands)) as fists:
            lives = [clients.submit(self._life, number, over) for number in range(self.lives)]
            disorder = [fists.submit(self._strike, calm, number, *hand) for number, hand in enumerate(hands)]
            try:
                self._await_almost_all(lives, disorder)
                calm.set()
                for one in disorder:
                    one.result()  # raises what a hand fell off by: the campaign is worth nothing then
            except BaseException:
                calm.set()
                over.set()
                clients.shutdown(wait=False, cancel_futures=True)
                raise
            lived = [one.result() for one in lives]
        return Verdict(lived, self._left(lived), self.strikes, time.monotonic() - began)

    # -- lives -------------------------------------------------------------------------------------------------------

    def _life(self, number: int, over: threading.Event) -> Life:
        request = {
            "pod_id": f"p{self.seed}x{number}",
            "image": self.place.image,
            "command": ["sh", "-c", SERVE],
            "environment_variables": {MARK: self.mark},
            "networking": {"default": {"protocol": "http", "port": PORT}},
            "resources": {"cpu_request": 50, "cpu_limit": 500, "mem_request": 32, "mem_limit": 128},
            "compute_queue": self.place.system,
        }
        with self._http() as http:
            chance = random.Random(f"{self.seed}/life/{number}")
            client = Client(
                http,
                self._door,
                request,
                chance,
                changes_of_mind=self.changes_of_mind,
                patience_s=self.patience_s,
                over=over,
                state=self.place.state,
            )
            return client.lead()

    def _http(self) -> httpx.Client:
        """As the one user of the campaign, whose token outlives the server's processes."""
        token = self.stage.wire.http.headers["X-Tapis-Token"]
        return httpx.Client(base_url=self.stage.server.url, timeout=20, headers={"X-Tapis-Token": token})

    @property
    def _door(self) -> Door:
        return Door(self.stage.gateway_port, ssl.create_default_context(cafile=self.stage.authority))

    def _await_almost_all(self, lives: Sequence[Future[Life]], disorder: Sequence[Future[None]]) -> None:
        """Returns early where a hand fell off, which is then told."""
        while sum(one.done() for one in lives) < ALMOST_ALL * len(lives) and not any(one.done() for one in disorder):
            wait([one for one in (*lives, *disorder) if not one.done()], 1.0, FIRST_COMPLETED)

    # -- the disorder ------------------------------------------------------------------------------------------------

    def _strike(
        self, calm: threading.Event, number: int, hand: Mapping[str, Strike], rest_s: tuple[float, float]
    ) -> None:
        """One hand strikes in every way that it can, one after the other in an order of chance."""
        chance = random.Random(f"{self.seed}/hand/{number}")
        while True:
            for name in chance.sample(sorted(hand), len(hand)):
                if calm.wait(chance.uniform(*rest_s)):
                    return
                self.strikes[name] += hand[name](chance)

    def _kill_berth(self, chance: random.Random) -> bool:
        """Sometimes for longer than an answer of a pod counts."""
        self.stage.server.kill()
        time.sleep(chance.choice((0.0, 0.5, 1.0, 12.0)))
        self.stage.server.start(START_S)
        return True

    def _kill_proxy(self, chance: random.Random) -> bool:
        return killed(sorted(children(self.stage.server.pid, "haproxy")), chance)

    # -- what is left ------------------------------------------------------------------------------------------------

    def _left(self, lived: Sequence[Life]) -> Mapping[str, Sequence[str]]:
        """What is still there when it had its time to go, by where."""
        looks: Mapping[str, Callable[[], Sequence[str]]] = {
            self.place.system: self.place.left,
            "berth": self._rows,
            "gateway": lambda: [f"name {life.pod_id}" for life in lived if self._door.ask(life.pod_id)],
        }
        until = time.monotonic() + CLEARED_S
        while any((left := {where: look() for where, look in looks.items()}).values()):
            if time.monotonic() > until:
                break
            time.sleep(2)
        return left

    def _rows(self) -> Sequence[str]:
        wire = self.stage.wire
        strays: Sequence[Any] = wire.get(f"/v3/systems/{self.place.system}/strays")
        return [*(f"pod {pod['pod_id']}" for pod in wire.get("/v3/pods")), *(f"stray {one}" for one in strays)]
