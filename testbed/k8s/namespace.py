"""The network namespace that a control plane shares with a real node, and the one way into it from the host."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from testbed import relay
from testbed.host import TestbedError, run
from testbed.k8s.parts import NODE_ADDRESS
from testbed.k8s.program import Program
from testbed.k8s.spec import Spec

_FOLDER = Path("/run/netns")
_RELAY = Path(relay.__file__)


def name_of(name: str) -> str:
    """The namespace's name; those of Slurm clusters begin with ``berth-``."""
    return f"berthk8s-{name}"


def cgroup_of(name: str) -> str:
    """The name under which ``testbed.cgroups`` keeps the groups of this Kubernetes."""
    return f"k8s-{name}"


def entering(name: str) -> tuple[str, ...]:
    """What to put before an argv. Not ``ip netns exec``, which mounts /sys anew and so hides the control groups."""
    return ("nsenter", f"--net={_FOLDER / name_of(name)}", "--")


def ensure(spec: Spec, state: Path) -> None:
    """Create the namespace and start the relay into it, as far as they are not there."""
    name = name_of(spec.name)
    if not (_FOLDER / name).exists():
        run(["ip", "netns", "add", name])
        # A bridge without ports holds the node's address: not every kernel has dummy links. The route makes the
        # kubelet find that address by itself.
        commands = ["link set lo up", "link add node0 type bridge", f"addr add {NODE_ADDRESS}/24 dev node0",
                    "link set node0 up", f"route add default via {NODE_ADDRESS}"]  # fmt: skip
        run(["ip", "-netns", name, "-batch", "-"], stdin="".join(f"{command}\n" for command in commands))
    ports = [spec.ports[part] for part in spec.doors]
    if Program("relay", (), state / "run").pid is None:
        _start_relay(spec, state, ports)


def remove(name: str) -> None:
    """Remove the namespace, if it is there; nothing may live in it any more."""
    if (_FOLDER / name_of(name)).exists():
        run(["ip", "netns", "del", name_of(name)])


def _start_relay(spec: Spec, state: Path, ports: list[int]) -> None:
    """Open the same ports on the host as inside, so that an address is right on both sides."""
    doors = []
    try:
        for port in ports:
            try:
                doors.append(socket.create_server(("127.0.0.1", port), backlog=512))
            except OSError as error:
                raise TestbedError(f"127.0.0.1:{port}: {error.strerror}; choose another --port") from error
        ways = [f"{door.fileno()}=127.0.0.1:{port}" for door, port in zip(doors, ports, strict=True)]
        argv = (*entering(spec.name), sys.executable, "-I", str(_RELAY), *ways)
        Program("relay", argv, state / "run").start([door.fileno() for door in doors])
    finally:
        for door in doors:
            door.close()
