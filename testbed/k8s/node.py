"""One real node of a control plane: a kubelet and containerd whose pods really run, and a registry beside them."""

from __future__ import annotations

import shutil
import signal
import urllib.error
import urllib.request
from pathlib import Path

from testbed import cgroups
from testbed.host import Finished, TestbedError, run, say, wait_until
from testbed.k8s import images
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.namespace import cgroup_of
from testbed.k8s.node_parts import (
    NODE,
    PAUSE,
    PROXY,
    PROXY_HEALTH,
    SOCKET,
    entering,
    node_files,
    node_programs,
    registry_of,
)
from testbed.k8s.program import Program, end_all, require_alive

_START_S = 180
_CGROUPS = Path("/sys/fs/cgroup")
_SHIM = "containerd-shim"


class Node:
    """The real node of a control plane that is up and was asked to be ``apart``."""

    def __init__(self, plane: ControlPlane) -> None:
        if not plane.spec.apart:
            raise TestbedError(f"Kubernetes {plane.spec.name!r} has no network namespace: a real node needs Spec.apart")
        self.plane = plane
        self.disk = plane.state / "node"

    @property
    def registry(self) -> str:
        """The registry's address in image names, the same on the host and on the node; plain HTTP."""
        return registry_of(self.plane)

    # Life

    def up(self) -> None:
        """Start the node and wait until it is ready; when it is up already, start again what has died."""
        if (mode := cgroups.available_mode()) == "none":
            raise TestbedError("a real node needs control groups that can be written, and this host offers none")
        with self.plane.locked():
            if not (self.disk / "written").exists():
                say(f"starting node {NODE} (half a minute)")
                self._write_disk()
            if self._program("machine").pid is None:
                self._end_all()  # what an earlier boot left
            self._make_groups(mode)
            self.start("machine")
            self.start("registry")
            self.push_image(images.pause(self.disk / "images/pause", self._busybox), PAUSE)
            self.push_demo_image()
            self.start("containerd")
            self.start("kubelet")

    def crash(self) -> None:
        """Cut the node's power; ``up`` boots it again, with its disk as it was."""
        with self.plane.locked():
            self._end_all()

    def status(self) -> dict[str, bool]:
        """Part -> whether it runs. That of Services is only told where it does."""
        runs = {part: program.pid is not None for part, program in self._programs.items()}
        return {part: one for part, one in runs.items() if one or part != PROXY}

    # Faults

    def kill(self, part: str) -> None:
        """End a part at once (SIGKILL). Pods go on without kubelet and containerd."""
        self._program(part).end(patience_s=0)

    def stop(self, part: str) -> None:
        """Ask a part to end (SIGTERM), and end it at once when it has not after 5 s."""
        self._program(part).end()

    def start(self, part: str) -> None:
        """Start a part, unless it runs, and wait until it answers."""
        program = self._program(part)
        if part == "machine" and program.pid is None:
            (self.disk / "booted").unlink(missing_ok=True)
        program.start()

        def works() -> bool:
            require_alive(program)
            return self._works(part)

        wait_until(works, f"{part} answers; see {program.log}", _START_S)

    def restart(self, part: str) -> None:
        """Stop a part and start it again."""
        self.stop(part)
        self.start(part)

    def pause(self, part: str) -> None:
        """Stop a part in its tracks."""
        self._program(part).signal(signal.SIGSTOP)

    def resume(self, part: str) -> None:
        """Let a paused part go on."""
        self._program(part).signal(signal.SIGCONT)

    # Images

    def push_image(self, layout: Path, reference: str) -> str:
        """Push an OCI layout into the registry as ``reference`` (NAME:TAG); the name by which pods ask for it."""
        images.push(self.registry, layout, reference)
        return f"{self.registry}/{reference}"

    def push_demo_image(self) -> str:
        """Make the testbed's demo image, push it as ``demo/busybox:1``, and return the name for pods."""
        return self.push_image(images.demo(self.disk / "images/demo", self._busybox), images.DEMO_REFERENCE)

    def import_image(self, layout: Path, name: str) -> None:
        """Give an OCI layout to the node itself, under this whole name, as if it had been pulled before."""
        archive = self.disk / "import.tar"
        images.import_archive(layout, name, archive)
        self.ctr("images", "import", str(archive))
        archive.unlink()

    def ctr(self, *words: str, check: bool = True) -> Finished:
        """Run containerd's own client on the node, in the kubelet's namespace."""
        client = [str(self.plane.binaries.path("ctr")), "--address", SOCKET, "--namespace", "k8s.io"]
        return run([*entering(self._program("machine")), *client, *words], check=check)

    # Within

    @property
    def _programs(self) -> dict[str, Program]:
        return node_programs(self.plane)

    def _program(self, part: str) -> Program:
        if part not in self._programs:
            raise TestbedError(f"no part {part!r}; there are {', '.join(self._programs)}")
        return self._programs[part]

    @property
    def _busybox(self) -> Path:
        return self.plane.binaries.path("busybox")

    def _end_all(self) -> None:
        """SIGKILL to everything on the node. Shims know their containers' processes, so nothing starts anew after."""
        for program in reversed(self._programs.values()):
            program.end(patience_s=0)
        end_all(self.plane.state / "run", _SHIM)
        cgroups.kill(cgroup_of(self.plane.spec.name))
        cgroups.remove(cgroup_of(self.plane.spec.name))

    def _write_disk(self) -> None:
        shutil.rmtree(self.disk, ignore_errors=True)
        for folder in ("log", "lib", "work", "cni", "images", "registry"):
            (self.disk / folder).mkdir(parents=True)
        for path, content in node_files(self.plane).items():
            (self.disk / path).write_text(content)
        (self.disk / "written").touch()

    def _make_groups(self, mode: str) -> None:
        """A group below every controller that is mounted: a kubelet wants them all."""
        name = cgroup_of(self.plane.spec.name)
        cgroups.create(mode, name, "node")
        if mode == "v1":
            for controller in _CGROUPS.iterdir():
                (controller / cgroups.path_of(name, "node")).mkdir(parents=True, exist_ok=True)

    def _works(self, part: str) -> bool:
        match part:
            case "machine":
                return (self.disk / "booted").exists()
            case "registry":
                return _answers(f"http://{self.registry}/v2/")
            case "containerd":
                return self.ctr("version", check=False).returncode == 0
            case "kube-proxy":
                asked = [str(self._busybox), "wget", "-q", "-O", "/dev/null", PROXY_HEALTH]
                return run([*entering(self._program("machine")), *asked], check=False).returncode == 0
            case _:
                # Ready alone may be old: the API server asks the kubelet itself.
                return self.plane.is_ready(NODE) and self.plane.answers(f"/api/v1/nodes/{NODE}/proxy/healthz")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
