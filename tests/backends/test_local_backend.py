"""This machine as a system, beyond the contract: slots, runtimes, images, and a Berth that is killed."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from backends.local import backend as local_backend
from backends.local.backend import LocalBackend, launcher_here
from backends.local.commands import LocalCommands, account_for
from backends.local.queue import Slots
from backends.local.registries import Registries
from backends.local.storage import LocalStorage
from scheduler.model.errors import FileRefused, NotAuthorised, SpecInvalid, SubmitError, SubmitRejected, UnexpectedReply
from scheduler.model.ids import Marker, marker_for, new_job_uuid
from scheduler.model.runs import Ending, RemoteState, Resources, Runtime
from scheduler.model.snapshots import StartProbe
from tests.contract.local import RUN_AS, LocalSubject, local_system, unprivileged_directory
from tests.contract.subjects import eventually
from tests.fakes.images import directory, file, oci_image, symlink
from tests.fakes.layout_registry import layout_registry

TWO = Slots(cores=2, memory_mib=4000)


def new_marker() -> Marker:
    return marker_for(new_job_uuid(), 1)


@pytest_asyncio.fixture
async def subject(tmp_path) -> AsyncIterator[LocalSubject]:
    with unprivileged_directory() as work:
        subject = LocalSubject(work, work.parent / f"{work.name}.state")
        try:
            yield subject
        finally:
            await subject.all_ended()
            shutil.rmtree(work.parent / f"{work.name}.state", ignore_errors=True)


def reopened(subject: LocalSubject, slots: Slots = TWO, owner: str = "ann") -> LocalBackend:
    """The backend as a new process would make it."""
    state_dir = subject.work.parent / f"{subject.work.name}.state"
    return LocalBackend(local_system(subject.work), state_dir, owner=owner, slots=slots)


async def ended(backend: LocalBackend, remote_id, marker):
    seen: dict = {}

    async def has_ended() -> bool:
        seen.update(await backend.observe({remote_id: marker}))
        return seen[remote_id].state is RemoteState.ENDED

    await eventually(has_ended, "the job ends", timeout_s=60)
    return seen[remote_id]


async def test_a_killed_berth_finds_running_and_waiting_jobs_again(subject):
    first, second = new_marker(), new_marker()
    whole = Resources(cores_per_node=2)
    intents = [subject.intent(marker, resources=whole) for marker in (first, second)]
    ids = await reopened(subject).submit(intents)
    await subject.running(first)
    berth = reopened(subject)
    seen = await berth.observe({remote_id: marker for marker, remote_id in ids.items()})
    assert (seen[ids[first]].state, seen[ids[second]].state) == (RemoteState.RUNNING, RemoteState.QUEUED)
    assert seen[ids[second]].expected_start_at > seen[ids[first]].started_at
    await subject.finish(first)
    await ended(berth, ids[first], first)
    await berth.observe({ids[second]: second})
    await subject.running(second)
    await subject.finish(second)
    assert (await ended(reopened(subject), ids[second], second)).ending is Ending.COMPLETED
    assert (await subject.runs_of(first), await subject.runs_of(second)) == (1, 1)


async def test_a_run_taken_from_the_queue_by_a_berth_that_died_then_is_started_by_the_next(subject):
    marker = new_marker()
    berth = reopened(subject)
    subject.commands.is_cut = True
    remote_id = (await subject.backend.submit([subject.intent(marker)]))[marker]
    assert not isinstance(remote_id, SubmitError)
    subject.backend._queue.take(TWO, subject.backend._clock())  # and here the process was killed
    assert await subject.runs_of(marker) == 0
    await berth.observe({remote_id: marker})
    await subject.running(marker)
    assert await subject.runs_of(marker) == 1


async def test_a_waiting_job_is_cancelled_without_ever_starting(subject):
    first, second = new_marker(), new_marker()
    berth = reopened(subject)
    ids = await berth.submit([subject.intent(m, resources=Resources(cores_per_node=2)) for m in (first, second)])
    await berth.cancel(ids[second], second)
    await subject.running(first)
    await subject.finish(first)
    await ended(berth, ids[first], first)
    seen = (await berth.observe({ids[second]: second}))[ids[second]]
    assert (seen.state, seen.ending) == (RemoteState.ENDED, Ending.CANCELLED)
    assert await subject.runs_of(second) == 0


async def test_a_snapshot_shows_slots_queue_and_expected_starts(subject):
    markers = [new_marker() for _ in range(2)]
    berth = reopened(subject)
    whole = Resources(cores_per_node=2, walltime_s=3600)
    await berth.submit([subject.intent(marker, resources=whole) for marker in markers])
    probes = [StartProbe("local", Resources()), StartProbe("local", Resources(cores_per_node=99))]
    snapshot = await berth.snapshot(probes)
    assert [(node.cores, node.free_cores, node.free) for node in snapshot.nodes] == [(2, 0, 0)]
    assert [(job.running, job.user) for job in snapshot.jobs] == [(True, "ann"), (False, "ann")]
    (probe, start), *others = snapshot.starts
    assert (probe, others) == (probes[0], [])
    assert 7100 < (start - snapshot.taken_at).total_seconds() <= 7200


async def test_what_never_fits_is_rejected_with_both_figures(subject):
    marker = new_marker()
    answer = (await reopened(subject).submit([subject.intent(marker, resources=Resources(cores_per_node=3))]))[marker]
    assert isinstance(answer, SubmitRejected)
    assert "3 cores and 100 MiB were asked; this machine has 2 cores and 4000 MiB" in str(answer)


def test_a_machine_without_any_runtime_says_what_to_install(monkeypatch):
    monkeypatch.setattr(local_backend.shutil, "which", lambda program: None)
    with pytest.raises(SpecInvalid, match="apt install podman"):
        launcher_here(Runtime.SINGULARITY)
    assert launcher_here(Runtime.NONE) == "none"


@pytest.mark.skipif(os.geteuid() != 0, reason="speaks of a Berth that runs as root")
@pytest.mark.parametrize("run_as", [None, "", "root", "no-such-account", 7])
def test_root_runs_jobs_only_as_a_named_unprivileged_account(run_as):
    with pytest.raises(NotAuthorised, match="runAs"):
        account_for(run_as)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes on another account's rights")
async def test_files_are_touched_with_the_rights_of_the_account(tmp_path):
    with unprivileged_directory() as work:
        secret = work / "secret"
        secret.write_text("root's")
        secret.chmod(0o600)
        storage = LocalStorage(work, account_for(RUN_AS))
        with pytest.raises(FileRefused, match="Permission denied"):
            await storage.checksum("secret")
        await storage.make_directory("mine")
        assert (await storage.stat("mine")).owner == RUN_AS
        assert (await LocalStorage(work).stat("secret")).owner == "root"
        await storage.aclose()


def busybox_image(place: Path) -> Path:
    """A small image around Debian's static busybox."""
    busybox = Path("/bin/busybox")
    assert busybox.exists(), "busybox is missing: apt install busybox-static"
    tools = [symlink(f"bin/{name}", "busybox") for name in ("sh", "cat", "env", "touch", "id")]
    layer = [directory("bin"), file("bin/busybox", busybox.read_bytes(), 0o755), *tools]
    layer += [file("etc/image", b"in the image\n")]
    words = 'cat /etc/image; echo "$GREETING|$FROM_IMAGE|$PWD"; cat "$@"; touch /TapisOutput/made /etc/no'
    return oci_image(place, layer, Entrypoint=["/bin/sh", "-c", words, "sh"], Env=["FROM_IMAGE=yes", "PATH=/bin"])


@pytest.mark.parametrize("comes_from", ["a layout on this machine", "a mirror of a registry"])
async def test_a_container_runs_in_bubblewrap_with_its_own_root_and_the_tapis_directories(
    subject, monkeypatch, comes_from
):
    monkeypatch.setitem(local_backend._PROGRAMS, local_backend.Launcher.APPTAINER, ())
    monkeypatch.setitem(local_backend._PROGRAMS, local_backend.Launcher.PODMAN, ())
    assert shutil.which("bwrap"), "bubblewrap is missing: apt install bubblewrap"
    image = busybox_image(subject.work / "image")
    marker = new_marker()
    name = f"oci:{image}" if comes_from == "a layout on this machine" else "docker://some/image:1"
    intent = subject.intent(marker, runtime=Runtime.SINGULARITY, image=name, args=("/TapisInput/given",))
    intent = replace(intent, run=replace(intent.run, env={"GREETING": "it's\nme"}))
    (subject.work / "jobs" / marker).mkdir(parents=True)
    (subject.work / "jobs" / marker / "given").write_text("given\n")
    if RUN_AS:
        for path in (subject.work / "jobs", subject.work / "jobs" / marker):
            shutil.chown(path, RUN_AS)
    with layout_registry({"some/image": image}) as mirror:
        berth = LocalBackend(
            local_system(subject.work),
            subject.work / "state",
            images_dir=subject.work / "images",
            slots=TWO,
            registries=Registries({"docker.io": [mirror]}, {mirror}),
        )
        remote_id = (await berth.submit([intent]))[marker]
        seen = await ended(berth, remote_id, marker)
    log = (await berth.read_log(remote_id, subject.log_path(marker), 0)).data.decode()
    assert log.startswith("in the image\nit's\nme|yes|/TapisExec\ngiven\n"), (log, seen)
    assert (subject.work / "jobs" / marker / "output" / "made").exists()
    assert not (subject.work / "images" / "etc" / "no").exists()
    assert seen.exit_code == 1  # the image itself is read-only


async def test_a_command_that_writes_without_end_is_ended_with_all_that_it_started(tmp_path):
    beside = tmp_path / "beside"
    script = f"sh -c 'sleep 600; :' {beside} & exec yes"
    for _ in range(10):  # how much of it was read when it ends is chance
        with pytest.raises(UnexpectedReply, match="8 MiB"):
            await asyncio.wait_for(LocalCommands().run(["sh", "-c", script]), 60)
    left = await LocalCommands().run(["ps", "-eo", "args"])
    assert str(beside).encode() not in left.stdout
