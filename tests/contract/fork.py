"""Subjects whose jobs are real processes of this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backends.base import Backend
from backends.beside import Commands, Completed
from scheduler.model.errors import BackendUnavailable
from scheduler.model.ids import Marker
from scheduler.model.runs import Resources, Runtime, SubmitIntent
from tests.contract.subjects import INTENDED_AT, eventually, run_spec

WAIT_FOR_THE_WORD = """
echo run >> "$1/runs"
while [ -d "$1" ] && [ ! -e "$1/word" ]; do sleep 0.02; done
cat "$1/output"
exit "$(cat "$1/word")"
"""


@dataclass
class CuttableCommands:
    """A way to the host that can be cut: for good, or around the next command."""

    inner: Commands
    is_cut: bool = False
    lose_next: str | None = None

    async def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        how, self.lose_next = self.lose_next, None
        if self.is_cut or how == "before":
            raise BackendUnavailable("cut before the command was sent")
        done = await self.inner.run(argv, stdin, timeout_s)
        if how == "after":
            raise BackendUnavailable("cut before the answer came back")
        return done


@dataclass
class ForkSubject:
    """Jobs that wait for a word in a file; ``work`` is the system's root directory."""

    backend: Backend
    commands: CuttableCommands
    work: Path
    _spoiled: list[Path] = field(default_factory=list)

    def intent(self, marker: Marker, fence: int = 0, **changes: Any) -> SubmitIntent:
        hand = self._hand(marker)
        hand.mkdir(parents=True, exist_ok=True)
        hand.chmod(0o777)
        args = ("sh", "-c", WAIT_FOR_THE_WORD, "job", str(hand))
        run = run_spec(str(self.work), marker, runtime=Runtime.NONE, args=args)
        return SubmitIntent(marker, replace(run, **changes), INTENDED_AT, fence)

    def gated_intent(self, marker: Marker) -> SubmitIntent:
        return self.intent(marker, gate_s=60)

    async def at_its_gate(self, marker: Marker) -> None:
        async def waits() -> bool:
            return (self.marker_dir(marker) / "claim" / "owner").exists()

        await eventually(waits, "the copy comes to its gate")

    def open_gate(self, marker: Marker) -> None:
        (self.marker_dir(marker) / "go").touch()

    def refused_intent(self, marker: Marker) -> SubmitIntent:
        return self.intent(marker, resources=Resources(nodes=2))

    async def running(self, marker: Marker) -> None:
        async def started() -> bool:
            return await self.runs_of(marker) > 0

        await eventually(started, "the user's code starts")

    async def finish(self, marker: Marker, exit_code: int = 0, output: bytes = b"") -> None:
        hand = self._hand(marker)
        (hand / "output").write_bytes(output)
        (hand / "new").write_text(str(exit_code))
        (hand / "new").rename(hand / "word")

    async def runs_of(self, marker: Marker) -> int:
        runs = self._hand(marker) / "runs"
        return len(runs.read_text().splitlines()) if runs.exists() else 0

    def lose_the_next_answer(self, accepted: bool) -> None:
        self.commands.lose_next = "after" if accepted else "before"

    def cut(self) -> None:
        self.commands.is_cut = True

    def heal(self) -> None:
        self.commands.is_cut = False
        while self._spoiled:
            self._spoiled.pop().unlink()

    async def speak_an_unknown_word(self, marker: Marker) -> None:
        ended = self.marker_dir(marker) / "ended"
        ended.write_text(json.dumps({"ending": "GONE_FISHING", "exit_code": 0, "at": 0}))
        ended.chmod(0o644)
        self._spoiled.append(ended)

    def log_path(self, marker: Marker) -> str:
        return f"{self.work}/jobs/{marker}/output/tapisjob.out"

    def marker_dir(self, marker: Marker) -> Path:
        return self.work / ".berth" / "markers" / marker

    def end_everything(self) -> None:
        """Let every job that still waits come to its end."""
        for hand in (self.work / "hands").glob("*"):
            (hand / "output").touch()
            (hand / "word").write_text("0")

    async def all_ended(self) -> None:
        """Return when no watchdog works in the directory any more, so that it can be removed."""
        self.end_everything()

        async def quiet() -> bool:
            started = (self.work / ".berth" / "markers").glob("*/id")
            return all((id_file.parent / "ended").exists() for id_file in started)

        await eventually(quiet, "every job ends", timeout_s=60)

    def _hand(self, marker: Marker) -> Path:
        return self.work / "hands" / marker
