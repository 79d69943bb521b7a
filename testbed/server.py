"""A throw-away Berth server: ``berth up`` (or ``api``, ``reconcile``) as a process of its own, in a home of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ADMIN_PASSWORD = "only-for-throw-away-servers"


class ServerError(Exception):
    """The server did not come up; the text ends with its log."""


class Server:
    """One Berth. ``settings`` become ``BERTH_<NAME>`` variables. After ``kill`` or ``stop`` it may be started again."""

    def __init__(self, home: Path, port: int | None = None, *, command: str = "up", **settings: str) -> None:
        self.home = home
        self.command = command
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "server.log"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)

    def start(self, timeout_s: float = 60) -> None:
        """Start and wait until the API answers; raises ServerError with the end of its log."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "berth", self.command],
                env=self.environment(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + timeout_s
        while not self.answers():
            if self._process.poll() is not None:
                raise ServerError(f"berth {self.command} ended with {self._process.returncode}:\n{self.tail()}")
            if time.monotonic() > until:
                self.kill()
                raise ServerError(f"berth {self.command} did not answer within {timeout_s:.0f} s:\n{self.tail()}")
            time.sleep(0.05)

    def environment(self) -> dict[str, str]:
        """The environment of the server, for other ``berth`` commands on the same home."""
        return {
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}",
            "BERTH_HOME": str(self.home),
            "BERTH_PORT": str(self.port),
            "BERTH_GATEWAY_PORT": "0",  # there may be several servers on this host
            "BERTH_ADMIN_PASSWORD": ADMIN_PASSWORD,
            **{f"BERTH_{name.upper()}": value for name, value in self._settings.items()},
        }

    def answers(self) -> bool:
        """Whether the API answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/v3/tenants", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerError("not started")
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait; SIGKILL after 30 s."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tail(self, characters: int = 4000) -> str:
        """The end of the server's log."""
        return self.log.read_text(errors="replace")[-characters:]


@contextlib.contextmanager
def running(home: Path, **settings: str) -> Iterator[Server]:
    """A started server that is stopped at the end."""
    server = Server(home, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
