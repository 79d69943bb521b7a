"""What a Kubernetes of the testbed is asked to be."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from testbed.host import TestbedError

USERS = ("alice", "bob")
_PORTS = range(21_000, 29_000, 10)


@dataclass(frozen=True)
class FakeNode:
    """A node that only the API knows: pods end on it by their annotations, and nothing runs."""

    name: str
    cpus: int = 32
    memory_mib: int = 131_072
    pods: int = 500
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?", self.name):
            raise TestbedError(f"node {self.name!r}: use lower-case letters, digits and - between them")


def fake_nodes(count: int, *, gpus: int = 0) -> tuple[FakeNode, ...]:
    """Nodes fake-1 to fake-N; the last one has the GPUs."""
    names = [f"fake-{number}" for number in range(1, count + 1)]
    return tuple(FakeNode(name, gpus=gpus if name == names[-1] else 0) for name in names)


@dataclass(frozen=True)
class Spec:
    """A control plane on ``port`` and the next nine of 127.0.0.1.

    users: beside ``admin``, who may do everything; these may do nothing until a role says so.
    apart: the control plane lives in a network namespace of its own, where a real node can join it.
    """

    name: str = "k8s"
    nodes: tuple[FakeNode, ...] = ()
    users: tuple[str, ...] = USERS
    apart: bool = False
    port: int = 21_000

    def __post_init__(self) -> None:
        # The name ends up in paths and in names of namespaces, where '-' separates.
        if not re.fullmatch(r"[a-z][a-z0-9]{0,15}", self.name):
            raise TestbedError(f"name {self.name!r}: use 1 to 16 lower-case letters and digits, a letter first")
        if not 1024 <= self.port <= 65_000:
            raise TestbedError(f"port {self.port}: choose 1024 to 65000 (the nine after it are used too)")
        for user in self.users:
            if not re.fullmatch(r"[a-z][a-z0-9.-]{0,60}", user) or user == "admin":
                raise TestbedError(f"user {user!r}: use lower-case letters, digits, . and -; admin is always there")
        object.__setattr__(self, "users", tuple(self.users))  # lists, where the specification was read again
        nodes = tuple(node if isinstance(node, FakeNode) else FakeNode(**node) for node in self.nodes)
        object.__setattr__(self, "nodes", nodes)

    @property
    def ports(self) -> dict[str, int]:
        """Part -> its port on 127.0.0.1, the same on the host and in a network namespace of its own."""
        parts = ("kube-apiserver", "etcd", "etcd-peers", "kube-controller-manager", "kube-scheduler", "registry")
        return {part: self.port + index for index, part in enumerate(parts)}

    @property
    def doors(self) -> tuple[str, ...]:
        """The parts that the host must be able to reach."""
        return tuple(part for part in self.ports if part != "etcd-peers")


def free_port() -> int:
    """The first port of ten that nobody holds."""
    for port in _PORTS:
        if all(_is_free(port + offset) for offset in range(10)):
            return port
    raise TestbedError(f"no ten free ports between {_PORTS.start} and {_PORTS.stop} of 127.0.0.1")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
