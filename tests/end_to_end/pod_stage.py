"""Servers for tests of pods: their gateway listens on loopback, and their pods end before they do."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from testbed.host_image import local_system
from testbed.server import Server, running
from tests.end_to_end.wire import Wire
from tests.fakes.layout_registry import layout_registry


@dataclass(frozen=True)
class PodStage:
    """One such server."""

    server: Server
    wire: Wire
    gateway_port: int

    @property
    def authority(self) -> str:
        """The file of the certificates that the gateway's are signed by."""
        return str(self.server.home / "ca" / "pods.localhost" / "ca.pem")

    def available(self, pod_id: str, timeout_s: float = 300) -> dict[str, Any]:
        """The pod once it answers."""
        until = time.monotonic() + timeout_s
        while (pod := self.wire.get(f"/v3/pods/{pod_id}"))["status"] != "AVAILABLE":
            told = self.wire.get(f"/v3/pods/{pod_id}/logs")
            assert pod["status"] != "ERROR", (told, self.server.tail())
            assert time.monotonic() < until, (pod["status"], told, self.server.tail())
            time.sleep(0.2)
        return dict(pod)

    def clear(self) -> None:
        """Pods outlive the server, so they are ended before it is."""
        for pod in self.wire.get("/v3/pods"):
            self.wire.http.delete(f"/v3/pods/{pod['pod_id']}")
        until = time.monotonic() + 60
        while self.wire.get("/v3/pods") and time.monotonic() < until:
            time.sleep(0.2)


@contextmanager
def pod_server(home: Path, **settings: str) -> Iterator[PodStage]:
    """A server with its files in ``home``, and without any system."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        gateway_port = free.getsockname()[1]
    with running(home / "server", gateway_port=str(gateway_port), **settings) as server:
        stage = PodStage(server, Wire(server.url), gateway_port)
        try:
            yield stage
        finally:
            stage.clear()


@contextmanager
def pod_stage(images: dict[str, Any], **settings: str) -> Iterator[PodStage]:
    """A server with this machine as its one system; images of Docker Hub come from a mirror here.

    images: repository of Docker Hub -> function that writes its stand-in (see ``pod_images``).
    """
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="berth-pods-", dir="/var/tmp")))
        home.chmod(0o755)  # the account that runs pods reads images below it
        layouts = {name: write(home / name.replace("/", "-")) for name, write in images.items()}
        mirror = stack.enter_context(layout_registry(layouts))
        stage = stack.enter_context(
            pod_server(
                home,
                images_dir=str(home / "images"),
                registry_mirrors=json.dumps({"docker.io": [mirror]}),
                plain_http_registries=mirror,
                **settings,
            )
        )
        definition = local_system("here", home / "work")
        definition["notes"]["berth"]["pods"] = True
        stage.wire.post("/v3/systems", definition)
        yield stage
