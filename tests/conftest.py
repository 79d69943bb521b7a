"""Fixtures that suites share."""

from testbed.pytest_plugin import cluster
from tests.tapipy import tapipy_python

__all__ = ["cluster", "tapipy_python"]
