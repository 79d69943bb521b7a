"""This machine under contract; as root its jobs run as ``nobody``."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.local.backend import LocalBackend
from backends.local.commands import LocalCommands, account_for
from backends.local.queue import Slots
from scheduler.model.errors import BackendUnavailable, SubmitError
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.runs import SubmitIntent
from scheduler.model.systems import System
from tests.contract.fork import CuttableCommands, ForkSubject

RUN_AS = "nobody" if os.geteuid() == 0 else None


def local_system(work: Path, **notes: Any) -> System:
    """This machine as a system whose root directory is ``work``."""
    berth = {"backend": "local", **({"runAs": RUN_AS} if RUN_AS else {}), **notes}
    return System(
        tenant="t", id="here", uuid="u", owner="o", host="localhost", root_dir=str(work), notes={"berth": berth}
    )


@contextlib.contextmanager
def unprivileged_directory() -> Iterator[Path]:
    """A directory of the account that runs the jobs; pytest's own cannot be entered by others."""
    work = Path(tempfile.mkdtemp(prefix="berth-contract."))
    try:
        if RUN_AS:
            shutil.chown(work, RUN_AS)
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


class MortalBackend(LocalBackend):
    """A backend whose process can die during a submission: before or after the queue has it on disk."""

    dies: str | None = None

    async def submit(self, intents: Sequence[SubmitIntent]) -> Mapping[Marker, RemoteId | SubmitError]:
        how, self.dies = self.dies, None
        answers = {} if how == "before" else await super().submit(intents)
        if how is not None:
            raise BackendUnavailable("the process died")
        return answers


class LocalSubject(ForkSubject):
    """The state directory is cut by putting a file in its place."""

    def __init__(self, work: Path, state_dir: Path) -> None:
        commands = CuttableCommands(LocalCommands(account_for(RUN_AS)))
        self._state_dir = state_dir
        slots = Slots(cores=64, memory_mib=64_000)
        backend = MortalBackend(local_system(work), state_dir, owner="ann", slots=slots, commands=commands)
        super().__init__(backend, commands, work)

    def lose_the_next_answer(self, accepted: bool) -> None:
        self.backend.dies = "after" if accepted else "before"

    def cut(self) -> None:
        super().cut()
        self._state_dir.mkdir(exist_ok=True)
        self._state_dir.rename(self._state_dir.with_suffix(".away"))
        self._state_dir.touch()

    def heal(self) -> None:
        super().heal()
        if self._state_dir.is_file():
            self._state_dir.unlink()
            self._state_dir.with_suffix(".away").rename(self._state_dir)
