"""What the contract suite needs of a system beyond its interface: jobs on a string, and failures on demand.

A new backend writes one Subject (and one StorageSubject if it holds files) and adds one line to ``systems.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from backends.base import Backend, Storage
from scheduler.model.ids import Marker
from scheduler.model.runs import RunSpec, SubmitIntent

INTENDED_AT = datetime(2026, 1, 1, tzinfo=UTC)


class Subject(Protocol):
    """A backend under test, and the hand on its system."""

    backend: Backend

    def intent(self, marker: Marker, fence: int = 0) -> SubmitIntent:
        """A run that goes on until ``finish``."""
        ...

    def gated_intent(self, marker: Marker) -> SubmitIntent:
        """The same run as a copy, which waits at its gate."""
        ...

    async def at_its_gate(self, marker: Marker) -> None:
        """Return when the copy has its place to run, and waits."""
        ...

    def open_gate(self, marker: Marker) -> None: ...

    def refused_intent(self, marker: Marker) -> SubmitIntent:
        """A run that this system refuses."""
        ...

    async def running(self, marker: Marker) -> None:
        """Return when the system has started the user's code."""
        ...

    async def finish(self, marker: Marker, exit_code: int = 0, output: bytes = b"") -> None:
        """Let the run write this output and end; return when the system knows."""
        ...

    async def runs_of(self, marker: Marker) -> int:
        """How often the user's code was started."""
        ...

    def lose_the_next_answer(self, accepted: bool) -> None:
        """Cut the connection during the next submission: before or after the system took it."""
        ...

    def cut(self) -> None:
        """No call reaches the system until ``heal``."""
        ...

    def heal(self) -> None: ...

    async def speak_an_unknown_word(self, marker: Marker) -> None:
        """Let the system say something of this job that no parser knows, until ``heal``."""
        ...

    def log_path(self, marker: Marker) -> str:
        """Absolute path of the job's standard output."""
        ...


class StorageSubject(Protocol):
    """A storage under test; ``outside`` is a file that exists but not below its root."""

    storage: Storage
    outside: str

    def plant_link(self, path: str, target: str) -> None:
        """Make a symbolic link below the root, as a user could."""
        ...


async def eventually(claim: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 20) -> None:
    """Return as soon as the claim holds; fail with ``what`` when it does not within the time."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await claim():  # noqa: ASYNC110 - the system under test tells nobody when it changes
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


def run_spec(work: str, marker: Marker, **changes: object) -> RunSpec:
    """A run in directories of its own below ``work``."""
    base = f"{work}/jobs/{marker}"
    run = RunSpec(
        job_uuid=marker.removeprefix("berth-").rsplit("-", 1)[0],
        name="contract",
        image="docker://busybox",
        exec_dir=base,
        input_dir=base,
        output_dir=f"{base}/output",
    )
    return replace(run, **changes)
