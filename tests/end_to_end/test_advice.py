"""What Berth advises holds: of two equal jobs the one that follows the advice starts sooner, by about what was said."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from testbed.cluster import Cluster
from testbed.host import TestbedError, require_root
from testbed.pytest_plugin import cannot_run, shared_cluster
from testbed.server import running
from tests.end_to_end.advised import CASES, NOTHING_HELPS, Advice, Case, layout, partitions
from tests.end_to_end.places import begun
from tests.end_to_end.wire import Wire

pytestmark = [pytest.mark.testbed, pytest.mark.slow]

LEAST_HELD = len(CASES) * 9 // 10
TOLERANCE = 0.5
"""The share of what an advice promises that must come true; so long both jobs are watched, and no longer."""

LOOKED_S = 15
"""While no job waits Berth looks at systems every ten seconds here; after these it has seen all that was made."""

LONGEST_S = 400
ON_THE_SITE = {"QUEUED", "RUNNING", "ARCHIVING", "FINISHED"}


@dataclass(frozen=True)
class Stage:
    """Where it plays: the cluster, Berth's API, and a directory where nothing runs."""

    cluster: Cluster
    wire: Wire
    home: Path

    def begun(self) -> Mapping[str, int]:
        return begun({"alder": self.cluster}, self.home)


@dataclass(frozen=True)
class Trial:
    """A job as it was asked for, and the same one with the advice followed, by their uuids."""

    case: Case
    advice: Advice
    asked: str
    followed: str

    def seen_s(self, started: Mapping[str, int], now_s: float) -> float | None:
        """How much sooner the second began, at least; None: it has not begun."""
        if self.followed not in started:
            return None
        return started.get(self.asked, now_s) - started[self.followed]

    def holds(self, started: Mapping[str, int], now_s: float) -> bool:
        seen_s = self.seen_s(started, now_s)
        return seen_s is not None and seen_s >= TOLERANCE * self.advice.gain_s

    def row(self, started: Mapping[str, int], now_s: float) -> str:
        seen_s = self.seen_s(started, now_s)
        least = "" if self.asked in started else "at least "
        seen = "never began" if seen_s is None else f"{least}{seen_s / 60:.1f} min"
        return f"{self.case.name:42} {self.advice.words:90} {seen:18} {self.holds(started, now_s)}"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    try:
        require_root()
    except TestbedError as error:
        cannot_run(str(error))
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="berth-advice-", dir="/var/tmp")))
        size = sum(map(len, layout().values()))
        cluster = stack.enter_context(shared_cluster(f"{home}", nodes=size))
        for machine in cluster.spec.machines:
            cluster.sh(machine, f"cat >> /etc/slurm/slurm.conf <<'END'\n{partitions()}\nEND\n")
        cluster.sh("login", "scontrol reconfigure")
        hurry = {"watch_min_s": "1", "watch_max_s": "3", "place_interval_s": "1", "snapshot_interval_s": "1"}
        wire = Wire(stack.enter_context(running(home / "berth", **hurry)).url)
        wire.register(cluster.info(), "alder")
        yield Stage(cluster, wire, home)


def test_advice_that_is_followed_starts_the_job_as_much_sooner_as_was_said(stage: Stage):
    warm = CASES[0].request()
    assert stage.wire.finish(stage.wire.post("/v3/jobs/submit", warm)["uuid"], timeout_s=180)["status"] == "FINISHED"
    set_the_scene(stage.cluster)
    time.sleep(LOOKED_S)
    said = {case: stage.wire.post("/v3/placement/plan", case.request()) for case in (*CASES, *NOTHING_HELPS)}
    promised = {case.name: said[case]["advice"] for case in NOTHING_HELPS}
    advice = {case: found for case in CASES if (found := Advice.read(said[case]["advice"], case.changes))}
    mute = [f"{case.name:42} {said[case]['advice']} {said[case]['sentence']}" for case in CASES if case not in advice]
    trials = tried(stage, advice)
    started = watched(stage, trials)
    now_s = time.time()
    table = "\n".join([*(trial.row(started, now_s) for trial in trials), *mute])
    held = sum(trial.holds(started, now_s) for trial in trials)
    print(f"\n{table}\n{held} of {len(CASES)}")
    assert held >= LEAST_HELD, table
    assert not any(promised.values()), promised


def set_the_scene(cluster: Cluster) -> None:
    """First what runs, so that the rest finds it there."""
    nodes = layout()
    runs = [load.script(case.queue) for case in (*CASES, *NOTHING_HELPS) for load in case.running]
    for case in CASES:
        for name in nodes[case.queue][: case.drained]:
            runs.insert(0, f"scontrol update NodeName={name} State=DRAIN Reason=test\n")
    cluster.sh("login", "".join(runs))
    time.sleep(3)
    later = [load.script(case.queue) for case in CASES for load in case.in_line]
    later += [case.window.script(case.queue, nodes[case.queue]) for case in CASES if case.window]
    cluster.sh("login", "".join(later))


def tried(stage: Stage, advice: Mapping[Case, Advice]) -> Sequence[Trial]:
    """Send the jobs, those first that follow an advice: behind the others they would wait for them."""
    followed = {case: submitted(stage, case, said) for case, said in advice.items()}
    for uuid in followed.values():
        stage.wire.await_state(uuid, ON_THE_SITE)
    return [Trial(case, said, submitted(stage, case), followed[case]) for case, said in advice.items()]


def submitted(stage: Stage, case: Case, advice: Advice | None = None) -> str:
    request = case.request(**advice.change) if advice else case.request()
    return str(stage.wire.post("/v3/jobs/submit", request)["uuid"])


def watched(stage: Stage, trials: Sequence[Trial]) -> Mapping[str, int]:
    """When each job began, once all promises could be judged."""
    until = time.monotonic() + LONGEST_S
    started = stage.begun()
    while not all(judged(trial, started) for trial in trials) and time.monotonic() < until:
        time.sleep(3)
        started = stage.begun()
    return started


def judged(trial: Trial, started: Mapping[str, int]) -> bool:
    return trial.asked in started or trial.holds(started, time.time())
