"""Fixtures that suites share, and how property tests run: a slow machine is no finding."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
import structlog
import uvloop
from hypothesis import settings

from testbed.k8s.pytest_plugin import control_plane, real_node_cluster, rough_control_plane
from testbed.pytest_plugin import cluster, rough_cluster
from tests.tapipy import tapipy_python

__all__ = ["cluster", "control_plane", "real_node_cluster", "rough_cluster", "rough_control_plane", "tapipy_python"]

# Programs of Berth's start as ``python3``: this interpreter, and not a wrapper that takes half a second to find one.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

settings.register_profile("berth", deadline=None, print_blob=True)
settings.load_profile("berth")

# The usual way draws a traceback with the local variables of every frame, which takes seconds.
plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])

LONG_S = 2400


FORWARDED = {"test_pod_host.py", "test_forward.py"}
"""Suites with connections through an SSH server in the test process: on uvloop asyncssh's drops what comes first."""


def pytest_asyncio_loop_factories(config, item):
    """Tests run on the event loop of production: others forgive what it does not."""
    return {"asyncio": asyncio.new_event_loop} if item.path.name in FORWARDED else {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_S))
