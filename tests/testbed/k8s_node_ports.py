"""Node ports of a testbed's Kubernetes, which only its own network namespace can reach."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from backends.k8s.api import Api
from backends.k8s.backend import KubernetesBackend
from backends.k8s.pods import KubernetesPodHost
from backends.k8s.sight import Sight
from backends.k8s.site import Access, site_of
from backends.k8s.ways import Ways
from backends.streams import SocketChannel
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.namespace import name_of
from tests.testbed.k8s_subject import kubernetes

NODES = (ip_network("10.77.1.0/24"),)
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


def socket_inside(namespace: str) -> socket.socket:
    """A socket of another network namespace: it stays in the one in which it was made."""
    made: list[socket.socket] = []

    def make() -> None:
        with Path("/run/netns", namespace).open() as there:
            if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), _NEW_NETWORK):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        made.append(socket.socket())

    thread = threading.Thread(target=make)  # its own: a namespace is a thread's
    thread.start()
    thread.join()
    return made[0]


async def dial_inside(plane: ControlPlane, address: str, port: int) -> SocketChannel:
    """A connection that begins on the node."""
    from_inside = socket_inside(name_of(plane.spec.name))
    from_inside.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(from_inside, (address, port))
    except BaseException:
        from_inside.close()
        raise
    return SocketChannel(*await asyncio.open_connection(sock=from_inside))


@asynccontextmanager
async def opened(
    plane: ControlPlane, namespace: str, notes: Mapping[str, Any]
) -> AsyncIterator[tuple[KubernetesBackend, KubernetesPodHost]]:
    """What runs and reaches pods in a namespace. notes: of its Kubernetes, beside those that every one needs."""
    system = kubernetes(plane, namespace)
    told = system.berth_notes
    system = replace(system, notes={"berth": {**told, "k8s": {**told["k8s"], **notes}}})
    access = Access(plane.url, plane.token(), plane.ca.read_text())
    api = Api(access, namespace)

    site = site_of(system)
    ways = Ways(api, site, NODES, dial=partial(dial_inside, plane)) if site.has_ways else None
    sight = Sight(Api(access, namespace))
    backend = KubernetesBackend(system, api, sight=sight, ways=ways)
    host = KubernetesPodHost(Api(access, namespace), access, sight=sight, ways=ways)
    try:
        yield backend, host
    finally:
        await backend.aclose()
        await host.aclose()
