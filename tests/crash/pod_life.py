"""One life of a pod as a client leads it: it is made, stopped, started, restarted, changed, and deleted, at random.

While the client waits for anything it reads the pod's status and asks it for its page, in turn; what it saw is judged
by ``pod_judgement``. The page names the pod, counts its changes, and is another in each instance.
"""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tests.crash.pod_judgement import AT_REST, Asked, Life, Told

PORT = 5000
SERVE = (
    "mkdir -p /tmp/www && echo $WORDS $(cat /proc/sys/kernel/random/uuid) > /tmp/www/index.html && "
    f"exec httpd -f -p {PORT} -h /tmp/www"
)
MARK = "CAMPAIGN"
"""The variable by whose value every process of a campaign's pods is known."""

GONE = "GONE"
"""The status of a pod that is not found."""

LOOK_S = 0.4
ANSWER_S = 3.0
WAITS = 0.8
"""How often a client waits for what it wants before it wants something else."""


class Missed(Exception):
    """What was wanted did not come true in time; the text says what."""


@dataclass(frozen=True)
class Door:
    """The gateway, as clients on this machine reach it."""

    port: int
    context: ssl.SSLContext
    domain: str = "pods.localhost"

    def ask(self, pod_id: str) -> str | None:
        """The page of a pod, empty where it does not answer; None where there is no gateway to ask."""
        name = f"{pod_id}.{self.domain}"
        try:
            raw = socket.create_connection(("127.0.0.1", self.port), ANSWER_S)
        except OSError:
            return None
        try:
            with raw, self.context.wrap_socket(raw, server_hostname=name) as stream:
                stream.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                head, _, body = _read_all(stream).partition(b"\r\n\r\n")
        except OSError:
            return ""
        return body.decode().strip() if head.split(b" ")[1:2] == [b"200"] else ""


def _read_all(stream: ssl.SSLSocket) -> bytes:
    """Everything that comes within the time that an answer may take."""
    until, read = time.monotonic() + ANSWER_S, b""
    while time.monotonic() < until and (more := stream.recv(65536)):
        read += more
    return read


class Client:
    """Leads one life. changes_of_mind: at most, and half of that at least.

    patience_s: for each thing that it wants, with everything that is struck meanwhile. over: set when the campaign
    cannot go on; the life ends there. state: how the place is, in words, for a want that was missed.
    """

    def __init__(
        self,
        http: httpx.Client,
        door: Door,
        request: Mapping[str, Any],
        chance: random.Random,
        *,
        changes_of_mind: int,
        patience_s: float,
        over: threading.Event,
        state: Callable[[], str],
    ) -> None:
        self._state = state
        self._http, self._door, self._request, self._chance = http, door, request, chance
        self._changes_of_mind, self._patience_s, self._over = changes_of_mind, patience_s, over
        self.life = Life(str(request["pod_id"]))
        self._path = f"/v3/pods/{self.life.pod_id}"
        self._changes = 1

    def lead(self) -> Life:
        """From its making to its removal. That a want was missed is noted, and the pod is deleted all the same."""
        try:
            self._create()
            for _ in range(self._chance.randint(self._changes_of_mind // 2, self._changes_of_mind)):
                self._watch(self._chance.uniform(0.0, 6.0))
                self._chance.choice((self._stop_and_start, self._restart, self._change))()
            self._watch(self._chance.uniform(0.0, 4.0))
        except Missed as missed:
            self.life.missed = str(missed)
        try:
            self._delete()
        except Missed as missed:
            self.life.missed = self.life.missed or str(missed)
        return self.life

    # -- what it wants -----------------------------------------------------------------------------------------------

    def _create(self) -> None:
        body = {**self._request, "environment_variables": self._variables()}
        self._want("create", "POST", "/v3/pods", body, key=self.life.pod_id)
        self._perhaps_until(self._serves, "AVAILABLE and answering")

    def _stop_and_start(self) -> None:
        self._want("stop", "GET", f"{self._path}/stop")
        self._perhaps_until(lambda: self._status in AT_REST, "at rest")
        self._watch(self._chance.uniform(0.0, 2.0))
        self._want("start", "GET", f"{self._path}/start")
        if self._status not in AT_REST:  # it may have been refused: who does not wait for the end cannot start it
            self._until(lambda: self._status in AT_REST or self._serves(), "at rest")
            self._want("start", "GET", f"{self._path}/start")
        self._perhaps_until(self._serves, "AVAILABLE and answering")

    def _restart(self) -> None:
        before = self._said
        self._want("restart", "GET", f"{self._path}/restart")
        self._perhaps_until(lambda: self._serves() and self._said != before, "AVAILABLE as another instance")

    def _change(self) -> None:
        self._changes += 1
        self._want("change", "PUT", self._path, {"environment_variables": self._variables()})
        self._want("restart", "GET", f"{self._path}/restart")
        self._perhaps_until(lambda: self._serves() and self._said.startswith(self._words), "AVAILABLE as changed")

    def _delete(self) -> None:
        self._want("delete", "DELETE", self._path)
        self._until(lambda: self._status == GONE, "gone")

    @property
    def _words(self) -> str:
        return f"{self.life.pod_id} {self._changes}"

    def _variables(self) -> Mapping[str, str]:
        return {**self._request["environment_variables"], "WORDS": self._words}

    def _want(self, want: str, method: str, path: str, body: Mapping[str, Any] | None = None, key: str = "") -> None:
        """Ask until a server answers: it may be dead, and may have taken what it was asked before it died.

        So 404 is what a repeated removal, and 409 what a repeated start may be answered with.
        """
        self.life.wants.append(want)
        until = time.monotonic() + self._patience_s
        while time.monotonic() < until and not self._over.is_set():
            try:
                answer = self._http.request(method, path, json=body, headers={"Idempotency-Key": key} if key else None)
            except httpx.TransportError:
                time.sleep(LOOK_S)
                continue
            known = {"start": 409, "delete": 404}.get(want)
            if answer.is_success or answer.status_code == known:
                return
            if answer.status_code != 503:
                raise Missed(f"{want} was answered with {answer.status_code}: {answer.text[:500]}")
            time.sleep(LOOK_S)
        raise Missed(f"{want} was not answered within {self._patience_s:.0f} s")

    # -- what it sees ------------------------------------------------------------------------------------------------

    @property
    def _status(self) -> str:
        return self.life.told[-1].status if self.life.told else ""

    @property
    def _said(self) -> str:
        return self.life.asked[-1].said if self.life.asked else ""

    def _serves(self) -> bool:
        """It says so, and it does. What a series of ends brought to rest is started again, as its owner would."""
        if self._status == "ERROR":
            self._want("start after ERROR", "GET", f"{self._path}/restart")
        return self._status == "AVAILABLE" and self._said.startswith(self.life.pod_id)

    def _perhaps_until(self, holds: Callable[[], bool], words: str) -> None:
        if self._chance.random() < WAITS:
            self._until(holds, words)
        else:
            self._watch(self._chance.uniform(0.0, 4.0))

    def _until(self, holds: Callable[[], bool], words: str) -> None:
        until = time.monotonic() + self._patience_s
        self._look()
        while not holds():
            if time.monotonic() > until or self._over.is_set():
                last = self.life.wants[-1]
                raise Missed(f"not {words} {self._patience_s:.0f} s after '{last}': {self._status}; {self._why()}")
            self._look()

    def _watch(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._look()

    def _look(self) -> None:
        began_s = time.monotonic()
        try:
            answer = self._http.get(self._path)
        except httpx.TransportError:
            answer = None
        read_s = time.monotonic()
        if answer is not None and (answer.is_success or answer.status_code == 404):
            status = str(answer.json()["result"]["status"]) if answer.is_success else GONE
            self.life.told.append(Told(began_s, read_s, status))
        said = self._door.ask(self.life.pod_id)
        if said is not None:
            self.life.asked.append(Asked(read_s, time.monotonic(), said))
        time.sleep(LOOK_S)

    def _why(self) -> str:
        """What the pod says of itself, and how its place is."""
        try:
            pod = self._http.get(self._path).json()["result"]
            logs = self._http.get(f"{self._path}/logs").json()["result"]["action_logs"][-6:]
        except (httpx.TransportError, ValueError, KeyError) as error:
            return f"it does not say why ({error!r}) / {self._how()}"
        return " / ".join([pod["status_message"], *map(str, logs), self._how()])

    def _how(self) -> str:
        """How its place is: one that is struck at the moment may have nothing to say, and that is no fault."""
        try:
            return self._state()
        except Exception as error:
            return f"its place does not say how it is ({error!r})"
