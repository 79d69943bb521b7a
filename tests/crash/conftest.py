"""The campaign runs on a real cluster."""

from testbed.pytest_plugin import cluster

__all__ = ["cluster"]
