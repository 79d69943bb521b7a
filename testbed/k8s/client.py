"""The API of a testbed's Kubernetes over plain HTTP, for tests and programs of the testbed."""

from __future__ import annotations

import ssl

import httpx

from testbed.k8s.control_plane import ControlPlane


def client(plane: ControlPlane, user: str = "admin") -> httpx.Client:
    """A client that speaks as this user; paths are those of the API, like ``/api/v1/nodes``."""
    headers = {"Authorization": f"Bearer {plane.token(user)}"}
    context = ssl.create_default_context(cafile=str(plane.ca))
    return httpx.Client(base_url=plane.url, headers=headers, verify=context, timeout=30)
