"""Fixtures that suites share."""

from testbed.pytest_plugin import cluster

__all__ = ["cluster"]
