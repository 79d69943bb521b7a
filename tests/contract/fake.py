"""The fake, held to the same contract as the real systems."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.model.ids import Marker
from scheduler.model.runs import SubmitIntent
from tests.contract.subjects import INTENDED_AT, run_spec
from tests.fakes.system import FakeSystem, Fault


@dataclass
class FakeSubject:
    system: FakeSystem = field(default_factory=FakeSystem)

    def __post_init__(self) -> None:
        self.backend = self.system.backend()
        self.system.refuse = lambda intent: "fake: invalid account" if intent.run.name == "refuse me" else None

    def intent(self, marker: Marker, fence: int = 0) -> SubmitIntent:
        return SubmitIntent(marker, run_spec("/work", marker), INTENDED_AT, fence)

    def gated_intent(self, marker: Marker) -> SubmitIntent:
        return SubmitIntent(marker, run_spec("/work", marker, gate_s=60), INTENDED_AT)

    async def at_its_gate(self, marker: Marker) -> None:
        self.system.start(marker)

    def open_gate(self, marker: Marker) -> None:
        self.system.files.put(f"{self.system.marker_root}/{marker}/go", b"")

    def refused_intent(self, marker: Marker) -> SubmitIntent:
        return SubmitIntent(marker, run_spec("/work", marker, name="refuse me"), INTENDED_AT)

    async def running(self, marker: Marker) -> None:
        if self.system.jobs[marker].started_at is None:
            self.system.start(marker)
        self.system.pass_gates()

    async def finish(self, marker: Marker, exit_code: int = 0, output: bytes = b"") -> None:
        self.system.end(marker, exit_code, output=output)

    async def runs_of(self, marker: Marker) -> int:
        return self.system.runs.count(marker)

    def lose_the_next_answer(self, accepted: bool) -> None:
        self.system.fail("submit", Fault.AFTER_ACCEPT if accepted else Fault.BEFORE_ACCEPT)

    def cut(self) -> None:
        for method in ("snapshot", "stage", "submit", "find", "observe", "unended", "cancel", "read_log"):
            self.system.fail(method, Fault.UNAVAILABLE, times=5)

    def heal(self) -> None:
        self.system.heal()

    async def speak_an_unknown_word(self, marker: Marker) -> None:
        self.system.fail("observe", Fault.UNKNOWN_WORD)

    def log_path(self, marker: Marker) -> str:
        run = self.system.jobs[marker].intent.run
        return f"{run.output_dir}/{run.stdout}"


@dataclass
class FakeStorageSubject:
    system: FakeSystem = field(default_factory=FakeSystem)
    outside: str = "/etc/passwd"

    def __post_init__(self) -> None:
        self.system.files.put(self.outside, b"root:x:0:0")
        self.storage = self.system.storage("/home/work")

    def plant_link(self, path: str, target: str) -> None:
        self.system.files.link(f"/home/work/{path}", target)
