"""Fixtures that suites share, and how property tests run: a slow machine is no finding."""

from hypothesis import settings

from testbed.pytest_plugin import cluster
from tests.tapipy import tapipy_python

__all__ = ["cluster", "tapipy_python"]

settings.register_profile("berth", deadline=None, print_blob=True)
settings.load_profile("berth")
