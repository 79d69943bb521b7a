"""A throw-away cluster and a Berth that knows it as ``alder``: what benchmarks of the whole way stand on."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from testbed.cluster import Cluster
from testbed.server import ADMIN_PASSWORD, Server
from testbed.spec import Spec

SYSTEM = "alder"
TERMINAL = frozenset({"FINISHED", "FAILED", "CANCELLED"})


@dataclass(frozen=True)
class World:
    """One cluster, one Berth, and Berth's API as its administrator, whose login there is alice."""

    cluster: Cluster
    server: Server
    http: httpx.Client

    @property
    def image(self) -> str:
        """The demo image, as the cluster's machines name it."""
        return str(self.cluster.info()["demo_image"]["from_nodes"])

    def job(self, script: str, *, image: str | None = None, **more: Any) -> dict[str, Any]:
        """The request of a job that runs ``script`` in a container on the cluster."""
        berth = {"image": image or self.image, "command": ["sh", "-c", script]}
        named = {"name": "bench", "appId": "berth.image", "appVersion": "1", "execSystemId": SYSTEM}
        return {**named, "notes": {"berth": berth}, "memoryMB": 100, **more}

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return _result(self.http.post(path, json=body))

    def get(self, path: str) -> Any:
        return _result(self.http.get(path))

    def submit(self, request: Mapping[str, Any]) -> str:
        """The uuid of a new job."""
        return str(self.post("/v3/jobs/submit", request)["uuid"])

    def finish(self, uuid: str, timeout_s: float = 120) -> Mapping[str, Any]:
        """The job once it has ended well; RuntimeError when it ended otherwise."""
        job: dict[str, Any] = wait_for(
            lambda: (seen := self.get(f"/v3/jobs/{uuid}"))["status"] in TERMINAL and seen, timeout_s, f"job {uuid}"
        )
        if job["status"] != "FINISHED":
            raise RuntimeError(f"job {uuid} ended {job['status']}: {job['lastMessage']}")
        return job

    def moved_at(self, uuid: str) -> Mapping[str, float]:
        """State to the instant, in seconds since the epoch, at which Berth wrote that the job came there."""
        moves = [one for one in self.get(f"/v3/jobs/{uuid}/history") if one["event"] == "JOB_NEW_STATUS"]
        return {one["eventDetail"]: instant(one["created"]) for one in moves}

    def seen_here(self, path: str) -> Path:
        """Where this host sees a file of the cluster's shared folders."""
        return self.cluster.state / "shared" / path.lstrip("/")


@contextlib.contextmanager
def world(name: str, ssh_port: int, *, nodes: int = 1, **settings: str) -> Iterator[World]:
    """Bring all up, and everything down again however it ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that being told to end takes all down too
    cluster = Cluster(Spec(nodes, name, ssh_port=ssh_port))
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.down)
        cluster.up()
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="berth-bench-")))
        server = Server(home, log_level="warning", **settings)
        stack.callback(server.stop)
        server.start()
        http = stack.enter_context(httpx.Client(base_url=server.url, timeout=120))
        made = World(cluster, server, http)
        login = {"username": "admin", "password": ADMIN_PASSWORD, "grant_type": "password"}
        http.headers["X-Tapis-Token"] = made.post("/v3/oauth2/tokens", login)["access_token"]["access_token"]
        _register(made)
        yield made


def _register(world: World) -> None:
    info = world.cluster.info()
    ssh = info["ssh"]
    login = {"loginUser": "alice", "privateKey": Path(ssh["users"]["alice"]["key"]).read_text()}
    where = {"host": ssh["host"], "port": ssh["port"], "systemId": SYSTEM}
    definition = world.post("/v3/systems/probe", login | where)["definition"]
    notes = definition.setdefault("notes", {})
    notes["berth"] = {**notes.get("berth", {}), "plainHttpRegistries": [info["registry"]["from_nodes"]]}
    world.post("/v3/systems", {**definition, "id": SYSTEM})
    world.post(f"/v3/systems/credential/{SYSTEM}/user/admin", login)


def wait_for(question: Callable[[], Any], timeout_s: float, what: str, every_s: float = 0.02) -> Any:
    """What ``question`` answers once that is true; TimeoutError names ``what`` did not happen."""
    until = time.monotonic() + timeout_s
    while not (answer := question()):
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(every_s)
    return answer


def instant(text: str) -> float:
    """An instant of the API, in seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def has_content(path: Path) -> bool:
    """Whether a file is there and not empty."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size > 0
    return False


def _result(answer: httpx.Response) -> Any:
    if not answer.is_success:
        raise RuntimeError(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}")
    return answer.json()["result"]
