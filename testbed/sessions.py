"""What the processes of one test run share: the first brings it up, the last takes it down.

Test runs side by side get things of their own. What a test run that was killed left is cleared away by the next one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from testbed.host import lock

Shared = TypeVar("Shared")


@dataclass(frozen=True)
class Sessions:
    """All test runs that share one kind of thing.

    folder: holds a folder for each thing by name, and in it a file for each process that uses it.
    take_down: ends the thing of this name; called again when its caller died.
    """

    folder: Path
    take_down: Callable[[str], None]

    @contextmanager
    def joined(self, test_run: str, bring_up: Callable[[str], Shared]) -> Iterator[Shared]:
        """Be one of a test run's processes. bring_up: given the name, returns the thing, running."""
        name = f"t{hashlib.sha256(test_run.encode()).hexdigest()[:8]}"
        me = self.folder / name / str(os.getpid())
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with lock(self._lock_path):
                self._clear_dead()
                me.parent.mkdir(exist_ok=True)
                me.touch()
                running = bring_up(name)
            yield running
        finally:
            with lock(self._lock_path):
                me.unlink(missing_ok=True)
                self._clear_dead()

    @property
    def _lock_path(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.lock")

    def _clear_dead(self) -> None:
        """Take down each thing none of whose processes is alive, our own included once we have left it."""
        for session in self.folder.iterdir():
            if not any(Path("/proc", member.name).exists() for member in session.iterdir()):
                self.take_down(session.name)
                shutil.rmtree(session)


def this_test_run(part: str = "") -> str:
    """What all xdist workers of a test run have in common, for one part of what they share."""
    test_run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"alone-{os.getpid()}")
    return f"{test_run} {part}".strip()
