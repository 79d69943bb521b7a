"""A real Kubernetes on one Linux machine, for tests and to play with. See docs/testbed.md."""

from testbed.k8s.control_plane import ControlPlane

__all__ = ["ControlPlane"]
