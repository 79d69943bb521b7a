"""Pods on a Slurm cluster: their doors listen on the nodes, and Berth comes to them by way of the login node."""

from __future__ import annotations

from backends.base import Channel
from backends.paths import marker_root
from backends.pods.facts import DoorFacts
from backends.pods.host import DoorHost
from backends.ssh.bridge import Bridge
from backends.ssh.connection import ForwardingClosed, SshConnection
from scheduler.model.errors import BackendUnavailable
from scheduler.model.systems import System

ADDRESS_TIMEOUT_S = 6.0
"""How long one address of a node is tried: a node has several, and not each is reached from the login node."""


class SlurmPodHost(DoorHost):
    """One cluster as one login, over the connection that its jobs use."""

    def __init__(self, system: System, login_user: str, connection: SshConnection) -> None:
        super().__init__(connection, marker_root(system, login_user), self._reach_node)
        self._connection = connection
        self._bridge: Bridge | None = None
        """Instead of forward channels, once the login node refused one."""
        self._known: dict[str, int] = {}
        """Which of its addresses answered last, by node."""

    async def _reach_node(self, door: DoorFacts) -> Channel:
        """ConnectionRefusedError where the node answers, and nobody listens; BackendUnavailable where it does not."""
        first = self._known.get(door.node, 0)
        failures: list[ConnectionError] = []
        for place in sorted(range(len(door.addresses)), key=lambda place: place != first):
            try:
                channel = await self._open_stream(*door.addresses[place])
            except ConnectionError as error:
                failures.append(error)
            else:
                self._known[door.node] = place
                return channel
        for failure in failures:
            if isinstance(failure, ConnectionRefusedError):
                raise failure
        raise BackendUnavailable(f"node {door.node} is not reached: {'; '.join(map(str, failures))}")

    async def _open_stream(self, host: str, port: int) -> Channel:
        if self._bridge is None:
            try:
                return await self._connection.open_stream(host, port, ADDRESS_TIMEOUT_S)
            except ForwardingClosed:
                self._bridge = Bridge(self._connection)
        return await self._bridge.open_stream(host, port, ADDRESS_TIMEOUT_S)

    async def aclose(self) -> None:
        if self._bridge is not None:
            await self._bridge.aclose()
