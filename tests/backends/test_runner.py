"""The runner program, judged by what it does to real processes of this machine."""

import ast
import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from backends.container import launch_files
from backends.launchers.words import Claim
from backends.local.commands import Completed, LocalCommands
from backends.runner import program
from backends.runner.calls import Runner
from scheduler.model.errors import NothingLearnt, SubmitError, UnexpectedReply
from scheduler.model.ids import Marker, marker_for, new_job_uuid
from scheduler.model.runs import Ending, Observation, RemoteState, Resources, Runtime, SubmitIntent
from tests.contract.subjects import INTENDED_AT, eventually, run_spec


class Host:
    """A marker root, and jobs that are shell scripts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runner = Runner(LocalCommands(), str(root / "markers"))

    async def start(self, script: str, walltime_s: int = 60, name: str = "n") -> Marker:
        marker = marker_for(new_job_uuid(), 1)
        run = run_spec(str(self.root), marker, name=name, runtime=Runtime.NONE, args=("sh", "-c", script))
        run = replace(run, resources=Resources(walltime_s=walltime_s))
        intent = SubmitIntent(marker, run, INTENDED_AT)
        files = launch_files(run, marker_dir=self.runner.marker_dir(marker), claim=Claim.FORK)
        answer = (await self.runner.submit([(intent, files)]))[marker]
        assert not isinstance(answer, SubmitError), answer
        return marker

    async def ended(self, marker: Marker) -> Observation:
        seen: dict = {}

        async def has_ended() -> bool:
            seen.update(await self.runner.look([marker]))
            return seen[marker].state is RemoteState.ENDED

        await eventually(has_ended, "the job ends", timeout_s=40)
        return seen[marker]

    async def started(self, marker: Marker) -> None:
        async def has_a_claim() -> bool:
            return (self.root / "markers" / marker / "claim").exists()

        await eventually(has_a_claim, "the job starts")

    def kept(self, marker: Marker, name: str) -> dict:
        return json.loads((self.root / "markers" / marker / name).read_text())

    def keep(self, marker: Marker, name: str, value: object) -> None:
        (self.root / "markers" / marker / name).write_text(json.dumps(value))

    async def appears(self, path: Path) -> str:
        async def is_there() -> bool:
            return path.exists() and path.read_text().endswith("\n")  # noqa: ASYNC240

        await eventually(is_there, f"{path.name} appears")
        return path.read_text().strip()  # noqa: ASYNC240


@pytest.fixture
def host(tmp_path) -> Host:
    return Host(tmp_path)


def is_running(pid: str) -> bool:
    found = program._stat(pid)
    return found is not None and found[0] not in "ZX"


class Leaking(LocalCommands):
    """Gives every program a pipe that is none of its business, as some event loops do."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self._pipe = pipe

    async def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        done = await asyncio.to_thread(
            subprocess.run, argv, input=stdin, capture_output=True, timeout=60, pass_fds=[self._pipe], check=False
        )
        return Completed(done.returncode, done.stdout, done.stderr)


async def test_a_job_holds_nothing_open_of_whoever_started_it(host):
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as end:
        with os.fdopen(writing, "wb"):
            host.runner = Runner(Leaking(writing), str(host.root / "markers"))
            marker = await host.start("sleep 30")
        began = time.monotonic()
        assert await asyncio.to_thread(end.read) == b""  # it would wait for the job
    assert time.monotonic() - began < 20
    assert (await host.runner.look([marker]))[marker].state is RemoteState.RUNNING
    await host.runner.cancel(marker)
    await host.ended(marker)


async def test_the_walltime_is_enforced_by_the_job_s_own_watchdog(host):
    marker = await host.start("sleep 60", walltime_s=1)
    seen = await host.ended(marker)  # nobody of ours asks for it: the watchdog alone does
    assert (seen.ending, seen.exit_code) == (Ending.TIMEOUT, 143)
    assert (seen.ended_at - seen.started_at).total_seconds() < 10


async def test_a_job_that_ignores_term_is_killed(host, monkeypatch):
    pid_file = host.root / "pid"
    marker = await host.start(f"trap '' TERM; echo $$ > {pid_file}; while :; do sleep 0.1; done")
    pid = await host.appears(pid_file)
    await host.runner.cancel(marker)
    assert is_running(pid)
    seen = await host.ended(marker)
    assert seen.ending is Ending.CANCELLED
    assert not is_running(pid)


async def test_what_a_job_leaves_behind_ends_with_it(host):
    pid_file = host.root / "pid"
    marker = await host.start(
        f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 60' & while [ ! -s {pid_file} ]; do :; done"
    )
    pid = await host.appears(pid_file)
    assert (await host.ended(marker)).ending is Ending.COMPLETED
    assert not is_running(pid)


async def test_a_job_of_another_boot_ended_with_its_host_even_if_the_pid_is_in_use(host):
    marker = await host.start("sleep 60")
    known = host.kept(marker, "id")
    host.keep(marker, "id", known | {"watchdog": known["watchdog"] | {"boot": "another-boot"}})
    process = host.kept(marker, "process")
    host.keep(marker, "process", process | {"boot": "another-boot"})
    seen = (await host.runner.look([marker]))[marker]
    assert (seen.state, seen.ending, seen.exit_code) == (RemoteState.ENDED, Ending.NODE_FAILURE, None)
    host.keep(marker, "id", known)
    await host.runner.cancel(marker)
    await host.ended(marker)


async def test_a_pid_that_was_used_again_is_not_taken_for_the_job(host):
    marker = await host.start("true")
    await host.ended(marker)
    (host.root / "markers" / marker / "ended").unlink()
    (host.root / "markers" / marker / "exit").unlink()
    mine = {"pid": os.getpid(), "start": 1, "boot": program._boot()}
    host.keep(marker, "id", host.kept(marker, "id") | {"watchdog": mine})
    host.keep(marker, "process", mine)
    seen = (await host.runner.look([marker]))[marker]
    assert (seen.state, seen.ending) == (RemoteState.ENDED, Ending.FAILED)
    await host.runner.cancel(marker)  # and this process goes on


async def test_a_job_whose_watchdog_was_killed_is_still_seen_and_can_be_ended(host):
    word = host.root / "word"
    marker = await host.start(f"while [ ! -e {word} ]; do sleep 0.05; done; exit 4")
    other = await host.start("sleep 60")
    for each in (marker, other):
        await host.started(each)
        os.kill(host.kept(each, "id")["watchdog"]["pid"], signal.SIGKILL)
    seen = (await host.runner.look([marker]))[marker]
    assert seen.state is RemoteState.RUNNING
    assert "watchdog is gone" in seen.reason
    word.touch()
    assert ((await host.ended(marker)).ending, (await host.ended(marker)).exit_code) == (Ending.FAILED, 4)
    await host.runner.cancel(other)
    await host.ended(other)


async def test_what_runs_is_listed_beside_markers_that_a_cluster_s_jobs_have_there(host):
    assert await host.runner.unended() == {}
    marker = await host.start("sleep 60")
    for content in ("4711\n", "", "[]"):
        folder = host.root / "markers" / marker_for(new_job_uuid(), 1)
        folder.mkdir()
        (folder / "id").write_text(content)
    (host.root / "markers" / "notes.txt").write_text("not a marker")
    assert list(await host.runner.unended()) == [marker]
    await host.runner.cancel(marker)
    await host.ended(marker)
    assert await host.runner.unended() == {}


async def test_a_held_lock_is_doubt_and_not_absence(host, monkeypatch):
    marker = await host.start("true")
    stranger = marker_for(new_job_uuid(), 1)
    folder = program._folder(str(host.root / "markers"), stranger)
    lock = program._lock(folder)
    try:
        with pytest.raises(NothingLearnt, match="under way"):
            await host.runner.find(stranger)
    finally:
        os.close(lock)
    assert await host.runner.find(stranger) is None
    await host.ended(marker)


async def test_a_job_that_cannot_be_prepared_is_rejected_in_the_system_s_words(host):
    (host.root / "jobs").write_text("a file where a directory should be")
    with pytest.raises(AssertionError, match=r"cannot be prepared: .*Not a directory"):
        await host.start("true")


async def test_the_environment_and_the_script_are_private(host):
    marker = await host.start("true")
    await host.ended(marker)
    job = host.root / "jobs" / marker
    assert oct((job / "tapisjob.env").stat().st_mode & 0o777) == "0o600"
    assert oct((host.root / "markers" / marker).stat().st_mode & 0o777) == "0o700"


async def test_a_fifo_in_place_of_a_log_blocks_nobody(host):
    os.mkfifo(host.root / "log")
    assert (await host.runner.read_log(str(host.root / "log"), 0)).data == b""


async def test_a_runner_that_breaks_says_so_with_its_words(host):
    with pytest.raises(UnexpectedReply) as raised:
        await host.runner.read_log("/nul\0byte", 0)
    assert "Error" in raised.value.raw


async def test_two_jobs_at_once_do_not_hold_each_other(host):
    started = time.monotonic()
    slow = await host.start("sleep 30")
    quick = await host.start("true")
    await host.ended(quick)
    assert time.monotonic() - started < 25
    await host.runner.cancel(slow)
    await host.ended(slow)


def test_the_program_is_python_3_6():
    ast.parse(Path(program.__file__).read_text(), feature_version=(3, 6))
